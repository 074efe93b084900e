//! What the fuzz targets see of the project export's reader.

use super::answer;
use crate::upstream::Answer;

/// The GID of each requested slug, if any; `None` for an invalid answer.
pub fn gids<'a>(answer: &Answer, asked: &[&'a str]) -> Option<Vec<(&'a str, Option<u32>)>> {
    let read = answer::read(answer, asked).ok()?;
    Some(read.outcomes.into_iter().map(|(slug, outcome)| (slug, outcome.ok())).collect())
}

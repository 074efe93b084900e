//! Gives the fuzz targets access to the parser of the project export.

use super::answer;
use crate::upstream::Answer;

/// The GID of each requested slug, if any; `None` for an invalid answer.
pub fn gids<'a>(answer: &Answer, requested: &[&'a str]) -> Option<Vec<(&'a str, Option<u32>)>> {
    let read = answer::read(answer, requested).ok()?;
    Some(read.outcomes.into_iter().map(|(slug, outcome)| (slug, outcome.ok())).collect())
}

//! Compares the order of the common items.

use serde::Serialize;
use serde_json::Value;

use crate::peer::{ID, text};

/// The difference in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order<'a> {
    /// Minimum number of items to move to make the orders equal.
    pub out_of_place: usize,
    /// `itemId` of the first item with another position in their listing.
    pub first: Option<&'a str>,
}

/// Compares the order; `both` has our positions, ascending, and theirs.
pub(super) fn order<'a>(both: &[(usize, usize)], ours: &'a [Value]) -> Order<'a> {
    let out_of_place = both.len() - longest_increase(both.iter().map(|(_, there)| *there));
    let mut sorted: Vec<_> = both.iter().map(|(_, there)| *there).collect();
    sorted.sort_unstable();
    let first = both.iter().zip(sorted).find(|((_, there), place)| there != place);
    Order { out_of_place, first: first.map(|((here, _), _)| text(&ours[*here], ID)) }
}

/// Length of the longest increasing subsequence of distinct numbers.
fn longest_increase(numbers: impl Iterator<Item = usize>) -> usize {
    // The smallest last number of an increasing subsequence of each length.
    let mut ends: Vec<usize> = Vec::new();
    for number in numbers {
        let at = ends.partition_point(|end| *end < number);
        match ends.get_mut(at) {
            Some(end) => *end = number,
            None => ends.push(number),
        }
    }
    ends.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_minimum_number_of_moves_is_counted() {
        let items: Vec<_> = ["a", "b", "c", "d"].map(|id| json!({"itemId": id})).into();
        for (there, moves, first) in [
            (&[0, 1, 2, 3][..], 0, None),
            (&[4, 7, 8, 9], 0, None),
            (&[3, 0, 1, 2], 1, Some("a")),
            (&[0, 2, 1, 3], 1, Some("b")),
            (&[3, 2, 1, 0], 3, Some("a")),
            (&[], 0, None),
        ] {
            let both: Vec<_> = there.iter().copied().enumerate().collect();
            assert_eq!(order(&both, &items), Order { out_of_place: moves, first }, "{there:?}");
        }
    }
}

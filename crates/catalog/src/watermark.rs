//! From when on changed resources are requested, in Waldur's own time.
//!
//! `modified` is set by the host that changes a resource, within a transaction that ends later; the header `Date` is
//! set by the host that answers. The clocks of the two may differ, and the change may become visible after it is dated.

use crate::stamp::Stamp;

/// Clocks of Waldur's hosts that differ by more are not compensated: 5 minutes, in microseconds.
const MAX_LAG: i64 = 300_000_000;

/// The time of a reading, and how far `modified` lags behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// `Date` of the first answer of the last reading.
    date: Option<Stamp>,
    /// Latest `modified` of any resource.
    newest: Option<Stamp>,
    /// Upper bound for the lag of the clock that sets `modified`, in microseconds.
    lag: Option<i64>,
}

impl Watermark {
    /// Records a reading: the `Date` of its first answer, and the `modified` of the resources that it returned.
    ///
    /// A resource that was changed just now shows the lag; one that was changed long ago shows an upper bound. So the lag is
    /// the smallest difference seen, and an idle Waldur only makes the next request look further back.
    pub fn record(&mut self, date: Option<Stamp>, modified: impl Iterator<Item = Stamp>) {
        self.newest = modified.chain(self.newest).max();
        self.date = date.or(self.newest);
        if let (Some(date), Some(newest)) = (self.date, self.newest) {
            let seen = date.0.saturating_sub(newest.0).max(0);
            self.lag = Some(self.lag.map_or(seen, |lag| lag.min(seen)).min(MAX_LAG));
        }
    }

    /// The earliest `modified` of a change that the last reading may have missed. `overlap`, in microseconds, is longer
    /// than the longest transaction. `None` if there was no reading with a time.
    pub fn since(&self, overlap: i64) -> Option<Stamp> {
        self.date.map(|date| date.minus(self.lag.unwrap_or(MAX_LAG)).minus(overlap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Stamp {
        Stamp(seconds * SECOND)
    }

    fn since(readings: &[(Option<i64>, &[i64])]) -> Option<i64> {
        let mut watermark = Watermark::default();
        for (date, modified) in readings {
            watermark.record(date.map(at), modified.iter().copied().map(at));
        }
        watermark.since(60 * SECOND).map(|stamp| stamp.0 / SECOND)
    }

    #[test]
    fn the_next_request_looks_back_by_lag_and_overlap() {
        assert_eq!(since(&[]), None);
        // Changed 10 s ago, or by a clock that is 10 s late.
        assert_eq!(since(&[(Some(1000), &[800, 990])]), Some(930));
        // Nothing was changed for a long time: the difference of the clocks is not known, but limited.
        assert_eq!(since(&[(Some(9000), &[1000])]), Some(9000 - 300 - 60));
        assert_eq!(since(&[(Some(9000), &[])]), Some(9000 - 300 - 60));
        // A change seen at once shows the lag.
        assert_eq!(since(&[(Some(9000), &[1000]), (Some(9010), &[9008])]), Some(9010 - 2 - 60));
        assert_eq!(since(&[(Some(9000), &[1000]), (Some(9010), &[9008]), (Some(9900), &[])]), Some(9900 - 2 - 60));
        // The clock that sets `modified` is ahead: requested too much, never too little.
        assert_eq!(since(&[(Some(1000), &[1500])]), Some(940));
        // Without `Date`, the latest change is the time.
        assert_eq!(since(&[(None, &[700, 800])]), Some(740));
        assert_eq!(since(&[(None, &[])]), None);
    }
}

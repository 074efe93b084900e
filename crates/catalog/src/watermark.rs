//! Computes since when changed resources are requested, by Waldur's clock.
//!
//! `modified` is set by the host that changes a resource, within a transaction that ends later; the header `Date` is
//! set by the host that answers. The clocks of the two may differ, and the change may become visible later than its timestamp.

use crate::stamp::Stamp;

/// Clocks of Waldur's hosts that differ by more are not compensated: 5 minutes, in microseconds.
const MAX_LAG: i64 = 300_000_000;

/// A shallow request looks back by this much beyond the last one: 5 seconds, in microseconds. Most transactions are shorter.
const SHORT: i64 = 5_000_000;

/// How far a request for changed resources looks back.
///
/// A deep request finds every change, but returns each resource that changed within its long overlap again. If all
/// resources change, as when their usage is reported, it costs as much as a full reading. So most requests are shallow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Finds changes that are committed within seconds of their `modified`.
    Shallow,
    /// Finds all changes since the last deep request.
    Deep,
}

/// The times of readings, and how far `modified` lags behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Longer than the longest transaction, in microseconds.
    overlap: i64,
    /// `Date` of the first answer of the last reading.
    date: Option<Stamp>,
    /// The same of the last deep reading.
    deep: Option<Stamp>,
    /// Latest `modified` of any resource.
    newest: Option<Stamp>,
    /// Upper bound for the lag of the clock that sets `modified`, in microseconds.
    lag: Option<i64>,
}

impl Watermark {
    /// Before any reading. `overlap`, in microseconds, is longer than the longest transaction.
    pub fn new(overlap: i64) -> Self {
        Self { overlap, date: None, deep: None, newest: None, lag: None }
    }

    /// Records a reading: its depth, the `Date` of its first answer, and the `modified` of the resources that it returned.
    /// A full reading is deep.
    ///
    /// A resource that was changed just now shows the lag; one that was changed long ago shows an upper bound. So the lag is
    /// the smallest difference seen, and an idle Waldur only makes the next request look further back.
    pub fn record(&mut self, depth: Depth, date: Option<Stamp>, modified: impl Iterator<Item = Stamp>) {
        self.newest = modified.chain(self.newest).max();
        self.date = date.or(self.newest);
        if depth == Depth::Deep {
            self.deep = self.date;
        }
        if let (Some(date), Some(newest)) = (self.date, self.newest) {
            let seen = date.0.saturating_sub(newest.0).max(0);
            self.lag = Some(self.lag.map_or(seen, |lag| lag.min(seen)).min(MAX_LAG));
        }
    }

    /// The depth of the next request: deep if the last deep one is longer ago than the overlap, or if the clock was set back.
    pub fn next(&self) -> Depth {
        let age = self.date.zip(self.deep).map(|(date, deep)| date.0.saturating_sub(deep.0));
        if age.is_some_and(|age| (0..self.overlap).contains(&age)) { Depth::Shallow } else { Depth::Deep }
    }

    /// The earliest `modified` of a change that such a request has to return. `None` if there was no reading with a time.
    pub fn since(&self, depth: Depth) -> Option<Stamp> {
        let (date, overlap) = match depth {
            Depth::Shallow => (self.date, SHORT.min(self.overlap)),
            Depth::Deep => (self.deep, self.overlap),
        };
        date.map(|date| date.minus(self.lag.unwrap_or(MAX_LAG)).minus(overlap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Stamp {
        Stamp(seconds * SECOND)
    }

    fn record(watermark: &mut Watermark, depth: Depth, date: Option<i64>, modified: &[i64]) {
        watermark.record(depth, date.map(at), modified.iter().copied().map(at));
    }

    fn since(readings: &[(Option<i64>, &[i64])]) -> Option<i64> {
        let mut watermark = Watermark::new(60 * SECOND);
        for (date, modified) in readings {
            record(&mut watermark, Depth::Deep, *date, modified);
        }
        watermark.since(Depth::Deep).map(|stamp| stamp.0 / SECOND)
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

    #[test]
    fn shallow_requests_are_followed_by_a_deep_one_after_the_overlap() {
        let mut watermark = Watermark::new(60 * SECOND);
        assert_eq!(watermark.next(), Depth::Deep);
        record(&mut watermark, Depth::Deep, Some(1000), &[999]);
        for date in [1004, 1030, 1059] {
            assert_eq!(watermark.next(), Depth::Shallow);
            record(&mut watermark, Depth::Shallow, Some(date), &[]);
            assert_eq!(watermark.since(Depth::Shallow), Some(at(date - 1 - 5)));
            assert_eq!(watermark.since(Depth::Deep), Some(at(1000 - 1 - 60)));
        }
        record(&mut watermark, Depth::Shallow, Some(1060), &[]);
        assert_eq!(watermark.next(), Depth::Deep);
        // The clock was set back.
        record(&mut watermark, Depth::Deep, Some(1064), &[]);
        assert_eq!(watermark.next(), Depth::Shallow);
        record(&mut watermark, Depth::Shallow, Some(900), &[]);
        assert_eq!(watermark.next(), Depth::Deep);
    }
}

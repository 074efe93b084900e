//! Times of Waldur.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(pub i64);

impl Stamp {
    /// Parses RFC 3339, the format of Waldur's fields; more precise digits are cut off.
    pub fn parse(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos() / 1000).ok().map(Self)
    }

    /// Earlier by this many microseconds.
    #[must_use]
    pub fn minus(self, micros: i64) -> Self {
        Self(self.0.saturating_sub(micros))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000);
        let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (hour, minute, second, micros) = time.to_hms_micro();
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", time.date())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_of_waldur_are_read() {
        for (text, written) in [
            ("2026-11-23T02:45:19.820550Z", "2026-11-23T02:45:19.820550Z"),
            ("2026-11-23T02:45:19.820550+00:00", "2026-11-23T02:45:19.820550Z"),
            // Django leaves out a fraction of zero.
            ("2026-11-23T02:45:19Z", "2026-11-23T02:45:19.000000Z"),
            ("2026-11-23T03:45:19.5+01:00", "2026-11-23T02:45:19.500000Z"),
        ] {
            assert_eq!(Stamp::parse(text).unwrap().to_string(), written, "{text}");
        }
        for text in ["", "2026-11-23", "yesterday", "2026-11-23T02:45"] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }
}

//! Times in the simulated Waldur, and their format.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(i64);

impl Stamp {
    /// From microseconds since the epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Later by this many microseconds (earlier when negative).
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self(self.0 + micros)
    }

    /// Parses `YYYY-MM-DD`, with or without `THH:MM:SS[.ffffff]`; offsets other than UTC are not supported.
    pub fn parse(text: &str) -> Option<Self> {
        let time = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
        let midnight = if time.contains('T') { "" } else { "T00:00:00" };
        let time = OffsetDateTime::parse(&format!("{time}{midnight}Z"), &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos() / 1000).ok().map(Self)
    }

    /// Formats the time for the header `Date`.
    pub fn http_date(self) -> String {
        let since_epoch = std::time::Duration::from_micros(u64::try_from(self.0).unwrap_or_default());
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + since_epoch)
    }

    /// Formats the time as Waldur does since 2025, `…+00:00`. 7.0.x uses `Z`, see [`World::written`](super::World::written).
    pub fn text(self) -> String {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000);
        let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (hour, minute, second, micros) = time.time().as_hms_micro();
        format!("{}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00", time.date())
    }
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn formatted_times_parse() {
        for text in ["1970-01-01T00:00:00.000000", "2026-11-23T02:45:19.820550", "2028-02-29T23:59:59.999999"] {
            let stamp = Stamp::parse(&format!("{text}Z")).unwrap();
            assert_eq!(stamp.text(), format!("{text}+00:00"));
        }
        assert_eq!(Stamp::parse("1970-01-02"), Some(Stamp::from_micros(86_400_000_000)));
    }

    #[test]
    fn invalid_dates_are_rejected() {
        for text in ["", "yesterday", "2026-13-01", "2026-01-01T25", "2026-01-01-01"] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }
}

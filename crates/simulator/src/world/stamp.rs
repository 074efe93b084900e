//! Times in the simulated Waldur, and their format.

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(i64);

const DAY: i64 = 86_400_000_000;

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
        let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
        let mut parts = date.split('-').map(str::parse::<i64>);
        let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let time = time.strip_suffix('Z').or_else(|| time.strip_suffix("+00:00")).unwrap_or(time);
        let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut parts = clock.split(':').map(str::parse::<i64>);
        let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        if fraction.len() > 6 {
            return None;
        }
        let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
        let seconds = hour * 3600 + minute * 60 + second;
        Some(Self(days(year, month, day) * DAY + seconds * 1_000_000 + micros))
    }

    /// Formats the time as Waldur does since 2025, `…+00:00`. 7.0.x uses `Z`, see [`World::written`](super::World::written).
    pub fn text(self) -> String {
        let (year, month, day) = civil(self.0.div_euclid(DAY));
        let rest = self.0.rem_euclid(DAY);
        let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
    }
}

/// Days from the epoch to a date in the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_index + 2) / 5 + 1)
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

//! Numbers and their ranges.

use crate::problem::{Invalid, invalid, quoted};

/// Seconds in a day, the upper limit of every time setting.
const DAY: f64 = 24.0 * 60.0 * 60.0;

/// Reads a finite number. The environment and YAML share one grammar: an optional sign, digits that `_` may group,
/// optionally a fraction and an exponent, and white space around. Leading zeros are rejected, because YAML reads `010`
/// as 8 and the environment as 10; so is everything else that only YAML reads as a number (`0x10`, `.inf`, `1:30`).
pub fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_digit = |c: char| c.is_ascii_digit();
    let grouped = |(at, _): (usize, &str)| text[..at].ends_with(is_digit) && text[at + 1..].starts_with(is_digit);
    let digits = text.trim_start_matches(['+', '-']);
    let has_leading_zero = digits.starts_with('0') && digits[1..].starts_with(|c: char| is_digit(c) || c == '_');
    // `str::parse` would also accept `inf` and `nan`.
    let known = |c: char| is_digit(c) || matches!(c, '_' | '.' | 'e' | 'E' | '+' | '-');
    if has_leading_zero || !text.chars().all(known) || !text.match_indices('_').all(grouped) {
        return None;
    }
    // Adding 0 makes `-0` a 0, which it is shown as.
    text.replace('_', "").parse().ok().filter(|number: &f64| number.is_finite()).map(|number| number + 0.0)
}

/// Reads a finite number that satisfies `is`; the error says that it is not `what`.
fn checked(text: &str, is: impl Fn(f64) -> bool, what: &str, example: &str) -> Result<f64, Invalid> {
    let found = number(text).filter(|number| is(*number));
    found.ok_or_else(|| invalid(format!("{} is not {what}", quoted(text)), format!("give one, for example {example}")))
}

pub fn positive(text: &str) -> Result<f64, Invalid> {
    checked(text, |number| number > 0.0, "a number above 0", "1.5")
}

/// Seconds above 0, at most a day, and at least a millisecond.
pub fn seconds(text: &str) -> Result<f64, Invalid> {
    let range = "a number of seconds above 0 and at most a day (86400)";
    checked(text, |number| (0.001..=DAY).contains(&number), range, "30")
}

/// Seconds from 0 to a day.
pub fn age(text: &str) -> Result<f64, Invalid> {
    checked(text, |number| (0.0..=DAY).contains(&number), "a number of seconds from 0 to a day (86400)", "30")
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f64, Invalid> {
    checked(text, |number| (0.0..=1.0).contains(&number), "a number from 0 to 1", "0.1")
}

/// A whole number from 1 to `most`.
pub fn count(text: &str, most: usize) -> Result<usize, Invalid> {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    let whole = number(text).filter(|number| number.fract() == 0.0 && (1.0..=most as f64).contains(number));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, above 0 and within the limit")]
    whole.map(|number| number as usize).ok_or_else(|| {
        invalid(format!("{} is not a whole number from 1 to {most}", quoted(text)), "give one, for example 4")
    })
}

/// Permission bits of a file: three or four octal digits.
pub fn mode(text: &str) -> Result<u32, Invalid> {
    let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(text).and_then(|text| u32::from_str_radix(text, 8).ok()).ok_or_else(|| {
        invalid(format!("{} is not three or four octal digits", quoted(text)), "give octal digits, for example 0750")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_finite() {
        for (text, value) in [
            ("5", 5.0),
            (" 5 ", 5.0),
            ("+5", 5.0),
            ("0", 0.0),
            ("0.5", 0.5),
            ("1_000", 1000.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("-.5", -0.5),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        assert_eq!(number("-0").map(f64::is_sign_negative), Some(false));
        for text in ["", "inf", "nan", "-inf", "1__0", "_1", "1_", "1,5", "0x10", "1e999", "010", "-00", "0_1", "+-1"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn ranges_are_bounded() {
        type Read = fn(&str) -> Result<f64, Invalid>;
        let cases: [(Read, &[&str], &[&str]); 4] = [
            (positive, &["0.0001", "1e300"], &["0", "-1", "inf", ""]),
            (seconds, &["0.001", "86400"], &["0", "0.0009", "86401", "-1"]),
            (age, &["0", "86400"], &["-0.1", "86401"]),
            (share, &["0", "1"], &["-0.1", "1.1", "nan"]),
        ];
        for (read, good, bad) in cases {
            for given in good {
                assert!(read(given).is_ok(), "{given}");
            }
            for given in bad {
                assert!(read(given).is_err(), "{given}");
            }
        }
        for given in ["4", "+4", " 4 ", "4.0", "4e0", "0.4e1"] {
            assert_eq!(count(given, 4), Ok(4), "{given}");
        }
        assert_eq!(count("1_000", 1000), Ok(1000));
        for given in ["0", "5", "-1", "1.5", "", "four", "04"] {
            assert!(count(given, 4).is_err(), "{given}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (given, bits) in [("775", 0o775), ("0750", 0o750), ("2770", 0o2770), ("000", 0)] {
            assert_eq!(mode(given), Ok(bits), "{given}");
        }
        for given in ["", "75", "00775", "778", "0o75", "+775", "-775", " 775", "rwx", "٧٧"] {
            assert!(mode(given).is_err(), "{given}");
        }
    }
}

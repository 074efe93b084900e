//! Reads single fields of an untrusted record.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use crate::stamp::Stamp;

/// A record, or a field of one, that breaks the mapping rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct Malformed {
    /// Path of the field in the record, for example `limits.storage`.
    pub field: &'static str,
    /// What is wrong, without the value itself.
    pub problem: &'static str,
}

pub(crate) fn malformed<T>(field: &'static str, problem: &'static str) -> Result<T, Malformed> {
    Err(Malformed { field, problem })
}

/// A raw field of the record; `None` when absent or null.
pub(crate) type Raw<'a> = Option<&'a RawValue>;

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// Reads a required text, which may be empty.
pub(crate) fn text(field: &'static str, raw: Raw<'_>) -> Result<String, Malformed> {
    match raw {
        None => malformed(field, "is missing"),
        Some(raw) => read(raw).map_or_else(|| malformed(field, "is not text"), Ok),
    }
}

/// Reads an optional text; `None` when absent or null.
pub(crate) fn optional_text(field: &'static str, raw: Raw<'_>) -> Result<Option<String>, Malformed> {
    raw.map(|raw| text(field, Some(raw))).transpose()
}

/// Reads a required UUID, with or without dashes.
pub(crate) fn uuid(field: &'static str, raw: Raw<'_>) -> Result<Uuid, Malformed> {
    let text = text(field, raw)?;
    Uuid::parse_str(&text).map_or_else(|_| malformed(field, "is not a UUID"), Ok)
}

/// Reads a time; `None` when absent or not readable.
pub(crate) fn stamp(raw: Raw<'_>) -> Option<Stamp> {
    raw.and_then(read::<&str>).and_then(Stamp::parse)
}

/// Reads a map as `T`; returns `T::default()` when the map is absent or null.
pub(crate) fn map<T: DeserializeOwned + Default>(field: &'static str, raw: Raw<'_>) -> Result<T, Malformed> {
    match raw {
        None => Ok(T::default()),
        // serde would also read a struct from a list, element by element.
        Some(raw) if raw.get().starts_with('{') => {
            read(raw).map_or_else(|| malformed(field, "has a duplicate key or cannot be parsed"), Ok)
        }
        Some(_) => malformed(field, "is not a map"),
    }
}

/// Reads a finite number, or text that spells one; `None` for null.
pub(crate) fn number(field: &'static str, value: &Value) -> Result<Option<f64>, Malformed> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match number {
        Some(number) if number.is_finite() => Ok(Some(number)),
        _ => malformed(field, "is not a number"),
    }
}

/// Like [`number`], but rejects negative numbers.
pub(crate) fn amount(field: &'static str, value: &Value) -> Result<Option<f64>, Malformed> {
    match number(field, value)? {
        Some(number) if number < 0.0 => malformed(field, "is negative"),
        other => Ok(other),
    }
}

/// Like [`number`], but truncates to an integer and then rejects negative numbers.
pub(crate) fn whole_amount(field: &'static str, value: &Value) -> Result<Option<f64>, Malformed> {
    match number(field, value)?.map(f64::trunc) {
        Some(number) if number < 0.0 => malformed(field, "is negative"),
        // Truncating -0.5 gives a negative zero; adding 0.0 removes the sign.
        other => Ok(other.map(|number| number + 0.0)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_may_be_text() {
        for (value, expected) in [
            (json!(null), Ok(None)),
            (json!(10), Ok(Some(10.0))),
            (json!(10.5), Ok(Some(10.5))),
            (json!("3000.0"), Ok(Some(3000.0))),
            (json!(" 7 "), Ok(Some(7.0))),
            (json!("1e3"), Ok(Some(1000.0))),
            (json!(0), Ok(Some(0.0))),
            (json!(-1), malformed("x", "is negative")),
            (json!("-0.1"), malformed("x", "is negative")),
            (json!("NaN"), malformed("x", "is not a number")),
            (json!("inf"), malformed("x", "is not a number")),
            (json!("ten"), malformed("x", "is not a number")),
            (json!(""), malformed("x", "is not a number")),
            (json!(true), malformed("x", "is not a number")),
            (json!([1]), malformed("x", "is not a number")),
        ] {
            assert_eq!(amount("x", &value), expected, "{value}");
        }
    }

    #[test]
    fn whole_amounts_are_truncated_before_validation() {
        assert_eq!(whole_amount("x", &json!(4000.9)), Ok(Some(4000.0)));
        assert_eq!(whole_amount("x", &json!("77")), Ok(Some(77.0)));
        assert_eq!(whole_amount("x", &json!(-0.5)).map(|zero| zero.map(f64::is_sign_positive)), Ok(Some(true)));
        assert_eq!(whole_amount("x", &json!(-1)), malformed("x", "is negative"));
    }
}

//! Readers of values: from the text of a setting to a validated value.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::check::{self, MASK};
use crate::listen::Listen;
use crate::problem::{Invalid, invalid, quoted};
use crate::value::Value;

/// Reads and validates the value of a setting. A program can define its own with [`Reader::new`].
pub struct Reader<T> {
    pub(crate) label: &'static str,
    pub(crate) secret: bool,
    /// Whether an empty text turns an optional setting off, as in pydantic.
    pub(crate) empty_is_off: bool,
    pub(crate) empty_is_default: bool,
    read: Box<ReadValue<T>>,
}

type ReadValue<T> = dyn FnOnce(&Value) -> Read<T>;

/// The value, and a text that is safe to show. The errors of a secret never contain it.
pub type Read<T> = Result<(T, String), Vec<Invalid>>;

/// Validates a text; the error never contains the text.
pub type Check = fn(&str) -> Result<(), Invalid>;

/// Reads and validates a URL; the error never contains the text.
pub type ReadUrl = fn(&str) -> Result<Url, Invalid>;

impl<T: 'static> Reader<T> {
    /// A reader specific to the program. `label` is the kind of value in the reference.
    pub fn new(label: &'static str, read: impl FnOnce(&Value) -> Read<T> + 'static) -> Self {
        Self { label, secret: false, empty_is_off: false, empty_is_default: false, read: Box::new(read) }
    }

    fn of_text(label: &'static str, read: impl FnOnce(&str) -> Result<(T, String), Invalid> + 'static) -> Self {
        Self::new(label, move |value| Ok(read(value.scalar()?)?))
    }

    fn empty_is_off(self) -> Self {
        Self { empty_is_off: true, ..self }
    }

    /// Allows the value to be given as the path of a file that contains it.
    fn secret(self) -> Self {
        Self { secret: true, empty_is_off: true, ..self }
    }

    /// Treats an empty text as no value, so that the default applies.
    #[must_use]
    pub fn empty_is_default(self) -> Self {
        Self { empty_is_default: true, ..self }
    }

    /// Converts the value that was read.
    pub fn map<U: 'static>(self, convert: fn(T) -> U) -> Reader<U> {
        let Self { label, secret, empty_is_off, empty_is_default, read } = self;
        let read = Box::new(move |value: &Value| read(value).map(|(value, shown)| (convert(value), shown)));
        Reader { label, secret, empty_is_off, empty_is_default, read }
    }

    pub(crate) fn read(self, value: &Value) -> Read<T> {
        (self.read)(value)
    }
}

fn shown<T: ToString>(value: T) -> (T, String) {
    let shown = value.to_string();
    (value, shown)
}

/// A boolean in any spelling that pydantic accepts.
pub fn flag() -> Reader<bool> {
    Reader::of_text("boolean", |text| check::flag(text).map(shown))
}

/// A finite number above 0.
pub fn positive() -> Reader<f64> {
    Reader::of_text("number above 0", |text| check::positive(text).map(shown))
}

/// Seconds: above 0, at most a day.
pub fn seconds() -> Reader<Duration> {
    Reader::of_text("seconds, above 0 and at most a day (86400)", |text| check::seconds(text).map(shown))
        .map(Duration::from_secs_f64)
}

/// Seconds: from 0, at most a day.
pub fn age() -> Reader<Duration> {
    Reader::of_text("seconds, from 0 to a day (86400)", |text| check::age(text).map(shown)).map(Duration::from_secs_f64)
}

/// A whole number from 1 to `most`.
pub fn count(most: usize) -> Reader<usize> {
    Reader::of_text("whole number", move |text| check::count(text, most).map(shown))
}

/// A number from 0 to 1.
pub fn share() -> Reader<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "f32 is precise enough for a share")]
    Reader::of_text("number, 0 to 1", |text| check::share(text).map(shown)).map(|share| share as f32)
}

/// Permission bits of a file: three or four octal digits.
pub fn mode() -> Reader<u32> {
    Reader::of_text("octal digits", |text| check::mode(text).map(|bits| (bits, format!("{bits:04o}"))))
}

/// A text that passes the check.
pub fn text(check: Check) -> Reader<String> {
    Reader::of_text("text", move |text| check(text).map(|()| shown(text.to_owned()))).empty_is_off()
}

/// A text that passes the check and is never shown.
pub fn secret(check: Check) -> Reader<SecretString> {
    masked("secret, or its file", check)
}

/// A URL that contains a secret, passes the check and is never shown.
pub fn secret_url(check: Check) -> Reader<SecretString> {
    masked("secret URL, or its file", check)
}

fn masked(label: &'static str, check: Check) -> Reader<SecretString> {
    Reader::of_text(label, move |text| check(text).map(|()| (text.into(), MASK.to_owned()))).secret()
}

/// A URL read by the function, for example [`check::base_url`]; shown without query and fragment.
pub fn url(read: ReadUrl) -> Reader<Url> {
    Reader::of_text("URL", move |text| read(text).map(|url| (url.clone(), check::public_part(&url))))
}

/// URL of a proxy; shown without credentials.
pub fn proxy_url() -> Reader<Url> {
    Reader::of_text("proxy URL", |text| check::proxy(text).map(|url| (url.clone(), check::masked(&url)))).empty_is_off()
}

/// A URL read by the function that may contain credentials; shown without them.
pub fn url_with_credentials(read: ReadUrl) -> Reader<SecretString> {
    Reader::of_text("URL, shown without credentials", move |text| Ok((text.into(), check::masked(&read(text)?))))
        .secret()
}

/// One of the given words, each with its value.
pub fn choice<T: Clone + 'static>(words: &'static [(&'static str, T)]) -> Reader<T> {
    Reader::of_text("choice", move |text| {
        let chosen = words.iter().find(|(word, _)| *word == text);
        chosen.map(|(word, value)| (value.clone(), (*word).to_owned())).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            invalid(format!("{} is not a valid choice", quoted(text)), format!("give {}", words.join(" or ")))
        })
    })
}

/// Names: a YAML list, or text with commas.
pub fn names() -> Reader<Vec<String>> {
    Reader::new("list", |value| list(value).map(|names| (names.clone(), names.join(", "))).map_err(Vec::from))
        .empty_is_off()
}

/// Addresses to listen on, at least one, each read by the function: a YAML list, or text with commas.
pub fn addresses(read: fn(&str) -> Result<Listen, Invalid>) -> Reader<Vec<Listen>> {
    Reader::new("list of addresses", move |value| {
        let addresses = list(value)?.iter().map(|text| read(text)).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            let remedy = "give at least one as ADDRESS:PORT or unix:PATH, or leave the setting out";
            return Err(invalid("no address", remedy).into());
        }
        let shown = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Ok((addresses, shown))
    })
}

/// The trimmed texts of a list, or of one text with commas. Ignores blank parts of a text with commas.
fn list(value: &Value) -> Result<Vec<String>, Invalid> {
    let plain = |text: &str| check::plain(text).map(|()| text.to_owned());
    if let Value::List(items) = value {
        let item = |item: &Value| match item.scalar()?.trim() {
            "" => Err(invalid("a blank entry", "remove it")),
            text => plain(text),
        };
        return items.iter().map(item).collect();
    }
    let text = value.scalar()?;
    let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(plain).collect();
    if parts.is_empty() && !text.is_empty() {
        // Reject an empty list: its author may expect it to disable the requirement.
        return Err(invalid("an empty list", "give at least one entry, or leave the setting out"));
    }
    parts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_list_is_a_list_or_one_text_with_commas() {
        let both = ["a".to_owned(), "b c".to_owned()];
        assert_eq!(list(&text(" a,, b c ,")).unwrap(), both);
        assert_eq!(list(&Value::List(vec![text(" a "), text("b c")])).unwrap(), both);
        assert_eq!(list(&text("")).unwrap(), Vec::<String>::new());
        for bad in [text(",,"), text(" "), text(" , ")] {
            assert!(list(&bad).is_err(), "{bad:?}");
        }
        for bad in [Value::List(vec![text(" ")]), Value::List(vec![Value::List(vec![])]), text("a\0"), Value::Null] {
            assert!(list(&bad).is_err(), "{bad:?}");
        }
    }
}

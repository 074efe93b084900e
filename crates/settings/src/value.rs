//! A value as a source gives it.

use crate::check;
use crate::fault::{Wrong, wrong};

/// A value as it was given, from whatever source. It may be a secret: its `Debug` is not for logs.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: in YAML, a key with nothing after the colon.
    Null,
    /// A text.
    Text(String),
    /// A number of the YAML file.
    Number {
        /// What it says; may be infinite.
        value: f64,
        /// How it was written.
        text: String,
    },
    /// A plain value whose spelling is not known.
    Unwritten,
    /// The value of a variable that is not UTF-8.
    Unreadable,
    /// A list of the YAML file.
    List(Vec<Value>),
    /// Key and value in the order of the file.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The text of a single value, as it was written.
    pub fn scalar(&self) -> Result<&str, Wrong> {
        match self {
            Self::Text(text) | Self::Number { text, .. } => Ok(text),
            Self::Unwritten => Err(wrong("the spelling of the value is lost", "put the value in quotes")),
            Self::Unreadable => Err(wrong("not valid UTF-8", "set it anew")),
            Self::Null => Err(wrong("no value", "give one")),
            Self::List(_) => Err(wrong("a list, where one value belongs", "give one value")),
            Self::Map(_) => Err(wrong("a mapping, where one value belongs", "give one value")),
        }
    }

    /// The texts of a list, or of one text with commas; trimmed. Blank parts of a text with commas are left out.
    pub fn list(&self) -> Result<Vec<String>, Wrong> {
        let plain = |text: &str| check::plain(text).map(|()| text.to_owned());
        if let Self::List(items) = self {
            let item = |item: &Self| match item.scalar()?.trim() {
                "" => Err(wrong("a blank entry", "remove it")),
                text => plain(text),
            };
            return items.iter().map(item).collect();
        }
        let text = self.scalar()?;
        let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(plain).collect();
        if parts.is_empty() && !text.is_empty() {
            // This is a typing error, and an empty list could mean that nothing is required.
            return Err(wrong("a list without an entry", "give at least one, or leave the setting out"));
        }
        parts.into_iter().collect()
    }
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
        assert_eq!(text(" a,, b c ,").list().unwrap(), both);
        assert_eq!(Value::List(vec![text(" a "), text("b c")]).list().unwrap(), both);
        assert_eq!(text("").list().unwrap(), Vec::<String>::new());
        for bad in [text(",,"), text(" "), text(" , ")] {
            assert!(bad.list().is_err(), "{bad:?}");
        }
        for bad in [Value::List(vec![text(" ")]), Value::List(vec![Value::List(vec![])]), text("a\0"), Value::Null] {
            assert!(bad.list().is_err(), "{bad:?}");
        }
    }
}

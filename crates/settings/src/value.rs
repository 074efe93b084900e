//! Values as given by a source.

use crate::check;
use crate::problem::{Invalid, invalid};

/// A value as given by a source. It may be a secret: do not log its `Debug` output.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value: in YAML, a key with nothing after the colon.
    Null,
    Text(String),
    /// A number in the YAML file.
    Number {
        /// The number; may be infinite.
        value: f64,
        /// Its spelling.
        text: String,
    },
    /// A plain value whose spelling is not known.
    Unwritten,
    /// The value of a variable that is not UTF-8.
    Unreadable,
    /// A list in the YAML file.
    List(Vec<Value>),
    /// Keys and values in the order of the file.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The spelling of a single value.
    pub fn scalar(&self) -> Result<&str, Invalid> {
        match self {
            Self::Text(text) | Self::Number { text, .. } => Ok(text),
            Self::Unwritten => Err(invalid("the spelling of the value is unknown", "put the value in quotes")),
            Self::Unreadable => Err(invalid("not valid UTF-8", "set it to valid UTF-8")),
            Self::Null => Err(invalid("no value", "give one")),
            Self::List(_) => Err(invalid("a list instead of a single value", "give one value")),
            Self::Map(_) => Err(invalid("a mapping instead of a single value", "give one value")),
        }
    }

    /// The trimmed texts of a list, or of one text with commas. Ignores blank parts of a text with commas.
    pub fn list(&self) -> Result<Vec<String>, Invalid> {
        let plain = |text: &str| check::plain(text).map(|()| text.to_owned());
        if let Self::List(items) = self {
            let item = |item: &Self| match item.scalar()?.trim() {
                "" => Err(invalid("a blank entry", "remove it")),
                text => plain(text),
            };
            return items.iter().map(item).collect();
        }
        let text = self.scalar()?;
        let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(plain).collect();
        if parts.is_empty() && !text.is_empty() {
            // Reject an empty list: its author may expect it to disable the requirement.
            return Err(invalid("an empty list", "give at least one entry, or leave the setting out"));
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

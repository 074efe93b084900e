//! Values as given by a source.

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_a_number_counts_not_what_yaml_read() {
        for (value, text) in [(8.0, "010"), (488.0, "0750")] {
            assert_eq!(Value::Number { value, text: text.to_owned() }.scalar(), Ok(text));
        }
    }
}

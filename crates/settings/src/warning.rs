//! What is odd about the settings, but no fault.

use std::fmt;

use crate::source::Source;

/// Something to tell the operator at start. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A key, or a variable that looks like one of ours, that means nothing.
    UnknownKey {
        /// The key as it stands there.
        key: String,
        /// Where it stands.
        source: Source,
        /// The known key that is nearest, if any is near.
        nearest: Option<String>,
    },
    /// A variable that another program takes and this one does not.
    WithoutEffect {
        /// Its name.
        name: &'static str,
        /// Where it stands.
        source: Source,
        /// What to do instead.
        instead: &'static str,
    },
    /// A line of `.env` that does not parse and is skipped.
    SkippedLine(usize),
    /// What the program finds odd about its settings, in a sentence.
    Odd(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, source, nearest } => {
                write!(f, "unknown setting `{}` ({source}) is ignored", key.escape_debug())?;
                nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; did you mean `{nearest}`?"))
            }
            Self::WithoutEffect { name, source, instead } => {
                write!(f, "`{name}` ({source}) has no effect; {instead}, or remove it")
            }
            Self::SkippedLine(line) => write!(f, ".env line {line} is not NAME=value and is skipped"),
            Self::Odd(text) => f.write_str(text),
        }
    }
}

/// The known name that is nearest to `name`, if it is near enough to be meant.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, &known), known))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

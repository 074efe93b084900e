//! Warnings about settings that are not errors.

use std::fmt;

use crate::source::Source;

/// A warning to log at start. Never contains a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// An unknown key, or an unknown variable that resembles a known one.
    UnknownKey {
        /// The key as written.
        key: String,
        source: Source,
        /// The nearest known key, if it is similar.
        nearest: Option<String>,
    },
    /// A variable of another program that this one ignores.
    WithoutEffect {
        name: &'static str,
        source: Source,
        /// What to do instead.
        instead: &'static str,
    },
    /// A line of `.env` that does not parse and is skipped.
    SkippedLine(usize),
    /// A program-specific warning, as a sentence.
    Odd(String),
}

/// A variable that the program ignores.
#[derive(Debug)]
pub struct WithoutEffect {
    /// Name, in capitals.
    pub name: &'static str,
    /// Start of the value, ignoring white space; other values belong to other software. An empty value never matches.
    pub begins: &'static str,
    /// What to do instead, as the beginning of a sentence.
    pub instead: &'static str,
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

/// The known name nearest to `name`, if it is similar enough.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, &known), known))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

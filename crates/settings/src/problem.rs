//! Errors in settings. Error texts contain no secrets.

use std::fmt;

use thiserror::Error;

use crate::source::Source;
use crate::warning::Warning;

/// One error in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key of the setting, for example `server.listen`; for a part of it, the key, a dot and the part.
    pub key: String,
    /// Source of the value; `None` if there is no value.
    pub source: Option<Source>,
    /// What is wrong. Never contains the value of a secret setting or of a URL.
    pub what: String,
    /// How to fix it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

/// All errors in the settings. Displays a heading, a line for each error, and the warnings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Problems {
    /// The errors; never empty.
    pub problems: Vec<Problem>,
    /// Warnings about names: a missing setting may be misspelled.
    pub warnings: Vec<Warning>,
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], warnings: Vec::new() }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("The settings have an error:")?,
            n => write!(f, "The settings have {n} errors:")?,
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// An error in a value, without the setting that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The part of the setting that is wrong, for example one entry of a mapping.
    pub part: Option<String>,
    /// What is wrong, as in [`Problem::what`].
    pub what: String,
    /// How to fix it.
    pub remedy: String,
}

impl From<Invalid> for Vec<Invalid> {
    fn from(wrong: Invalid) -> Self {
        vec![wrong]
    }
}

/// Creates an [`Invalid`] from what is wrong and how to fix it.
pub fn invalid(what: impl Into<String>, remedy: impl Into<String>) -> Invalid {
    Invalid { part: None, what: what.into(), remedy: remedy.into() }
}

impl Invalid {
    /// Adds the setting and its source.
    pub(crate) fn of(self, key: &str, source: Option<Source>) -> Problem {
        let key = self.part.map_or_else(|| key.to_owned(), |part| format!("{key}.{part}"));
        Problem { key, source, what: self.what, remedy: self.remedy }
    }
}

/// Formats a value for an error: in backquotes, without control characters, shortened to 24 characters.
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(24).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

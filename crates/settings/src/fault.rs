//! What is wrong with the settings: all of it, in words that hold no secret.

use std::fmt;

use thiserror::Error;

use crate::source::Source;
use crate::warning::Warning;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Key of the setting, for example `server.listen`; for a part of it, that key, a dot and the part.
    pub key: String,
    /// Where the value came from; `None` when there is no value.
    pub source: Option<Source>,
    /// What is wrong. Never holds the value of a secret setting or of a URL.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

/// All that is wrong with the settings. Displays a heading and a line for each fault, then the warnings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Faults {
    /// The faults, never none.
    pub faults: Vec<Fault>,
    /// What else is odd about the names of settings: what is missing may be there, spelt wrong.
    pub warnings: Vec<Warning>,
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault], warnings: Vec::new() }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => f.write_str("The settings have a fault:")?,
            n => write!(f, "The settings have {n} faults:")?,
        }
        self.faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// A fault of a value that does not know yet which setting it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Part of the setting, for example one entry of a mapping.
    pub part: Option<String>,
    /// What is wrong, as in [`Fault::what`].
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Where all that is wrong with a value comes at once, this is all.
impl From<Wrong> for Vec<Wrong> {
    fn from(wrong: Wrong) -> Self {
        vec![wrong]
    }
}

/// Says what is wrong and what to do.
pub fn wrong(what: impl Into<String>, remedy: impl Into<String>) -> Wrong {
    Wrong { part: None, what: what.into(), remedy: remedy.into() }
}

impl Wrong {
    /// The fault of the setting with this key.
    pub(crate) fn of(self, key: &str, source: Option<Source>) -> Fault {
        let key = self.part.map_or_else(|| key.to_owned(), |part| format!("{key}.{part}"));
        Fault { key, source, what: self.what, remedy: self.remedy }
    }
}

/// A value as a fault shows it: in quotes, without control characters, shortened to 24 characters.
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(24).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

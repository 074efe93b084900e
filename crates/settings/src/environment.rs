//! The process environment as a value, so that tests can create their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Environment variables, and the working directory that may contain `.env`.
#[derive(Clone)]
pub struct Environment {
    /// Values by name; `None` if not valid UTF-8.
    variables: BTreeMap<String, Option<String>>,
    /// Working directory, the base of relative paths.
    pub directory: PathBuf,
}

impl Environment {
    /// The environment of this process. Nothing else in this crate reads it.
    pub fn of_process() -> Self {
        // Without a working directory, opening a relative path fails and is reported per file.
        Self::new(std::env::current_dir().unwrap_or_default(), std::env::vars_os())
    }

    /// An environment with the given variables. Variables whose name is not UTF-8 are ignored.
    pub fn new<N: Into<OsString>, V: Into<OsString>>(
        directory: impl Into<PathBuf>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into().into_string().ok())));
        Self { variables: variables.collect(), directory: directory.into() }
    }

    /// The value of the variable with this exact name; `None` if it is missing or not UTF-8.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.as_deref()
    }

    /// A variable and its actual name: exact spelling first, then any other case.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, Option<&str>)> {
        self.variables
            .get_key_value(name)
            .or_else(|| self.variables.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)))
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_struct("Environment")
            .field("variables", &self.variables.len())
            .field("directory", &self.directory)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_spelling_takes_precedence() {
        let both = Environment::new("/", [("debug", "no"), ("DEBUG", "yes")]);
        assert_eq!(both.find("DEBUG"), Some(("DEBUG", Some("yes"))));
        let other = Environment::new("/", [("Debug", "no")]);
        assert_eq!(other.find("DEBUG"), Some(("Debug", Some("no"))));
        assert_eq!(other.find("DEBUGS"), None);
    }

    #[test]
    fn debug_shows_no_value() {
        let environment = Environment::new("/", [("TOKEN", "hunter2")]);
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}

//! The process's surroundings as a value, so that tests make their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Environment variables and the working directory, where `.env` is looked for.
#[derive(Clone)]
pub struct Environment {
    /// Values by name; `None`: not valid UTF-8.
    variables: BTreeMap<String, Option<String>>,
    /// Working directory; relative paths start here.
    pub directory: PathBuf,
}

impl Environment {
    /// The environment of this process: the only place that reads it.
    pub fn of_process() -> Self {
        // Without a working directory, relative paths fail when they are opened, each with its own fault.
        Self::new(std::env::current_dir().unwrap_or_default(), std::env::vars_os())
    }

    /// An environment of the given variables. One whose name is not UTF-8 is none of ours and left out.
    pub fn new<N: Into<OsString>, V: Into<OsString>>(
        directory: impl Into<PathBuf>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into().into_string().ok())));
        Self { variables: variables.collect(), directory: directory.into() }
    }

    /// A variable by its exact name, as `.env` and the command line refer to it; `None` too when it is not UTF-8.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.as_deref()
    }

    /// A variable and the name it has here: exact spelling first, then any other case.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, Option<&str>)> {
        self.variables
            .get_key_value(name)
            .or_else(|| self.variables.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)))
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// All names.
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
    fn the_exact_spelling_wins_over_another_case() {
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

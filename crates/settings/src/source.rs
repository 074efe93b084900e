//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from, as reports, faults and warnings say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An option on the command line, for example `--listen`.
    CommandLine(&'static str),
    /// A variable of the process's environment, by the name it has there.
    Environment(String),
    /// A line of `.env`.
    DotEnv {
        /// Name of the variable.
        name: String,
        /// Line on which the name stands, from 1.
        line: usize,
    },
    /// The YAML file.
    File {
        /// Path of the file.
        path: PathBuf,
        /// Line of the value, from 1; 0 when unknown.
        line: u64,
    },
    /// A file that holds a secret and nothing else.
    SecretFile {
        /// Path of the file.
        path: PathBuf,
        /// What names it.
        named: Box<Source>,
    },
    /// Nothing was given.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(option) => write!(f, "command line {option}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::DotEnv { name, line } => write!(f, ".env line {line}, {name}"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::SecretFile { path, named } => write!(f, "file {}, named by {named}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

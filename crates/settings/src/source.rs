//! Sources of values.

use std::fmt;
use std::path::PathBuf;

/// The source of a value, as shown in reports, errors and warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An option on the command line, for example `--listen`.
    CommandLine(&'static str),
    /// A variable of the process environment, by its actual name.
    Environment(String),
    /// A line of `.env`.
    DotEnv {
        name: String,
        /// Line of the name, from 1.
        line: usize,
    },
    /// The YAML file.
    File {
        path: PathBuf,
        /// Line of the value, from 1; 0 if unknown.
        line: u64,
    },
    /// A file that contains only a secret.
    SecretFile {
        path: PathBuf,
        /// Source of the path.
        named: Box<Source>,
    },
    /// No source: the preset applies.
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

//! Registers drivers, so that a program can open the one that a system's settings name.
//!
//! A crate with drivers exports a list of [`Registration`]s, which the program adds to its own table. Configuring a driver
//! only validates its settings. Opening it may contact the system, and can be repeated if it fails.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::walked::Walked;
use crate::{Driver, DriverError};

/// A driver that can be named in the settings.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    /// The name by which settings choose this driver.
    pub name: &'static str,
    /// The keys of a system's settings that this driver reads. A driver with several own settings reads one mapping under its
    /// name.
    pub keys: &'static [&'static str],
    /// Whether each directory has a project ID, which the program assigns (see [`Driver::is_free`]).
    pub project_ids: bool,
    /// Whether `root` is a directory of this machine. Two such systems cannot have the same root.
    pub local_root: bool,
    /// Validates the settings of one system.
    pub configure: fn(SystemSettings) -> Result<OpenDriver, InvalidSettings>,
}

/// The settings of one system, as far as its driver reads them.
#[derive(Debug)]
pub struct SystemSettings {
    /// The system's root directory on this machine, by default its root in published paths.
    pub root: PathBuf,
    /// The values of [`Registration::keys`] that are given. For each `NAME_file` in a mapping, the program has read the
    /// secret `NAME` from that file.
    pub values: Map<String, Value>,
}

impl SystemSettings {
    /// Reads all values as fields of `T`.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, InvalidSettings> {
        Ok(serde_json::from_value(Value::Object(self.values))?)
    }

    /// Reads the mapping under one key.
    pub fn mapping<T: DeserializeOwned>(mut self, key: &str) -> Result<T, InvalidSettings> {
        match self.values.remove(key) {
            Some(value) if !value.is_null() => Ok(serde_json::from_value(value)?),
            _ => Err(InvalidSettings::new(
                format!("the mapping `{key}` is missing"),
                format!("add the mapping `{key}` with the settings of this driver: see docs/provisioner.md"),
            )),
        }
    }
}

type Open = dyn Fn(&Walked) -> Result<Box<dyn Driver>, DriverError> + Send + Sync;

/// Opens a configured driver, as often as needed.
#[derive(Clone)]
pub struct OpenDriver(Arc<Open>);

impl OpenDriver {
    /// Opens the driver with this function. The driver counts the files that it walks over in the given [`Walked`].
    pub fn new(open: impl Fn(&Walked) -> Result<Box<dyn Driver>, DriverError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Opens the driver. Fails while the system is unavailable.
    pub fn open(&self, walked: &Walked) -> Result<Box<dyn Driver>, DriverError> {
        (self.0)(walked)
    }
}

impl fmt::Debug for OpenDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenDriver")
    }
}

/// Settings that a driver cannot use. Contains no values, because they could be secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}: {remedy}")]
pub struct InvalidSettings {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl InvalidSettings {
    /// What is wrong, and what to do.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

impl From<serde_json::Error> for InvalidSettings {
    /// Keeps serde's message only where it names fields and no values.
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        let problem = if text.starts_with("missing field") || text.starts_with("unknown field") {
            text
        } else if let Some((_, expected)) = text.split_once(", expected ").filter(|_| text.starts_with("unknown var")) {
            format!("a value is not {expected}")
        } else {
            "a value has the wrong type".to_owned()
        };
        Self::new(problem, "see docs/provisioner.md for the settings of a system")
    }
}

//! The settings of the driver `exec`.

use std::time::Duration;

use serde::Deserialize;
use storage_driver::registration::{InvalidSettings, OpenDriver, Registration, SystemSettings};

use crate::{Command, Exec, Timeouts};

/// The driver `exec`.
pub const DRIVERS: &[Registration] = &[Registration {
    name: "exec",
    keys: &["command", "environment", "timeout_seconds", "walk_timeout_seconds"],
    project_ids: false,
    local_root: false,
    configure,
}];

/// The longest timeout in seconds: 30 days.
const LONGEST: u64 = 30 * 86_400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    command: Vec<String>,
    /// `NAME=VALUE`.
    #[serde(default)]
    environment: Vec<String>,
    #[serde(default = "minute")]
    timeout_seconds: u64,
    #[serde(default = "day")]
    walk_timeout_seconds: u64,
}

fn minute() -> u64 {
    60
}

fn day() -> u64 {
    86_400
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { usual: Duration::from_secs(minute()), walk: Duration::from_secs(day()) }
    }
}

fn configure(settings: SystemSettings) -> Result<OpenDriver, InvalidSettings> {
    let root = settings.root.clone();
    let settings: Settings = settings.read()?;
    let command = Command::new(&settings.command).ok_or_else(|| {
        InvalidSettings::new(
            "`command` does not begin with an absolute path",
            "write it like [/usr/local/lib/storage/mydriver], with the arguments as further texts",
        )
    })?;
    for (key, seconds) in
        [("timeout_seconds", settings.timeout_seconds), ("walk_timeout_seconds", settings.walk_timeout_seconds)]
    {
        if !(1..=LONGEST).contains(&seconds) {
            let problem = format!("`{key}` is not between 1 and {LONGEST}");
            return Err(InvalidSettings::new(problem, "give a number in this range"));
        }
    }
    let timeouts = Timeouts {
        usual: Duration::from_secs(settings.timeout_seconds),
        walk: Duration::from_secs(settings.walk_timeout_seconds),
    };
    let environment = settings.environment.iter().map(|text| {
        environment(text).ok_or_else(|| {
            InvalidSettings::new(
                "an entry of `environment` is not `NAME=VALUE`",
                "write each as one text, with a name of letters, digits and `_`",
            )
        })
    });
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    Ok(OpenDriver::new(move |_| {
        Ok(Box::new(Exec::open(command.clone(), root.clone(), environment.clone(), timeouts)?))
    }))
}

/// Parses `NAME=VALUE`.
pub fn environment(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !value.contains('\0')).then(|| (name.to_owned(), value.to_owned()))
}

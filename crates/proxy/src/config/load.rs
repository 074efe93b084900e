//! The schema of the settings, and loading them.

use settings::{GivenOption, Schema, Value};

use super::{Environment, Listen, Overrides, Problems, Settings, oddities, table, without_effect};

/// The settings in force and their sources.
pub type Loaded = settings::Loaded<Settings>;

pub(crate) static SCHEMA: Schema<Settings> = Schema {
    read: table::read,
    config_variables: &["WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH"],
    reads_dotenv: true,
    prefixes: &[
        "CALLBACKS_",
        "WALDUR_",
        "HPC_USER_",
        "CSCS_KEYCLOAK_",
        "SENTRY_",
        "OTLP_",
        "INODE_",
        "STORAGE_",
        "SERVER_",
        "LOG_",
        "CACHE_",
    ],
    oddities: oddities::oddities,
    without_effect: &without_effect::NAMES,
};

/// Loads and validates all settings; reports all errors at once.
pub fn load(environment: &Environment, overrides: &Overrides) -> Result<Loaded, Problems> {
    settings::load(&SCHEMA, environment, overrides)
}

/// The option `--listen`, which replaces `server.listen`; `None` if it is not given.
pub(crate) fn listen_option(addresses: &[Listen]) -> Option<GivenOption> {
    let values = addresses.iter().map(|address| Value::Text(address.to_string())).collect();
    let given = GivenOption { option: "--listen", key: "server.listen", value: Value::List(values) };
    (!addresses.is_empty()).then_some(given)
}

#[cfg(test)]
mod tests;

//! The settings of the provisioner.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use settings::{Oddities, Schema};
use url::Url;

mod system;
mod table;

pub use system::SystemConfig;

#[derive(Debug, Clone)]
pub struct Settings {
    pub proxy: Proxy,
    /// For callbacks that the proxy does not relay, and for `usage --report`.
    pub waldur: Option<Waldur>,
    /// The managed storage systems.
    pub systems: Vec<SystemConfig>,
    /// Directory of the journal and the leases.
    pub state_directory: PathBuf,
    pub policy: provisioner_core::plan::Policy,
    pub purge: Purge,
    pub run: Run,
    pub report: Report,
    pub lease: LeaseSettings,
    /// Component of Waldur's offerings that usage is reported for.
    pub usage_component: String,
    /// Whether a document with invented GIDs is accepted.
    pub mock_identities: bool,
    /// Whether every callback is logged.
    pub debug: bool,
    /// Whether the log is JSON.
    pub json_log: bool,
}

/// Where the leases of the systems are.
#[derive(Debug, Clone)]
pub enum LeaseSettings {
    /// Locks on files in the state directory.
    Files,
    /// Keys on a Valkey or Redis server, which has this URL.
    Redis(SecretString),
    /// Objects on a Kubernetes API server.
    Kubernetes(KubernetesSettings),
}

#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// The API server.
    pub api: Url,
    pub namespace: String,
    /// Directory with the files `token` and `ca.crt` of the service account.
    pub credentials: PathBuf,
}

/// The proxy and the credentials for it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Without `/api`.
    pub url: Url,
    /// The proxy's URL in links to itself, if it relays callbacks and `url` is a different one.
    pub public_url: Option<Url>,
    /// Token endpoint of the identity provider.
    pub token_url: Option<Url>,
    pub client_id: Option<String>,
    pub client_secret: Option<SecretString>,
    /// Timeout of one exchange with the proxy or Waldur.
    pub timeout: Duration,
}

/// Waldur and the credentials for it.
#[derive(Debug, Clone)]
pub struct Waldur {
    pub api_url: Url,
    /// Token of a user of the service provider; for callbacks an owner of its organization.
    pub api_token: SecretString,
}

#[derive(Debug, Clone, Copy)]
pub struct Purge {
    /// Whether `purge` deletes at all.
    pub enabled: bool,
    /// Minimum number of days in the trash.
    pub retention_days: usize,
    /// Maximum number of trees that one call deletes.
    pub at_most: usize,
    /// Maximum number of files and directories deleted per second.
    pub rate: usize,
}

#[derive(Debug, Clone)]
pub struct Run {
    /// Time between passes, with a jitter of 10 %.
    pub interval: Duration,
    /// Addresses for health, metrics and the request for a pass.
    pub listen: Vec<settings::Listen>,
}

/// The reports to the proxy.
#[derive(Debug, Clone)]
pub struct Report {
    pub enabled: bool,
    /// Name of this provisioner; valid in a path.
    pub name: Option<String>,
}

/// All settings, for the program and its reference.
pub static SCHEMA: Schema<Settings> = Schema {
    read: table::read,
    config_variables: &["PROVISIONER_CONFIG"],
    // The program runs as root, in any working directory.
    reads_dotenv: false,
    prefixes: &["PROVISIONER_"],
    oddities: ODDITIES,
    without_effect: &[],
};

const ODDITIES: Oddities<Settings> = |settings, _| {
    let mut odd = Vec::new();
    if settings.proxy.token_url.is_none() {
        odd.push("proxy.client_id is not set: this works only if the proxy does not authenticate clients".to_owned());
    }
    if settings.mock_identities {
        odd.push("mock_identities is on: directories get invented GIDs as their group".to_owned());
    }
    odd
};

#[cfg(test)]
mod tests;

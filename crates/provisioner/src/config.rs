//! The settings of the provisioner.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use settings::{Invalid, Oddities, Rules, Schema, invalid};
use url::Url;

mod system;
mod table;

pub use system::SystemConfig;

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the document comes from.
    pub proxy: Proxy,
    /// Where callbacks go, when the proxy does not relay them.
    pub waldur: Option<Waldur>,
    /// What is driven here.
    pub systems: Vec<SystemConfig>,
    /// Journal, ledger, leases.
    pub state_directory: PathBuf,
    /// What the site allows.
    pub policy: provisioner_core::plan::Policy,
    /// Trees in the trash.
    pub purge: Purge,
    /// The loop.
    pub run: Run,
    /// Valkey or Redis server with the leases; `None`: files in the state directory.
    pub lease_url: Option<SecretString>,
    /// Component of Waldur's offerings that is told what is used.
    pub usage_component: String,
    /// Whether invented GIDs are taken for real ones.
    pub mock_identities: bool,
    /// Whether the log has every effect.
    pub debug: bool,
    /// Whether the log is JSON.
    pub json_log: bool,
}

/// The proxy and the credentials for it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its URL, without `/api`.
    pub url: Url,
    /// The URL that it has in links of its own, when it relays callbacks and is reached by another one here.
    pub public_url: Option<Url>,
    /// Where tokens come from.
    pub token_url: Option<Url>,
    /// Client at the identity provider.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<SecretString>,
    /// Longest time of one exchange.
    pub timeout: Duration,
}

/// Waldur and the credentials for it.
#[derive(Debug, Clone)]
pub struct Waldur {
    /// URL of its API.
    pub api_url: Url,
    /// Token of a user of the service provider; for callbacks an owner of its organization.
    pub api_token: SecretString,
}

/// Deleting for good.
#[derive(Debug, Clone, Copy)]
pub struct Purge {
    /// Whether `purge` deletes at all.
    pub enabled: bool,
    /// For how many days trees stay in the trash at least.
    pub retention_days: usize,
    /// How many trees one call deletes at most.
    pub at_most: usize,
    /// How many files and directories are deleted a second at most.
    pub rate: usize,
}

/// The loop of `run`.
#[derive(Debug, Clone)]
pub struct Run {
    /// Time from one pass to the next, with a tenth more or less.
    pub interval: Duration,
    /// Where health, metrics and the nudge are served.
    pub listen: Vec<settings::Listen>,
}

/// The schema that both the program and its reference follow.
pub static SCHEMA: Schema<Settings> = Schema {
    table: table::TABLE,
    config_variables: &["PROVISIONER_CONFIG"],
    // It runs as root, and its commands wherever somebody stands.
    reads_dotenv: false,
    prefixes: &["PROVISIONER_"],
    unset,
    rules: RULES,
    oddities: ODDITIES,
    without_effect: &[],
};

fn unset() -> Settings {
    #[expect(clippy::expect_used, reason = "a constant that is a URL")]
    let nowhere = Url::parse("http://unset.invalid/").expect("a URL");
    Settings {
        proxy: Proxy {
            url: nowhere,
            public_url: None,
            token_url: None,
            client_id: None,
            client_secret: None,
            timeout: Duration::ZERO,
        },
        waldur: None,
        systems: Vec::new(),
        state_directory: PathBuf::new(),
        policy: provisioner_core::plan::Policy::default(),
        purge: Purge { enabled: false, retention_days: 0, at_most: 0, rate: 0 },
        run: Run { interval: Duration::ZERO, listen: Vec::new() },
        lease_url: None,
        usage_component: String::new(),
        mock_identities: false,
        debug: false,
        json_log: false,
    }
}

/// The nowhere of settings that are not given, so that half of a pair shows.
const RULES: Rules<Settings> = |settings, sound| {
    let mut broken: Vec<(&'static str, Invalid)> = Vec::new();
    let proxy = &settings.proxy;
    let given = [proxy.token_url.is_some(), proxy.client_id.is_some(), proxy.client_secret.is_some()];
    for (key, given_here) in ["proxy.token_url", "proxy.client_id", "proxy.client_secret"].into_iter().zip(given) {
        if given.contains(&true) && !given_here && sound(key) {
            broken
                .push((key, invalid("missing, while another part of the client is given", "give all three, or none")));
        }
    }
    if let Some(waldur) = &settings.waldur {
        use secrecy::ExposeSecret;
        let (url, token) =
            (waldur.api_url.host_str() != Some("unset.invalid"), !waldur.api_token.expose_secret().is_empty());
        if !url && sound("waldur.api_url") {
            broken.push(("waldur.api_url", invalid("missing, while a token is given", "give both, or neither")));
        }
        if !token && sound("waldur.api_token") {
            broken.push(("waldur.api_token", invalid("missing, while Waldur's URL is given", "give both, or neither")));
        }
    }
    broken
};

const ODDITIES: Oddities<Settings> = |settings, _| {
    let mut odd = Vec::new();
    if settings.proxy.token_url.is_none() {
        odd.push("no client is given (proxy.client_id): the proxy must serve without authentication".to_owned());
    }
    if settings.mock_identities {
        odd.push("mock_identities is on: invented GIDs become owners of directories".to_owned());
    }
    odd
};

#[cfg(test)]
mod tests;

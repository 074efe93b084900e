//! From sources to settings.

use std::time::Duration;

use secrecy::SecretString;
use settings::{GivenOption, Schema, Value};
use url::Url;

use super::table::{CONFIG_PATH, PREFIXES, TABLE};
use super::{
    Auth, Backend, Cache, Environment, HpcUserApi, Listen, Log, Otlp, Overrides, Problems, Sentry, Server, Settings,
    WaldurApi, rules, without_effect,
};

/// Settings in force and how they came about.
pub type Loaded = settings::Loaded<Settings>;

/// All that the proxy says of its settings.
pub(crate) static SCHEMA: Schema<Settings> = Schema {
    table: TABLE,
    config_variables: &[CONFIG_PATH],
    reads_dotenv: true,
    prefixes: &PREFIXES,
    unset,
    rules: rules::broken,
    oddities: rules::oddities,
    without_effect: &without_effect::NAMES,
};

/// Reads and judges all settings. Either they are valid, or every fault is told.
pub fn load(environment: &Environment, overrides: &Overrides) -> Result<Loaded, Problems> {
    settings::load(&SCHEMA, environment, overrides)
}

/// `--listen`, as often as given; none leaves `server.listen` as it is.
pub(crate) fn listen_option(addresses: &[Listen]) -> Option<GivenOption> {
    let values = addresses.iter().map(|address| Value::Text(address.to_string())).collect();
    let given = GivenOption { option: "--listen", key: "server.listen", value: Value::List(values) };
    (!addresses.is_empty()).then_some(given)
}

/// Settings with nothing in them yet. They never leave [`load()`]: each row of the table puts its value or its preset
/// in, or reports a fault.
fn unset() -> Settings {
    // Cannot fail: a constant that is a URL.
    let nowhere = Url::parse("http://unset.invalid/").expect("a URL");
    Settings {
        debug: false,
        storage_systems: Vec::new(),
        waldur_api: WaldurApi {
            api_url: nowhere.clone(),
            access_token: SecretString::default(),
            verify_ssl: true,
            socks_proxy: None,
            agent_header: None,
            timeout: Duration::ZERO,
            pages_at_once: 0,
        },
        auth: Auth {
            disable_auth: false,
            keycloak_url: nowhere,
            keycloak_realm: String::new(),
            keycloak_client_id: None,
            keycloak_client_secret: None,
            introspection: false,
            required_roles: Vec::new(),
            callback_roles: Vec::new(),
            verify_ssl: true,
            socks_proxy: None,
        },
        hpc_user_api: HpcUserApi {
            api_url: None,
            client_id: None,
            client_secret: None,
            oidc_token_url: None,
            oidc_scope: String::new(),
            socks_proxy: None,
            verify_ssl: true,
            timeout: Duration::ZERO,
            development_mode: false,
            user_path: None,
            user_uid_field: String::new(),
            user_email_field: String::new(),
        },
        backend_settings: Backend {
            storage_file_system: String::new(),
            inode_base_multiplier: 0.0,
            inode_soft_coefficient: 0.0,
            inode_hard_coefficient: 0.0,
            use_mock_target_items: false,
            system_identifier: None,
            on_processing_error: super::OnProcessingError::default(),
        },
        sentry: Sentry::default(),
        otlp: Otlp { endpoint: None, headers: None, service_name: String::new(), sample_rate: 0.0 },
        server: Server {
            listen: Vec::new(),
            admin_listen: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            request_timeout: Duration::ZERO,
            max_requests: 0,
            public_url: None,
        },
        cache: Cache::default(),
        shared_cache: None,
        relay_callbacks: false,
        log: Log::default(),
    }
}

#[cfg(test)]
mod tests;

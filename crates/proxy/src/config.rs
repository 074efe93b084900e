//! The settings of the proxy, loaded and validated before a port is bound (decision D17).
//!
//! [`load()`] reads the command line, the environment, `.env` and the YAML file, in this order, and returns either valid
//! [`Settings`] or all [`Problems`] at once. The module `table` lists every setting; loading, the report of the settings in
//! force, the warnings about unknown keys and the reference in `docs/settings.md` are generated from it. To add a setting,
//! add a field to a structure below and an entry to the table.
//!
//! Nothing here reads the process environment: the caller passes an [`Environment`].

mod check;
mod load;
mod oddities;
mod reference;
mod systems;
mod table;
mod without_effect;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

pub(crate) use check::{header_list, listen_address};
pub(crate) use load::SCHEMA;
pub(crate) use load::listen_option;
pub use load::{Loaded, load};
pub use reference::reference;
pub use settings::{Change, Environment, InForce, Listen, Overrides, Problem, Problems, Source, Warning};

/// All settings. Only [`load()`] creates them, so they are valid.
#[derive(Debug, Clone)]
pub struct Settings {
    pub debug: bool,
    /// In the order of the settings; never empty.
    pub storage_systems: Vec<StorageSystem>,
    pub waldur_api: WaldurApi,
    pub auth: Auth,
    pub hpc_user_api: HpcUserApi,
    pub backend_settings: Backend,
    pub sentry: Sentry,
    pub otlp: Otlp,
    pub server: Server,
    pub cache: Cache,
    /// `cache.shared_url`: the Valkey or Redis server through which replicas share what they read; may contain credentials.
    pub shared_cache: Option<SecretString>,
    /// `callbacks.relay`: whether links point to the proxy, which relays callbacks to Waldur. If true, `server.public_url`
    /// is given.
    pub relay_callbacks: bool,
    /// The pages for operators, unless they are disabled.
    pub dashboard: Option<Dashboard>,
    pub log: Log,
}

/// A storage system and the Waldur offering that sells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSystem {
    /// Name that clients use in `storage_system=`; trimmed, not blank, unique, valid as a path segment.
    pub name: String,
    /// Slug of the offering in Waldur; trimmed, not blank, without commas, unique, valid as a path segment (decision D1).
    pub offering_slug: String,
}

#[derive(Clone)]
pub struct WaldurApi {
    /// Root of Waldur: the path is `/`, or a prefix without a trailing slash; the suffix `/api` is removed.
    /// No credentials, query or fragment.
    pub api_url: Url,
    /// Token of a service provider's user: 40 hexadecimal digits.
    pub access_token: SecretString,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// SOCKS or HTTP proxy for Waldur only; may contain credentials.
    pub socks_proxy: Option<Url>,
    /// `User-Agent` to send instead of the proxy's own; valid as a header.
    pub agent_header: Option<String>,
    /// Timeout of one request.
    pub timeout: Duration,
    /// Maximum number of concurrent requests for lists; 1 to 32.
    pub pages_at_once: usize,
    /// Where Waldur's events are received, if they are: `ws` or `wss`, no credentials, query or fragment.
    pub push: Option<Url>,
}

/// Authentication of callers against a Keycloak realm.
#[derive(Clone)]
pub struct Auth {
    /// Serve everybody. For development only.
    pub disable_auth: bool,
    /// Base URL of Keycloak, with or without a trailing slash; no credentials, query or fragment.
    pub keycloak_url: Url,
    /// Realm whose tokens are accepted; not blank.
    pub keycloak_realm: String,
    /// If given, a token's `aud` must contain it (decision D13).
    pub keycloak_client_id: Option<String>,
    /// Needed only for token introspection (decision D13).
    pub keycloak_client_secret: Option<SecretString>,
    /// Also ask the realm about each token (RFC 7662), so that revoked tokens are rejected. If true and authentication is
    /// on, client id and secret are given.
    pub introspection: bool,
    /// Realm or client roles, all of which a caller needs.
    pub required_roles: Vec<String>,
    /// `callbacks.required_roles`: roles that a caller also needs to have a callback relayed.
    pub callback_roles: Vec<String>,
    /// `provisioners.required_roles`: roles that a caller also needs to send the report of a provisioner.
    pub report_roles: Vec<String>,
    /// Whether Keycloak's certificate is verified.
    pub verify_ssl: bool,
    /// SOCKS or HTTP proxy for Keycloak only; may contain credentials.
    pub socks_proxy: Option<Url>,
}

/// The HPC User API, which knows the Unix GID of each project.
#[derive(Clone)]
pub struct HpcUserApi {
    /// Base URL; absent only in development mode. No credentials, query or fragment.
    pub api_url: Option<Url>,
    /// Client id for the machine token; absent only in development mode.
    pub client_id: Option<String>,
    /// Client secret for the machine token; absent only in development mode.
    pub client_secret: Option<SecretString>,
    /// Token endpoint of the identity provider; absent only in development mode. No credentials; may have a query.
    pub oidc_token_url: Option<Url>,
    /// Scope of the machine token.
    pub oidc_scope: String,
    /// SOCKS or HTTP proxy for this API and its token endpoint; may contain credentials.
    pub socks_proxy: Option<Url>,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// Timeout of one request.
    pub timeout: Duration,
    /// Invent identities if the API has none or is unreachable.
    pub development_mode: bool,
    /// Path of the optional user endpoint (decision D5): begins with one `/`, contains `{username}` in place of the
    /// resource's slug.
    pub user_path: Option<String>,
    /// Field with the Unix UID in the user endpoint's answer.
    pub user_uid_field: String,
    /// Field with the e-mail address in the user endpoint's answer.
    pub user_email_field: String,
}

/// How quotas and paths are computed, and how errors of single resources are handled.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Name of the file system in every item; not blank.
    pub storage_file_system: String,
    /// Inodes per terabyte; finite, above 0.
    pub inode_base_multiplier: f64,
    /// Multiplier for the soft inode limit; finite, above 0.
    pub inode_soft_coefficient: f64,
    /// Multiplier for the hard inode limit; finite, above the soft one.
    pub inode_hard_coefficient: f64,
    /// Ignore the target items in `backend_metadata`.
    pub use_mock_target_items: bool,
    /// The `{system}` segment of a path (decision D2).
    pub system_identifier: Option<SystemIdentifier>,
    /// What happens if a resource cannot be processed (decision D7).
    pub on_processing_error: OnProcessingError,
}

/// Identifier of a storage system in paths and in `storageSystem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SystemIdentifier {
    /// The configured name.
    #[default]
    StorageSystem,
    /// The offering's slug, as in the Python proxy.
    OfferingSlug,
}

/// What happens if a resource cannot be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnProcessingError {
    /// It is skipped and listed in `skipped`.
    #[default]
    Skip,
    /// The whole listing is answered with 500.
    Fail,
}

/// Error reports and traces for Sentry.
#[derive(Debug, Clone, Default)]
pub struct Sentry {
    /// An http(s) URL that contains a key; `None` turns Sentry off.
    pub dsn: Option<SecretString>,
    /// Tag, for example `production`.
    pub environment: Option<String>,
    /// Share of requests that are traced, 0 to 1.
    pub traces_sample_rate: f32,
}

/// Traces for OpenTelemetry, sent by OTLP over HTTP.
#[derive(Clone)]
pub struct Otlp {
    /// The collector's base URL, to which `v1/traces` is appended; `None` sends nothing. No credentials, query or fragment.
    pub endpoint: Option<Url>,
    /// Headers for the collector: `name=value`, separated by commas, values percent-encoded.
    pub headers: Option<SecretString>,
    /// Name of the service in the traces; not blank.
    pub service_name: String,
    /// Share of the traces starting here that are recorded, 0 to 1.
    pub sample_rate: f32,
}

#[derive(Debug, Clone)]
pub struct Server {
    /// Never empty.
    pub listen: Vec<Listen>,
    /// Addresses that serve health and metrics instead of `listen`, and nothing else; may be empty.
    pub admin_listen: Vec<Listen>,
    /// PEM file with the certificates for TLS on TCP, the server's own first. Given if and only if the key is.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key. Given if and only if the certificate is.
    pub tls_key: Option<PathBuf>,
    /// Maximum time a client waits for an answer.
    pub request_timeout: Duration,
    /// Maximum number of concurrent requests; more are rejected.
    pub max_requests: usize,
    /// Maximum number of requests that wait for a change; more are rejected.
    pub max_waiting: usize,
    /// URL at which clients reach the proxy: http or https, optionally with a path; no credentials, query or fragment.
    pub public_url: Option<Url>,
}

/// The pages for operators.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// How operators sign in; absent only if authentication is disabled.
    pub sign_in: Option<SignIn>,
    /// Base of links into Waldur's web interface: the path is `/`, or a prefix with a trailing slash; no credentials, query or
    /// fragment.
    pub waldur_url: Url,
}

/// Sign-in of operators at the realm.
#[derive(Clone)]
pub struct SignIn {
    /// URL under which browsers reach the proxy, optionally with a path; https, or http on loopback; no credentials, query or
    /// fragment.
    pub public_url: Url,
    /// The realm's client for sign-in.
    pub client_id: String,
    /// Its secret, from which the key of the cookies is derived; at least 16 bytes.
    pub client_secret: SecretString,
    /// Realm or client roles, all of which an operator needs; never empty.
    pub required_roles: Vec<String>,
}

/// Maximum ages of answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cache {
    /// Maximum age of an answer; with 0 each request reads the upstreams or joins a refresh in progress.
    pub max_age: Duration,
    /// Maximum age of an answer while the upstreams cannot be read; 0 turns this off.
    pub max_stale: Duration,
    /// Interval of refreshes in the background; below `max_age`, so that no request waits.
    pub refresh_interval: Option<Duration>,
    /// Interval of full readings; with 0 each refresh reads everything.
    pub full_interval: Duration,
}

#[derive(Debug, Clone, Default)]
pub struct Log {
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

// The `Debug` of `Url` shows a password, and proxies may have one.

impl fmt::Debug for WaldurApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaldurApi").field("api_url", &self.api_url.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("disable_auth", &self.disable_auth)
            .field("keycloak_url", &self.keycloak_url.as_str())
            .field("keycloak_realm", &self.keycloak_realm)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp").field("endpoint", &self.endpoint.as_ref().map(Url::as_str)).finish_non_exhaustive()
    }
}

impl fmt::Debug for HpcUserApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HpcUserApi")
            .field("api_url", &self.api_url.as_ref().map(Url::as_str))
            .field("development_mode", &self.development_mode)
            .finish_non_exhaustive()
    }
}

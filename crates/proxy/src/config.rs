//! Every setting of the proxy, read and judged before a port is bound (decision D17).
//!
//! [`load()`] looks at the command line, the environment, `.env` and the YAML file, in this order, and gives either
//! [`Settings`] that are valid or all [`Problems`] at once; the crate `settings` does it. The module `table` is the one list
//! of what can be set: loading, the report of the settings in force, the warnings about unknown keys and the reference in
//! `docs/settings.md` are all made from it. A new setting is a field in a structure below, its blank value in `unset`,
//! and a row there.
//!
//! Nothing here looks at the process: the caller hands in an [`Environment`].

mod check;
mod load;
mod reference;
mod rules;
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

/// All settings, valid by construction: [`load()`] is the only way from text to here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Log the mapping of each resource and each upstream exchange.
    pub debug: bool,
    /// The storage systems in the order of the settings; never empty.
    pub storage_systems: Vec<StorageSystem>,
    /// Where Waldur is and how to talk to it.
    pub waldur_api: WaldurApi,
    /// How callers of this proxy prove who they are.
    pub auth: Auth,
    /// Where GIDs come from.
    pub hpc_user_api: HpcUserApi,
    /// How the catalogue is computed.
    pub backend_settings: Backend,
    /// Error tracking.
    pub sentry: Sentry,
    /// Traces for OpenTelemetry.
    pub otlp: Otlp,
    /// Where the proxy listens.
    pub server: Server,
    /// How fresh answers are.
    pub cache: Cache,
    /// `cache.shared_url`: the Valkey or Redis server through which replicas share what they read; may hold credentials.
    pub shared_cache: Option<SecretString>,
    /// `callbacks.relay`: whether links lead to the proxy, which relays callbacks to Waldur. When true,
    /// `server.public_url` is there.
    pub relay_callbacks: bool,
    /// How the log looks.
    pub log: Log,
}

/// A storage system and the Waldur offering that sells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSystem {
    /// Name as clients use it in `storage_system=`; trimmed, not blank, unique, fit for a path segment.
    pub name: String,
    /// Slug of the offering in Waldur; trimmed, not blank, no comma, unique, fit for a path segment (decision D1).
    pub offering_slug: String,
}

/// Waldur, the source of truth.
#[derive(Clone)]
pub struct WaldurApi {
    /// Root of Waldur: the path is `/`, or a prefix without a trailing slash; the suffix `/api` is taken off.
    /// No credentials, query or fragment.
    pub api_url: Url,
    /// Token of a service provider's user: 40 hexadecimal digits.
    pub access_token: SecretString,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// SOCKS or HTTP proxy for Waldur alone; may hold credentials.
    pub socks_proxy: Option<Url>,
    /// `User-Agent` to send instead of the proxy's own; valid as a header.
    pub agent_header: Option<String>,
    /// Deadline of one exchange.
    pub timeout: Duration,
    /// Pages of a list that are read at once; 1 to 32.
    pub pages_at_once: usize,
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
    /// When set, a token's `aud` must contain it (decision D13).
    pub keycloak_client_id: Option<String>,
    /// Needed for token introspection only (decision D13).
    pub keycloak_client_secret: Option<SecretString>,
    /// Ask the realm about each token as well (RFC 7662), so that a revoked one is refused. When true and
    /// authentication is on, client id and secret are there.
    pub introspection: bool,
    /// Realm or client roles of which a caller needs every one.
    pub required_roles: Vec<String>,
    /// `callbacks.required_roles`: those of which a caller needs every one, too, to have a callback relayed.
    pub callback_roles: Vec<String>,
    /// Whether Keycloak's certificate is verified.
    pub verify_ssl: bool,
    /// SOCKS or HTTP proxy for Keycloak alone; may hold credentials.
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
    /// Scope to ask for.
    pub oidc_scope: String,
    /// SOCKS or HTTP proxy for this API and its token endpoint; may hold credentials.
    pub socks_proxy: Option<Url>,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// Deadline of one exchange.
    pub timeout: Duration,
    /// Invent identities where the API has none or cannot be reached.
    pub development_mode: bool,
    /// Path of the optional user endpoint (decision D5): begins with one `/`, holds `{username}` where the resource's
    /// slug goes.
    pub user_path: Option<String>,
    /// Name of the field with the Unix UID in the user endpoint's answer.
    pub user_uid_field: String,
    /// Name of the field with the e-mail address in the user endpoint's answer.
    pub user_email_field: String,
}

/// How quotas, paths and faults are computed.
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
    /// What stands in the `{system}` segment of a path (decision D2); `None`: not given.
    pub system_identifier: Option<SystemIdentifier>,
    /// What a resource that fails to process does to the listing (decision D7).
    pub on_processing_error: OnProcessingError,
}

/// What names a storage system in paths and in `storageSystem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SystemIdentifier {
    /// The configured name.
    #[default]
    StorageSystem,
    /// The offering's slug, as the Python proxy does.
    OfferingSlug,
}

/// What a resource that fails to process does to the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnProcessingError {
    /// It is left out and named in `skipped`.
    #[default]
    Skip,
    /// The whole listing answers 500.
    Fail,
}

/// Sentry: errors and traces.
#[derive(Debug, Clone, Default)]
pub struct Sentry {
    /// Where events go, an http(s) URL; `None` switches Sentry off. It holds a key, hence a secret.
    pub dsn: Option<SecretString>,
    /// Tag, for example `production`.
    pub environment: Option<String>,
    /// Share of requests that are traced, 0 to 1.
    pub traces_sample_rate: f32,
}

/// Traces for OpenTelemetry, sent by OTLP over HTTP.
#[derive(Clone)]
pub struct Otlp {
    /// The collector's base URL, to which `v1/traces` is added; `None` sends nothing. No credentials, query or fragment.
    pub endpoint: Option<Url>,
    /// Headers for the collector: `name=value`, with commas between several, values percent-encoded.
    pub headers: Option<SecretString>,
    /// Name under which the traces are shown; not blank.
    pub service_name: String,
    /// Share of the traces that begin here that is recorded, 0 to 1.
    pub sample_rate: f32,
}

/// Where the proxy listens.
#[derive(Debug, Clone)]
pub struct Server {
    /// What to listen on; never empty.
    pub listen: Vec<Listen>,
    /// Addresses where health and metrics answer instead, and nothing else does; empty: none.
    pub admin_listen: Vec<Listen>,
    /// Certificates with which TLS is spoken on TCP, the own one first: a PEM file. There when the key is.
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key: a PEM file. There when the certificate is.
    pub tls_key: Option<PathBuf>,
    /// How long a client waits for an answer at most.
    pub request_timeout: Duration,
    /// Requests at one time; more are turned away.
    pub max_requests: usize,
    /// Where clients reach the proxy: http or https, perhaps with a path; no credentials, query or fragment.
    pub public_url: Option<Url>,
}

/// How fresh answers are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cache {
    /// How old an answer may be; 0 reads the upstreams for each request that meets no refresh under way.
    pub max_age: Duration,
    /// How old an answer may be while the upstreams cannot be read; 0 is never.
    pub max_stale: Duration,
    /// How often the upstreams are read without anybody asking; below `max_age`, so that nobody waits.
    pub refresh_interval: Option<Duration>,
}

/// How the log looks.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// One line for people or one JSON object for machines.
    pub format: LogFormat,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

// `Url`'s own `Debug` shows a password, and proxies may have one.

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

//! Every setting of the proxy, read and judged before a port is bound.

use std::net::SocketAddr;

use secrecy::SecretString;
use url::Url;

/// All settings, valid by construction: [`load`] is the only way from text to here.
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
    /// Where the proxy listens.
    pub server: Server,
    /// How the log looks.
    pub log: Log,
}

/// A storage system and the Waldur offering that sells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSystem {
    /// Name as clients use it in `storage_system=`; trimmed, not blank.
    pub name: String,
    /// Slug of the offering in Waldur; trimmed, not blank, no comma, unique.
    pub offering_slug: String,
}

/// Waldur, the source of truth.
#[derive(Debug, Clone)]
pub struct WaldurApi {
    /// Root of the API without a trailing slash and without the suffix `/api`.
    pub api_url: Url,
    /// Token of a service provider's user: 40 hexadecimal digits.
    pub access_token: SecretString,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// SOCKS or HTTP proxy for Waldur alone.
    pub socks_proxy: Option<Url>,
    /// `User-Agent` to send instead of the proxy's own.
    pub agent_header: Option<String>,
}

/// Authentication of callers against a Keycloak realm.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Serve everybody. For development only.
    pub disable_auth: bool,
    /// Base URL of Keycloak, with or without a trailing slash.
    pub keycloak_url: Url,
    /// Realm whose tokens are accepted.
    pub keycloak_realm: String,
    /// When set, a token's `aud` must contain it (decision D13).
    pub keycloak_client_id: Option<String>,
    /// Needed for token introspection only.
    pub keycloak_client_secret: Option<SecretString>,
    /// Ask the realm about each token as well (RFC 7662), so that a revoked one is refused.
    pub introspection: bool,
    /// Realm or client roles of which a caller needs every one.
    pub required_roles: Vec<String>,
    /// Whether Keycloak's certificate is verified.
    pub verify_ssl: bool,
    /// SOCKS or HTTP proxy for Keycloak alone.
    pub socks_proxy: Option<Url>,
}

/// The HPC User API, which knows the Unix GID of each project.
#[derive(Debug, Clone)]
pub struct HpcUserApi {
    /// Base URL; absent only in development mode.
    pub api_url: Option<Url>,
    /// Client id for the machine token.
    pub client_id: Option<String>,
    /// Client secret for the machine token.
    pub client_secret: Option<SecretString>,
    /// Token endpoint of the identity provider.
    pub oidc_token_url: Option<Url>,
    /// Scope to ask for.
    pub oidc_scope: String,
    /// SOCKS or HTTP proxy for this API and its token endpoint.
    pub socks_proxy: Option<Url>,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// Invent identities where the API has none or cannot be reached.
    pub development_mode: bool,
    /// Path of the optional user endpoint, with `{username}` where the resource's slug goes.
    pub user_path: Option<String>,
    /// Name of the field with the Unix UID in the user endpoint's answer.
    pub user_uid_field: String,
    /// Name of the field with the e-mail address in the user endpoint's answer.
    pub user_email_field: String,
}

/// How quotas, paths and faults are computed.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Name of the file system in every item.
    pub storage_file_system: String,
    /// Inodes per terabyte; above 0.
    pub inode_base_multiplier: f64,
    /// Multiplier for the soft inode limit; above 0.
    pub inode_soft_coefficient: f64,
    /// Multiplier for the hard inode limit; above the soft one.
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
    /// Where events go; `None` switches Sentry off.
    pub dsn: Option<SecretString>,
    /// Tag, for example `production`.
    pub environment: Option<String>,
    /// Share of requests that are traced, 0 to 1.
    pub traces_sample_rate: f32,
}

/// Where the proxy listens.
#[derive(Debug, Clone)]
pub struct Server {
    /// Addresses to bind; never empty.
    pub listen: Vec<SocketAddr>,
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

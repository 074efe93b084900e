//! The one list of what can be set.

use settings::{Kind, Preset, Setting};

use super::{LogFormat, OnProcessingError, Settings, SystemIdentifier, check, systems};

/// Names the YAML file; stands in the environment or in `.env`.
pub(super) const CONFIG_PATH: &str = "WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH";

/// Variables that begin like this are taken for ours when they are spelt nearly like one.
pub(super) const PREFIXES: [&str; 11] = [
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
];

const fn row(
    key: &'static str,
    variables: &'static [&'static str],
    kind: Kind<Settings>,
    preset: Preset,
    doc: &'static str,
) -> Setting<Settings> {
    Setting { key, variables, kind, preset, doc }
}

/// Every setting, in the order of the reference and of reports.
pub(super) static TABLE: &[Setting<Settings>] = &[
    row(
        "debug",
        &["DEBUG"],
        Kind::Flag(|s, flag| s.debug = flag),
        Preset::Is("false"),
        "Log how each resource is mapped, and each exchange with an upstream. No secret is logged.",
    ),
    row(
        "storage_systems",
        &["STORAGE_SYSTEMS"],
        Kind::Own("mapping", systems::put),
        Preset::Required,
        "The storage systems: each name that clients use in `storage_system=`, with the slug of its offering in Waldur. \
         A mapping in YAML, a JSON object in the environment: `{\"capstor\": \"capstor-offering\"}`. At least one; the \
         order is kept. Names and slugs are trimmed, unique, not blank, and fit to be a directory's name; slugs have no \
         comma.",
    ),
    row(
        "waldur_api.api_url",
        &["WALDUR_API_URL"],
        Kind::Url(check::waldur_url, |s, url| s.waldur_api.api_url = url),
        Preset::Required,
        "Where Waldur is. `https://waldur.example.org`, `https://waldur.example.org/api` and \
         `https://waldur.example.org/api/` mean the same.",
    ),
    row(
        "waldur_api.access_token",
        &["WALDUR_API_TOKEN"],
        Kind::Secret(check::waldur_token, |s, token| s.waldur_api.access_token = token),
        Preset::Required,
        "Token of a service provider's user in Waldur: exactly 40 hexadecimal digits.",
    ),
    row(
        "waldur_api.verify_ssl",
        &["WALDUR_VERIFY_SSL"],
        Kind::Flag(|s, flag| s.waldur_api.verify_ssl = flag),
        Preset::Is("true"),
        "Verify Waldur's certificate.",
    ),
    row(
        "waldur_api.socks_proxy",
        &["WALDUR_SOCKS_PROXY"],
        Kind::Proxy(|s, url| s.waldur_api.socks_proxy = Some(url)),
        Preset::Absent,
        "Proxy for Waldur alone: `socks5://`, `socks5h://`, `http://` or `https://`, host and port. Names are resolved \
         at a SOCKS proxy.",
    ),
    row(
        "waldur_api.timeout",
        &["WALDUR_TIMEOUT"],
        Kind::Seconds(|s, seconds| s.waldur_api.timeout = seconds),
        Preset::Is("60"),
        "Seconds that Waldur has for one answer, such as a page of a list.",
    ),
    row(
        "waldur_api.pages_at_once",
        &["WALDUR_PAGES_AT_ONCE"],
        Kind::Count(32, |s, number| s.waldur_api.pages_at_once = number),
        Preset::Is("4"),
        "How many requests for lists run in Waldur at the same time, for pages of 300 resources as well as for customers; \
         1 to 32. Give at most the number of Waldur's workers, such as 2 for a small Waldur with two: more requests gain \
         nothing, wait there instead of here, and may time out.",
    ),
    row(
        "waldur_api.agent_header",
        &["WALDUR_AGENT_HEADER", "AGENT_HEADER"],
        Kind::Text(check::header, |s, text| s.waldur_api.agent_header = Some(text)),
        Preset::Absent,
        "`User-Agent` to send to Waldur instead of the proxy's own.",
    ),
    row(
        "auth.disable_auth",
        &["DISABLE_AUTH"],
        Kind::Flag(|s, flag| s.auth.disable_auth = flag),
        Preset::Is("false"),
        "**Danger**: serve everybody without a token. For development only.",
    ),
    row(
        "auth.keycloak_url",
        &["CSCS_KEYCLOAK_URL"],
        Kind::Url(check::base_url, |s, url| s.auth.keycloak_url = url),
        Preset::Is("https://auth-tds.cscs.ch/auth/"),
        "Base URL of Keycloak.",
    ),
    row(
        "auth.keycloak_realm",
        &["CSCS_KEYCLOAK_REALM"],
        Kind::Text(check::plain, |s, text| s.auth.keycloak_realm = text),
        Preset::Is("cscs"),
        "Realm whose tokens are accepted.",
    ),
    row(
        "auth.keycloak_client_id",
        &["CSCS_KEYCLOAK_CLIENT_ID"],
        Kind::Text(check::plain, |s, text| s.auth.keycloak_client_id = Some(text)),
        Preset::Absent,
        "When given, the `aud` of a token must contain it.",
    ),
    row(
        "auth.keycloak_client_secret",
        &["CSCS_KEYCLOAK_CLIENT_SECRET"],
        Kind::Secret(check::secret, |s, secret| s.auth.keycloak_client_secret = Some(secret)),
        Preset::Absent,
        "Secret of that client. Needed for `auth.introspection` only.",
    ),
    row(
        "auth.introspection",
        &["CSCS_KEYCLOAK_INTROSPECTION"],
        Kind::Flag(|s, flag| s.auth.introspection = flag),
        Preset::Is("false"),
        "Ask the realm about each token as well (RFC 7662), so that a revoked one is refused. Needs client id and \
         secret.",
    ),
    row(
        "auth.required_roles",
        &["CSCS_KEYCLOAK_REQUIRED_ROLES"],
        Kind::Names(|s, roles| s.auth.required_roles = roles),
        Preset::Absent,
        "Realm or client roles of which a caller needs every one. A list in YAML, or one text with commas.",
    ),
    row(
        "auth.verify_ssl",
        &["CSCS_KEYCLOAK_VERIFY_SSL"],
        Kind::Flag(|s, flag| s.auth.verify_ssl = flag),
        Preset::Is("true"),
        "Verify Keycloak's certificate.",
    ),
    row(
        "auth.socks_proxy",
        &["CSCS_KEYCLOAK_SOCKS_PROXY"],
        Kind::Proxy(|s, url| s.auth.socks_proxy = Some(url)),
        Preset::Absent,
        "Proxy for Keycloak alone, as `waldur_api.socks_proxy`.",
    ),
    row(
        "hpc_user_api.api_url",
        &["HPC_USER_API_URL"],
        Kind::Url(check::base_url, |s, url| s.hpc_user_api.api_url = Some(url)),
        Preset::Absent,
        "Base URL of the HPC User API. Required unless `hpc_user_api.development_mode` is true.",
    ),
    row(
        "hpc_user_api.client_id",
        &["HPC_USER_CLIENT_ID"],
        Kind::Text(check::plain, |s, text| s.hpc_user_api.client_id = Some(text)),
        Preset::Absent,
        "Client id for the machine token. Required unless in development mode.",
    ),
    row(
        "hpc_user_api.client_secret",
        &["HPC_USER_CLIENT_SECRET"],
        Kind::Secret(check::secret, |s, secret| s.hpc_user_api.client_secret = Some(secret)),
        Preset::Absent,
        "Client secret for the machine token. Required unless in development mode.",
    ),
    row(
        "hpc_user_api.oidc_token_url",
        &["HPC_USER_OIDC_TOKEN_URL"],
        Kind::Url(check::endpoint, |s, url| s.hpc_user_api.oidc_token_url = Some(url)),
        Preset::Absent,
        "Token endpoint that gives the machine token. Required unless in development mode.",
    ),
    row(
        "hpc_user_api.oidc_scope",
        &["HPC_USER_OIDC_SCOPE"],
        Kind::Text(check::plain, |s, text| s.hpc_user_api.oidc_scope = text),
        Preset::IfEmpty("openid"),
        "Scope of the machine token.",
    ),
    row(
        "hpc_user_api.socks_proxy",
        &["HPC_USER_SOCKS_PROXY"],
        Kind::Proxy(|s, url| s.hpc_user_api.socks_proxy = Some(url)),
        Preset::Absent,
        "Proxy for the HPC User API and its token endpoint, as `waldur_api.socks_proxy`.",
    ),
    row(
        "hpc_user_api.timeout",
        &["HPC_USER_TIMEOUT"],
        Kind::Seconds(|s, seconds| s.hpc_user_api.timeout = seconds),
        Preset::Is("30"),
        "Seconds that the API, or its token endpoint, has for one answer.",
    ),
    row(
        "hpc_user_api.verify_ssl",
        &["HPC_USER_VERIFY_SSL"],
        Kind::Flag(|s, flag| s.hpc_user_api.verify_ssl = flag),
        Preset::Is("true"),
        "Verify the certificates of the HPC User API and its token endpoint.",
    ),
    row(
        "hpc_user_api.development_mode",
        &["HPC_USER_DEVELOPMENT_MODE"],
        Kind::Flag(|s, flag| s.hpc_user_api.development_mode = flag),
        Preset::Is("false"),
        "Invent GIDs and UIDs where the HPC User API has none, cannot be reached or is not configured. For development \
         only.",
    ),
    row(
        "hpc_user_api.user_path",
        &["HPC_USER_USER_PATH"],
        Kind::Text(check::user_path, |s, text| s.hpc_user_api.user_path = Some(text)),
        Preset::Absent,
        "Path of an endpoint that tells UID and e-mail address of a user, with `{username}` where the resource's slug \
         goes: `/api/v1/export/cscs/users/{username}`. Without it, both are `null` unless Waldur's `backend_metadata` \
         gives them.",
    ),
    row(
        "hpc_user_api.user_uid_field",
        &["HPC_USER_USER_UID_FIELD"],
        Kind::Text(check::plain, |s, text| s.hpc_user_api.user_uid_field = text),
        Preset::Is("unixUid"),
        "Field of that endpoint's answer with the UID.",
    ),
    row(
        "hpc_user_api.user_email_field",
        &["HPC_USER_USER_EMAIL_FIELD"],
        Kind::Text(check::plain, |s, text| s.hpc_user_api.user_email_field = text),
        Preset::Is("email"),
        "Field of that endpoint's answer with the e-mail address.",
    ),
    row(
        "backend_settings.storage_file_system",
        &["STORAGE_FILE_SYSTEM"],
        Kind::Text(check::plain, |s, text| s.backend_settings.storage_file_system = text),
        Preset::Is("lustre"),
        "Name of the file system in every item, for example `lustre` or `gpfs`.",
    ),
    row(
        "backend_settings.inode_base_multiplier",
        &["INODE_BASE_MULTIPLIER"],
        Kind::Positive(|s, number| s.backend_settings.inode_base_multiplier = number),
        Preset::Is("1000000"),
        "Inodes per terabyte of storage.",
    ),
    row(
        "backend_settings.inode_soft_coefficient",
        &["INODE_SOFT_COEFFICIENT"],
        Kind::Positive(|s, number| s.backend_settings.inode_soft_coefficient = number),
        Preset::Is("1.33"),
        "Soft inode limit as a multiple of the base.",
    ),
    row(
        "backend_settings.inode_hard_coefficient",
        &["INODE_HARD_COEFFICIENT"],
        Kind::Positive(|s, number| s.backend_settings.inode_hard_coefficient = number),
        Preset::Is("2"),
        "Hard inode limit as a multiple of the base. Must be greater than the soft coefficient.",
    ),
    row(
        "backend_settings.use_mock_target_items",
        &["USE_MOCK_TARGET_ITEMS"],
        Kind::Flag(|s, flag| s.backend_settings.use_mock_target_items = flag),
        Preset::Is("false"),
        "Ignore the target items in Waldur's `backend_metadata`.",
    ),
    row(
        "backend_settings.system_identifier",
        &["SYSTEM_IDENTIFIER"],
        Kind::Choice(&[
            ("storage_system", |s| s.backend_settings.system_identifier = Some(SystemIdentifier::StorageSystem)),
            ("offering_slug", |s| s.backend_settings.system_identifier = Some(SystemIdentifier::OfferingSlug)),
        ]),
        Preset::Absent,
        "What names a storage system in paths and in `storageSystem`: `storage_system`, its name, or `offering_slug`, as \
         the Python proxy does. When it is not given it is the name, with a warning where a name and its slug differ.",
    ),
    row(
        "backend_settings.on_processing_error",
        &["ON_PROCESSING_ERROR"],
        Kind::Choice(&[
            ("skip", |s| s.backend_settings.on_processing_error = OnProcessingError::Skip),
            ("fail", |s| s.backend_settings.on_processing_error = OnProcessingError::Fail),
        ]),
        Preset::Is("skip"),
        "What a resource that fails to process does to the listing: `skip` leaves it out and names it in `skipped`; \
         with `fail` the whole listing answers 500.",
    ),
    row(
        "sentry.dsn",
        &["SENTRY_DSN"],
        Kind::SecretUrl(check::dsn, |s, dsn| s.sentry.dsn = Some(dsn)),
        Preset::Absent,
        "DSN of the project in Sentry that gets errors. Without it, Sentry is off.",
    ),
    row(
        "sentry.environment",
        &["SENTRY_ENVIRONMENT"],
        Kind::Text(check::plain, |s, text| s.sentry.environment = Some(text)),
        Preset::Absent,
        "Tag of the events, for example `production`.",
    ),
    row(
        "sentry.traces_sample_rate",
        &["SENTRY_TRACES_SAMPLE_RATE"],
        Kind::Share(|s, share| s.sentry.traces_sample_rate = share),
        Preset::Is("0"),
        "Share of requests that are traced.",
    ),
    row(
        "otlp.endpoint",
        &["OTEL_EXPORTER_OTLP_ENDPOINT"],
        Kind::Url(check::base_url, |s, url| s.otlp.endpoint = Some(url)),
        Preset::Absent,
        "Base URL of the OpenTelemetry collector that gets traces, by OTLP over HTTP with protobuf: \
         `http://collector.example.org:4318`. `v1/traces` is added; `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is not read. It is \
         reached directly. Without it, nothing is recorded.",
    ),
    row(
        "otlp.headers",
        &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
        Kind::Secret(check::headers, |s, headers| s.otlp.headers = Some(headers)),
        Preset::Absent,
        "Headers for the collector, `name=value` each, with commas between them; what is special in a value is written \
         as `%20` and the like: `authorization=Bearer%20…`.",
    ),
    row(
        "otlp.service_name",
        &["OTEL_SERVICE_NAME"],
        Kind::Text(check::plain, |s, text| s.otlp.service_name = text),
        Preset::IfEmpty("hpc-storage-proxy"),
        "Name of the service in the traces.",
    ),
    row(
        "otlp.sample_rate",
        &["OTLP_SAMPLE_RATE"],
        Kind::Share(|s, share| s.otlp.sample_rate = share),
        Preset::Is("1"),
        "Share of the traces that begin here that is recorded. A caller who sends `traceparent` has decided for its own.",
    ),
    row(
        "server.listen",
        &["SERVER_LISTEN"],
        Kind::Addresses(check::address, |s, addresses| s.server.listen = addresses),
        Preset::Is("127.0.0.1:8000"),
        "Addresses to listen on, `ADDRESS:PORT` each, or `unix:/PATH` for a socket in the file system, with which group \
         and owner may connect. A list in YAML, or one text with commas. `--listen` on the command line goes before it; \
         sockets that systemd passes stand in for all of them.",
    ),
    row(
        "server.tls_certificate",
        &["SERVER_TLS_CERTIFICATE"],
        Kind::Text(check::plain, |s, path| s.server.tls_certificate = Some(path.into())),
        Preset::Absent,
        "PEM file with the server's certificate and those between it and the root. With it, TLS (1.2, 1.3) is spoken on \
         every address with a port, and nothing else. When the file changes, new connections get the new certificate.",
    ),
    row(
        "server.tls_key",
        &["SERVER_TLS_KEY"],
        Kind::Text(check::plain, |s, path| s.server.tls_key = Some(path.into())),
        Preset::Absent,
        "PEM file with the certificate's private key. Needed with `server.tls_certificate`.",
    ),
    row(
        "server.admin_listen",
        &["SERVER_ADMIN_LISTEN"],
        Kind::Addresses(check::address, |s, addresses| s.server.admin_listen = addresses),
        Preset::Absent,
        "Addresses for `/health/…` and `/metrics`, as `server.listen`, but always plain HTTP: the certificate of \
         `server.tls_certificate` is for `server.listen` only. When given, these answer there and nowhere else; otherwise at \
         `server.listen`. They need no token and name no project.",
    ),
    row(
        "server.request_timeout",
        &["SERVER_REQUEST_TIMEOUT"],
        Kind::Seconds(|s, seconds| s.server.request_timeout = seconds),
        Preset::Is("60"),
        "Seconds that a client waits for an answer at most; then it gets 504, or an old answer that \
         `cache.max_stale` allows. What it waited for goes on and serves the next request.",
    ),
    row(
        "server.max_requests",
        &["SERVER_MAX_REQUESTS"],
        Kind::Count(100_000, |s, number| s.server.max_requests = number),
        Preset::Is("1000"),
        "Requests at one time that run, or whose answer a caller still takes, 1 to 100000; more are answered 503 with \
         `Retry-After`.",
    ),
    row(
        "server.public_url",
        &["SERVER_PUBLIC_URL"],
        Kind::Url(check::base_url, |s, url| s.server.public_url = Some(url)),
        Preset::Absent,
        "Where clients reach the proxy, for example `https://storage-proxy.example.org`, with the path that a reverse proxy \
         takes off, if any. Needed with `callbacks.relay`.",
    ),
    row(
        "callbacks.relay",
        &["CALLBACKS_RELAY"],
        Kind::Flag(|s, flag| s.relay_callbacks = flag),
        Preset::Is("false"),
        "Relay callbacks to Waldur: links such as `approve_by_provider_url` lead to the proxy at `server.public_url`, which \
         calls Waldur with its own token. A provisioner then needs a token of the Keycloak realm and none of Waldur; \
         whoever may read the API, and has the roles of `callbacks.required_roles`, may decide about orders.",
    ),
    row(
        "callbacks.required_roles",
        &["CALLBACKS_REQUIRED_ROLES"],
        Kind::Names(|s, roles| s.auth.callback_roles = roles),
        Preset::Absent,
        "Realm or client roles of which a caller needs every one to have a callback relayed, beside those of \
         `auth.required_roles`. A list in YAML, or one text with commas.",
    ),
    row(
        "cache.max_age",
        &["CACHE_MAX_AGE"],
        Kind::Age(|s, age| s.cache.max_age = age),
        Preset::Is("5"),
        "Seconds that an answer may be old, counted from the moment at which reading it from Waldur began. With 0 \
         nothing in an answer is older than its request; requests that wait share a reading. `Cache-Control: no-cache` \
         in a request asks for the same.",
    ),
    row(
        "cache.max_stale",
        &["CACHE_MAX_STALE"],
        Kind::Age(|s, age| s.cache.max_stale = age),
        Preset::Is("0"),
        "Seconds that an answer may be old while the upstreams cannot be read. It then has the headers `Age` and \
         `Warning`. With 0 the answer is 502. Where an old answer may stand in, a request waits for 2 s of a reading at most, \
         and not while Waldur is left alone after failures; one with `Cache-Control: no-cache` waits as long as \
         `server.request_timeout` lets it.",
    ),
    row(
        "cache.refresh_interval",
        &["CACHE_REFRESH_INTERVAL"],
        Kind::Seconds(|s, interval| s.cache.refresh_interval = Some(interval)),
        Preset::Absent,
        "Seconds between readings that nobody asked for. Less than `cache.max_age`, so that nobody waits.",
    ),
    row(
        "cache.shared_url",
        &["CACHE_SHARED_URL"],
        Kind::UrlWithCredentials(check::cache_server, |s, url| s.shared_cache = Some(url)),
        Preset::Absent,
        "Valkey or Redis server (`redis://`, `valkey://`; with TLS `rediss://`, `valkeys://`) through which replicas share \
         what they read, so that Waldur is read once for all: `redis://user:password@host:6379/0`. Replicas of one version \
         with the same settings and the same Waldur token share; others do not meet. What is stored is sealed with a key \
         that follows from that token. While the server is away each replica stands alone.",
    ),
    row(
        "log.format",
        &["LOG_FORMAT"],
        Kind::Choice(&[("human", |s| s.log.format = LogFormat::Human), ("json", |s| s.log.format = LogFormat::Json)]),
        Preset::Is("human"),
        "`human`: a line for people; `json`: one JSON object a line.",
    ),
];

//! The table of all settings: key, variables, reader, default and meaning of each, and the rules that involve several.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use settings::reader::{
    addresses, age, choice, count, flag, names, positive, proxy_url, seconds, secret, secret_url, share, text, url,
    url_with_credentials,
};
use settings::{Loader, Reader, Reported, invalid};

use super::{
    Auth, Backend, Cache, Dashboard, HpcUserApi, Listen, Log, LogFormat, OnProcessingError, Otlp, Sentry, Server,
    Settings, SignIn, SystemIdentifier, WaldurApi, check, systems,
};

/// Reads every setting, in the order of the reference. No function below returns before all of its settings are read.
pub(super) fn read(loader: &mut Loader<'_>) -> Result<Settings, Reported> {
    let debug = loader
        .setting("debug", &["DEBUG"])
        .doc("Log how each resource is mapped, and each exchange with an upstream. Secrets are not logged.")
        .with_default("false", flag());
    let storage_systems = loader
        .setting("storage_systems", &["STORAGE_SYSTEMS"])
        .doc(
            "The storage systems: each name that clients use in `storage_system=`, with the slug of its offering in \
             Waldur. A mapping in YAML, a JSON object in the environment: `{\"capstor\": \"capstor-offering\"}`. At \
             least one; the order is kept. Names and slugs are trimmed, must be unique and valid as a directory name, \
             and must not be blank; slugs must not contain a comma.",
        )
        .required(Reader::new("mapping", systems::read));
    let waldur_api = waldur_api(loader);
    let auth = auth(loader);
    let hpc_user_api = hpc_user_api(loader);
    let backend_settings = backend_settings(loader);
    let sentry = sentry(loader);
    let otlp = otlp(loader);
    let server_and_callbacks = server_and_callbacks(loader);
    let report_roles = loader
        .setting("provisioners.required_roles", &["PROVISIONERS_REQUIRED_ROLES"])
        .doc(
            "Realm or client roles, all of which a caller needs to send the report of a provisioner, in addition to \
             `auth.required_roles`. Reports are shown to operators, with commands to paste, so give a role that only \
             provisioners have. A list in YAML, or text with commas.",
        )
        .optional(names());
    let server = server_and_callbacks.as_ref().map(|(server, ..)| server);
    let dashboard = dashboard(loader, waldur_api.as_ref(), auth.as_ref(), server);
    let cache = cache(loader);
    let shared_cache = loader
        .setting("cache.shared_url", &["CACHE_SHARED_URL"])
        .doc(
            "Valkey or Redis server (`redis://`, `valkey://`; with TLS `rediss://`, `valkeys://`) through which \
             replicas share what they read, so that Waldur is read only once: `redis://user:password@host:6379/0`. \
             Replicas share only with replicas of the same version, settings and Waldur token. They share the reports of \
             provisioners as well, with all replicas of the same Waldur and token, and a restart of the replicas keeps them. The stored data is \
             encrypted with a key derived from that token. While the server is unreachable, each replica works alone.",
        )
        .optional(url_with_credentials(check::cache_server));
    let format = loader
        .setting("log.format", &["LOG_FORMAT"])
        .doc("`human`: lines for people; `json`: one JSON object per line.")
        .with_default("human", choice(&[("human", LogFormat::Human), ("json", LogFormat::Json)]));
    let (server, relay_callbacks, callback_roles) = server_and_callbacks?;
    Ok(Settings {
        debug: debug?,
        storage_systems: storage_systems?,
        waldur_api: waldur_api?,
        auth: Auth { callback_roles, report_roles: report_roles?.unwrap_or_default(), ..auth? },
        hpc_user_api: hpc_user_api?,
        backend_settings: backend_settings?,
        sentry: sentry?,
        otlp: otlp?,
        server,
        cache: cache?,
        shared_cache: shared_cache?,
        relay_callbacks,
        dashboard: dashboard?,
        log: Log { format: format? },
    })
}

fn waldur_api(loader: &mut Loader<'_>) -> Result<WaldurApi, Reported> {
    let api_url = loader
        .setting("waldur_api.api_url", &["WALDUR_API_URL"])
        .doc(
            "URL of Waldur. `https://waldur.example.org`, `https://waldur.example.org/api` and \
             `https://waldur.example.org/api/` mean the same.",
        )
        .required(url(check::waldur_url));
    let access_token = loader
        .setting("waldur_api.access_token", &["WALDUR_API_TOKEN"])
        .doc("Token of a service provider's user in Waldur: exactly 40 hexadecimal digits.")
        .required(secret(check::waldur_token));
    let verify_ssl = loader
        .setting("waldur_api.verify_ssl", &["WALDUR_VERIFY_SSL"])
        .doc("Verify Waldur's certificate.")
        .with_default("true", flag());
    let socks_proxy = loader
        .setting("waldur_api.socks_proxy", &["WALDUR_SOCKS_PROXY"])
        .doc(
            "Proxy for Waldur only: `socks5://`, `socks5h://`, `http://` or `https://`, host and port. A SOCKS proxy \
             resolves the host names.",
        )
        .optional(proxy_url());
    let timeout = loader
        .setting("waldur_api.timeout", &["WALDUR_TIMEOUT"])
        .doc("Timeout of one request to Waldur, such as a page of a list, in seconds.")
        .with_default("60", seconds());
    let pages_at_once = loader
        .setting("waldur_api.pages_at_once", &["WALDUR_PAGES_AT_ONCE"])
        .doc(
            "Maximum number of concurrent requests to Waldur for lists, both for pages of 300 resources and for \
             customers; 1 to 32. Do not exceed the number of Waldur's workers, for example 2 for a small Waldur with \
             two: more requests gain nothing, wait there instead of here, and may time out.",
        )
        .with_default("4", count(32));
    let agent_header = loader
        .setting("waldur_api.agent_header", &["WALDUR_AGENT_HEADER", "AGENT_HEADER"])
        .doc("`User-Agent` to send to Waldur instead of the proxy's own.")
        .optional(text(check::header));
    let push = loader
        .setting("waldur_api.push", &["WALDUR_PUSH"])
        .doc(
            "Refresh as soon as Waldur announces a change of an order or resource, through its RabbitMQ. Polling goes on, and \
             finds all changes while no events arrive. Needs a Waldur with `/api/event-consumers/`.",
        )
        .with_default("false", flag());
    let push_url = loader
        .setting("waldur_api.push_url", &["WALDUR_PUSH_URL"])
        .doc(
            "`ws://` or `wss://` URL of RabbitMQ's STOMP over WebSocket, which receives Waldur's token as the password; by default \
             `/rmqws-stomp` on the host of `waldur_api.api_url`. `waldur_api.verify_ssl` and `waldur_api.socks_proxy` apply to it.",
        )
        .optional(url(check::push_url));
    let (api_url, push_url) = (api_url?, push_url?);
    let push = push?.then(|| push_url.unwrap_or_else(|| check::default_push_url(&api_url)));
    Ok(WaldurApi {
        api_url,
        access_token: access_token?,
        verify_ssl: verify_ssl?,
        socks_proxy: socks_proxy?,
        agent_header: agent_header?,
        timeout: timeout?,
        pages_at_once: pages_at_once?,
        push,
    })
}

/// Without the roles for callbacks and reports, which come later in the reference.
fn auth(loader: &mut Loader<'_>) -> Result<Auth, Reported> {
    let disable_auth = loader
        .setting("auth.disable_auth", &["DISABLE_AUTH"])
        .doc("**Danger**: serve everybody without a token. For development only.")
        .with_default("false", flag());
    let keycloak_url = loader
        .setting("auth.keycloak_url", &["CSCS_KEYCLOAK_URL"])
        .doc("Base URL of Keycloak.")
        .with_default("https://auth-tds.cscs.ch/auth/", url(check::base_url));
    let keycloak_realm = loader
        .setting("auth.keycloak_realm", &["CSCS_KEYCLOAK_REALM"])
        .doc("Realm whose tokens are accepted.")
        .with_default("cscs", text(check::plain));
    let keycloak_client_id = loader
        .setting("auth.keycloak_client_id", &["CSCS_KEYCLOAK_CLIENT_ID"])
        .doc("If given, the `aud` of a token must contain it.")
        .optional(text(check::plain));
    let keycloak_client_secret = loader
        .setting("auth.keycloak_client_secret", &["CSCS_KEYCLOAK_CLIENT_SECRET"])
        .doc("Secret of that client. Needed only for `auth.introspection`.")
        .optional(secret(check::secret));
    let introspection = loader
        .setting("auth.introspection", &["CSCS_KEYCLOAK_INTROSPECTION"])
        .doc(
            "Also ask the realm about each token (RFC 7662), so that revoked tokens are rejected and lightweight access \
             tokens accepted. Needs client id and secret.",
        )
        .with_default("false", flag());
    let required_roles = loader
        .setting("auth.required_roles", &["CSCS_KEYCLOAK_REQUIRED_ROLES"])
        .doc("Realm or client roles, all of which a caller needs. A list in YAML, or text with commas.")
        .optional(names());
    let verify_ssl = loader
        .setting("auth.verify_ssl", &["CSCS_KEYCLOAK_VERIFY_SSL"])
        .doc("Verify Keycloak's certificate.")
        .with_default("true", flag());
    let socks_proxy = loader
        .setting("auth.socks_proxy", &["CSCS_KEYCLOAK_SOCKS_PROXY"])
        .doc("Proxy for Keycloak only, like `waldur_api.socks_proxy`.")
        .optional(proxy_url());
    if (disable_auth, introspection) == (Ok(false), Ok(true)) {
        let missing = [
            ("auth.keycloak_client_id", keycloak_client_id == Ok(None)),
            ("auth.keycloak_client_secret", matches!(keycloak_client_secret, Ok(None))),
        ];
        let alternative = ", or set auth.introspection to false";
        report_missing(loader, missing, "required when auth.introspection is true", alternative);
    }
    Ok(Auth {
        disable_auth: disable_auth?,
        keycloak_url: keycloak_url?,
        keycloak_realm: keycloak_realm?,
        keycloak_client_id: keycloak_client_id?,
        keycloak_client_secret: keycloak_client_secret?,
        introspection: introspection?,
        required_roles: required_roles?.unwrap_or_default(),
        callback_roles: Vec::new(),
        report_roles: Vec::new(),
        verify_ssl: verify_ssl?,
        socks_proxy: socks_proxy?,
    })
}

fn hpc_user_api(loader: &mut Loader<'_>) -> Result<HpcUserApi, Reported> {
    let api_url = loader
        .setting("hpc_user_api.api_url", &["HPC_USER_API_URL"])
        .doc("Base URL of the HPC User API. Required unless `hpc_user_api.development_mode` is true.")
        .optional(url(check::base_url));
    let client_id = loader
        .setting("hpc_user_api.client_id", &["HPC_USER_CLIENT_ID"])
        .doc("Client id for the machine token. Required unless in development mode.")
        .optional(text(check::plain));
    let client_secret = loader
        .setting("hpc_user_api.client_secret", &["HPC_USER_CLIENT_SECRET"])
        .doc("Client secret for the machine token. Required unless in development mode.")
        .optional(secret(check::secret));
    let oidc_token_url = loader
        .setting("hpc_user_api.oidc_token_url", &["HPC_USER_OIDC_TOKEN_URL"])
        .doc("Token endpoint that issues the machine token. Required unless in development mode.")
        .optional(url(check::endpoint));
    let oidc_scope = loader
        .setting("hpc_user_api.oidc_scope", &["HPC_USER_OIDC_SCOPE"])
        .doc("Scope of the machine token.")
        .with_default("openid", text(check::plain).empty_is_default());
    let socks_proxy = loader
        .setting("hpc_user_api.socks_proxy", &["HPC_USER_SOCKS_PROXY"])
        .doc("Proxy for the HPC User API and its token endpoint, like `waldur_api.socks_proxy`.")
        .optional(proxy_url());
    let timeout = loader
        .setting("hpc_user_api.timeout", &["HPC_USER_TIMEOUT"])
        .doc("Timeout of one request to the API or its token endpoint, in seconds.")
        .with_default("30", seconds());
    let verify_ssl = loader
        .setting("hpc_user_api.verify_ssl", &["HPC_USER_VERIFY_SSL"])
        .doc("Verify the certificates of the HPC User API and its token endpoint.")
        .with_default("true", flag());
    let development_mode = loader
        .setting("hpc_user_api.development_mode", &["HPC_USER_DEVELOPMENT_MODE"])
        .doc(
            "Invent GIDs and UIDs if the HPC User API has none, is unreachable or is not configured. For development \
             only.",
        )
        .with_default("false", flag());
    let user_path = loader
        .setting("hpc_user_api.user_path", &["HPC_USER_USER_PATH"])
        .doc(
            "Path of an endpoint that returns UID and e-mail address of a user, with `{username}` in place of the \
             resource's slug: `/api/v1/export/cscs/users/{username}`. Without it, both are `null` unless Waldur's \
             `backend_metadata` contains them.",
        )
        .optional(text(check::user_path));
    let user_uid_field = loader
        .setting("hpc_user_api.user_uid_field", &["HPC_USER_USER_UID_FIELD"])
        .doc("Field with the UID in that endpoint's answer.")
        .with_default("unixUid", text(check::plain));
    let user_email_field = loader
        .setting("hpc_user_api.user_email_field", &["HPC_USER_USER_EMAIL_FIELD"])
        .doc("Field with the e-mail address in that endpoint's answer.")
        .with_default("email", text(check::plain));
    if development_mode == Ok(false) {
        let missing = [
            ("hpc_user_api.api_url", api_url == Ok(None)),
            ("hpc_user_api.client_id", client_id == Ok(None)),
            ("hpc_user_api.client_secret", matches!(client_secret, Ok(None))),
            ("hpc_user_api.oidc_token_url", oidc_token_url == Ok(None)),
        ];
        report_missing(loader, missing, "required when hpc_user_api.development_mode is false", "");
    }
    Ok(HpcUserApi {
        api_url: api_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        oidc_token_url: oidc_token_url?,
        oidc_scope: oidc_scope?,
        socks_proxy: socks_proxy?,
        verify_ssl: verify_ssl?,
        timeout: timeout?,
        development_mode: development_mode?,
        user_path: user_path?,
        user_uid_field: user_uid_field?,
        user_email_field: user_email_field?,
    })
}

fn backend_settings(loader: &mut Loader<'_>) -> Result<Backend, Reported> {
    let storage_file_system = loader
        .setting("backend_settings.storage_file_system", &["STORAGE_FILE_SYSTEM"])
        .doc("Name of the file system in every item, for example `lustre` or `gpfs`.")
        .with_default("lustre", text(check::plain));
    let inode_base_multiplier = loader
        .setting("backend_settings.inode_base_multiplier", &["INODE_BASE_MULTIPLIER"])
        .doc("Inodes per terabyte of storage.")
        .with_default("1000000", positive());
    let soft = loader
        .setting("backend_settings.inode_soft_coefficient", &["INODE_SOFT_COEFFICIENT"])
        .doc("Soft inode limit as a multiple of the base.")
        .with_default("1.33", positive());
    let hard = loader
        .setting("backend_settings.inode_hard_coefficient", &["INODE_HARD_COEFFICIENT"])
        .doc("Hard inode limit as a multiple of the base. Must be greater than the soft coefficient.")
        .with_default("2", positive());
    let use_mock_target_items = loader
        .setting("backend_settings.use_mock_target_items", &["USE_MOCK_TARGET_ITEMS"])
        .doc("Ignore the target items in Waldur's `backend_metadata`.")
        .with_default("false", flag());
    let system_identifier = loader
        .setting("backend_settings.system_identifier", &["SYSTEM_IDENTIFIER"])
        .doc(
            "Identifier of a storage system in paths and in `storageSystem`: `storage_system` (its name) or \
             `offering_slug` (as in the Python proxy). If not given it is the name, with a warning if a name differs \
             from its slug.",
        )
        .optional(choice(&[
            ("storage_system", SystemIdentifier::StorageSystem),
            ("offering_slug", SystemIdentifier::OfferingSlug),
        ]));
    let on_processing_error = loader
        .setting("backend_settings.on_processing_error", &["ON_PROCESSING_ERROR"])
        .doc(
            "If a resource cannot be processed, `skip` leaves it out of the listing and names it in `skipped`; with \
             `fail` the whole listing is answered with 500.",
        )
        .with_default("skip", choice(&[("skip", OnProcessingError::Skip), ("fail", OnProcessingError::Fail)]));
    if let (Ok(soft), Ok(hard)) = (soft, hard)
        && hard <= soft
    {
        let what =
            format!("inode_hard_coefficient must be greater than inode_soft_coefficient: {hard} is not above {soft}");
        let invalid = invalid(what, "raise the hard or lower the soft one");
        loader.violation("backend_settings.inode_hard_coefficient", invalid);
    }
    Ok(Backend {
        storage_file_system: storage_file_system?,
        inode_base_multiplier: inode_base_multiplier?,
        inode_soft_coefficient: soft?,
        inode_hard_coefficient: hard?,
        use_mock_target_items: use_mock_target_items?,
        system_identifier: system_identifier?,
        on_processing_error: on_processing_error?,
    })
}

fn sentry(loader: &mut Loader<'_>) -> Result<Sentry, Reported> {
    let dsn = loader
        .setting("sentry.dsn", &["SENTRY_DSN"])
        .doc("DSN of the Sentry project that receives errors. Without it, Sentry is off.")
        .optional(secret_url(check::dsn));
    let environment = loader
        .setting("sentry.environment", &["SENTRY_ENVIRONMENT"])
        .doc("Tag of the events, for example `production`.")
        .optional(text(check::plain));
    let traces_sample_rate = loader
        .setting("sentry.traces_sample_rate", &["SENTRY_TRACES_SAMPLE_RATE"])
        .doc("Share of requests that are traced.")
        .with_default("0", share());
    Ok(Sentry { dsn: dsn?, environment: environment?, traces_sample_rate: traces_sample_rate? })
}

fn otlp(loader: &mut Loader<'_>) -> Result<Otlp, Reported> {
    let endpoint = loader
        .setting("otlp.endpoint", &["OTEL_EXPORTER_OTLP_ENDPOINT"])
        .doc(
            "Base URL of the OpenTelemetry collector that receives traces, by OTLP over HTTP with protobuf: \
             `http://collector.example.org:4318`. `v1/traces` is appended; `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is \
             not read. No proxy is used. Without it, nothing is recorded.",
        )
        .optional(url(check::base_url));
    let headers = loader
        .setting("otlp.headers", &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"])
        .doc(
            "Headers for the collector as `name=value`, separated by commas; values are percent-encoded: \
             `authorization=Bearer%20…`.",
        )
        .optional(secret(check::headers));
    let service_name = loader
        .setting("otlp.service_name", &["OTEL_SERVICE_NAME"])
        .doc("Name of the service in the traces.")
        .with_default("hpc-storage-proxy", text(check::plain).empty_is_default());
    let sample_rate = loader
        .setting("otlp.sample_rate", &["OTLP_SAMPLE_RATE"])
        .doc(
            "Share of the traces starting here that are recorded. For a request with `traceparent`, the caller has \
             decided.",
        )
        .with_default("1", share());
    Ok(Otlp { endpoint: endpoint?, headers: headers?, service_name: service_name?, sample_rate: sample_rate? })
}

/// `server.request_timeout`, `server.max_requests` and `server.max_waiting`.
fn request_limits(loader: &mut Loader<'_>) -> Result<(Duration, usize, usize), Reported> {
    let request_timeout = loader
        .setting("server.request_timeout", &["SERVER_REQUEST_TIMEOUT"])
        .doc(
            "Maximum time a client waits for an answer, in seconds; after it, the answer is 504, or an old one that \
             `cache.max_stale` allows. The refresh continues and serves the next request.",
        )
        .with_default("60", seconds());
    let max_requests = loader
        .setting("server.max_requests", &["SERVER_MAX_REQUESTS"])
        .doc(
            "Maximum number of concurrent requests, 1 to 100000, including those whose answer is still being sent; \
             more are answered with 503 and `Retry-After`.",
        )
        .with_default("1000", count(100_000));
    let max_waiting = loader
        .setting("server.max_waiting", &["SERVER_MAX_WAITING"])
        .doc(
            "Maximum number of requests with `Prefer: wait=…` that wait for a change at the same time, 1 to 100000; \
             more are answered with 503 and `Retry-After`. They do not count towards `server.max_requests`.",
        )
        .with_default("10000", count(100_000));
    Ok((request_timeout?, max_requests?, max_waiting?))
}

/// The server, whether it relays callbacks, and the roles that callers need for them.
fn server_and_callbacks(loader: &mut Loader<'_>) -> Result<(Server, bool, Vec<String>), Reported> {
    let listen = loader
        .setting("server.listen", &["SERVER_LISTEN"])
        .doc(
            "Addresses to listen on: `ADDRESS:PORT`, or `unix:/PATH` for a socket in the file system, to which its \
             owner and group may connect. A list in YAML, or text with commas. `--listen` on the command line takes \
             precedence; sockets that systemd passes replace all of them.",
        )
        .with_default("127.0.0.1:8000", addresses(check::address));
    let tls_certificate = loader
        .setting("server.tls_certificate", &["SERVER_TLS_CERTIFICATE"])
        .doc(
            "PEM file with the server's certificate and the intermediate certificates. With it, every address with a \
             port serves only TLS (1.2, 1.3). When the file changes, new connections get the new certificate.",
        )
        .optional(text(check::plain).map(PathBuf::from));
    let tls_key = loader
        .setting("server.tls_key", &["SERVER_TLS_KEY"])
        .doc("PEM file with the certificate's private key. Required with `server.tls_certificate`.")
        .optional(text(check::plain).map(PathBuf::from));
    let admin_listen = loader
        .setting("server.admin_listen", &["SERVER_ADMIN_LISTEN"])
        .doc(
            "Addresses for `/health/…` and `/metrics`, like `server.listen`, but always plain HTTP: the certificate \
             of `server.tls_certificate` applies to `server.listen` only. If given, these paths are served there and \
             nowhere else; otherwise at `server.listen`. They need no token and name no project.",
        )
        .optional(addresses(check::address));
    let limits = request_limits(loader);
    let public_url = loader
        .setting("server.public_url", &["SERVER_PUBLIC_URL"])
        .doc(
            "URL at which clients reach the proxy, for example `https://storage-proxy.example.org`, including any \
             path that a reverse proxy strips. Required with `callbacks.relay`.",
        )
        .optional(url(check::base_url));
    let relay_callbacks = loader
        .setting("callbacks.relay", &["CALLBACKS_RELAY"])
        .doc(
            "Relay callbacks to Waldur: links such as `approve_by_provider_url` point to the proxy at \
             `server.public_url`, which calls Waldur with its own token. Provisioners then need a token of the \
             Keycloak realm and none of Waldur; anyone who may read the API and has the roles of \
             `callbacks.required_roles` may decide about orders.",
        )
        .with_default("false", flag());
    let callback_roles = loader
        .setting("callbacks.required_roles", &["CALLBACKS_REQUIRED_ROLES"])
        .doc(
            "Realm or client roles, all of which a caller needs to have a callback relayed, in addition to \
             `auth.required_roles`. A list in YAML, or text with commas.",
        )
        .optional(names());
    // Port 0 is any free port.
    let is_any = |listen: &Listen| matches!(listen, Listen::Tcp(address) if address.port() == 0);
    let listen_once = listen.iter().flatten().filter(|listen| !is_any(listen));
    let mut seen = HashSet::new();
    if let Some(address) = listen_once.clone().find(|listen| !seen.insert(*listen)) {
        loader.violation("server.listen", invalid(format!("{address} is given twice"), "remove one"));
    }
    if let Ok(Some(admin)) = &admin_listen
        && let Some(address) = listen_once.clone().find(|address| admin.contains(address))
    {
        let remedy = "give another port, or leave server.admin_listen out";
        loader.violation("server.admin_listen", invalid(format!("{address} is also in server.listen"), remedy));
    }
    if relay_callbacks == Ok(true) {
        let missing = [("server.public_url", public_url == Ok(None))];
        let alternative = ", or set callbacks.relay to false";
        report_missing(loader, missing, "required when callbacks.relay is true", alternative);
    }
    let pair = [("server.tls_certificate", &tls_certificate), ("server.tls_key", &tls_key)];
    if let [(given, Ok(Some(_))), (key, Ok(None))] | [(key, Ok(None)), (given, Ok(Some(_)))] = pair {
        let remedy = format!("{}, or remove {given}", loader.how_to_set(key));
        loader.violation(key, invalid(format!("required when {given} is given"), remedy));
    }
    let (request_timeout, max_requests, max_waiting) = limits?;
    let server = Server {
        listen: listen?,
        admin_listen: admin_listen?.unwrap_or_default(),
        tls_certificate: tls_certificate?,
        tls_key: tls_key?,
        request_timeout,
        max_requests,
        max_waiting,
        public_url: public_url?,
    };
    Ok((server, relay_callbacks?, callback_roles?.unwrap_or_default()))
}

/// The other settings are errors if they are invalid.
fn dashboard(
    loader: &mut Loader<'_>,
    waldur_api: Result<&WaldurApi, &Reported>,
    auth: Result<&Auth, &Reported>,
    server: Result<&Server, &Reported>,
) -> Result<Option<Dashboard>, Reported> {
    let enabled = loader
        .setting("dashboard.enabled", &["DASHBOARD_ENABLED"])
        .doc(
            "Serve pages for operators under `/ui/`: what waits, since when, for whom and why. They are read-only. Operators sign in \
             at the Keycloak realm. With `auth.disable_auth` everybody sees them, so `server.listen` must name only addresses of \
             loopback and Unix sockets.",
        )
        .with_default("false", flag());
    let public_url = loader
        .setting("dashboard.public_url", &["DASHBOARD_PUBLIC_URL"])
        .doc(
            "URL at which browsers reach the proxy, including any path that a reverse proxy strips; by default \
             `server.public_url`. It begins with `https://`; `http://` is accepted only on loopback. The realm's client needs this \
             URL followed by `/ui/callback` as valid redirect URI.",
        )
        .optional(url(check::base_url));
    let client_id = loader
        .setting("dashboard.client_id", &["DASHBOARD_CLIENT_ID"])
        .doc(
            "Client of the realm `auth.keycloak_realm` with which operators sign in (standard flow). Required with \
             `dashboard.enabled`, unless authentication is disabled.",
        )
        .optional(text(check::plain));
    let client_secret = loader
        .setting("dashboard.client_secret", &["DASHBOARD_CLIENT_SECRET"])
        .doc(
            "Secret of that client, at least 16 characters. Required like the client. The key that encrypts the cookies of sessions \
             is derived from it: all replicas need the same one, and a new one ends all sessions.",
        )
        .optional(secret(check::session_secret));
    let required_roles = loader
        .setting("dashboard.required_roles", &["DASHBOARD_REQUIRED_ROLES"])
        .doc(
            "Realm or client roles, all of which an operator needs to see the pages; by default those of `auth.required_roles`. At \
             least one role is needed, because otherwise every user of the realm could sign in. A list in YAML, or text with commas.",
        )
        .optional(names());
    let waldur_url = loader
        .setting("dashboard.waldur_url", &["DASHBOARD_WALDUR_URL"])
        .doc("Base URL of Waldur's web interface, for links; by default the host of `waldur_api.api_url`.")
        .optional(url(check::directory_url));
    let (enabled, waldur_api, auth, server) =
        (enabled?, waldur_api.map_err(|_| Reported)?, auth.map_err(|_| Reported)?, server.map_err(|_| Reported)?);
    if !enabled {
        return Ok(None);
    }
    let waldur_url = waldur_url?.unwrap_or_else(|| check::origin(&waldur_api.api_url));
    if auth.disable_auth {
        let is_local = |listen: &&Listen| matches!(listen, Listen::Tcp(address) if !address.ip().is_loopback());
        if let Some(address) = server.listen.iter().find(is_local) {
            let what = format!(
                "auth.disable_auth is true, and server.listen contains {address}: strangers could read the pages"
            );
            let remedy = "listen only on loopback, for example 127.0.0.1:8000, or set auth.disable_auth to false";
            loader.violation("dashboard.enabled", invalid(what, remedy));
        }
        return Ok(Some(Dashboard { sign_in: None, waldur_url }));
    }
    let (client_id, client_secret) = (client_id?, client_secret?);
    let public_url = public_url?.or_else(|| server.public_url.clone());
    let required_roles = required_roles?.unwrap_or_default();
    let required_roles = if required_roles.is_empty() { auth.required_roles.clone() } else { required_roles };
    let missing = [
        ("dashboard.public_url", public_url.is_none()),
        ("dashboard.client_id", client_id.is_none()),
        ("dashboard.client_secret", client_secret.is_none()),
    ];
    let alternative = ", or set dashboard.enabled to false";
    report_missing(loader, missing, "required when dashboard.enabled is true", alternative);
    if required_roles.is_empty() {
        let remedy = loader.how_to_set("dashboard.required_roles") + ", or auth.required_roles";
        let what = "without a role, every user of the realm could read the pages";
        loader.violation("dashboard.required_roles", invalid(what, remedy));
    }
    if public_url.as_ref().is_some_and(|url| url.scheme() != "https" && !check::is_loopback(url)) {
        let what = "it begins with http:// and its host is not loopback: others on the network could read cookies";
        loader.violation("dashboard.public_url", invalid(what, "give the https:// URL that browsers use"));
    }
    let (Some(public_url), Some(client_id), Some(client_secret)) = (public_url, client_id, client_secret) else {
        return Err(Reported);
    };
    Ok(Some(Dashboard { sign_in: Some(SignIn { public_url, client_id, client_secret, required_roles }), waldur_url }))
}

fn cache(loader: &mut Loader<'_>) -> Result<Cache, Reported> {
    let max_age = loader
        .setting("cache.max_age", &["CACHE_MAX_AGE"])
        .doc(
            "Maximum age of an answer in seconds, counted from the start of the refresh that read it from Waldur. \
             With 0 nothing in an answer is older than its request; waiting requests share a refresh. `Cache-Control: \
             no-cache` in a request has the same effect.",
        )
        .with_default("5", age());
    let max_stale = loader
        .setting("cache.max_stale", &["CACHE_MAX_STALE"])
        .doc(
            "Maximum age of an answer in seconds while the upstreams cannot be read. Such an answer has the headers \
             `Age` and `Warning`. With 0 the answer is 502. If an old answer is available, a request waits at most 2 \
             s for a refresh, and not at all while the circuit breaker of Waldur is open; a request with \
             `Cache-Control: no-cache` waits for up to `server.request_timeout`.",
        )
        .with_default("0", age());
    let refresh_interval = loader
        .setting("cache.refresh_interval", &["CACHE_REFRESH_INTERVAL"])
        .doc(
            "Interval of refreshes in the background, in seconds. Must be less than `cache.max_age`, so that no \
             request waits. Without it, there are refreshes in the background only while clients wait for a change: \
             every 4 s, or every `cache.max_age` if that is less; every 15 s while events are received \
             (`waldur_api.push`) and there is no `cache.shared_url`; after a slow refresh, after ten times its duration, \
             at most 30 s. If each refresh has to read everything, the interval is `cache.max_age`.",
        )
        .optional(seconds());
    let full_interval = loader
        .setting("cache.full_interval", &["CACHE_FULL_INTERVAL"])
        .doc(
            "Interval in seconds at which a refresh reads all resources from Waldur. Those between read what changed. Such a \
             refresh cannot see new names and slugs of customers, projects, providers and offerings, projects that \
             moved, and deleted resources: these appear after this time and a quarter more at the latest, or after a reload. Refreshes go on \
             while all resources are read. With 0 every refresh reads everything.",
        )
        .with_default("600", age());
    if let (Ok(Some(interval)), Ok(max_age)) = (refresh_interval, max_age)
        && interval >= max_age
    {
        let what = format!(
            "{} s is not less than cache.max_age, which is {} s: requests would still wait",
            interval.as_secs_f64(),
            max_age.as_secs_f64()
        );
        loader.violation("cache.refresh_interval", invalid(what, "lower it, or raise cache.max_age"));
    }
    Ok(Cache {
        max_age: max_age?,
        max_stale: max_stale?,
        refresh_interval: refresh_interval?,
        full_interval: full_interval?,
    })
}

/// Reports those of the settings that are missing; `alternative` continues the remedy.
fn report_missing<const N: usize>(loader: &mut Loader<'_>, settings: [(&str, bool); N], what: &str, alternative: &str) {
    for (key, _) in settings.into_iter().filter(|(_, is_missing)| *is_missing) {
        let remedy = loader.how_to_set(key) + alternative;
        loader.violation(key, invalid(what, remedy));
    }
}

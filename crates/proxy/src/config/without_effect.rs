//! Variables that the Python proxy or its server reads and this program ignores. Setting one causes a warning.

use settings::WithoutEffect;

const PROXY: &str =
    "give WALDUR_SOCKS_PROXY, HPC_USER_SOCKS_PROXY or CSCS_KEYCLOAK_SOCKS_PROXY, which also accept http://";
const SINGLE: &str = "give the single variables, or a YAML file";
const WORKERS: &str = "one process uses all cores";
const LISTEN: &str = "give SERVER_LISTEN as ADDRESS:PORT or unix:PATH";
const TLS: &str = "give SERVER_TLS_CERTIFICATE and SERVER_TLS_KEY";
const PREFIXED: &str = "give the variable of the same name with its prefix";

/// Without `ENVIRONMENT`, `API_URL` and the like, which other programs use as well, and without `NO_PROXY`, whose absence
/// makes no difference.
pub(super) static NAMES: [WithoutEffect; 28] = [
    plain("HTTP_PROXY", PROXY),
    plain("HTTPS_PROXY", PROXY),
    plain("ALL_PROXY", PROXY),
    group("WALDUR_API"),
    group("AUTH"),
    group("HPC_USER_API"),
    group("BACKEND_SETTINGS"),
    group("SENTRY"),
    plain("DEVELOPMENT_MODE", PREFIXED),
    plain("VERIFY_SSL", PREFIXED),
    plain("SOCKS_PROXY", PREFIXED),
    plain("KEYCLOAK_URL", PREFIXED),
    plain("KEYCLOAK_REALM", PREFIXED),
    plain("KEYCLOAK_CLIENT_ID", PREFIXED),
    plain("KEYCLOAK_CLIENT_SECRET", PREFIXED),
    plain("OIDC_TOKEN_URL", PREFIXED),
    plain("DSN", PREFIXED),
    plain("WEB_CONCURRENCY", WORKERS),
    plain("UVICORN_WORKERS", WORKERS),
    plain("UVICORN_HOST", LISTEN),
    plain("UVICORN_PORT", LISTEN),
    plain("UVICORN_UDS", LISTEN),
    plain("UVICORN_ROOT_PATH", "give SERVER_PUBLIC_URL with the path"),
    plain("UVICORN_SSL_CERTFILE", TLS),
    plain("UVICORN_SSL_KEYFILE", TLS),
    plain("UVICORN_LOG_LEVEL", "give DEBUG"),
    plain("UVICORN_LIMIT_CONCURRENCY", "give SERVER_MAX_REQUESTS"),
    plain("UVICORN_ENV_FILE", "put `.env` into the working directory"),
];

const fn plain(name: &'static str, instead: &'static str) -> WithoutEffect {
    WithoutEffect { name, begins: "", instead }
}

/// A group of settings in one variable as JSON; other values belong to other programs.
const fn group(name: &'static str) -> WithoutEffect {
    WithoutEffect { name, begins: "{", instead: SINGLE }
}

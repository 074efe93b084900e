//! Variables that meant something to the Python proxy and mean nothing here: whoever set one waits for what it does.

use ::settings::WithoutEffect;

const PROXY: &str =
    "give WALDUR_SOCKS_PROXY, HPC_USER_SOCKS_PROXY or CSCS_KEYCLOAK_SOCKS_PROXY, which take http:// too";
const SINGLE: &str = "give the single variables, or a YAML file";
const PREFIXED: &str = "give the variable of the same name with its prefix";

/// `ENVIRONMENT`, `API_URL` and the like are left out, since they are there for others as well; `NO_PROXY` too, since nothing
/// goes through a proxy for want of it.
pub(super) static NAMES: [WithoutEffect; 17] = [
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
];

const fn plain(name: &'static str, instead: &'static str) -> WithoutEffect {
    WithoutEffect { name, begins: "", instead }
}

/// A group of settings in one variable, which counts as one only if it is JSON.
const fn group(name: &'static str) -> WithoutEffect {
    WithoutEffect { name, begins: "{", instead: SINGLE }
}

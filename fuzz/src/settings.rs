//! Settings: `.env`, the YAML file and environment variables, separated by `%`.
//!
//! Loading returns valid settings or all errors, and never shows a secret.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::sync::LazyLock;

use proxy::config::{Environment, Loaded, Overrides, Problems, load};
use tempfile::TempDir;

/// The directory of the files. It is in memory, because the fuzzer writes them a thousand times a second.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new_in("/dev/shm").expect("a folder"));

const CONFIG: &str = "settings.yaml";

/// The value of every secret below, in the format of Waldur's tokens.
const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

/// Loads the settings, and checks that nothing that is shown contains a secret.
pub fn check(data: &[u8]) {
    let shown = match load_from(data) {
        Ok(loaded) => {
            let settings = &loaded.settings;
            assert!(!settings.storage_systems.is_empty() && !settings.server.listen.is_empty());
            assert!(!settings.server.request_timeout.is_zero() && settings.server.max_requests > 0);
            assert!(!settings.waldur_api.timeout.is_zero() && settings.waldur_api.pages_at_once > 0);
            let rows: Vec<_> = loaded.report().map(|(key, value, source)| format!("{key} {value} {source}")).collect();
            let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            format!("{rows:?} {warnings:?} {loaded:?}")
        }
        Err(problems) => format!("{problems} {problems:?}"),
    };
    // Text from the input may be shown; the secrets in the environment may not.
    let is_in_input = data.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(is_in_input || !shown.contains(SECRET), "{shown}");
}

/// Loads the settings from the input.
pub fn load_from(data: &[u8]) -> Result<Loaded, Problems> {
    let overrides = Overrides { config: Some(FOLDER.path().join(CONFIG)), ..Overrides::default() };
    load(&environment(data), &overrides)
}

/// The input, with secrets and the other settings that are required.
fn environment(data: &[u8]) -> Environment {
    let mut parts = data.split(|byte| *byte == b'%');
    let mut part = || parts.next().unwrap_or_default();
    for name in [".env", CONFIG] {
        fs::write(FOLDER.path().join(name), part()).expect("a file");
    }
    let variables = part().split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&line[..at]), text(&line[at + 1..])))
    });
    let minimal = [
        ("WALDUR_API_URL", "https://waldur.example.org/api/"),
        ("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#),
        ("HPC_USER_DEVELOPMENT_MODE", "true"),
        ("CSCS_KEYCLOAK_URL", "https://idp.example.org/auth/"),
        ("CSCS_KEYCLOAK_REALM", "cscs"),
    ];
    let minimal = minimal.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let secrets = ["WALDUR_API_TOKEN", "HPC_USER_CLIENT_SECRET", "CSCS_KEYCLOAK_CLIENT_SECRET"];
    let secrets = secrets.map(|name| (OsString::from(name), OsString::from(SECRET)));
    // The input may change the minimum, but not the secrets.
    Environment::new(FOLDER.path(), minimal.into_iter().chain(variables).chain(secrets))
}

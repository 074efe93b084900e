//! Changing settings and secrets while the program runs.

use std::fs;
use std::path::PathBuf;

use simulator::{Fault, PROVIDER_TOKEN, Simulator, World};
use tempfile::TempDir;

use crate::program::{Program, settings, token};

const VAST: &str = "/api/storage-resources/?storage_system=vast";

/// A YAML file, and the settings without those in the file.
fn with_file(simulator: &Simulator, text: &str) -> (TempDir, PathBuf, Vec<(&'static str, String)>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    fs::write(&path, text).unwrap();
    let mut settings = settings(simulator);
    settings.retain(|(name, _)| !["STORAGE_SYSTEMS", "LOG_FORMAT"].contains(name));
    settings.push(("WALDUR_CSCS_STORAGE_PROXY_CONFIG_PATH", path.display().to_string()));
    (directory, path, settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_applies_changes_and_logs_them() {
    let simulator = Simulator::start(World::demo()).await;
    let (_directory, path, settings) =
        with_file(&simulator, "storage_systems: {capstor: capstor}\nlog: {format: json}\n");
    let mut program = Program::serve(&settings);
    let caller = token(&simulator);
    assert_eq!(program.get(VAST, &caller).await.status(), 422);

    fs::write(&path, "storage_systems: {capstor: capstor, vast: vast}\nlog: {format: human}\n").unwrap();
    program.signal("HUP");
    program.wait_for("storage_systems = capstor: capstor, vast: vast");
    let later = program.wait_for("this changed setting takes effect after a restart");
    assert!(later.contains("log.format"), "{later}");
    program.wait_for("the settings are in force");
    let answer = program.get(VAST, &caller).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("/vast/"));
    let ended = program.stop();
    assert_eq!(ended.status.code(), Some(0));
    // The format of the log has not changed.
    assert!(!ended.json().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_with_an_invalid_setting_changes_nothing() {
    let simulator = Simulator::start(World::demo()).await;
    let good = "storage_systems: {capstor: capstor, vast: vast}\nlog: {format: json}\n";
    let (_directory, path, settings) = with_file(&simulator, good);
    let mut program = Program::serve(&settings);
    let caller = token(&simulator);
    // One valid change, two invalid ones.
    fs::write(&path, "storage_systems: {capstor: capstor}\ncache: {max_stale: -1}\nserver: {max_requests: 0}\n")
        .unwrap();
    program.signal("HUP");
    for key in ["server.max_requests", "cache.max_stale"] {
        let line = program.wait_for(key);
        assert!(line.contains("invalid change, the old settings stay in force"), "{line}");
        assert!(line.contains("settings.yaml line"), "{line}");
    }
    assert_eq!(program.get(VAST, &caller).await.status(), 200);
    // Not YAML.
    fs::write(&path, "a: [").unwrap();
    program.signal("HUP");
    program.wait_for("invalid change");
    assert_eq!(program.get(VAST, &caller).await.status(), 200);
    // It still handles the signal.
    fs::write(&path, good).unwrap();
    program.signal("HUP");
    program.wait_for("the settings are in force");
    assert_eq!(program.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_file_is_reloaded() {
    let simulator = Simulator::start(World::demo()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let revoked = "f".repeat(40);
    fs::write(&path, &revoked).unwrap();
    let mut settings = settings(&simulator);
    settings.retain(|(name, _)| *name != "WALDUR_API_TOKEN");
    settings.push(("WALDUR_API_TOKEN_FILE", path.display().to_string()));
    let mut program = Program::serve(&settings);
    let caller = token(&simulator);
    assert_eq!(program.get(VAST, &caller).await.status(), 502);

    fs::write(&path, format!("{PROVIDER_TOKEN}\n")).unwrap();
    program.wait_for("a file with a secret has changed");
    program.wait_for("the settings are in force");
    assert_eq!(program.get(VAST, &caller).await.status(), 200);
    // A file without a valid token changes nothing, and its content is not shown.
    fs::write(&path, "hunter2").unwrap();
    let line = program.wait_for("invalid change");
    assert!(line.contains("waldur_api.access_token"), "{line}");
    assert_eq!(program.get(VAST, &caller).await.status(), 200);
    let log = program.stop().log.join("\n");
    for secret in [revoked.as_str(), PROVIDER_TOKEN, "hunter2"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_removed_settings_disappear_and_ages_keep_growing() {
    let simulator = Simulator::start(World::demo()).await;
    // Nothing listens at port 1.
    let both = "storage_systems: {capstor: capstor, vast: vast}\nlog: {format: json}\ncache: {shared_url: redis://127.0.0.1:1}\n";
    let (_directory, path, settings) = with_file(&simulator, both);
    let mut program = Program::serve(&settings);
    let caller = token(&simulator);
    assert_eq!(program.get(VAST, &caller).await.status(), 200);
    let before = program.get("/metrics", &caller).await.text().await.unwrap();
    assert!(
        before.contains("storage_system=\"vast\"") && before.contains("\nhpc_storage_proxy_shared_cache_up 0\n"),
        "{before}"
    );

    fs::write(&path, "storage_systems: {capstor: capstor}\nlog: {format: json}\n").unwrap();
    program.signal("HUP");
    program.wait_for("the settings are in force");
    let after = program.get("/metrics", &caller).await.text().await.unwrap();
    assert!(after.contains("storage_system=\"capstor\""), "{after}");
    for gone in ["storage_system=\"vast\"", "hpc_storage_proxy_shared_cache_up"] {
        assert!(!after.contains(gone), "{gone} in {after}");
    }

    // Changed settings for which the refresh fails: the last age keeps growing.
    simulator.set_fault("GET /api/*", Fault::status(500));
    simulator.set_fault("GET /auth/*", Fault::status(500));
    fs::write(&path, "storage_systems: {vast: vast}\nlog: {format: json}\nauth: {keycloak_client_id: other}\n")
        .unwrap();
    program.signal("HUP");
    program.wait_for("which take effect anyway");
    program.wait_for("the settings are in force");
    let mut ages = Vec::new();
    for _ in 0..2 {
        let text = program.get("/metrics", &caller).await.text().await.unwrap();
        assert!(!text.contains("hpc_storage_proxy_items{"), "there is no snapshot: {text}");
        ages.push(["hpc_storage_proxy_snapshot_age_seconds ", "hpc_storage_proxy_keys_age_seconds "].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap()
        }));
    }
    for (earlier, later) in ages[0].iter().zip(ages[1]) {
        assert!(0.0 < *earlier && *earlier < later, "{ages:?}");
    }
}

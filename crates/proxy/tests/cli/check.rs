//! `check`.

use serde_json::Value;
use simulator::{Client, Fault, PROVIDER_TOKEN, World};

use crate::site::{Ended, SECRET, Site};

/// Outcome and subject of each finding.
fn lines(ended: &Ended) -> Vec<(&str, &str)> {
    let findings = ended.stdout.lines().filter(|line| !line.starts_with(' '));
    findings.map(|line| (line[..7].trim_end(), line[9..].split(": ").next().unwrap())).collect()
}

/// The finding that starts with this text, with its remedy on the next line.
fn line<'a>(ended: &'a Ended, start: &str) -> &'a str {
    let at = ended.stdout.find(start).unwrap_or_else(|| panic!("no `{start}`: {ended:?}"));
    let rest = &ended.stdout[at..];
    let end = rest.match_indices('\n').find(|(at, _)| !rest[at + 1..].starts_with("         → ")).map(|(at, _)| at);
    &rest[..end.unwrap()]
}

#[test]
fn all_checks_of_a_valid_setup_are_ok() {
    let ended = Site::golden("plain").run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = [
        ("ok", "settings"),
        ("ok", "Waldur"),
        ("ok", "offering capstor"),
        ("ok", "offering vast"),
        ("ok", "offering iopsstor"),
        ("warning", "quotas"),
        ("ok", "callbacks"),
        ("ok", "machine token"),
        ("ok", "HPC User API"),
        ("ok", "Keycloak"),
    ];
    assert_eq!(lines(&ended), expected);
    // Options of this world pin hard quotas below their limits.
    let quotas = line(&ended, "warning  quotas");
    assert!(quotas.contains("with pinned_by_option; the first, ") && quotas.contains("change or clear"), "{quotas}");
    assert_eq!(ended.stderr, "");
    let rows = crate::site::golden("plain", "upstream.json");
    for slug in ["capstor", "vast", "iopsstor"] {
        let of_slug = |row: &&Value| row["offering_slug"] == slug;
        let count = rows["marketplace_resources"].as_array().unwrap().iter().filter(of_slug).count();
        assert_eq!(
            line(&ended, &format!("ok       offering {slug}")),
            format!("ok       offering {slug}: {count} resources")
        );
    }
    assert!(line(&ended, "ok       Keycloak").contains("(RS256)"), "{ended:?}");
}

#[test]
fn sign_in_to_the_dashboard_is_checked() {
    let site = |secret: &str, url: &str| {
        Site::golden("plain")
            .with("DASHBOARD_ENABLED", "true")
            .with("DASHBOARD_PUBLIC_URL", url)
            .with("DASHBOARD_CLIENT_ID", "storage-dashboard")
            .with("DASHBOARD_CLIENT_SECRET", secret)
            .with("DASHBOARD_REQUIRED_ROLES", "storage-reader")
    };
    let (secret, url) = ("dashboard-secret-0123456789", "https://storage.example.org/below/");
    let ended = site(secret, url).run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    line(&ended, "ok       dashboard: the realm accepts the client and the redirect URI");
    let ended = site("not-the-secret-0123456789", url).run(&["check"]);
    let found = line(&ended, "FAILED   dashboard");
    assert!(found.contains("unauthorized_client") && found.contains("DASHBOARD_CLIENT_SECRET"), "{found}");
    let strict = site(secret, url);
    let only = Client::new("storage-dashboard", secret).redirect_uri("https://storage.example.org/ui/callback");
    strict.simulator.realm().register(only);
    let ended = strict.run(&["check"]);
    let found = line(&ended, "FAILED   dashboard");
    assert!(found.contains("https://storage.example.org/below/ui/callback"), "{found}");
    assert_eq!(ended.code, Some(1));
    let away = site(secret, url);
    away.simulator.set_fault("*/protocol/openid-connect/token", Fault::status(503));
    let ended = away.run(&["check"]);
    assert!(line(&ended, "FAILED   dashboard").contains("503"), "{ended:?}");
    assert!(!ended.stdout.contains(secret), "{ended:?}");
}

#[test]
fn all_checks_run_despite_failures_and_none_shows_a_secret() {
    let token = "1".repeat(40);
    let site = Site::golden("plain")
        .with("WALDUR_API_TOKEN", &token)
        .with("HPC_USER_CLIENT_SECRET", "not-the-secret")
        .with("CSCS_KEYCLOAK_REALM", "elsewhere");
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let expected = [
        ("ok", "settings"),
        ("FAILED", "Waldur"),
        ("warning", "offerings"),
        ("FAILED", "machine token"),
        ("warning", "HPC User API"),
        ("warning", "resources"),
        ("FAILED", "Keycloak"),
    ];
    assert_eq!(lines(&ended), expected);
    for (step, reason) in [
        ("offerings", "Waldur could not be read"),
        ("HPC User API", "there is no machine token"),
        ("resources", "Waldur could not be read"),
    ] {
        let finding = format!("warning  {step}: not checked: {reason}");
        assert_eq!(line(&ended, &finding), finding);
    }
    assert!(line(&ended, "FAILED   Waldur").contains("check WALDUR_API_TOKEN"), "{ended:?}");
    assert!(line(&ended, "FAILED   machine token").contains("check HPC_USER_CLIENT_ID"), "{ended:?}");
    assert!(line(&ended, "FAILED   Keycloak").contains("check auth.keycloak_url and auth.keycloak_realm"), "{ended:?}");
    let all = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!all.contains(&token) && !all.contains("not-the-secret"), "{all}");
}

#[test]
fn an_unreachable_upstream_is_reported_with_its_setting() {
    let mut site = Site::golden("plain");
    site.simulator.stop();
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (check, key) in [
        ("Waldur", "waldur_api.api_url"),
        ("machine token", "hpc_user_api.oidc_token_url"),
        ("Keycloak", "auth.keycloak_url"),
    ] {
        let line = line(&ended, &format!("FAILED   {check}"));
        assert!(line.contains("cannot connect") && line.contains(&format!("check {key}")), "{line}");
    }
}

#[test]
fn plain_http_behind_https_and_a_wrong_ca_bundle_are_reported() {
    let site = Site::golden("plain");
    let url = format!("{}/api", site.simulator.base_url()).replace("http://", "https://");
    let ended = site.with("WALDUR_API_URL", url).run(&["check"]);
    let line = line(&ended, "FAILED   Waldur");
    assert!(line.contains("the server seems to use plain HTTP") && line.contains("waldur_api.api_url"), "{line}");
    let ended = Site::golden("plain").with("SSL_CERT_FILE", "/nowhere.pem").run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("SSL_CERT_FILE"), "{ended:?}");
}

#[test]
fn an_unknown_offering_fails_but_an_empty_one_does_not() {
    let mut world = World::demo();
    let provider = *world.providers.keys().next().unwrap();
    world.add_offering(provider, "bare", "Nothing yet", simulator::world::OfferingType::Slurm);
    let site = Site::new(world).with("STORAGE_SYSTEMS", r#"{"vast": "vast", "new": "bare", "lost": "nowhere"}"#);
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(line(&ended, "ok       offering bare"), "ok       offering bare (of new): 0 resources");
    let lost = line(&ended, "FAILED   offering nowhere (of lost)");
    assert!(lost.contains("check storage_systems"), "{lost}");
    assert!(line(&ended, "warning  settings").contains("system_identifier"), "{ended:?}");
    assert!(line(&ended, "warning  resources").contains("limits.storage"), "{ended:?}");
}

#[test]
fn an_outdated_waldur_fails() {
    let mut world = World::demo();
    world.release = simulator::world::Release::V7_0;
    let ended = Site::new(world).run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let old = line(&ended, "FAILED   Waldur release");
    assert!(old.contains("`offering_slug`") && old.contains("update Waldur to 7.8.3 or newer"), "{old}");
}

#[test]
fn a_token_without_permission_to_approve_orders_is_found_without_changing_anything() {
    let token = |site: &Site, name: &str| site.simulator.world(|world| world.token(name)).unwrap();
    let site = Site::new(World::demo());
    let owner = site.run(&["check"]);
    assert!(line(&owner, "ok       callbacks").contains("storage-proxy may approve orders"), "{owner:?}");
    let manager = token(&site, "capstor-manager");
    let site = site.with("WALDUR_API_TOKEN", manager).with("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#);
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(0), "the proxy itself does not need it: {ended:?}");
    let finding = line(&ended, "warning  callbacks");
    assert!(finding.contains("capstor-manager sees the orders of capstor but may not approve"), "{finding}");
    assert!(finding.contains("the token of an owner (CUSTOMER.OWNER)"), "{finding}");
    // It is a failure if the proxy sends callbacks with this token.
    let site = site.with("CALLBACKS_RELAY", "true").with("SERVER_PUBLIC_URL", "http://proxy.example.org");
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(line(&ended, "FAILED   callbacks").contains("403"), "{ended:?}");
    // If Waldur does not say it, the finding says what to test.
    site.simulator.set_fault("GET /api/users/me/", Fault::status(404));
    let unknown = site.run(&["check"]);
    let finding = line(&unknown, "warning  callbacks");
    assert!(finding.contains("it is unknown") && finding.contains("test it"), "{finding}");
    assert!(
        site.simulator.requests().iter().all(|request| request.method == "GET" || !request.path.starts_with("/api/"))
    );
}

#[test]
fn resources_that_will_be_skipped_are_counted_and_named() {
    let site = Site::new(World::demo());
    let skipped = site.run(&["list", "--json"]).json()["skipped"].as_array().unwrap().len();
    let all = site.simulator.world(|world| world.projects.len());
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let gids = line(&ended, "warning  HPC User API");
    let finding = gids.strip_prefix("warning  HPC User API: ").unwrap().split_once(" projects, ").unwrap();
    assert!(finding.0.parse::<usize>().unwrap() <= all, "{gids}");
    assert_eq!(finding.1, "2 without a GID: inst-delta-p2, mch-p2\n         → have the GIDs assigned there");
    let resources = line(&ended, "warning  resources");
    assert!(resources.contains(&format!(": {skipped} of ")) && resources.contains("limits.storage"), "{resources}");
    // If the API cannot be read, no projects are reported.
    let ended = site.with("HPC_USER_CLIENT_SECRET", "wrong").run(&["check"]);
    assert!(!ended.stdout.contains("without a GID"), "{ended:?}");
    let resources = line(&ended, "warning  resources");
    assert!(resources.contains(": 1 of ") && resources.contains("missing GIDs are not counted"), "{resources}");
    let ended = Site::golden("plain").with("HPC_USER_CLIENT_SECRET", "wrong").run(&["check"]);
    line(&ended, "warning  GIDs of the projects: not checked: the HPC User API could not be read");
}

#[test]
fn the_resources_of_all_offerings_add_up_including_malformed_ones() {
    let site = Site::new(World::demo());
    let ended = site.run(&["check"]);
    let number = |text: &str| text.split_whitespace().next().unwrap().parse::<usize>().unwrap();
    let counts = ended.stdout.lines().filter_map(|line| line.strip_prefix("ok       offering "));
    let counts: Vec<_> = counts.map(|line| line.split_once(": ").unwrap().1).collect();
    assert!(counts.iter().any(|count| count.ends_with(" resources, 1 of them malformed")), "{ended:?}");
    let all = line(&ended, "warning  resources").split_once(" of ").unwrap().1;
    assert_eq!(counts.iter().map(|count| number(count)).sum::<usize>(), number(all), "{ended:?}");
}

#[test]
fn development_mode_without_the_hpc_user_api_is_a_warning() {
    let site = Site::golden("plain")
        .without(&["HPC_USER_API_URL", "HPC_USER_CLIENT_ID", "HPC_USER_CLIENT_SECRET", "HPC_USER_OIDC_TOKEN_URL"])
        .with("HPC_USER_DEVELOPMENT_MODE", "true")
        .with("DISABLE_AUTH", "true")
        .with("WALDUR_VERIFY_SSL", "false");
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(line(&ended, "warning  HPC User API").contains("hpc_user_api.api_url (HPC_USER_API_URL) is missing"));
    line(&ended, "warning  settings: hpc_user_api.development_mode");
    line(&ended, "warning  settings: auth.disable_auth");
    line(&ended, "warning  settings: waldur_api.verify_ssl");
    line(&ended, "warning  Keycloak: not checked");
    let asked = site.simulator.requests();
    assert!(asked.iter().all(|request| request.path.starts_with("/api/")), "only Waldur is contacted");
}

#[test]
fn a_realm_without_keys_and_an_api_without_an_export_fail() {
    let site = Site::golden("plain");
    let no_keys = Fault::Answer { status: 200, headers: Vec::new(), body: String::from(r#"{"keys": []}"#) };
    site.simulator.set_fault("GET */certs", no_keys);
    site.simulator.set_fault("GET /hpc/*", Fault::status(404));
    let ended = site.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(line(&ended, "FAILED   Keycloak").contains("every token is rejected"));
    assert!(line(&ended, "FAILED   HPC User API").contains("check HPC_USER_API_URL"));
    line(&ended, "ok       machine token");
    line(&ended, "ok       Waldur");
}

#[test]
fn json_output_is_one_document() {
    let site = Site::golden("plain").with("CSCS_KEYCLOAK_REALM", "elsewhere");
    let ended = site.run(&["check", "--json"]);
    assert_eq!(ended.code, Some(1));
    let report = ended.json();
    assert_eq!(report["ok"], false);
    let outcomes: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| check["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ok", "ok", "ok", "ok", "ok", "warning", "ok", "ok", "ok", "failed"]);
    let keycloak = &report["checks"][9];
    assert_eq!(keycloak["check"], "Keycloak");
    assert!(keycloak["detail"].as_str().unwrap().contains("404"));
    let remedy = keycloak["remedy"].as_str().unwrap();
    assert!(remedy.contains("auth.keycloak_realm") && remedy.contains("case-sensitive"), "{remedy}");
    assert!(!ended.stdout.contains(PROVIDER_TOKEN) && !ended.stdout.contains(SECRET));
}

#[test]
fn an_unreachable_shared_cache_is_a_warning_without_its_password() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("redis://:{SECRET}@{unused}/0");
    let ended = Site::golden("plain").with("CACHE_SHARED_URL", &url).run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(line(&ended, "warning  shared cache").contains("check cache.shared_url"), "{ended:?}");
    assert!(!ended.stdout.contains(SECRET) && ended.stderr.is_empty(), "{ended:?}");
    let ended = Site::golden("plain").with("CACHE_SHARED_URL", &url).run(&["config"]);
    assert!(
        ended.stdout.contains(&format!("redis://********@{unused}/0")) && !ended.stdout.contains(SECRET),
        "{ended:?}"
    );
}

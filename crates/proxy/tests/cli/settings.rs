//! `config`, invalid settings, and the commands that need no settings.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use simulator::{PROVIDER_TOKEN, World};

use crate::site::{SECRET, Site};

#[test]
fn config_shows_the_settings_in_force_without_secrets() {
    let site = Site::new(World::empty()).with("WALDUR_API_TOKN", "1");
    let ended = site.run(&["config"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let row = |key: &str| ended.stdout.lines().find(|line| line.starts_with(key)).unwrap();
    let realm: Vec<_> = row("auth.keycloak_realm").split_whitespace().collect();
    assert_eq!(realm, ["auth.keycloak_realm", "cscs", "environment", "variable", "CSCS_KEYCLOAK_REALM"]);
    assert!(row("server.listen").ends_with("default"));
    assert!(row("hpc_user_api.client_secret").contains("********"));
    assert!(ended.stderr.contains("WALDUR_API_TOKN") && ended.stderr.contains("did you mean"), "{}", ended.stderr);

    let json = site.run(&["config", "--json"]);
    let document = json.json();
    let row = |key: &str| document["settings"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap();
    assert_eq!(row("auth.keycloak_realm")["value"], "cscs");
    assert_eq!(row("sentry.dsn")["value"], Value::Null);
    assert_eq!(row("sentry.dsn")["source"], "default");
    assert_eq!(document["warnings"].as_array().unwrap().len(), 1);
    for text in [ended.stdout, ended.stderr, json.stdout, json.stderr] {
        assert!(!text.contains(PROVIDER_TOKEN) && !text.contains(SECRET), "{text}");
    }
}

#[test]
fn a_settings_file_must_be_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let site = Site::new(World::empty());
    for path in [pipe.to_str().unwrap(), "/dev/zero", directory.path().to_str().unwrap()] {
        let ended = site.run(&["config", "--config", path]);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.stderr.contains(&format!("{path} cannot be read (not a regular file)")), "{}", ended.stderr);
    }
}

#[test]
fn every_command_reports_all_problems_and_does_nothing() {
    let site = Site::new(World::empty())
        .without(&["STORAGE_SYSTEMS"])
        .with("WALDUR_API_URL", "ftp://waldur.example.org")
        .with("INODE_HARD_COEFFICIENT", "0.5");
    // A port in use: an attempt to bind it would be reported.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--listen", &address];
    for arguments in [&serve[..], &["check"], &["list"], &["tree"], &["config"], &["config", "--json"]] {
        let ended = site.run(arguments);
        assert_eq!(ended.code, Some(78), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        for key in ["storage_systems", "waldur_api.api_url", "backend_settings.inode_hard_coefficient"] {
            assert!(ended.stderr.contains(&format!("  - {key}")), "{arguments:?}: {}", ended.stderr);
        }
        assert!(ended.stderr.contains("3 errors") && ended.stderr.lines().count() == 5, "{}", ended.stderr);
    }
    let ended = site.run(&["check", "--json"]);
    assert_eq!(ended.code, Some(78));
    // The last one is the hint that no settings file was given.
    assert_eq!(ended.json()["checks"].as_array().unwrap().len(), 4);
    assert_eq!(ended.json()["ok"], false);
    assert_eq!(site.simulator.requests().len(), 0);
}

#[test]
fn an_invalid_certificate_fails_serve_check_and_config() {
    let files = tempfile::tempdir().unwrap();
    let [one, other] = [(), ()].map(|()| rcgen::generate_simple_self_signed(["localhost".into()]).unwrap());
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, lost, yaml) = (path("tls.crt"), path("tls.key"), path("lost.crt"), path("settings.yaml"));
    std::fs::write(&certificate, one.cert.pem()).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    std::fs::write(&yaml, format!("server:\n  tls_certificate: {certificate}\n")).unwrap();
    let commands = [&["check"][..], &["check", "--json"], &["config"], &["serve", "--listen", "127.0.0.1:0"]];
    let site = Site::new(World::empty()).with("SERVER_TLS_KEY", &key);
    let assert_reported = |site: &Site, problem: &str, source: &str| {
        for command in commands {
            let ended = site.run(&[command, &["--config", &yaml]].concat());
            assert_eq!(ended.code, Some(78), "{command:?}: {ended:?}");
            let all = format!("{}{}", ended.stdout, ended.stderr);
            assert!(all.contains(problem) && all.contains(source), "{command:?}: {all}");
        }
    };
    assert_reported(
        &site,
        "is not the key of the certificate in",
        "server.tls_key (environment variable SERVER_TLS_KEY)",
    );
    std::fs::write(&key, "nothing").unwrap();
    assert_reported(&site, "contains no PEM private key", "server.tls_key (environment variable SERVER_TLS_KEY)");
    std::fs::write(&certificate, "nothing").unwrap();
    assert_reported(&site, "contains no PEM certificate", "server.tls_certificate (");
    assert_reported(&site, "contains no PEM certificate", "settings.yaml line 2)");
    let site = site.with("SERVER_TLS_CERTIFICATE", &lost);
    assert_reported(&site, "no such file", "server.tls_certificate (environment variable SERVER_TLS_CERTIFICATE)");
    assert_eq!(site.simulator.requests().len(), 0);

    std::fs::write(&key, one.signing_key.serialize_pem()).unwrap();
    std::fs::write(&lost, one.cert.pem()).unwrap();
    assert_eq!(site.run(&["config", "--config", &yaml]).code, Some(0));
}

#[test]
fn a_misspelt_name_is_reported_together_with_the_missing_setting() {
    let site = Site::new(World::empty()).without(&["WALDUR_API_TOKEN"]).with("WALDUR_API_TOKN", PROVIDER_TOKEN);
    for arguments in [&["serve"][..], &["check"], &["config"], &["check", "--json"]] {
        let ended = site.run(arguments);
        assert_eq!(ended.code, Some(78), "{arguments:?}: {ended:?}");
        let all = format!("{}{}", ended.stdout, ended.stderr);
        assert!(all.contains("WALDUR_API_TOKN") && all.contains("did you mean `WALDUR_API_TOKEN`?"), "{all}");
        assert!(!all.contains(PROVIDER_TOKEN), "{all}");
    }
    let outcomes: Vec<_> = site.run(&["check", "--json"]).json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["outcome"].as_str().unwrap().to_owned())
        .collect();
    // The second warning is the hint that no settings file was given.
    assert_eq!(outcomes, ["failed", "warning", "warning"]);
}

#[test]
fn variables_of_the_python_proxy_without_effect_are_reported() {
    let site = Site::new(World::empty())
        .with("https_proxy", "http://user:hunter2@proxy:3128")
        .with("AUTH", r#"{"disable_auth": true}"#)
        .with("SENTRY", "elsewhere")
        .with("VERIFY_SSL", "false")
        .with("UVICORN_PORT", "8080")
        .with("WEB_CONCURRENCY", "4")
        .with("ALL_PROXY", "");
    for command in ["check", "config"] {
        let ended = site.run(&[command]);
        let all = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(all.matches("has no effect").count(), 5, "{all}");
        let warning = "`HTTPS_PROXY` (environment variable https_proxy) has no effect; give WALDUR_SOCKS_PROXY";
        assert!(all.contains(warning) && all.contains("`AUTH`") && all.contains("`VERIFY_SSL`"), "{all}");
        assert!(
            all.contains("`UVICORN_PORT`") && all.contains("give SERVER_LISTEN") && all.contains("`WEB_CONCURRENCY`")
        );
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn an_invalid_address_is_reported_with_a_valid_example() {
    let site = Site::new(World::empty());
    for text in ["localhost:8102", "8000", ""] {
        let ended = site.run(&["serve", "--listen", text]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        let expected =
            format!("`{text}` is not an address with a port; give one such as 127.0.0.1:8000 or [::]:8000, not a name");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}

#[test]
fn a_port_in_use_is_reported_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (format, errors) in [("human", 0), ("json", 1)] {
        let ended = Site::new(World::empty()).with("LOG_FORMAT", format).run(&["serve", "--listen", &address]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        let expected = format!("cannot listen on {address}");
        assert!(ended.stderr.starts_with(&format!("hpc-storage-proxy: {expected}")), "{}", ended.stderr);
        // With a JSON log the error is in the log as well.
        let lines: Vec<Value> = ended.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let error =
            |line: &&Value| line["level"] == "ERROR" && line["message"].as_str().unwrap().starts_with(&expected);
        assert_eq!(lines.iter().filter(error).count(), errors, "{}", ended.stdout);
    }
}

#[test]
fn help_version_openapi_and_completions_need_no_settings() {
    let site = Site::new(World::empty()).without(&["STORAGE_SYSTEMS", "WALDUR_API_URL"]);
    for command in ["serve", "check", "list", "tree", "config", "openapi", "completions", "man"] {
        let ended = site.run(&[command, "--help"]);
        assert_eq!(ended.code, Some(0), "{command}");
        assert!(ended.stdout.contains(&format!("Examples:\n  hpc-storage-proxy {command}")), "{}", ended.stdout);
    }
    let version = site.run(&["--version"]);
    assert_eq!(version.stdout, format!("hpc-storage-proxy {}\n", env!("CARGO_PKG_VERSION")));
    let document = site.run(&["openapi"]);
    assert_eq!((document.code, document.json()["openapi"].as_str()), (Some(0), Some("3.1.0")));
    for shell in ["bash", "zsh", "fish"] {
        let ended = site.run(&["completions", shell]);
        assert!(ended.code == Some(0) && ended.stdout.contains("storage-system"), "{shell}: {}", ended.stderr);
    }
    assert_eq!(site.run(&["lisst"]).code, Some(2));
}

#[test]
fn manual_pages_are_written_to_the_given_folder() {
    let site = Site::new(World::empty()).without(&["STORAGE_SYSTEMS", "WALDUR_API_URL"]);
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    let ended = site.run(&["man", pages.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stdout, ended.stderr), (Some(0), String::new(), String::new()));
    let main = std::fs::read_to_string(pages.join("hpc-storage-proxy.1")).unwrap();
    assert!(main.contains("WALDUR_API_TOKEN") && pages.join("hpc-storage-proxy-serve.1").exists(), "{main}");

    let in_the_way = pages.join("hpc-storage-proxy.1");
    let ended = site.run(&["man", in_the_way.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot write the manual pages to"), "{}", ended.stderr);
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
fn bash_completes_options_and_values_of_a_subcommand() {
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("SKIPPED: bash is not installed");
        return;
    }
    let script = Site::new(World::empty()).run(&["completions", "bash"]).stdout;
    let complete = |words: &[&str]| {
        let words: Vec<_> = ["hpc-storage-proxy"].iter().chain(words).map(|word| format!("'{word}'")).collect();
        let (last, before) = (words.len() - 1, words.len() - 2);
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={last}\n\
             _hpc__storage__proxy hpc-storage-proxy \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{before}]}}\"\n\
             echo \"${{COMPREPLY[*]}}\"",
            words.join(" ")
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["li"]), "list");
    assert_eq!(complete(&["list", "--st"]), "--storage-system --status --state");
    assert_eq!(complete(&["list", "--status", ""]), "pending active removing removed error updating unknown");
    assert_eq!(complete(&["completions", "z"]), "zsh");
    assert_eq!(complete(&["serve", "--li"]), "--listen");
}

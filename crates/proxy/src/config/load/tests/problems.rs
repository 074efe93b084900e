//! Invalid settings: every problem has a source and a remedy.

use super::*;

#[test]
fn a_file_that_is_not_a_mapping_is_reported_by_line() {
    assert_eq!(
        Site::minimal().yaml("a: 1\nb: [hunter2\n").problems(),
        ["YAML file (config.yaml line 2): not valid YAML, at column 4; correct it"]
    );
    assert_eq!(
        Site::minimal().yaml("- 1\n").problems(),
        ["YAML file (config.yaml line 1): not a mapping; write `key: value` lines, as in the settings reference"]
    );
    for nothing in ["", "# only a comment\n", "null", "auth:\nhpc_user_api: ~\ndebug:\n"] {
        assert!(Site::minimal().yaml(nothing).load().is_ok(), "{nothing}");
    }
    let mut site = Site::minimal();
    site.overrides.config = Some(site.directory.path().to_owned());
    assert_eq!(site.problems().len(), 1);
    let site = Site::minimal().yaml("");
    fs::write(site.directory.path().join("config.yaml"), [0xff, 0xfe]).unwrap();
    assert_eq!(site.problems(), ["YAML file (config.yaml): not valid UTF-8; save it as UTF-8"]);
}

#[test]
fn settings_are_not_missing_if_the_file_is_unreadable() {
    let mut site = Site::empty().set("SERVER_LISTEN", "localhost:80").set("INODE_HARD_COEFFICIENT", "1");
    site.overrides.config = Some(PathBuf::from("lost.yaml"));
    let listen = "server.listen (environment variable SERVER_LISTEN): `localhost:80` is not an address with a port; give \
                  one such as 127.0.0.1:8000 or [::]:8000, not a name, or unix:/path/of/a/socket";
    let lost = "YAML file (command line --config): lost.yaml cannot be read (no such file); correct the path, or make it \
                readable";
    assert_eq!(site.problems(), [lost, listen]);
    let site = site.yaml("a: [");
    assert_eq!(site.problems().len(), 2, "{:?}", site.problems());
    let site = site.yaml("debug: true");
    assert!(site.problems().iter().any(|problem| problem.contains("required, but not given")), "{:?}", site.problems());
}

#[test]
fn without_settings_all_required_ones_are_reported() {
    assert_eq!(
        Site::empty().problems(),
        [
            "storage_systems: required, but not given; set STORAGE_SYSTEMS, or storage_systems in the YAML file",
            "waldur_api.api_url: required, but not given; set WALDUR_API_URL, or waldur_api.api_url in the YAML file",
            "waldur_api.access_token: required, but not given; set WALDUR_API_TOKEN, or waldur_api.access_token in the \
             YAML file",
            "hpc_user_api.api_url: required when hpc_user_api.development_mode is false; set HPC_USER_API_URL, or \
             hpc_user_api.api_url in the YAML file",
            "hpc_user_api.client_id: required when hpc_user_api.development_mode is false; set HPC_USER_CLIENT_ID, or \
             hpc_user_api.client_id in the YAML file",
            "hpc_user_api.client_secret: required when hpc_user_api.development_mode is false; set \
             HPC_USER_CLIENT_SECRET, or hpc_user_api.client_secret in the YAML file",
            "hpc_user_api.oidc_token_url: required when hpc_user_api.development_mode is false; set \
             HPC_USER_OIDC_TOKEN_URL, or hpc_user_api.oidc_token_url in the YAML file",
        ]
    );
}

#[test]
fn relaying_needs_a_public_url() {
    let site = Site::minimal().set("CALLBACKS_RELAY", "true");
    let problem = "server.public_url: required when callbacks.relay is true; set SERVER_PUBLIC_URL, or server.public_url in the \
                 YAML file, or set callbacks.relay to false";
    assert_eq!(site.problems(), [problem]);
    let odd = site.set("SERVER_PUBLIC_URL", "ftp://proxy.example/");
    assert_eq!(odd.problems().len(), 1, "a URL that cannot be read is not missing: {:?}", odd.problems());
}

#[test]
fn values_that_only_the_python_proxy_accepts_are_errors() {
    let equal = Site::minimal().set("INODE_SOFT_COEFFICIENT", "2").set("INODE_HARD_COEFFICIENT", "2");
    assert!(equal.problems()[0].contains("must be greater than inode_soft_coefficient"), "{:?}", equal.problems());
    for (name, value) in [
        ("CSCS_KEYCLOAK_REQUIRED_ROLES", ",,"),
        ("CALLBACKS_REQUIRED_ROLES", " , "),
        ("PROVISIONERS_REQUIRED_ROLES", " , "),
        ("OTEL_EXPORTER_OTLP_HEADERS", ","),
        ("SENTRY_DSN", "https://sentry.example/1"),
        ("WALDUR_PAGES_AT_ONCE", "010"),
        ("INODE_BASE_MULTIPLIER", "010"),
    ] {
        assert_eq!(Site::minimal().set(name, value).problems().len(), 1, "{name}={value}");
    }
    assert!(Site::minimal().set("SENTRY_DSN", "").loaded().settings.sentry.dsn.is_none(), "empty means not set");
}

#[test]
fn all_errors_are_reported_at_once_each_with_its_source() {
    let site = Site::empty()
        .yaml("auth: 5\nlog:\n  format: xml\nbackend_settings:\n  inode_soft_coefficient: 0\nsentry:\n  dsn: [1]\n")
        .dotenv("DEBUG=perhaps\nHPC_USER_DEVELOPMENT_MODE=on\n")
        .set("STORAGE_SYSTEMS", r#"{"a/b": "x", "c": "x"}"#)
        .set("WALDUR_API_URL", "https://user:hunter2@waldur/")
        .set("WALDUR_API_TOKEN", "hunter2")
        .set("CSCS_KEYCLOAK_INTROSPECTION", "1")
        .set("INODE_BASE_MULTIPLIER", "many")
        .set("SERVER_LISTEN", "localhost:80");
    assert_eq!(
        site.problems(),
        [
            "auth (config.yaml line 1): it is not a mapping; indent its settings below it, or remove it",
            "debug (.env line 1, DEBUG): `perhaps` is not a boolean; give true or false",
            "storage_systems.a/b (environment variable STORAGE_SYSTEMS): the name is invalid: it contains `/`, or is `.` or \
             `..`; give one that is valid as a directory name",
            "storage_systems.c (environment variable STORAGE_SYSTEMS): the offering's slug is also that of `a/b`; give \
             each storage system its own offering",
            "waldur_api.api_url (environment variable WALDUR_API_URL): it contains credentials; remove the part before \
             the `@`",
            "waldur_api.access_token (environment variable WALDUR_API_TOKEN): not a token: 7 characters; give the 40 \
             hexadecimal digits that Waldur shows under the user's credentials",
            "backend_settings.inode_base_multiplier (environment variable INODE_BASE_MULTIPLIER): `many` is not a number \
             above 0; give one, for example 1.5",
            "backend_settings.inode_soft_coefficient (config.yaml line 5): `0` is not a number above 0; give one, for \
             example 1.5",
            "sentry.dsn (config.yaml line 7): a list instead of a single value; give one value",
            "server.listen (environment variable SERVER_LISTEN): `localhost:80` is not an address with a port; give one \
             such as 127.0.0.1:8000 or [::]:8000, not a name, or unix:/path/of/a/socket",
            "log.format (config.yaml line 3): `xml` is not a valid choice; give `human` or `json`",
            "auth.keycloak_client_id: required when auth.introspection is true; set CSCS_KEYCLOAK_CLIENT_ID, or \
             auth.keycloak_client_id in the YAML file, or set auth.introspection to false",
            "auth.keycloak_client_secret: required when auth.introspection is true; set CSCS_KEYCLOAK_CLIENT_SECRET, or \
             auth.keycloak_client_secret in the YAML file, or set auth.introspection to false",
        ]
    );
    let text = site.load().unwrap_err().to_string();
    assert!(text.starts_with("The settings have 13 errors:\n  - auth ("), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn every_setting_is_validated() {
    for row in SCHEMA.table() {
        // No setting accepts a list of mappings.
        let value = "[{a: 1}]";
        let yaml = match row.key.split_once('.') {
            Some((section, name)) => format!("{section}:\n  {name}: {value}\n"),
            None => format!("{}: {value}\n", row.key),
        };
        let mut site = Site::minimal().yaml(&yaml);
        site.variables.retain(|(name, _)| !row.variables.contains(&name.as_str()));
        let problems = site.load().expect_err(row.key).problems;
        assert!(problems.iter().any(|problem| problem.key == row.key && problem.source.is_some()), "{problems:?}");
    }
}

#[test]
fn the_hard_coefficient_is_above_the_soft_one() {
    for (soft, hard) in [("2", "2"), ("3", "2.5")] {
        let site = Site::minimal().set("INODE_SOFT_COEFFICIENT", soft).set("INODE_HARD_COEFFICIENT", hard);
        assert_eq!(
            site.problems(),
            [format!(
                "backend_settings.inode_hard_coefficient (environment variable INODE_HARD_COEFFICIENT): \
                 inode_hard_coefficient must be greater than inode_soft_coefficient: {hard} is not above {soft}; raise \
                 the hard or lower the soft one"
            )]
        );
    }
    assert_eq!(Site::minimal().set("INODE_SOFT_COEFFICIENT", "2").problems().len(), 1);
    for bad in ["0", "-1", "nan", "inf", "", "x"] {
        assert_eq!(Site::minimal().set("INODE_HARD_COEFFICIENT", bad).problems().len(), 1, "{bad}");
    }
}

#[test]
fn errors_of_seconds_show_the_range() {
    for (variable, value, range) in [
        ("WALDUR_TIMEOUT", "0", "above 0 and at most"),
        ("WALDUR_TIMEOUT", "86401", "above 0 and at most"),
        ("CACHE_MAX_STALE", "-1", "from 0 to"),
    ] {
        let problems = Site::minimal().set(variable, value).problems();
        let expected = format!("`{value}` is not a number of seconds {range} a day (86400); give one, for example 30");
        assert!(problems.len() == 1 && problems[0].ends_with(&expected), "{problems:?}");
    }
    assert!(Site::minimal().set("CACHE_MAX_STALE", "0").set("WALDUR_TIMEOUT", "86400").load().is_ok());
}

#[test]
fn an_address_is_given_once() {
    let twice = Site::minimal().set("SERVER_LISTEN", "127.0.0.1:1,127.0.0.1:1");
    assert_eq!(
        twice.problems(),
        ["server.listen (environment variable SERVER_LISTEN): 127.0.0.1:1 is given twice; remove one"]
    );
    assert!(Site::minimal().set("SERVER_LISTEN", "127.0.0.1:0,127.0.0.1:0").load().is_ok());
    let shared = Site::minimal().set("SERVER_LISTEN", "127.0.0.1:1").set("SERVER_ADMIN_LISTEN", "127.0.0.1:1");
    assert_eq!(
        shared.problems(),
        ["server.admin_listen (environment variable SERVER_ADMIN_LISTEN): 127.0.0.1:1 is also in server.listen; give \
             another port, or leave server.admin_listen out"]
    );
    assert!(
        Site::minimal().set("SERVER_ADMIN_LISTEN", "127.0.0.1:0").set("SERVER_LISTEN", "127.0.0.1:0").load().is_ok()
    );
}

#[test]
fn an_unreadable_dotenv_is_an_error_but_a_directory_of_that_name_is_not() {
    let site = Site::minimal();
    fs::write(site.directory.path().join(".env"), [b'A', b'=', 0xff]).unwrap();
    assert_eq!(site.problems(), [".env: not valid UTF-8; save it as UTF-8"]);
    let site = Site::minimal();
    fs::create_dir(site.directory.path().join(".env")).unwrap();
    assert!(site.load().is_ok());
}

#[test]
#[cfg(unix)]
fn a_value_that_is_not_utf8_is_an_error() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    let site = Site::minimal();
    let mut variables: Vec<(String, OsString)> =
        site.variables.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    variables.push(("DEBUG".to_owned(), OsString::from_vec(vec![0xff])));
    variables.push(("SOMEBODY_ELSES".to_owned(), OsString::from_vec(vec![0xff])));
    let problems = load(&Environment::new(site.directory.path(), variables), &Overrides::default()).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "The settings have an error:\n  - debug (environment variable DEBUG): not valid UTF-8; set it to valid UTF-8"
    );
}

#[test]
fn a_file_that_exhausts_memory_or_stack_is_rejected() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, last) in ('b'..='j').zip('a'..) {
        let line = format!("{name}: &{name} [{}]\n", vec![format!("*{last}"); 10].join(", "));
        bomb.push_str(&line);
    }
    for yaml in ["[".repeat(200_000), "{a: ".repeat(200_000), bomb] {
        assert!(Site::minimal().yaml(&yaml).load().is_err());
    }
}

/// Settings of a dashboard with sign-in.
fn dashboard() -> Site {
    [
        ("DASHBOARD_ENABLED", "true"),
        ("DASHBOARD_PUBLIC_URL", "https://storage.example.org"),
        ("DASHBOARD_CLIENT_ID", "storage-dashboard"),
        ("DASHBOARD_CLIENT_SECRET", "0123456789abcdef"),
        ("DASHBOARD_REQUIRED_ROLES", "storage-operator"),
    ]
    .into_iter()
    .fold(Site::minimal(), |site, (name, value)| site.set(name, value))
}

#[test]
fn a_dashboard_needs_a_client_and_a_role() {
    let site = dashboard();
    for name in ["PUBLIC_URL", "CLIENT_ID", "CLIENT_SECRET", "REQUIRED_ROLES"].map(|name| format!("DASHBOARD_{name}")) {
        let errors = dashboard().without(&name).problems();
        assert!(errors.len() == 1 && errors[0].contains(&format!("set {name}, or ")), "{errors:?}");
        assert!(dashboard().without(&name).set("DASHBOARD_ENABLED", "false").loaded().settings.dashboard.is_none());
    }
    let of = |site: Site| site.loaded().settings.dashboard.unwrap();
    let sign_in = of(site).sign_in.unwrap();
    assert_eq!(sign_in.required_roles, ["storage-operator"]);
    // Taken from settings with the same meaning.
    let shared =
        dashboard().without("DASHBOARD_PUBLIC_URL").set("SERVER_PUBLIC_URL", "https://proxy.example.org/below");
    let shared = shared.without("DASHBOARD_REQUIRED_ROLES").set("CSCS_KEYCLOAK_REQUIRED_ROLES", "storage-reader");
    let sign_in = of(shared).sign_in.unwrap();
    assert_eq!(sign_in.public_url.as_str(), "https://proxy.example.org/below");
    assert_eq!(sign_in.required_roles, ["storage-reader"]);
}

#[test]
fn a_dashboard_is_reached_by_https_or_on_loopback() {
    for url in
        ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000/below", "https://storage.example.org"]
    {
        dashboard().set("DASHBOARD_PUBLIC_URL", url).loaded();
    }
    for url in [
        "http://storage.example.org",
        "http://127.0.0.1.example.org",
        "http://10.0.0.1",
        "http://localhost.example.org",
    ] {
        let errors = dashboard().set("DASHBOARD_PUBLIC_URL", url).problems();
        assert!(
            errors.len() == 1 && errors[0].contains("dashboard.public_url") && errors[0].contains("https://"),
            "{errors:?}"
        );
    }
    let errors = dashboard().set("DASHBOARD_CLIENT_SECRET", "hunter2").problems();
    assert!(errors.len() == 1 && errors[0].contains("shorter than 16") && !errors[0].contains("hunter2"), "{errors:?}");
}

#[test]
fn an_open_dashboard_is_served_on_loopback_only() {
    let open = || Site::minimal().set("DASHBOARD_ENABLED", "true").set("DISABLE_AUTH", "true");
    for listen in ["127.0.0.1:8000", "[::1]:8000,127.0.0.2:1", "unix:/run/api.sock"] {
        let settings = open().set("SERVER_LISTEN", listen).loaded().settings;
        assert!(settings.dashboard.unwrap().sign_in.is_none(), "{listen}");
    }
    for listen in ["0.0.0.0:8000", "[::]:8000", "127.0.0.1:8000,192.0.2.1:8000"] {
        let errors = open().set("SERVER_LISTEN", listen).problems();
        assert!(
            errors.len() == 1 && errors[0].contains("dashboard.enabled") && errors[0].contains("loopback"),
            "{errors:?}"
        );
    }
}

#[test]
fn links_lead_to_waldurs_host_by_default() {
    let open = || Site::minimal().set("DASHBOARD_ENABLED", "true").set("DISABLE_AUTH", "true");
    for (given, used) in [
        (None, "https://waldur.example.org/"),
        (Some("https://portal.example.org/waldur"), "https://portal.example.org/waldur/"),
    ] {
        let site = given.map_or_else(open, |given| open().set("DASHBOARD_WALDUR_URL", given));
        assert_eq!(site.loaded().settings.dashboard.unwrap().waldur_url.as_str(), used);
    }
}

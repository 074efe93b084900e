use settings::{Environment, Overrides, Problems, load};

use super::*;

const MINIMUM: [(&str, &str); 2] = [
    ("PROVISIONER_PROXY_URL", "https://storage-proxy.example.org"),
    ("PROVISIONER_SYSTEMS", r#"{"Capstor": {"driver": "posix", "terabyte": "TiB"}}"#),
];

fn with(more: &[(&str, &str)]) -> Result<Settings, Problems> {
    let variables = MINIMUM.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&SCHEMA, &Environment::new("/", variables), &Overrides::default()).map(|loaded| loaded.settings)
}

fn fault(more: &[(&str, &str)]) -> String {
    with(more).unwrap_err().problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_table_has_no_flaws() {
    assert_eq!(::settings::flaws(&SCHEMA), Vec::<String>::new());
}

#[test]
fn a_proxy_and_a_system_are_enough_and_defaults_are_cautious() {
    let settings = with(&[]).unwrap();
    let [system] = &settings.systems[..] else { panic!("{settings:?}") };
    assert_eq!((system.name.as_str(), system.published_root.as_str()), ("capstor", "/capstor"));
    assert!(!settings.policy.heal && !settings.purge.enabled);
}

#[test]
fn invalid_systems_are_rejected_with_a_reason() {
    let of = |text: &str| fault(&[("PROVISIONER_SYSTEMS", text)]);
    assert!(of(r#"{"a": {"driver": "posix"}}"#).contains("missing field `terabyte`"));
    assert!(of(r#"{"a": {"driver": "nfs", "terabyte": "TB"}}"#).contains("`driver` is not one of `exec`, `posix`"));
    assert!(of(r#"{"a": {"driver": "posix", "terabyte": "TB", "rot": "/"}}"#).contains("unknown field `rot`"));
    assert!(of(r#"{"a": {"driver": "posix", "terabyte": "TB", "root": "/"}}"#).contains("the root is `/`"));
    assert!(of(r#"{"a": {"driver": "vast", "terabyte": "TB"}}"#).contains("add the mapping"));
    let acl = |acl: &str| of(&format!(r#"{{"a": {{"driver": "posix", "terabyte": "TB", "acl": {acl}}}}}"#));
    assert!(acl(r#"["u:backup:r-x"]"#).contains("write `u:900:r-x`"));
    assert!(
        acl(r#"["u:1:r-x", "u:1:rwx"]"#).contains("is the second one for this user") && acl("7").contains("not a list")
    );
    assert!(of(r#"{"a": {"driver": "memory", "terabyte": "TB", "acl": []}}"#).contains("sets no ACLs"));
    let mode = |more: &str| of(&format!(r#"{{"a": {{"driver": "posix", "terabyte": "TB", {more}}}}}"#));
    assert!(mode(r#""highest_mode": "0o770""#).contains("`highest_mode` is not three or four octal digits"));
    assert!(mode(r#""highest_mode": 2780"#).contains("octal digits"));
    assert!(mode(r#""lowest_mode": 2770, "highest_mode": 770"#).contains("no mode is accepted"));
    let secret = of(r#"{"a": {"driver": "vast", "terabyte": "TB", "vast": {"password": ["hush"], "tenant": "hush"}}}"#);
    assert!(secret.contains("has the wrong type") && !secret.contains("hush"), "{secret}");
    assert!(of("{}").contains("empty") && of("[]").contains("not a mapping"));
}

#[test]
fn modes_are_octal_digits_as_text_or_number() {
    let modes = |more: &str| {
        let systems = format!(r#"{{"a": {{"driver": "posix", "terabyte": "TB"{more}}}}}"#);
        let modes = with(&[("PROVISIONER_SYSTEMS", &systems)]).unwrap().systems[0].modes;
        (modes.lowest.0, modes.highest.0)
    };
    assert_eq!(modes(""), (0, 0o3777), "everything but setuid");
    assert_eq!(modes(r#", "lowest_mode": "0700", "highest_mode": 2770"#), (0o700, 0o2770));
    assert_eq!(modes(r#", "lowest_mode": 70, "highest_mode": "7777""#), (0o070, 0o7777));
}

#[test]
fn settings_that_belong_together_are_required_together() {
    assert!(fault(&[("PROVISIONER_CLIENT_ID", "x")]).contains("proxy.client_secret"));
    assert!(fault(&[("PROVISIONER_WALDUR_API_TOKEN", "x")]).contains("waldur.api_url"));
}

#[test]
fn leases_are_in_one_place() {
    assert!(matches!(with(&[]).unwrap().lease, LeaseSettings::Files));
    let namespace = ("PROVISIONER_LEASE_KUBERNETES_NAMESPACE", "storage");
    let host = ("KUBERNETES_SERVICE_HOST", "fd00::1");
    let LeaseSettings::Kubernetes(settings) = with(&[namespace, host]).unwrap().lease else { panic!() };
    assert_eq!(
        (settings.api.as_str(), settings.credentials.to_str().unwrap()),
        ("https://[fd00::1]/", "/var/run/secrets/kubernetes.io/serviceaccount")
    );
    assert!(fault(&[namespace]).contains("run in a pod"));
    assert!(fault(&[namespace, host, ("PROVISIONER_LEASE_URL", "redis://a")]).contains("leases are in one place"));
    for name in ["", "UPPER", "a.b", "-a", &"a".repeat(64)] {
        assert!(with(&[("PROVISIONER_LEASE_KUBERNETES_NAMESPACE", name), host]).is_err() || name.is_empty(), "{name}");
    }
    for (name, is_valid) in
        [("a-1.b", true), ("a_1", false), ("a-", false), ("a..b", false), (&*"a".repeat(201), false)]
    {
        let systems = format!(r#"{{"{name}": {{"driver": "posix", "terabyte": "TiB", "root": "/a"}}}}"#);
        let systems = ("PROVISIONER_SYSTEMS", &*systems);
        assert_eq!(with(&[systems, namespace, host]).is_ok(), is_valid, "{name}");
        assert!(with(&[systems]).is_ok(), "{name}");
    }
}

/// The settings file of the package, edited, and the warnings about it.
fn example(edit: impl Fn(&str) -> String, variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.yaml");
    std::fs::write(&path, edit(include_str!("../../../../packaging/provisioner.yaml"))).unwrap();
    let environment = Environment::new(folder.path(), variables.iter().copied());
    let loaded = load(&SCHEMA, &environment, &Overrides { config: Some(path), options: Vec::new() }).unwrap();
    (loaded.settings, loaded.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn the_settings_of_the_package_are_valid_and_change_no_default() {
    let (settings, warnings) = example(str::to_owned, &[]);
    let [system] = &settings.systems[..] else { panic!("{settings:?}") };
    assert_eq!((system.published_root.as_str(), system.root.to_str()), ("/scratch", Some("/mnt/scratch")));
    assert!(!settings.purge.enabled && !settings.policy.heal && settings.run.listen.is_empty());
    assert!(matches!(&warnings[..], [warning] if warning.contains("proxy.client_id is not set")), "{warnings:?}");
}

#[test]
fn the_commented_settings_of_the_package_are_valid() {
    // The secret files do not exist: variables take precedence over them.
    let secrets = [("PROVISIONER_CLIENT_SECRET", "hush"), ("PROVISIONER_WALDUR_API_TOKEN", "hush")];
    let uncommented = |text: &str| text.split_once("\n\n").unwrap().1.replace("\n#  ", "\n  ");
    let (settings, warnings) = example(uncommented, &secrets);
    assert!(
        settings.purge.enabled
            && settings.policy.heal
            && settings.json_log
            && matches!(settings.lease, LeaseSettings::Redis(_))
    );
    assert!(settings.waldur.is_some() && settings.proxy.client_id.is_some() && settings.run.listen.len() == 1);
    assert_eq!(settings.systems[0].project_ids, Some(crate::ledger::ProjectIds::From(100_000)));
    assert_eq!(warnings, Vec::<String>::new());
}

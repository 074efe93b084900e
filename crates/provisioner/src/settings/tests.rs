use settings::{Environment, Faults, Overrides, load};

use super::*;

const MINIMUM: [(&str, &str); 2] = [
    ("PROVISIONER_PROXY_URL", "https://storage-proxy.example.org"),
    ("PROVISIONER_SYSTEMS", r#"{"Capstor": {"driver": "posix", "terabyte": "TiB"}}"#),
];

fn with(more: &[(&str, &str)]) -> Result<Settings, Faults> {
    let variables = MINIMUM.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&SCHEMA, &Environment::new("/", variables), &Overrides::default()).map(|loaded| loaded.settings)
}

fn fault(more: &[(&str, &str)]) -> String {
    with(more).unwrap_err().faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_table_is_sound() {
    assert_eq!(SCHEMA.flaws(), Vec::<String>::new());
}

#[test]
fn the_minimum_is_a_proxy_and_a_system_and_touches_as_little_as_can_be() {
    let settings = with(&[]).unwrap();
    let [system] = &settings.systems[..] else { panic!("{settings:?}") };
    assert_eq!((system.name.as_str(), system.published_root().as_str()), ("capstor", "/capstor"));
    assert!(system.must_be_mounted && system.change_owner && !settings.policy.heal && !settings.purge.enabled);
}

#[test]
fn systems_are_refused_with_their_name_and_what_is_wrong() {
    let of = |text: &str| fault(&[("PROVISIONER_SYSTEMS", text)]);
    assert!(of(r#"{"a": {"driver": "posix"}}"#).contains("missing field `terabyte`"));
    assert!(of(r#"{"a": {"driver": "nfs", "terabyte": "TB"}}"#).contains("unknown variant `nfs`"));
    assert!(of(r#"{"a": {"driver": "posix", "terabyte": "TB", "rot": "/"}}"#).contains("unknown field `rot`"));
    assert!(of(r#"{"a": {"driver": "posix", "terabyte": "TB", "root": "/"}}"#).contains("the root is `/`"));
    assert!(of(r#"{"a": {"driver": "vast", "terabyte": "TB"}}"#).contains("add the mapping"));
    let secret = of(r#"{"a": {"driver": "vast", "terabyte": "TB", "vast": {"password": ["hush"], "tenant": "hush"}}}"#);
    assert!(secret.contains("not of the kind") && !secret.contains("hush"), "{secret}");
    assert!(of("{}").contains("empty") && of("[]").contains("not a mapping"));
}

#[test]
fn half_of_a_pair_is_told() {
    assert!(fault(&[("PROVISIONER_CLIENT_ID", "x")]).contains("proxy.client_secret"));
    assert!(fault(&[("PROVISIONER_WALDUR_API_TOKEN", "x")]).contains("waldur.api_url"));
}

use super::*;
use settings::{Environment, Overrides, load};

fn source(more: &[(&str, &str)]) -> Source {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let minimum = [
        ("PROVISIONER_PROXY_URL", "https://proxy.example.org/hpc"),
        ("PROVISIONER_SYSTEMS", r#"{"capstor": {"driver": "memory", "terabyte": "TB"}}"#),
        ("PROVISIONER_WALDUR_API_URL", "https://waldur.example.org/api/"),
        ("PROVISIONER_WALDUR_API_TOKEN", "0123456789abcdef0123456789abcdef01234567"),
    ];
    let environment = Environment::new("/", minimum.iter().chain(more).copied());
    Source::new(&load(&crate::settings::SCHEMA, &environment, &Overrides::default()).unwrap().settings).unwrap()
}

#[test]
fn credentials_go_to_their_own_origins_alone() {
    let source = source(&[("PROVISIONER_PROXY_PUBLIC_URL", "https://public.example.org")]);
    let origin = |link: &str| match source.origin(&Url::parse(link).unwrap()) {
        Ok(Origin::Proxy) => "proxy",
        Ok(Origin::Waldur) => "waldur",
        Err(_) => "nobody",
    };
    assert_eq!(origin("https://proxy.example.org/hpc/api/callbacks/1/"), "proxy");
    assert_eq!(origin("https://public.example.org/api/callbacks/1/"), "proxy");
    assert_eq!(origin("https://waldur.example.org/api/marketplace-orders/1/"), "waldur");
    for elsewhere in [
        "http://waldur.example.org/api/marketplace-orders/1/",
        "https://waldur.example.org:8443/api/x/",
        "https://waldur.example.org.evil.example/api/x/",
        "https://waldur.example.org@evil.example/api/x/",
        "https://waldur.example.org/apix/y/",
        "https://waldur.example.org/admin/",
        "https://proxy.example.org/hpcx/api/",
        "https://waldur.example.org/api/../admin/",
        "file:///etc/passwd",
    ] {
        assert_eq!(origin(elsewhere), "nobody", "{elsewhere}");
    }
}

#[test]
fn no_secret_is_shown() {
    let source = source(&[
        ("PROVISIONER_TOKEN_URL", "https://auth.example.org/token"),
        ("PROVISIONER_CLIENT_ID", "provisioner"),
        ("PROVISIONER_CLIENT_SECRET", "very-secret"),
    ]);
    let shown = format!("{source:?}");
    assert!(!shown.contains("very-secret") && !shown.contains("0123456789abcdef"), "{shown}");
}

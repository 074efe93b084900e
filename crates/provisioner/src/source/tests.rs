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
    let loaded = load(&crate::settings::SCHEMA, &environment, &Overrides::default()).unwrap();
    Source::new(&loaded.settings, &Arc::default()).unwrap()
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
        "https://proxy.example.org/hpcx/api/callbacks/1/",
        "https://proxy.example.org/hpc/api/storage-resources/",
        "https://waldur.example.org/api/../admin/",
        "file:///etc/passwd",
    ] {
        assert_eq!(origin(elsewhere), "nobody", "{elsewhere}");
    }
}

#[test]
fn at_one_origin_the_proxy_has_its_token_and_waldur_its_own() {
    let source = source(&[
        ("PROVISIONER_PROXY_URL", "https://one.example.org"),
        ("PROVISIONER_WALDUR_API_URL", "https://one.example.org/api"),
    ]);
    let origin = |link: &str| source.origin(&Url::parse(link).unwrap()).unwrap();
    assert!(matches!(origin("https://one.example.org/api/callbacks/orders/1/"), Origin::Proxy));
    assert!(matches!(origin("https://one.example.org/api/marketplace-orders/1/"), Origin::Waldur));
}

#[test]
fn a_link_leads_to_the_call_that_it_is_given_for_or_nowhere() {
    let [order, resource] = [7, 8].map(Uuid::from_u128);
    let meant =
        |link: String, action| is_meant(&Call { resource, order: Some(order), path: "/a".into(), link, action });
    let base = "https://waldur.example.org/api/marketplace-orders";
    assert!(meant(format!("{base}/{}/set_state_done/", order.simple()), Action::Done));
    assert!(meant(
        format!("https://proxy.example.org/api/callbacks/orders/{order}/approve_by_provider/"),
        Action::Approve(None)
    ));
    let set = format!("https://waldur.example.org/api/marketplace-provider-resources/{resource}/set_backend_id/");
    assert!(meant(set.clone(), Action::SetBackendId));
    for link in [
        format!("{base}/{}/reject_by_provider/", order.simple()),
        format!("{base}/{}/set_state_done/", resource.simple()),
        format!("{base}/{}/set_state_done/?x=1", order.simple()),
        format!("https://u:p@waldur.example.org/api/marketplace-orders/{order}/set_state_done/"),
        format!("https://waldur.example.org/api/users/{order}/set_state_done/"),
        set,
    ] {
        assert!(!meant(link.clone(), Action::Done), "{link}");
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

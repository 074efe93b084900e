use std::sync::atomic::AtomicUsize;

use driver_rest::simulated::{Reply, serve};
use program::error_chain;
use serde_json::json;
use settings::{Environment, Overrides, load};
use url::Url;
use uuid::Uuid;

use super::link::{Origin, is_meant};
use super::*;
use crate::pass::{Answer, Call};

fn source(more: &[(&str, &str)]) -> Source {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let minimum = [
        ("PROVISIONER_PROXY_URL", "https://proxy.example.org/hpc"),
        ("PROVISIONER_SYSTEMS", r#"{"capstor": {"driver": "memory", "terabyte": "TB"}}"#),
        ("PROVISIONER_WALDUR_API_URL", "https://waldur.example.org/api/"),
        ("PROVISIONER_WALDUR_API_TOKEN", "0123456789abcdef0123456789abcdef01234567"),
    ];
    let environment = Environment::new("/", minimum.iter().chain(more).copied());
    let loaded = load(&crate::config::SCHEMA, &environment, &Overrides::default()).unwrap();
    Source::new(&loaded.settings, &Arc::default()).unwrap()
}

#[test]
fn credentials_are_sent_to_their_own_origins_only() {
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
fn proxy_and_waldur_at_one_origin_get_their_own_tokens() {
    let source = source(&[
        ("PROVISIONER_PROXY_URL", "https://one.example.org"),
        ("PROVISIONER_WALDUR_API_URL", "https://one.example.org/api"),
    ]);
    let origin = |link: &str| source.origin(&Url::parse(link).unwrap()).unwrap();
    assert!(matches!(origin("https://one.example.org/api/callbacks/orders/1/"), Origin::Proxy));
    assert!(matches!(origin("https://one.example.org/api/marketplace-orders/1/"), Origin::Waldur));
}

#[test]
fn a_link_is_followed_only_to_its_own_call() {
    let [order, resource] = [7, 8].map(Uuid::from_u128);
    let meant = |link: String, action| is_meant(&Call { resource, order: Some(order), action, link, body: None });
    let base = "https://waldur.example.org/api/marketplace-orders";
    assert!(meant(format!("{base}/{}/set_state_done/", order.simple()), "set_state_done"));
    assert!(meant(
        format!("https://proxy.example.org/api/callbacks/orders/{order}/approve_by_provider/"),
        "approve_by_provider"
    ));
    let set = format!("https://waldur.example.org/api/marketplace-provider-resources/{resource}/set_backend_id/");
    assert!(meant(set.clone(), "set_backend_id"));
    for link in [
        format!("{base}/{}/reject_by_provider/", order.simple()),
        format!("{base}/{}/set_state_done/", resource.simple()),
        format!("{base}/{}/set_state_done/?x=1", order.simple()),
        format!("https://u:p@waldur.example.org/api/marketplace-orders/{order}/set_state_done/"),
        format!("https://waldur.example.org/api/users/{order}/set_state_done/"),
        format!("https://waldur.example.org/api/..%2fadmin/marketplace-orders/{order}/set_state_done/"),
        format!("https://waldur.example.org/api/..;/marketplace-orders/{order}/set_state_done/"),
        format!("https://waldur.example.org/api/\\x/marketplace-orders/{order}/set_state_done/"),
        set,
    ] {
        assert!(!meant(link.clone(), "set_state_done"), "{link}");
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

/// A proxy, a token endpoint and Waldur on one port, with the requests that they received.
struct World {
    source: Source,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// `answer` is called with the path and the credential of each request.
    fn new(answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asking = Arc::clone(&asked);
        let url = serve(move |request| {
            let path = format!("/{}", request.path.join("/"));
            asking.lock().unwrap().push(path.clone());
            answer(&path, request.authorization.as_deref().unwrap_or_default())
        });
        let variables = [
            ("PROVISIONER_PROXY_URL", url.to_string()),
            ("PROVISIONER_SYSTEMS", r#"{"capstor": {"driver": "memory", "terabyte": "TB"}}"#.into()),
            ("PROVISIONER_WALDUR_API_URL", format!("{url}waldur/api/")),
            ("PROVISIONER_WALDUR_API_TOKEN", "0123456789abcdef0123456789abcdef01234567".into()),
            ("PROVISIONER_TOKEN_URL", format!("{url}token")),
            ("PROVISIONER_CLIENT_ID", "provisioner".into()),
            ("PROVISIONER_CLIENT_SECRET", "very-secret".into()),
        ];
        let environment = Environment::new("/", variables);
        let loaded = load(&crate::config::SCHEMA, &environment, &Overrides::default()).unwrap();
        let stop = Arc::default();
        Self { source: Source::new(&loaded.settings, &stop).unwrap(), stop, asked }
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }

    /// Sends a callback to Waldur directly.
    fn call(&self) -> Answer {
        let [resource, order] = [8, 7].map(Uuid::from_u128);
        let base = self.source.settings.waldur.as_ref().unwrap().api_url.clone();
        let link = format!("{base}marketplace-orders/{}/set_state_done/", order.simple());
        self.source.call(&Call { resource, order: Some(order), action: "set_state_done", link, body: None })
    }
}

fn granted(more: &serde_json::Value) -> Reply {
    let mut body = json!({"access_token": "t0ken"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Reply::Json(200, "", body)
}

fn document() -> Reply {
    let pagination = json!({"current": 1, "limit": 500, "offset": 0, "pages": 1, "total": 0});
    Reply::Json(200, "", json!({"status": "success", "resources": [], "orders": {}, "pagination": pagination}))
}

#[test]
fn a_token_may_have_no_lifetime_or_one_as_text_or_decimal() {
    for more in [
        json!({}),
        json!({"expires_in": null}),
        json!({"expires_in": "300"}),
        json!({"expires_in": 300.0}),
        json!({"expires_in": 300, "token_type": "bearer"}),
    ] {
        let given = more.clone();
        let world = World::new(move |path, _| if path == "/token" { granted(&given) } else { document() });
        world.source.read().unwrap_or_else(|fault| panic!("{more}: {}", error_chain(&fault)));
    }
}

#[test]
fn a_refused_client_is_not_sent_again() {
    for status in [400, 401] {
        let refused = json!({"error": "unauthorized_client", "error_description": "very-secret"});
        let world = World::new(move |_, _| Reply::Json(status, "", refused.clone()));
        let first = error_chain(&world.source.read().unwrap_err());
        assert!(first.contains("check proxy.client_id and proxy.client_secret"), "{first}");
        let second = error_chain(&world.source.read().unwrap_err());
        assert!(second.contains("not sent again") && !second.contains("very-secret"), "{second}");
        assert_eq!((world.asked("/token"), world.asked.lock().unwrap().len()), (1, 1));
    }
}

#[test]
fn an_outage_of_the_token_endpoint_is_retried() {
    let world = World::new(|_, _| Reply::Json(503, "", json!(null)));
    assert!(world.source.read().is_err());
    assert_eq!(world.asked("/token"), 3);
    assert!(world.source.read().is_err());
    assert_eq!(world.asked("/token"), 6);
}

#[test]
fn a_revoked_token_is_replaced_but_not_a_new_one_that_is_refused() {
    let tokens = AtomicUsize::new(0);
    let world = World::new(move |path, authorization| match (path, authorization) {
        ("/token", _) => {
            let number = tokens.fetch_add(1, Ordering::Relaxed) + 1;
            Reply::Json(200, "", json!({"access_token": format!("token-{number}")}))
        }
        (_, "Bearer token-2") => document(),
        _ => Reply::Json(401, "", json!({"detail": "no"})),
    });
    assert!(world.source.read().is_err(), "a new token is refused");
    assert_eq!((world.asked("/token"), world.asked("/api/storage-resources/")), (1, 1));
    assert!(world.source.read().is_ok());
    let mut held = world.source.token.lock().unwrap();
    held.as_mut().unwrap().bearer = HeaderValue::from_static("Bearer token-1");
    drop(held);
    assert!(world.source.read().is_err(), "token-3 replaces the old one and is refused");
    assert_eq!((world.asked("/token"), world.asked("/api/storage-resources/")), (3, 4));
}

#[test]
fn a_token_that_cannot_be_renewed_is_used_until_it_expires() {
    let tokens = AtomicUsize::new(0);
    let world = World::new(move |path, _| match path {
        "/token" if tokens.fetch_add(1, Ordering::Relaxed) == 0 => granted(&json!({})),
        "/token" => Reply::Json(503, "", json!(null)),
        _ => document(),
    });
    world.source.read().unwrap();
    world.source.token.lock().unwrap().as_mut().unwrap().renew_at = Instant::now();
    world.source.read().unwrap();
    world.source.token.lock().unwrap().as_mut().unwrap().expires_at = Instant::now();
    assert!(world.source.read().is_err());
}

#[test]
fn a_refused_waldur_token_is_not_sent_again() {
    let world = World::new(|_, _| Reply::Json(401, "", json!({"detail": "Invalid token."})));
    assert_eq!(world.call(), Answer::Denied("set_state_done is refused (401): Invalid token.".into()));
    let Answer::Denied(why) = world.call() else { panic!("it must be denied") };
    assert!(why.contains("check waldur.api_token") && why.contains("not sent again"), "{why}");
    assert!(world.source.report_usage(Uuid::from_u128(8), "storage", 1.0).unwrap_err().contains("not sent again"));
    assert_eq!(world.asked.lock().unwrap().len(), 1);
}

#[test]
fn a_stop_signal_during_a_callback_does_not_lose_the_response() {
    let world = World::new(|_, _| Reply::Json(200, "", json!({"uuid": "7"})));
    world.stop.store(true, Ordering::Relaxed);
    assert_eq!(world.call(), Answer::Accepted);
    let lost = World::new(|_, _| Reply::Json(200, "transfer-encoding: chunked\r\n", json!({"uuid": "7"})));
    let Answer::Unclear(why) = lost.call() else { panic!("it must be unclear") };
    assert!(why.contains("the response broke off") && !why.contains("maintenance"), "{why}");
}

/// A proxy with a document of two pages, whose responses have these tags in order.
fn paged(tags: &'static [&'static str]) -> World {
    let answers = AtomicUsize::new(0);
    World::new(move |path, _| {
        if path == "/token" {
            return granted(&json!({}));
        }
        let tag = tags[answers.fetch_add(1, Ordering::Relaxed)];
        let pagination = json!({"current": 1, "limit": 500, "offset": 0, "pages": 2, "total": 0});
        Reply::Json(200, tag, json!({"status": "success", "resources": [], "orders": {}, "pagination": pagination}))
    })
}

#[test]
fn pages_of_different_readings_are_read_again() {
    const A: &str = "etag: W/\"1-a\"\r\n";
    const B: &str = "etag: W/\"1-b\"\r\n";
    let read = |tags| {
        let world = paged(tags);
        let read = world.source.read().map(|_| ()).map_err(|fault| error_chain(&fault));
        (read, world.asked("/api/storage-resources/"))
    };
    assert_eq!(read(&[A, A]), (Ok(()), 2));
    assert_eq!(read(&["", ""]), (Ok(()), 2), "a proxy without tags");
    assert_eq!(read(&[A, B, B, B]), (Ok(()), 4));
    let (read, asked) = read(&[A, B, A, B, A, B]);
    assert!(read.unwrap_err().contains("changed while its pages were read, 3 times"));
    assert_eq!(asked, 6);
}

#[test]
fn a_wait_distinguishes_changes_from_answers_that_are_no_wait() {
    const A: &str = "etag: W/\"1-a\"\r\n";
    const WAITED: &str = "preference-applied: wait=45\r\netag: W/\"1-a\"\r\n";
    for (status, headers, expected) in [
        (304, WAITED, Waited::Unchanged),
        (304, A, Waited::Unsupported),
        (200, "preference-applied: wait=45\r\netag: W/\"1-b\"\r\n", Waited::Changed),
        // A gateway has removed or changed the tag of the request, so the proxy answers at once.
        (200, A, Waited::Unsupported),
        (200, WAITED, Waited::Unsupported),
    ] {
        let answers = AtomicUsize::new(0);
        let world = World::new(move |path, _| match path {
            "/token" => granted(&json!({})),
            _ if answers.fetch_add(1, Ordering::Relaxed) == 0 => match document() {
                Reply::Json(status, _, body) => Reply::Json(status, A, body),
                lost @ Reply::Lost => lost,
            },
            _ => Reply::Json(status, headers, json!(null)),
        });
        assert_eq!(world.source.wait_for_change().unwrap(), Waited::Unsupported, "no document was read");
        world.source.read().unwrap();
        assert_eq!(world.source.wait_for_change().unwrap(), expected, "{status} {headers}");
    }
}

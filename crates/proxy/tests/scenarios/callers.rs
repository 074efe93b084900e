//! Callers and their tokens. Unit tests cover the rules themselves.

use simulator::{Client, Fault, Simulator, TokenSpec, World};

use crate::support::{Answer, Proxy, demo_with, start_with};

async fn with_token(proxy: &Proxy, token: &str) -> Answer {
    proxy.get_with("/api/storage-resources/", &[("Authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_valid_tokens_of_the_realm_are_accepted() {
    let (simulator, proxy) = demo_with(&[("DISABLE_AUTH", "false")]).await;
    simulator.realm().register(Client::new("provisioner", "secret"));
    let good = simulator.realm().mint(&TokenSpec::service_account("provisioner"));
    assert_eq!(with_token(&proxy, &good).await.status, 200);
    let other_realm = Simulator::start(World::empty()).await;
    for bad in [
        String::new(),
        "nonsense".into(),
        simulator.realm().mint(&TokenSpec::user("x").lifetime(-3600)),
        simulator.realm().mint(&TokenSpec::user("x").without("preferred_username")),
        simulator.realm().mint(&TokenSpec::user("x").without("exp")),
        simulator.realm().mint(&TokenSpec::user("x").claim("typ", "ID")),
        other_realm.realm().mint(&TokenSpec::user("x")),
    ] {
        let answer = with_token(&proxy, &bad).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
        assert_eq!(answer.body["error"], "AuthenticationError");
        assert!(answer.body["detail"].is_string() && answer.body["help"].is_string());
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
    }
    // The token is validated before the query.
    assert_eq!(proxy.list("?page=0").await.status, 401);
    assert_eq!(proxy.get("/api/storage-resources/nonsense/").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn audience_and_roles_are_required_if_configured() {
    let (simulator, proxy) = demo_with(&[
        ("DISABLE_AUTH", "false"),
        ("CSCS_KEYCLOAK_CLIENT_ID", "storage"),
        ("CSCS_KEYCLOAK_REQUIRED_ROLES", "storage-reader"),
    ])
    .await;
    let without = simulator.realm().mint(&TokenSpec::user("x").role("storage-reader"));
    let answer = with_token(&proxy, &without).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text.contains("storage"), "the required audience is named: {}", answer.text);
    let no_role = simulator.realm().mint(&TokenSpec::user("x").audience("storage"));
    assert_eq!(with_token(&proxy, &no_role).await.status, 403);
    let good = simulator.realm().mint(&TokenSpec::user("x").audience("storage").role("storage-reader"));
    assert_eq!(with_token(&proxy, &good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn lightweight_tokens_need_introspection() {
    let settings = [
        ("DISABLE_AUTH", "false"),
        ("CSCS_KEYCLOAK_CLIENT_ID", "storage"),
        ("CSCS_KEYCLOAK_CLIENT_SECRET", "secret"),
        ("CSCS_KEYCLOAK_REQUIRED_ROLES", "storage-reader,storage:reader"),
    ];
    let (simulator, without) = demo_with(&settings).await;
    let realm = simulator.realm();
    realm.register(Client::new("storage", "secret"));
    let spec = || TokenSpec::user("alice").audience("storage").lightweight();
    let token = realm.mint(&spec().role("storage-reader").client_role("storage", "reader"));
    let answer = with_token(&without, &token).await;
    assert_eq!(answer.status, 401);
    assert!(answer.body["help"].as_str().unwrap().contains("`auth.introspection`"), "{}", answer.text);

    let proxy = start_with(&simulator, &[&settings[..], &[("CSCS_KEYCLOAK_INTROSPECTION", "true")]].concat()).await;
    assert_eq!(with_token(&proxy, &token).await.status, 200);
    assert!(proxy.log().contains("alice"), "{}", proxy.log());
    let one_role = with_token(&proxy, &realm.mint(&spec().role("storage-reader"))).await;
    assert_eq!(one_role.status, 403);
    assert_eq!(one_role.body["detail"], "the token lacks the required role: storage:reader");
    let elsewhere = realm.mint(&spec().audience("other").role("storage-reader").client_role("storage", "reader"));
    assert_eq!(with_token(&proxy, &elsewhere).await.status, 401);
    let revoked = realm.mint(&spec().role("storage-reader").client_role("storage", "reader"));
    realm.revoke(&revoked);
    assert_eq!(with_token(&proxy, &revoked).await.status, 401);
    simulator.set_fault("POST /auth/*", Fault::status(503));
    let unknown = realm.mint(&spec());
    assert_eq!(with_token(&proxy, &unknown).await.status, 502);
    assert_eq!(with_token(&proxy, &token).await.status, 200, "cached");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_are_fetched_and_an_unreachable_realm_is_an_error() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault("GET /auth/*", Fault::status(503));
    let proxy = start_with(&simulator, &[("DISABLE_AUTH", "false")]).await;
    let token = simulator.realm().mint(&TokenSpec::user("x"));
    assert_eq!(with_token(&proxy, &token).await.status, 502, "no token can be validated");
    simulator.clear_faults();
    // The minimum time between two attempts has not passed yet, so use a new process.
    let proxy = start_with(&simulator, &[("DISABLE_AUTH", "false")]).await;
    assert_eq!(with_token(&proxy, &token).await.status, 200);
    simulator.realm().rotate(false).unwrap();
    let new = simulator.realm().mint(&TokenSpec::user("x"));
    assert_eq!(with_token(&proxy, &new).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_authentication_is_logged_as_a_warning() {
    let (_simulator, proxy) = demo_with(&[]).await;
    assert!(proxy.log().contains("AUTHENTICATION IS DISABLED"), "{}", proxy.log());
}

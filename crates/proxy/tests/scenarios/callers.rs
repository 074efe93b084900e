//! Callers and their tokens, through the whole binary. The rules themselves are tested beside them.

use simulator::{Client, Fault, Simulator, TokenSpec, World};

use crate::support::{Answer, Proxy, demo_with, start_with};

async fn with_token(proxy: &Proxy, token: &str) -> Answer {
    proxy.get_with("/api/storage-resources/", &[("Authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_of_the_realm_is_served_and_nobody_else() {
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
    // The token is judged before the query.
    assert_eq!(proxy.list("?page=0").await.status, 401);
    assert_eq!(proxy.get("/api/storage-resources/nonsense/").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_and_roles_are_demanded_when_set() {
    let (simulator, proxy) = demo_with(&[
        ("DISABLE_AUTH", "false"),
        ("CSCS_KEYCLOAK_CLIENT_ID", "storage"),
        ("CSCS_KEYCLOAK_REQUIRED_ROLES", "storage-reader"),
    ])
    .await;
    let without = simulator.realm().mint(&TokenSpec::user("x").role("storage-reader"));
    let answer = with_token(&proxy, &without).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text.contains("storage"), "the wanted audience is named: {}", answer.text);
    let no_role = simulator.realm().mint(&TokenSpec::user("x").audience("storage"));
    assert_eq!(with_token(&proxy, &no_role).await.status, 403);
    let good = simulator.realm().mint(&TokenSpec::user("x").audience("storage").role("storage-reader"));
    assert_eq!(with_token(&proxy, &good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_are_taken_up_and_an_absent_realm_admits_nobody() {
    let simulator = Simulator::start(World::demo()).await;
    simulator.set_fault("GET /auth/*", Fault::status(503));
    let proxy = start_with(&simulator, &[("DISABLE_AUTH", "false")]).await;
    let token = simulator.realm().mint(&TokenSpec::user("x"));
    assert_eq!(with_token(&proxy, &token).await.status, 502, "nobody can be judged");
    simulator.clear_faults();
    // The floor between two attempts has not passed; a fresh process shows that nothing else is in the way.
    let proxy = start_with(&simulator, &[("DISABLE_AUTH", "false")]).await;
    assert_eq!(with_token(&proxy, &token).await.status, 200);
    simulator.realm().rotate(false).unwrap();
    let new = simulator.realm().mint(&TokenSpec::user("x"));
    assert_eq!(with_token(&proxy, &new).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_authentication_is_warned_of_loudly() {
    let (_simulator, proxy) = demo_with(&[]).await;
    assert!(proxy.log().contains("AUTHENTICATION IS DISABLED"), "{}", proxy.log());
}

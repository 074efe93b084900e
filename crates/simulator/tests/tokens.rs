//! The realm's tokens, and their use with the HPC User API.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use simulator::{Algorithm, Client as SimulatedClient, Kid, Signing, Simulator, TokenSpec, World};

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn opaque_machine_tokens_expire() {
    let sim = Simulator::start(World::demo()).await;
    sim.world(|world| {
        world.hpc.tokens.insert("for-ever".to_owned(), None);
        world.hpc.tokens.insert("long-gone".to_owned(), Some(1));
    });
    let ask = async |path: &str, token: &str| {
        let url = format!("{}/api/v1/export/{path}", sim.hpc_url());
        client().get(url).bearer_auth(token).send().await.unwrap()
    };
    assert_eq!(ask("waldur/projects", "for-ever").await.status(), StatusCode::OK);
    assert_eq!(ask("waldur/projects", "long-gone").await.status(), StatusCode::UNAUTHORIZED);
    let expired = sim.realm().mint(&TokenSpec::service_account("hpc-client").lifetime(-1));
    assert_eq!(ask("waldur/projects", &expired).await.status(), StatusCode::UNAUTHORIZED);
    let user: Value = ask("cscs/users/alpha-member", "for-ever").await.json().await.unwrap();
    assert_eq!(user["uidNumber"], 23_001);
    assert_eq!(ask("cscs/users/nobody", "for-ever").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_hpc_user_api_accepts_a_machine_token() {
    let sim = Simulator::start(World::demo()).await;
    let form = [("grant_type", "client_credentials"), ("client_id", "hpc-client"), ("client_secret", "hpc-secret")];
    let token: Value = client().post(sim.token_url()).form(&form).send().await.unwrap().json().await.unwrap();
    assert_eq!(token["expires_in"], 300);
    let url = format!("{}/api/v1/export/waldur/projects", sim.hpc_url());
    let ask = async |query: &str, token: &str| {
        client().get(format!("{url}?{query}")).bearer_auth(token).send().await.unwrap()
    };
    let good = token["access_token"].as_str().unwrap();
    let answer: Value = ask("projects=uni-alpha-p1&projects=nobody", good).await.json().await.unwrap();
    assert_eq!(answer, json!({ "projects": [{ "posixName": "uni-alpha-p1", "unixGid": 30500 }] }));
    let all: Value = ask("", good).await.json().await.unwrap();
    assert_eq!(all["projects"].as_array().unwrap().len(), 11);
    assert_eq!(ask("", "nonsense").await.status(), StatusCode::UNAUTHORIZED);
    let long = format!("projects={}", "x".repeat(8200));
    assert_eq!(ask(&long, good).await.status(), StatusCode::URI_TOO_LONG);
    let wrong = [("grant_type", "client_credentials"), ("client_id", "hpc-client"), ("client_secret", "wrong")];
    let refused = client().post(sim.token_url()).form(&wrong).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "unauthorized_client");
}

#[tokio::test]
async fn tokens_verify_with_the_published_keys() {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

    let sim = Simulator::start(World::empty()).await;
    let realm = sim.realm();
    let algorithms = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];
    let tokens: Vec<String> = algorithms
        .iter()
        .map(|algorithm| realm.mint(&TokenSpec::user("alice").signed(Signing::Realm(*algorithm)).role("reader")))
        .collect();
    let issuer = realm.issuer();
    let discovery: Value =
        client().get(format!("{issuer}/.well-known/openid-configuration")).send().await.unwrap().json().await.unwrap();
    assert_eq!(discovery["issuer"], issuer.as_str());
    let keys: Value = client().get(discovery["jwks_uri"].as_str().unwrap()).send().await.unwrap().json().await.unwrap();
    let uses: Vec<&str> = keys["keys"].as_array().unwrap().iter().map(|key| key["use"].as_str().unwrap()).collect();
    assert!(uses.contains(&"enc"));
    let known: Vec<Value> =
        keys["keys"].as_array().unwrap().iter().filter(|key| key["kty"] != "AKP").cloned().collect();
    assert_eq!(known.len() + 1, keys["keys"].as_array().unwrap().len());
    let set: JwkSet = serde_json::from_value(json!({ "keys": known })).unwrap();
    let verify = |token: &str, algorithm: Algorithm| {
        let header = decode_header(token).unwrap();
        let key = DecodingKey::from_jwk(set.find(header.kid.as_deref().unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["account"]);
        validation.set_issuer(&[issuer.as_str()]);
        decode::<Value>(token, &key, &validation)
    };
    for (token, algorithm) in tokens.iter().zip(algorithms) {
        let claims = verify(token, algorithm).unwrap_or_else(|error| panic!("{algorithm:?}: {error}")).claims;
        assert_eq!(claims["preferred_username"], "alice");
        assert!(claims["realm_access"]["roles"].as_array().unwrap().contains(&json!("reader")));
    }
    let expired = realm.mint(&TokenSpec::user("alice").lifetime(-300));
    assert!(verify(&expired, Algorithm::RS256).is_err());
    let foreign = realm.mint(&TokenSpec::user("alice").signed(Signing::Foreign(Algorithm::RS256)));
    assert!(set.find(&decode_header(&foreign).unwrap().kid.unwrap()).is_none());
}

#[tokio::test]
async fn invalid_tokens_have_the_requested_flaw() {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    let sim = Simulator::start(World::empty()).await;
    let realm = sim.realm();
    let part = |token: &str, number: usize| -> Value {
        let part = token.split('.').nth(number).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let header = |spec: TokenSpec| part(&realm.mint(&spec), 0);
    let user = || TokenSpec::user("alice");
    let published: Vec<Value> = realm.jwks()["keys"].as_array().unwrap().clone();
    let usage_of = |kid: &Value| published.iter().find(|key| &key["kid"] == kid).map(|key| key["use"].clone());

    let unsigned = realm.mint(&user().signed(Signing::Nothing));
    assert_eq!(part(&unsigned, 0)["alg"], "none");
    assert!(unsigned.ends_with('.'));
    let confused = header(user().signed(Signing::PublicKeyAsSecret));
    assert_eq!((&confused["alg"], usage_of(&confused["kid"])), (&json!("HS256"), Some(json!("sig"))));
    let encryption = header(user().signed(Signing::EncryptionKey));
    assert_eq!((&encryption["alg"], usage_of(&encryption["kid"])), (&json!("RS256"), Some(json!("enc"))));
    assert_eq!(usage_of(&header(user().signed(Signing::Foreign(Algorithm::RS256)))["kid"]), None);
    assert_eq!(header(user().kid(Kid::Absent)).get("kid"), None);
    assert_eq!(header(user().kid(Kid::Named("other".to_owned())))["kid"], "other");
    let refresh = realm.mint(&user().signed(Signing::Realm(Algorithm::HS512)).claim("typ", "Refresh").without("exp"));
    assert_eq!((&part(&refresh, 0)["alg"], &part(&refresh, 1)["typ"]), (&json!("HS512"), &json!("Refresh")));
    assert_eq!(part(&refresh, 1).get("exp"), None);
    assert_eq!(realm.jwks()["keys"].as_array().unwrap().len(), published.len(), "a secret is not published");
}

#[tokio::test]
async fn introspection_knows_revoked_and_foreign_tokens() {
    let sim = Simulator::start(World::empty()).await;
    let ask = async |token: &str| -> Value {
        let url = format!("{}/introspect", sim.token_url());
        let form = [("token", token), ("client_id", "storage-provisioner"), ("client_secret", "provisioner-secret")];
        client().post(url).form(&form).send().await.unwrap().json().await.unwrap()
    };
    let alice = || TokenSpec::user("alice").audience("storage-provisioner");
    let token = sim.realm().mint(&alice());
    let answer = ask(&token).await;
    assert_eq!((&answer["active"], &answer["username"]), (&json!(true), &json!("alice")));
    sim.realm().revoke(&token);
    for inactive in [
        token,
        sim.realm().mint(&alice().signed(Signing::Foreign(Algorithm::ES256))),
        sim.realm().mint(&alice().claim("typ", "ID")),
        sim.realm().mint(&alice().audience("account")),
    ] {
        assert_eq!(ask(&inactive).await, json!({ "active": false }));
    }
}

#[tokio::test]
async fn introspection_completes_lightweight_tokens() {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    let sim = Simulator::start(World::empty()).await;
    let light = SimulatedClient::new("light", "secret").role("reader").audience("storage-provisioner").lightweight();
    sim.realm().register(light);
    let form = [("grant_type", "client_credentials"), ("client_id", "light"), ("client_secret", "secret")];
    let issued: Value = client().post(sim.token_url()).form(&form).send().await.unwrap().json().await.unwrap();
    let token = issued["access_token"].as_str().unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Map<String, Value> = serde_json::from_slice(&claims).unwrap();
    for name in ["preferred_username", "aud", "realm_access", "resource_access"] {
        assert!(!claims.contains_key(name), "{name}");
    }
    let answer = sim.realm().introspect(token, "storage-provisioner");
    for (name, value) in &claims {
        assert_eq!(&answer[name], value);
    }
    assert_eq!(answer["preferred_username"], "service-account-light");
    assert!(answer["realm_access"]["roles"].as_array().unwrap().contains(&json!("reader")));
}

#[tokio::test]
async fn rotation_removes_or_keeps_old_keys() {
    let sim = Simulator::start(World::empty()).await;
    let old = sim.realm().kids();
    let kept = sim.realm().rotate(true).unwrap();
    assert_eq!(sim.realm().kids(), [kept.clone(), old[0].clone()]);
    let alone = sim.realm().rotate(false).unwrap();
    assert_eq!(sim.realm().kids(), [alone]);
}

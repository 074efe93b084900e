//! The three services, as their callers see them.
#![expect(clippy::unwrap_used, reason = "what a test cannot unwrap is what it is there to find")]

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use simulator::world::Release;
use simulator::{Algorithm, Fault, Kid, PROVIDER_TOKEN, Signing, Simulator, TokenSpec, World};

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

async fn get(sim: &Simulator, token: &str, path: &str) -> Response {
    let url = format!("{}{path}", sim.base_url());
    client().get(url).header("Authorization", format!("Token {token}")).send().await.unwrap()
}

async fn json_of(sim: &Simulator, token: &str, path: &str) -> Value {
    let response = get(sim, token, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.json().await.unwrap()
}

fn names<'a>(rows: &'a Value, key: &str) -> Vec<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_cover_every_resource_once() {
    let sim = Simulator::start(World::large(730)).await;
    let mut seen = std::collections::HashSet::new();
    for page in 1..=3 {
        let path = format!("/api/marketplace-provider-resources/?page_size=500&page={page}&field=uuid");
        let response = get(&sim, PROVIDER_TOKEN, &path).await;
        assert_eq!(response.headers()["x-result-count"], "730");
        let links = response.headers()["link"].to_str().unwrap().to_owned();
        assert_eq!(links.contains("rel=\"next\""), page < 3);
        let rows: Value = response.json().await.unwrap();
        assert!(rows.as_array().unwrap().len() <= 300);
        seen.extend(names(&rows, "uuid").into_iter().map(str::to_owned));
    }
    assert_eq!(seen.len(), 730);
    let beyond = get(&sim, PROVIDER_TOKEN, "/api/marketplace-provider-resources/?page_size=500&page=4").await;
    assert_eq!(beyond.status(), StatusCode::NOT_FOUND);
    assert_eq!(beyond.json::<Value>().await.unwrap(), json!({ "detail": "Invalid page." }));
}

#[tokio::test]
async fn ties_may_lose_rows_between_pages() {
    let mut world = World::large(200);
    world.rows = simulator::world::RowOrder::AskedWithoutTieBreak;
    for row in world.resources.values_mut() {
        row.set("created", "2026-01-01T00:00:00.000000+00:00");
    }
    let sim = Simulator::start(world).await;
    let distinct = async |ordering: &str| {
        let mut seen = std::collections::HashSet::new();
        for page in 1..=4 {
            let path = format!("/api/marketplace-provider-resources/?page_size=50&page={page}&field=uuid{ordering}");
            let rows = json_of(&sim, PROVIDER_TOKEN, &path).await;
            seen.extend(names(&rows, "uuid").into_iter().map(str::to_owned));
        }
        seen.len()
    };
    assert!(distinct("").await < 200);
    assert_eq!(distinct("&o=created,name").await, 200);
}

#[tokio::test]
async fn fields_trim_the_nested_order_too() {
    let sim = Simulator::start(World::demo()).await;
    let list = "/api/marketplace-provider-resources/?page_size=300&field=slug&field=order_in_progress";
    let order_of = |rows: &Value| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["slug"] == "limits-executing").unwrap()["order_in_progress"].clone()
    };
    let rows = json_of(&sim, PROVIDER_TOKEN, &format!("{list}&field=state")).await;
    assert_eq!(order_of(&rows), json!({ "state": "executing" }));
    let rows = json_of(&sim, PROVIDER_TOKEN, &format!("{list}&field=state&field=type&field=url")).await;
    let order = order_of(&rows);
    assert_eq!(order["type"], "Update");
    let url = order["url"].as_str().unwrap();
    assert!(url.starts_with(&sim.base_url()), "{url}");
    let path = url.strip_prefix(&sim.base_url()).unwrap();
    assert_eq!(json_of(&sim, PROVIDER_TOKEN, path).await["state"], "executing");
}

#[tokio::test]
async fn the_provider_sees_nothing_on_the_consumers_side() {
    let sim = Simulator::start(World::demo()).await;
    let staff = sim.world(|world| world.token("staff")).unwrap();
    let count = async |token: &str, family: &str| {
        json_of(&sim, token, &format!("/api/{family}/?page_size=300&field=uuid")).await.as_array().unwrap().len()
    };
    let all = sim.world(|world| world.resources.len());
    assert_eq!(count(PROVIDER_TOKEN, "marketplace-provider-resources").await, all);
    assert_eq!(count(PROVIDER_TOKEN, "marketplace-resources").await, 0);
    assert_eq!(count(&staff, "marketplace-resources").await, all);
    let owner = sim.world(|world| world.token("cscs-owner")).unwrap();
    let own = count(&owner, "marketplace-provider-resources").await;
    assert!(0 < own && own < all);
}

#[tokio::test]
async fn slugs_filter_in_newer_releases_only() {
    let sim = Simulator::start(World::demo()).await;
    let path =
        "/api/marketplace-provider-resources/?page_size=300&field=offering_slug&field=uuid&offering_slug=vast,capstor";
    let rows = json_of(&sim, PROVIDER_TOKEN, path).await;
    let slugs = names(&rows, "offering_slug");
    assert!(slugs.contains(&"vast") && slugs.contains(&"capstor") && !slugs.contains(&"iopsstor"));
    let rows = json_of(&sim, PROVIDER_TOKEN, &format!("{path}&offering_slug=iopsstor")).await;
    assert!(names(&rows, "offering_slug").iter().all(|slug| *slug == "iopsstor"), "the last one wins");
    sim.world(|world| world.release = Release::V7_0);
    let rows = json_of(&sim, PROVIDER_TOKEN, path).await;
    assert_eq!(rows.as_array().unwrap().len(), sim.world(|world| world.resources.len()));
    assert!(rows[0].get("offering_slug").is_none());
}

#[tokio::test]
async fn customers_are_those_who_bought() {
    let sim = Simulator::start(World::demo()).await;
    let id = sim.world(|world| world.offering_by_slug("tape-basic").unwrap().uuid);
    let path = format!("/api/marketplace-provider-offerings/{}/customers/", id.simple());
    let rows = json_of(&sim, PROVIDER_TOKEN, &path).await;
    assert_eq!(names(&rows, "slug"), ["uni-alpha"]);
    let manager = sim.world(|world| world.token("capstor-manager")).unwrap();
    assert_eq!(get(&sim, &manager, &path).await.status(), StatusCode::NOT_FOUND);
    let capstor = sim.world(|world| world.offering_by_slug("capstor").unwrap().uuid);
    let path = format!("/api/marketplace-provider-offerings/{capstor}/customers/");
    assert_eq!(get(&sim, &manager, &path).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_machine_token_opens_the_hpc_user_api() {
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
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "invalid_client");
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
async fn wrong_tokens_are_wrong_in_the_way_asked_for() {
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
    let token = sim.realm().mint(&TokenSpec::user("alice"));
    let answer = ask(&token).await;
    assert_eq!((&answer["active"], &answer["username"]), (&json!(true), &json!("alice")));
    sim.realm().revoke(&token);
    assert_eq!(ask(&token).await, json!({ "active": false }));
    let foreign = sim.realm().mint(&TokenSpec::user("alice").signed(Signing::Foreign(Algorithm::ES256)));
    assert_eq!(ask(&foreign).await, json!({ "active": false }));
}

#[tokio::test]
async fn rotation_takes_old_keys_away_or_keeps_them() {
    let sim = Simulator::start(World::empty()).await;
    let old = sim.realm().kids();
    let kept = sim.realm().rotate(true).unwrap();
    assert_eq!(sim.realm().kids(), [kept.clone(), old[0].clone()]);
    let alone = sim.realm().rotate(false).unwrap();
    assert_eq!(sim.realm().kids(), [alone]);
}

#[tokio::test]
async fn requests_are_logged_with_their_connection() {
    let sim = Simulator::start(World::demo()).await;
    let client = client();
    for _ in 0..3 {
        let request = client.get(format!("{}/api/version/?a=b", sim.base_url())).header("User-Agent", "tester/1");
        request.header("Authorization", format!("Token {PROVIDER_TOKEN}")).send().await.unwrap().bytes().await.unwrap();
    }
    let log = sim.requests();
    assert_eq!(log.len(), 3);
    assert_eq!(log[0].header("user-agent"), Some("tester/1"));
    assert_eq!(log[0].query_all("a"), ["b"]);
    assert_eq!(log[2].status, Some(200));
    assert_eq!(log[0].connection, log[2].connection);
    assert_eq!(sim.connections(), 1);
}

#[tokio::test]
async fn an_outage_ends_connections_and_the_port_comes_back() {
    let mut sim = Simulator::start(World::empty()).await;
    let client = client();
    let url = format!("{}/api/version/", sim.base_url());
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    sim.stop();
    assert!(client.get(&url).send().await.is_err());
    assert!(self::client().get(&url).send().await.unwrap_err().is_connect(), "nobody listens");
    sim.restart().unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(sim.requests().len(), 2);
}

#[tokio::test]
async fn a_fault_hits_as_often_as_it_was_told() {
    let sim = Simulator::start(World::empty()).await;
    sim.set_fault_times("GET /api/*", Fault::retry_after(503, 7), 1);
    let first = get(&sim, PROVIDER_TOKEN, "/api/version/").await;
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(first.headers()["retry-after"], "7");
    assert_eq!(get(&sim, PROVIDER_TOKEN, "/api/version/").await.status(), StatusCode::OK);
    assert!(sim.faults().is_empty());
}

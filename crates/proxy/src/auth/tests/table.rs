//! Valid and invalid tokens with their expected results.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::realm::*;
use crate::auth::{AuthError, Refusal};

/// `Err`: refused with 401 and a message that contains this.
type Expected = Result<(), &'static str>;

fn with(mut object: Value, name: &str, value: impl Into<Value>) -> Value {
    object[name] = value.into();
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn table(realm: &TestRealm) -> Vec<(&'static str, String, Expected)> {
    let claims = || realm.claims();
    let header = || RSA.header();
    let good = || realm.token(&RSA);
    let said = |name: &str, value: Value| RSA.token(&with(claims(), name, value));
    let lacks = |name: &str| RSA.token(&without(claims(), name));
    let as_alg = |alg: &str| RSA_NEW.token_as(&with(RSA_NEW.header(), "alg", alg), &claims());
    let text = |replace: &str, by: &str| RSA.raw(&header().to_string(), claims().to_string().replace(replace, by));
    let parts = |token: String| token.split('.').map(String::from).collect::<Vec<_>>();
    let exp = format!("\"exp\":{}", NOW + 300);
    let (not_jwt, lately) = (Err("not a signed JSON Web Token"), NOW - 29);
    vec![
        ("RS256", good(), Ok(())),
        ("RS256 with a key without alg", as_alg("RS256"), Ok(())),
        ("RS384", as_alg("RS384"), Ok(())),
        ("RS512", as_alg("RS512"), Ok(())),
        ("PS256", as_alg("PS256"), Ok(())),
        ("PS384", as_alg("PS384"), Ok(())),
        ("PS512", as_alg("PS512"), Ok(())),
        ("ES256", P256.token(&claims()), Ok(())),
        ("ES384", P384.token(&claims()), Ok(())),
        ("EdDSA", ED.token(&claims()), Ok(())),
        ("header typ at+jwt", RSA.token_as(&with(header(), "typ", "at+jwt"), &claims()), Ok(())),
        ("no header typ", RSA.token_as(&without(header(), "typ"), &claims()), Ok(())),
        ("no kid, one key for the algorithm", ED.token_as(&without(ED.header(), "kid"), &claims()), Ok(())),
        ("no kid, several keys", RSA.token_as(&without(header(), "kid"), &claims()), Err("names no key")),
        ("kid null", RSA.token_as(&with(header(), "kid", Value::Null), &claims()), not_jwt),
        ("kid a number", RSA.token_as(&with(header(), "kid", 1), &claims()), not_jwt),
        ("kid of another key", RSA.token_as(&with(header(), "kid", "rsa-2"), &claims()), Err("signature is wrong")),
        (
            "kid of another type",
            RSA.token_as(&with(header(), "kid", "p256"), &claims()),
            Err("is for another algorithm"),
        ),
        ("kid unknown", RSA.token_as(&with(header(), "kid", "x"), &claims()), Err("does not publish")),
        ("kid of an encryption key", RSA.token_as(&with(header(), "kid", "enc"), &claims()), Err("does not publish")),
        ("kid of a short key", RSA.token_as(&with(header(), "kid", "short"), &claims()), Err("does not publish")),
        ("kid of a shared secret", RSA.token_as(&with(header(), "kid", "oct"), &claims()), Err("does not publish")),
        (
            "PS256 on an RS256 key",
            RSA.token_as(&with(header(), "alg", "PS256"), &claims()),
            Err("is for another algorithm"),
        ),
        (
            "RS512 on an RS256 key",
            RSA.token_as(&with(header(), "alg", "RS512"), &claims()),
            Err("is for another algorithm"),
        ),
        (
            "ES384 on a P-256 key",
            P256.token_as(&with(P256.header(), "alg", "ES384"), &claims()),
            Err("is for another algorithm"),
        ),
        (
            "alg none, no signature",
            format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(claims().to_string())),
            Err("algorithm `none`"),
        ),
        ("alg none, signed", RSA.token_as(&with(header(), "alg", "none"), &claims()), Err("algorithm `none`")),
        ("alg nOnE", RSA.token_as(&with(header(), "alg", "nOnE"), &claims()), Err("algorithm `nOnE`")),
        (
            "HS256 with the public key",
            hmac_token(RSA.bare_jwk()["n"].as_str().unwrap().as_bytes(), &with(header(), "alg", "HS256"), &claims()),
            Err("algorithm `HS256`"),
        ),
        (
            "HS256 labelled RS256",
            hmac_token(RSA.bare_jwk().to_string().as_bytes(), &header(), &claims()),
            Err("signature is wrong"),
        ),
        (
            "HS256 with a published oct key",
            hmac_token(b"secret", &with(with(header(), "alg", "HS256"), "kid", "oct"), &claims()),
            Err("algorithm `HS256`"),
        ),
        ("alg a list", RSA.token_as(&with(header(), "alg", json!(["RS256"])), &claims()), not_jwt),
        ("no alg", RSA.token_as(&without(header(), "alg"), &claims()), not_jwt),
        ("crit", RSA.token_as(&with(header(), "crit", json!(["exp"])), &claims()), Err("critical")),
        (
            "own key in the header",
            RSA_NEW.token_as(&with(with(header(), "jwk", RSA_NEW.jwk()), "alg", "RS256"), &claims()),
            Err("signature is wrong"),
        ),
        (
            "own key set in the header",
            RSA_NEW.token_as(&with(header(), "jku", "http://127.0.0.1:1/"), &claims()),
            Err("signature is wrong"),
        ),
        ("exp missing", lacks("exp"), Err("lacks the claim `exp`")),
        ("exp null", said("exp", Value::Null), Err("claim `exp` is not")),
        ("exp a string", said("exp", json!((NOW + 300).to_string())), Err("claim `exp` is not")),
        ("exp a fraction", said("exp", json!(1.8e9 + 300.5)), Err("claim `exp` is not")),
        ("exp negative", said("exp", json!(-1)), Err("claim `exp` is not")),
        ("exp a list", said("exp", json!([NOW + 300])), Err("claim `exp` is not")),
        ("exp true", said("exp", json!(true)), Err("claim `exp` is not")),
        ("exp beyond all years", said("exp", json!(u64::MAX)), Err("claim `exp` is not")),
        ("exp 1e300", text(&exp, r#""exp":1e300"#), Err("claim `exp` is not")),
        ("exp 1e999", text(&exp, r#""exp":1e999"#), not_jwt),
        ("exp a moment ago", said("exp", json!(lately)), Ok(())),
        ("exp at the leeway", said("exp", json!(NOW - 30)), Err("expired 30 seconds ago")),
        ("exp long ago", said("exp", json!(NOW - 3600)), Err("expired 3600 seconds ago")),
        ("exp zero", said("exp", json!(0)), Err("expired")),
        ("nbf past", said("nbf", json!(0)), Ok(())),
        ("nbf within the leeway", said("nbf", json!(NOW + 30)), Ok(())),
        ("nbf to come", said("nbf", json!(NOW + 31)), Err("claim `nbf`")),
        ("nbf a string", said("nbf", json!("soon")), Err("claim `nbf` is not")),
        ("iat missing", lacks("iat"), Ok(())),
        ("iat to come", said("iat", json!(NOW + 31)), Err("claim `iat`")),
        ("iss missing", lacks("iss"), Err("lacks the claim `iss`")),
        ("iss with a slash", said("iss", json!(format!("{}/", realm.issuer()))), Err("was issued by")),
        ("iss another realm", said("iss", json!(realm.issuer().replace("cscs", "master"))), Err("was issued by")),
        ("iss in capitals", said("iss", json!(realm.issuer().to_uppercase())), Err("was issued by")),
        ("iss https", said("iss", json!(realm.issuer().replace("http:", "https:"))), Err("was issued by")),
        ("iss a list", said("iss", json!([realm.issuer()])), Err("claim `iss` is not")),
        ("aud a list of us alone", said("aud", json!(["storage"])), Ok(())),
        ("aud us", said("aud", json!("storage")), Ok(())),
        ("aud another", said("aud", json!("other")), Err("must contain `storage`")),
        ("aud begins like us", said("aud", json!("storage-2")), Err("must contain `storage`")),
        ("aud missing", lacks("aud"), Err("must contain `storage`")),
        ("aud empty", said("aud", json!([])), Err("must contain `storage`")),
        ("aud an object", said("aud", json!({"storage": true})), Err("must contain `storage`")),
        ("typ missing", lacks("typ"), Ok(())),
        ("typ ID", said("typ", json!("ID")), Err("type `ID`")),
        ("typ Refresh", said("typ", json!("Refresh")), Err("type `Refresh`")),
        ("typ Offline", said("typ", json!("Offline")), Err("type `Offline`")),
        ("typ in small letters", said("typ", json!("bearer")), Err("type `bearer`")),
        ("typ a number", said("typ", json!(1)), Err("claim `typ` is not")),
        (
            "cnf of DPoP",
            said("cnf", json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})),
            Err("is bound to a key"),
        ),
        (
            "cnf and typ of Keycloak's DPoP",
            RSA.token(&with(
                with(claims(), "typ", "DPoP"),
                "cnf",
                json!({"jkt": "0ZcOCORZNYy", "kc-jkt-type": "DPoP"}),
            )),
            Err("is bound to a key"),
        ),
        (
            "cnf of mutual TLS",
            said("cnf", json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"})),
            Err("is bound to a key"),
        ),
        ("cnf unknown", said("cnf", json!({"kid": "x"})), Err("is bound to a key")),
        ("cnf null", said("cnf", Value::Null), Err("is bound to a key")),
        ("name missing", lacks("preferred_username"), Err("lacks the claim `preferred_username`")),
        ("name null", said("preferred_username", Value::Null), Err("`preferred_username` is not")),
        ("name empty", said("preferred_username", json!("")), Err("`preferred_username` is not")),
        ("name blank", said("preferred_username", json!(" \t")), Err("`preferred_username` is not")),
        ("name a number", said("preferred_username", json!(7)), Err("`preferred_username` is not")),
        ("name a list", said("preferred_username", json!(["x"])), Err("`preferred_username` is not")),
        ("name not ASCII", said("preferred_username", json!("Zoë 用户")), Ok(())),
        ("claims a list", RSA.token(&json!([claims()])), not_jwt),
        ("claims a string", RSA.token(&json!("claims")), not_jwt),
        ("claims empty", RSA.raw(&header().to_string(), ""), not_jwt),
        ("claims not UTF-8", RSA.raw(&header().to_string(), b"{\"iss\":\"\xff\xfe\"}"), not_jwt),
        ("claims cut", RSA.raw(&header().to_string(), &claims().to_string()[..40]), not_jwt),
        ("claims and more", RSA.raw(&header().to_string(), format!("{} {{}}", claims())), not_jwt),
        ("claims nested too deep", RSA.raw(&header().to_string(), format!("{{\"a\":{}", "[".repeat(5000))), not_jwt),
        ("a claim twice", text(&exp, &format!("{exp},{exp}")), not_jwt),
        ("an expired and a good exp", text(&exp, &format!("\"exp\":1,{exp}")), not_jwt),
        ("header not JSON", RSA.raw("header", claims().to_string()), not_jwt),
        ("header a list", RSA.raw("[]", claims().to_string()), not_jwt),
        ("header alg twice", RSA.raw(r#"{"alg":"none","alg":"RS256","kid":"rsa-1"}"#, claims().to_string()), not_jwt),
        (
            "claims of another token",
            format!("{}.{}.{}", parts(good())[0], parts(said("jti", json!("x")))[1], parts(good())[2]),
            Err("signature is wrong"),
        ),
        ("no signature", format!("{}.{}.", parts(good())[0], parts(good())[1]), Err("signature is wrong")),
        ("two parts", parts(good())[..2].join("."), Err("three parts")),
        ("one part", parts(good())[0].clone(), Err("three parts")),
        ("four parts", format!("{}.x", good()), Err("three parts")),
        ("five parts", format!("{}.x.y", good()), Err("three parts")),
        ("only dots", String::from(".."), not_jwt),
        ("padded", format!("{}=", good()), Err("signature is wrong")),
        ("in quotes", format!("\"{}\"", good()), not_jwt),
        ("signed with a stranger's key", RSA_STRANGER.token(&claims()), Err("signature is wrong")),
        ("one of two keys of one id", TWIN.token(&claims()), Ok(())),
    ]
}

/// Same id as [`RSA`], not published.
static RSA_STRANGER: std::sync::LazyLock<Signer> = std::sync::LazyLock::new(|| {
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    Signer { private: Private::Rsa(key), id: "rsa-1", algorithm: "RS256" }
});

/// Same id and type as [`P256`], also published.
static TWIN: std::sync::LazyLock<Signer> = std::sync::LazyLock::new(|| {
    let key =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Signer { private: Private::Ec("P-256", key), id: "p256", algorithm: "ES256" }
});

fn all_keys() -> Vec<Value> {
    let mut encryption = with(RSA.bare_jwk(), "kid", "enc");
    encryption["use"] = "enc".into();
    vec![
        encryption,
        json!({"kty": "oct", "kid": "oct", "k": base64("secret"), "alg": "HS256"}),
        json!({"kty": "quantum", "kid": "q"}),
        with(with(RSA.bare_jwk(), "kid", "short"), "n", base64([0xc1; 128])),
        RSA.jwk(),
        RSA_NEW.bare_jwk(),
        P256.jwk(),
        TWIN.jwk(),
        P384.jwk(),
        ED.bare_jwk(),
        without(RSA.bare_jwk(), "kty"),
    ]
}

#[tokio::test(start_paused = true)]
async fn tokens_are_accepted_or_refused_as_expected() {
    let realm = TestRealm::start(&all_keys()).await;
    let mut auth = realm.settings();
    auth.keycloak_client_id = Some(String::from("storage"));
    let verifier = realm.verifier_with(&auth);
    let table = table(&realm);
    assert!(table.len() > 100);
    for (name, token, expected) in table {
        let outcome = authenticate(&verifier, &token).await;
        match (&outcome, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error @ AuthError::Refused(_)), Err(text)) if error.to_string().contains(text) => {
                let rejection = verifier.rejection(error);
                assert_eq!(rejection.status, 401, "{name}");
                assert_eq!(rejection.body["detail"], error.to_string(), "{name}");
                assert!(
                    rejection.headers["www-authenticate"]
                        .to_str()
                        .unwrap()
                        .starts_with("Bearer realm=\"cscs\", error=")
                );
            }
            _ => panic!("{name}: {outcome:?}, expected {expected:?}"),
        }
    }
    assert_eq!(realm.fetched(), 2, "one at the start, one for all the unknown keys");
}

#[tokio::test(start_paused = true)]
async fn without_a_client_id_the_audience_is_not_checked() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    for claims in
        [with(realm.claims(), "aud", "account"), without(realm.claims(), "aud"), with(realm.claims(), "aud", 7)]
    {
        assert_eq!(status(&verifier, &RSA.token(&claims)).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_one_bearer_header_is_accepted() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = realm.token(&RSA);
    let refused = async |headers: http::HeaderMap| match verifier.caller(&headers).await.unwrap_err() {
        AuthError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        verifier.caller(&headers(format!("bEARER {token}"))).await.unwrap().username,
        "service-account-provisioner"
    );
    assert_eq!(refused(http::HeaderMap::new()).await, Refusal::NoCredentials);
    for value in [
        format!("Basic {token}"),
        format!("Token {token}"),
        token.clone(),
        String::from("Bearer"),
        format!("Bearer {token} x"),
    ] {
        assert_eq!(refused(headers(value)).await, Refusal::NotBearer);
    }
    let mut twice = headers(format!("Bearer {token}"));
    twice.append("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(refused(twice).await, Refusal::SeveralCredentials);
    // The size is checked before the signature.
    let large = RSA.token(&with(realm.claims(), "groups", "x".repeat(13_000)));
    assert_eq!(refused(headers(format!("Bearer {large}"))).await, Refusal::TooLong(16 * 1024));
}

#[tokio::test(start_paused = true)]
async fn invalid_tokens_cause_no_requests_to_the_realm() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let expired = RSA.token(&with(realm.claims(), "exp", NOW - 60));
    for token in ["x", "a.b.c", expired.as_str(), &RSA.token_as(&with(RSA.header(), "alg", "HS256"), &realm.claims())] {
        assert_eq!(status(&verifier, token).await, 401);
    }
    assert_eq!(realm.fetched(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cached_token_expires_too() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = realm.token(&RSA);
    for (time, expected) in [(NOW, 200), (NOW + 1, 200), (NOW + 329, 200), (NOW + 330, 401), (NOW + 1, 200)] {
        realm.time.store(time, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(status(&verifier, &token).await, expected, "{time}");
    }
}

#[tokio::test(start_paused = true)]
async fn roles_are_checked_after_the_signature() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let mut auth = realm.settings();
    auth.keycloak_client_id = Some(String::from("storage"));
    for (roles, missing) in [
        (vec!["offline_access"], vec![]),
        (vec!["offline_access", "reader", "account:view-profile", "hpc:read", "storage:reader"], vec![]),
        (vec!["view-profile"], vec!["view-profile"]),
        (
            vec!["reader", "writer", "account:reader", "nobody:reader", ":", ""],
            vec!["writer", "account:reader", "nobody:reader", ":", ""],
        ),
    ] {
        auth.required_roles = roles.iter().map(ToString::to_string).collect();
        let verifier = realm.verifier_with(&auth);
        match (authenticate(&verifier, &realm.token(&RSA)).await, missing.is_empty()) {
            (Ok(_), true) => {}
            (Err(AuthError::Forbidden { missing: reported }), false) => assert_eq!(reported, missing),
            (other, _) => panic!("{other:?}"),
        }
        let forged = RSA_STRANGER.token(&realm.claims());
        assert_eq!(status(&verifier, &forged).await, 401);
    }
    auth.required_roles = vec![String::from("writer")];
    let verifier = realm.verifier_with(&auth);
    for (name, value) in [
        ("realm_access", json!("writer")),
        ("realm_access", json!({"roles": {"writer": 1}})),
        ("resource_access", json!(["writer"])),
    ] {
        assert_eq!(status(&verifier, &RSA.token(&with(realm.claims(), name, value))).await, 403);
    }
    let error = authenticate(&verifier, &realm.token(&RSA)).await.unwrap_err();
    let rejection = verifier.rejection(&error);
    assert_eq!(rejection.body["error"], "AuthorizationError");
    assert_eq!(rejection.body["detail"], "the token lacks the required role: writer");
    assert!(rejection.headers["www-authenticate"].to_str().unwrap().contains("error=\"insufficient_scope\""));
}

#[tokio::test(start_paused = true)]
async fn answers_name_the_violated_rule_and_quote_safely() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let rejection = verifier.rejection(&verifier.caller(&http::HeaderMap::new()).await.unwrap_err());
    assert_eq!(rejection.status, 401);
    assert_eq!(rejection.headers["www-authenticate"], "Bearer realm=\"cscs\"");
    assert_eq!(rejection.body["error"], "AuthenticationError");
    assert!(rejection.body["help"].as_str().unwrap().contains(&realm.issuer()));

    let mut auth = realm.settings();
    auth.keycloak_client_id = Some(String::from("storage"));
    let verifier = realm.verifier_with(&auth);
    let help = async |name: &str, value: Value| {
        let token = RSA.token(&with(with(realm.claims(), "aud", "storage"), name, value));
        let rejection = verifier.rejection(&authenticate(&verifier, &token).await.unwrap_err());
        rejection.body["help"].as_str().unwrap().to_owned()
    };
    assert_eq!(help("exp", json!(1)).await, format!("Get a new access token from {}.", realm.issuer()));
    assert!(help("aud", json!("account")).await.contains("add the audience `storage`"));
    assert!(help("typ", json!("Refresh")).await.contains("not its `refresh_token`"));
    assert!(help("preferred_username", Value::Null).await.starts_with("A new token would be the same: have the admin"));

    let evil = "\"x\", error=\"none\"\r\nSet-Cookie: a=b; \\ \u{202e}é";
    let verifier = realm.verifier();
    let token = RSA.token(&with(realm.claims(), "iss", evil));
    let rejection = verifier.rejection(&authenticate(&verifier, &token).await.unwrap_err());
    let challenge = rejection.headers["www-authenticate"].to_str().unwrap();
    let description =
        challenge.strip_prefix("Bearer realm=\"cscs\", error=\"invalid_token\", error_description=\"").unwrap();
    let description = description.strip_suffix('"').unwrap();
    assert!(!description.contains(['"', '\\']), "{description}");
    assert!(description.contains(&realm.issuer()), "{description}");
    let answer = rejection.body.to_string();
    assert!(!answer.contains(&token) && !answer.contains("\u{202e}"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn with_authentication_disabled_all_callers_are_the_same_user() {
    let realm = TestRealm::start(&[]).await;
    let mut auth = realm.settings();
    auth.disable_auth = true;
    let verifier = realm.verifier_with(&auth);
    assert!(!verifier.is_enabled());
    verifier.warm().await;
    assert_eq!(verifier.check().await.unwrap(), None);
    for headers in [http::HeaderMap::new(), headers("Bearer x"), headers("nonsense")] {
        assert_eq!(verifier.caller(&headers).await.unwrap().username, "dev_user");
    }
    assert_eq!(realm.fetched(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_with_any_changed_byte_is_refused() {
    let realm = TestRealm::start(&[RSA.jwk(), P256.jwk(), ED.jwk()]).await;
    let verifier = realm.verifier();
    for signer in [&*RSA, &*P256, &*ED] {
        let token = realm.token(signer);
        for at in 0..token.len() {
            for by in ["A", "b", "_", ".", "=", "%", ""] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, by);
                if changed != token {
                    assert_eq!(status(&verifier, &changed).await, 401, "{by} at {at} of {token}");
                }
            }
        }
        assert_eq!(status(&verifier, &token).await, 200);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Claims of any type, validly signed, are accepted or refused without a panic.
    #[test]
    fn any_signed_claims_are_handled(
        name in prop::sample::select(vec!["exp", "nbf", "iat", "iss", "aud", "typ", "preferred_username", "realm_access"]),
        value in prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), any::<String>().prop_map(Value::from),
            any::<Vec<String>>().prop_map(Value::from),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let status = runtime.block_on(async {
            let realm = TestRealm::start(&[ED.jwk()]).await;
            let mut auth = realm.settings();
            auth.keycloak_client_id = Some(String::from("storage"));
            auth.required_roles = vec![String::from("offline_access")];
            status(&realm.verifier_with(&auth), &ED.token(&with(realm.claims(), name, value.clone()))).await
        });
        let time_from_the_past = ["nbf", "iat"].contains(&name) && value.as_u64().is_some_and(|time| time <= NOW + 30);
        let a_name = name == "preferred_username" && value.as_str().is_some_and(|name| !name.trim().is_empty());
        let later = name == "exp" && value.as_u64().is_some_and(|time| time > NOW - 30 && time <= 253_402_300_799);
        let expected = match () {
            () if time_from_the_past || a_name || later => 200,
            () if name == "realm_access" => 403,
            () => 401,
        };
        prop_assert_eq!(status, expected);
    }
}

//! Sign-in of people at the realm.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use simulator::{Simulator, User, World};
use url::Url;

/// A verifier and its S256 challenge (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "http://127.0.0.1:1/ui/callback";
const CLIENT: [(&str, &str); 2] =
    [("client_id", "storage-dashboard"), ("client_secret", "dashboard-secret-0123456789")];

struct Site {
    simulator: Simulator,
    http: Client,
}

impl Site {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { simulator: Simulator::start(World::empty()).await, http }
    }

    /// The answer of the authorization endpoint to a good request, with other values of some parameters.
    async fn authorize(&self, changes: &[(&str, &str)]) -> (StatusCode, Option<Url>) {
        let mut url = Url::parse(&self.simulator.realm().issuer()).unwrap();
        url.path_segments_mut().unwrap().extend(["protocol", "openid-connect", "auth"]);
        let good = [
            ("client_id", "storage-dashboard"),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid"),
            ("state", "s"),
            ("nonce", "n"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        let kept = good.into_iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        url.query_pairs_mut().extend_pairs(kept).extend_pairs(changes.iter().filter(|(_, value)| !value.is_empty()));
        let answer = self.http.get(url).send().await.unwrap();
        let to = answer.headers().get(LOCATION).map(|to| Url::parse(to.to_str().unwrap()).unwrap());
        (answer.status(), to)
    }

    async fn code(&self) -> String {
        let (status, to) = self.authorize(&[]).await;
        let to = to.unwrap();
        assert_eq!((status, value(&to, "state").unwrap()), (StatusCode::FOUND, "s".to_owned()));
        assert!(to.as_str().starts_with(CALLBACK));
        assert_eq!(value(&to, "iss").unwrap(), self.simulator.realm().issuer());
        value(&to, "code").unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let url = self.simulator.token_url().replace("/token", path);
        let answer = self.http.post(url).form(&[&CLIENT[..], form].concat()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn exchange(&self, code: &str, verifier: &str, to: &str) -> (u16, Value) {
        let form =
            [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier), ("redirect_uri", to)];
        self.post("/token", &form).await
    }

    async fn refresh(&self, token: &Value) -> (u16, Value) {
        let token = token["refresh_token"].as_str().unwrap();
        self.post("/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }
}

fn value(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn claims(token: &Value) -> Value {
    use base64::Engine;
    let part = token.as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_code_is_exchanged_once_with_its_verifier() {
    let site = Site::new().await;
    let (status, tokens) = site.exchange(&site.code().await, VERIFIER, CALLBACK).await;
    assert_eq!(status, 200, "{tokens}");
    let id = claims(&tokens["id_token"]);
    assert_eq!(
        (&id["nonce"], &id["aud"], &id["azp"]),
        (&"n".into(), &"storage-dashboard".into(), &"storage-dashboard".into())
    );
    let access = claims(&tokens["access_token"]);
    assert_eq!(access["preferred_username"], "operator");
    assert!(access["realm_access"]["roles"].as_array().unwrap().contains(&"storage-reader".into()));
    assert_eq!(access["sub"], id["sub"]);
    for (verifier, to, why) in [
        ("x", CALLBACK, "PKCE verification failed: Code mismatch"),
        (VERIFIER, "http://127.0.0.1:1/", "Incorrect redirect_uri"),
    ] {
        let (status, refusal) = site.exchange(&site.code().await, verifier, to).await;
        assert_eq!(
            (status, &refusal["error"], &refusal["error_description"]),
            (400, &"invalid_grant".into(), &why.into())
        );
    }
    // A code that is sent twice ends the session.
    let code = site.code().await;
    let tokens = site.exchange(&code, VERIFIER, CALLBACK).await.1;
    assert_eq!(site.exchange(&code, VERIFIER, CALLBACK).await.0, 400);
    assert_eq!(site.refresh(&tokens).await.1["error_description"], "Session not active");
}

#[tokio::test]
async fn sessions_are_refreshed_and_end() {
    let site = Site::new().await;
    let signed_in = async || site.exchange(&site.code().await, VERIFIER, CALLBACK).await.1;
    let first = signed_in().await;
    let second = site.refresh(&first).await.1;
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(site.refresh(&first).await.0, 200, "by default a refresh token can be used again");
    let realm = site.simulator.realm();
    realm.use_refresh_tokens_once(true);
    assert_eq!(site.refresh(&second).await.0, 200);
    assert_eq!(site.refresh(&second).await.1["error"], "invalid_grant");
    assert_eq!(realm.sessions(), 0);

    let tokens = signed_in().await;
    let out = [("refresh_token", tokens["refresh_token"].as_str().unwrap())];
    assert_eq!(site.post("/logout", &out).await.0, 204);
    assert_eq!((site.refresh(&tokens).await.0, realm.sessions()), (400, 0));
    signed_in().await;
    let sessions = format!("{}/_simulator/sessions", site.simulator.base_url());
    assert_eq!(site.http.delete(sessions).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(realm.sessions(), 0);
    let tokens = signed_in().await;
    realm.register_user(User { enabled: false, ..User::new("operator", &[]) });
    assert_eq!(site.refresh(&tokens).await.1["error_description"], "User disabled");
}

#[tokio::test]
async fn the_authorization_endpoint_refuses_like_keycloak() {
    let site = Site::new().await;
    // Without a valid client and redirect URI, browsers are not redirected.
    for change in
        [("client_id", "nobody"), ("client_id", "hpc-client"), ("redirect_uri", "ftp://x/"), ("redirect_uri", "")]
    {
        assert_eq!(site.authorize(&[change]).await, (StatusCode::BAD_REQUEST, None), "{change:?}");
    }
    for (changes, error) in [
        (&[("response_type", "")][..], "invalid_request"),
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("code_challenge", ""), ("code_challenge_method", "")], "invalid_request"),
    ] {
        let (status, to) = site.authorize(changes).await;
        assert_eq!((status, value(&to.unwrap(), "error").unwrap().as_str()), (StatusCode::FOUND, error), "{changes:?}");
    }
    site.simulator.realm().sign_in_as(None);
    assert_eq!(value(&site.authorize(&[]).await.1.unwrap(), "error").unwrap(), "access_denied");
}

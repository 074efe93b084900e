//! A realm on loopback whose answers a test chooses, and keys to sign tokens with.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use url::Url;

use crate::auth::{AuthError, Caller, Verifier};
use crate::config;
use crate::testing::metronome;
use program::Clock;

/// The wall-clock time at which every test starts, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

/// An answer of the realm.
#[derive(Clone)]
pub(super) enum Page {
    Json(Value),
    Raw(u16, String),
    Redirect(&'static str),
    /// No answer; the connection stays open.
    Silence,
}

pub(super) struct World {
    pub(super) discovery: Page,
    pub(super) keys: Page,
    pub(super) introspection: Page,
    /// Bodies of the introspection requests.
    pub(super) asked: Vec<String>,
}

pub(super) struct TestRealm {
    pub(super) address: SocketAddr,
    pub(super) world: Arc<Mutex<World>>,
    /// Number of requests for the keys.
    pub(super) fetches: watch::Receiver<usize>,
    /// Wall clock of the verifiers, in seconds since 1970.
    pub(super) time: Arc<AtomicU64>,
    /// Monotonic clock of the verifiers. It advances a nanosecond at each reading, and as tests want.
    instant: Arc<Mutex<Instant>>,
}

#[derive(Clone)]
struct Served(Arc<Mutex<World>>, watch::Sender<usize>);

impl TestRealm {
    /// Starts a realm with these keys and its discovery document.
    pub(super) async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, keys)
    }

    pub(super) fn serve(listener: TcpListener, keys: &[Value]) -> Self {
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World {
            discovery: Page::Json(discovery(address)),
            keys: Page::Json(json!({ "keys": keys })),
            introspection: Page::Json(json!({"active": true})),
            asked: Vec::new(),
        }));
        let (counted, fetches) = watch::channel(0);
        let router = Router::new().fallback(any(answer)).with_state(Served(world.clone(), counted));
        tokio::spawn(async move { axum::serve(listener, router).await });
        metronome();
        Self {
            address,
            world,
            fetches,
            time: Arc::new(AtomicU64::new(NOW)),
            instant: Arc::new(Mutex::new(Instant::now())),
        }
    }

    pub(super) fn set_keys(&self, page: Page) {
        self.world.lock().unwrap().keys = page;
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.set_keys(Page::Json(json!({ "keys": keys })));
    }

    pub(super) fn set_discovery(&self, page: Page) {
        self.world.lock().unwrap().discovery = page;
    }

    pub(super) fn fetched(&self) -> usize {
        *self.fetches.borrow()
    }

    pub(super) fn issuer(&self) -> String {
        format!("http://{}/auth/realms/cscs", self.address)
    }

    pub(super) fn settings(&self) -> config::Auth {
        settings_for(self.address)
    }

    pub(super) fn verifier(&self) -> Verifier {
        self.verifier_with(&self.settings())
    }

    pub(super) fn verifier_with(&self, auth: &config::Auth) -> Verifier {
        let (time, instant) = (self.time.clone(), self.instant.clone());
        let clock = Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(time.load(Ordering::Relaxed)));
        Verifier::new(
            auth,
            clock.with_monotonic(move || {
                let mut instant = instant.lock().unwrap();
                *instant += Duration::from_nanos(1);
                *instant
            }),
        )
        .unwrap()
    }

    /// Advances the monotonic clock.
    pub(super) fn pass(&self, time: Duration) {
        *self.instant.lock().unwrap() += time;
    }

    /// Claims of a service account, as Keycloak writes them.
    pub(super) fn claims(&self) -> Value {
        json!({
            "exp": NOW + 300, "iat": NOW, "jti": "5c1f", "iss": self.issuer(), "aud": ["account", "storage"], "sub": "f3a1",
            "typ": "Bearer", "azp": "provisioner", "acr": "1", "scope": "openid profile",
            "realm_access": {"roles": ["offline_access", "hpc:read"]},
            "resource_access": {"account": {"roles": ["view-profile"]}, "storage": {"roles": ["reader"]}},
            "preferred_username": "service-account-provisioner", "clientId": "provisioner",
        })
    }

    pub(super) fn token(&self, signer: &Signer) -> String {
        signer.token(&self.claims())
    }
}

pub(super) fn settings_for(address: SocketAddr) -> config::Auth {
    config::Auth {
        disable_auth: false,
        keycloak_url: Url::parse(&format!("http://{address}/auth/")).unwrap(),
        keycloak_realm: String::from("cscs"),
        keycloak_client_id: None,
        keycloak_client_secret: None,
        introspection: false,
        required_roles: Vec::new(),
        callback_roles: Vec::new(),
        report_roles: Vec::new(),
        verify_ssl: true,
        socks_proxy: None,
    }
}

pub(super) fn discovery(address: SocketAddr) -> Value {
    let issuer = format!("http://{address}/auth/realms/cscs");
    json!({"issuer": issuer, "jwks_uri": format!("{issuer}/protocol/openid-connect/certs")})
}

async fn answer(State(Served(world, counted)): State<Served>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 100_000).await.unwrap();
    let page = {
        let mut world = world.lock().unwrap();
        match parts.uri.path() {
            "/auth/realms/cscs/.well-known/openid-configuration" => world.discovery.clone(),
            "/auth/realms/cscs/protocol/openid-connect/certs" => {
                counted.send_modify(|count| *count += 1);
                world.keys.clone()
            }
            "/auth/realms/cscs/protocol/openid-connect/token/introspect" => {
                world.asked.push(String::from_utf8(body.to_vec()).unwrap());
                world.introspection.clone()
            }
            _ => Page::Raw(404, String::from("{}")),
        }
    };
    match page {
        Page::Json(value) => Response::new(Body::from(value.to_string())),
        Page::Raw(status, text) => Response::builder().status(status).body(Body::from(text)).unwrap(),
        Page::Redirect(to) => Response::builder().status(302).header("location", to).body(Body::empty()).unwrap(),
        Page::Silence => std::future::pending().await,
    }
}

/// A private key.
pub(super) enum Private {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A private key and its `kid`.
pub(super) struct Signer {
    pub(super) private: Private,
    pub(super) id: &'static str,
    /// The default algorithm.
    pub(super) algorithm: &'static str,
}

fn rsa(id: &'static str) -> Signer {
    Signer { private: Private::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()), id, algorithm: "RS256" }
}

pub(super) static RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-1"));
pub(super) static RSA_NEW: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-2"));
pub(super) static P256: LazyLock<Signer> = LazyLock::new(|| {
    let key = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Signer { private: Private::Ec("P-256", key), id: "p256", algorithm: "ES256" }
});
pub(super) static P384: LazyLock<Signer> = LazyLock::new(|| {
    let key = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    Signer { private: Private::Ec("P-384", key), id: "p384", algorithm: "ES384" }
});
pub(super) static ED: LazyLock<Signer> = LazyLock::new(|| Signer {
    private: Private::Ed(Ed25519KeyPair::generate().unwrap()),
    id: "ed",
    algorithm: "EdDSA",
});

impl Signer {
    /// The public key as the realm publishes it, without `alg`.
    pub(super) fn bare_jwk(&self) -> Value {
        match &self.private {
            Private::Rsa(pair) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero().to_vec();
                let e = public.exponent().big_endian_without_leading_zero().to_vec();
                json!({"kty": "RSA", "kid": self.id, "use": "sig", "n": base64(n), "e": base64(e)})
            }
            Private::Ec(curve, pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve, "kid": self.id, "use": "sig", "x": base64(x), "y": base64(y)})
            }
            Private::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": base64(pair.public_key())})
            }
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let mut jwk = self.bare_jwk();
        jwk["alg"] = self.algorithm.into();
        jwk
    }

    pub(super) fn header(&self) -> Value {
        json!({"alg": self.algorithm, "typ": "JWT", "kid": self.id})
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.raw(&self.header().to_string(), claims.to_string())
    }

    pub(super) fn token_as(&self, header: &Value, claims: &Value) -> String {
        self.raw(&header.to_string(), claims.to_string())
    }

    /// Signs any texts, with the algorithm in the header if possible, otherwise with its default.
    pub(super) fn raw(&self, header: &str, claims: impl AsRef<[u8]>) -> String {
        let named =
            serde_json::from_str::<Value>(header).ok().and_then(|header| Some(header["alg"].as_str()?.to_owned()));
        let message = format!("{}.{}", base64(header), base64(claims));
        let signature = self.sign(named.as_deref().unwrap_or(self.algorithm), message.as_bytes());
        format!("{message}.{}", base64(signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Private::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A token with HMAC, whose "shared secret" is a public key.
pub(super) fn hmac_token(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", base64(tag))
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn headers(value: impl AsRef<[u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value.as_ref()).unwrap());
    headers
}

pub(super) async fn authenticate(verifier: &Verifier, token: &str) -> Result<Caller, AuthError> {
    verifier.caller(&headers(format!("Bearer {token}"))).await
}

/// The status of the answer to this token.
pub(super) async fn status(verifier: &Verifier, token: &str) -> u16 {
    match authenticate(verifier, token).await {
        Ok(_) => 200,
        Err(error) => verifier.rejection(&error).status.as_u16(),
    }
}

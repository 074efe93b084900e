//! Tokens: valid ones, and every kind of invalid one.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::keys::SigningKey;
use super::realm::{Client, REALM, State};
use super::sign_in::User;

/// How a token is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// With the realm's key for this algorithm; it is added to the set if missing.
    Realm(Algorithm),
    /// With a key of this algorithm that is not in the key set.
    Foreign(Algorithm),
    /// As RS256, with the realm's encryption key.
    EncryptionKey,
    /// As HS256, with the public modulus of the realm's first key as the secret: algorithm confusion.
    PublicKeyAsSecret,
    /// Unsigned: `alg` is `none`.
    Nothing,
}

impl Signing {
    pub(super) fn is_genuine(&self) -> bool {
        matches!(self, Self::Realm(_))
    }
}

/// The `kid` in a token's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kid {
    /// The ID of the signing key.
    Right,
    /// This value.
    Named(String),
    /// No `kid`.
    Absent,
}

/// A token to create. The methods allow to write it in one expression.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenSpec {
    pub signing: Signing,
    pub kid: Kid,
    /// Claims that are added to or replace the default ones.
    pub claims: Map<String, Value>,
    /// Claims that are removed.
    pub without: Vec<String>,
    /// Whether the token has only the claims of a lightweight token; introspection has all.
    pub lightweight: bool,
    /// Seconds from now to `exp`; negative if expired.
    pub lifetime: i64,
}

/// Claims of a lightweight token.
const LIGHTWEIGHT: [&str; 9] = ["exp", "iat", "jti", "iss", "sub", "typ", "azp", "sid", "scope"];

impl TokenSpec {
    /// An access token of this user: RS256, valid for five minutes, `aud` = `account`, no roles.
    pub fn user(username: &str) -> Self {
        Self {
            signing: Signing::Realm(Algorithm::RS256),
            kid: Kid::Right,
            claims: Map::from_iter([("preferred_username".to_owned(), json!(username))]),
            without: Vec::new(),
            lightweight: false,
            lifetime: 300,
        }
    }

    /// An access token of a client's service account.
    pub fn service_account(client: &str) -> Self {
        Self::user(&format!("service-account-{client}"))
            .claim("azp", client)
            .claim("client_id", client)
            .claim("clientHost", "127.0.0.1")
            .claim("clientAddress", "127.0.0.1")
    }

    /// An ID token of a client's service account.
    pub(super) fn id_token(client: &Client) -> Self {
        ["scope", "realm_access"].into_iter().fold(
            Self::service_account(&client.id)
                .claim("typ", "ID")
                .audience(&client.id)
                .claim("at_hash", "c2ltdWxhdGVkIGF0X2hhc2g"),
            Self::without,
        )
    }

    pub(super) fn of_client(client: &Client) -> Self {
        let mut spec = Self::service_account(&client.id);
        spec.lightweight = client.lightweight;
        spec.lifetime = i64::try_from(client.lifetime).unwrap_or(i64::MAX);
        if !client.audience.is_empty() {
            spec = spec.claim("aud", client.audience.clone());
        }
        client.roles.iter().fold(spec, |spec, role| spec.role(role))
    }

    /// An access token of a person who signed in with this client.
    pub(super) fn of_user(client: &Client, user: &User, session: &str) -> Self {
        let mut spec = Self::user(&user.username).claim("azp", client.id.as_str()).claim("sid", session);
        spec.lightweight = client.lightweight;
        spec.lifetime = i64::try_from(client.lifetime).unwrap_or(i64::MAX);
        if !client.audience.is_empty() {
            spec = spec.claim("aud", client.audience.clone());
        }
        user.roles.iter().fold(spec, |spec, role| spec.role(role))
    }

    /// An ID token of a person who signed in with this client.
    pub(super) fn id_token_of_user(client: &Client, user: &User, session: &str) -> Self {
        let spec = Self::user(&user.username).claim("azp", client.id.as_str()).claim("sid", session);
        let spec = spec.claim("typ", "ID").audience(&client.id).claim("at_hash", "c2ltdWxhdGVkIGF0X2hhc2g");
        spec.without("scope").without("realm_access")
    }

    /// Adds or replaces a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// Sets the only audience.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Adds a realm role.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        let access = self.claims.entry("realm_access").or_insert_with(|| json!({ "roles": [] }));
        if let Some(roles) = access["roles"].as_array_mut() {
            roles.push(role.into());
        }
        self
    }

    /// Adds a role of a client.
    #[must_use]
    pub fn client_role(mut self, client: &str, role: &str) -> Self {
        let access = self.claims.entry("resource_access").or_insert_with(|| json!({}));
        if access.get(client).is_none() {
            access[client] = json!({ "roles": [] });
        }
        if let Some(roles) = access[client]["roles"].as_array_mut() {
            roles.push(role.into());
        }
        self
    }

    /// Sets how the token is signed.
    #[must_use]
    pub fn signed(mut self, signing: Signing) -> Self {
        self.signing = signing;
        self
    }

    /// Sets the `kid` in the header.
    #[must_use]
    pub fn kid(mut self, kid: Kid) -> Self {
        self.kid = kid;
        self
    }

    /// Makes the token lightweight.
    #[must_use]
    pub fn lightweight(mut self) -> Self {
        self.lightweight = true;
        self
    }

    /// Sets the lifetime in seconds from now; negative if expired.
    #[must_use]
    pub fn lifetime(mut self, seconds: i64) -> Self {
        self.lifetime = seconds;
        self
    }
}

/// Whether keys of this algorithm have a public part.
pub(super) fn is_public(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// Creates the token; also returns its claims, which include those that a lightweight token lacks.
pub(super) fn mint(state: &mut State, spec: &TokenSpec, issuer: &str, now: u64) -> (String, Value) {
    let all = claims(spec, issuer, now);
    let mut claims = all.clone();
    if let (Value::Object(claims), true) = (&mut claims, spec.lightweight) {
        claims.retain(|name, _| LIGHTWEIGHT.contains(&name.as_str()));
    }
    let (algorithm, key, kid) = match &spec.signing {
        Signing::Nothing => return (unsigned(&claims), all),
        Signing::EncryptionKey => (Algorithm::RS256, state.encryption.private.clone(), state.encryption.kid.clone()),
        Signing::PublicKeyAsSecret => {
            let first = state.keys.first();
            let modulus = first.and_then(|key| key.jwk["n"].as_str()).unwrap_or_default().as_bytes().to_vec();
            let kid = first.map(|key| key.kid.clone()).unwrap_or_default();
            (Algorithm::HS256, EncodingKey::from_secret(&modulus), kid)
        }
        Signing::Foreign(algorithm) => {
            let name = format!("{algorithm:?}");
            let key = state.foreign.entry(name).or_insert_with(|| generated(*algorithm));
            (*algorithm, key.private.clone(), key.kid.clone())
        }
        Signing::Realm(algorithm) => {
            if !state.keys.iter().any(|key| key.algorithm == *algorithm) {
                state.keys.push(generated(*algorithm));
            }
            let key = state.keys.iter().find(|key| key.algorithm == *algorithm);
            let key = key.map_or_else(|| generated(*algorithm), Clone::clone);
            (*algorithm, key.private, key.kid)
        }
    };
    let mut header = Header::new(algorithm);
    header.kid = match &spec.kid {
        Kid::Right => Some(kid),
        Kid::Named(kid) => Some(kid.clone()),
        Kid::Absent => None,
    };
    let token = jsonwebtoken::encode(&header, &claims, &key);
    #[expect(clippy::expect_used, reason = "the key was generated for this algorithm above")]
    (token.expect("a token that can be signed"), all)
}

#[expect(clippy::expect_used, reason = "generating a key fails only without a source of randomness")]
fn generated(algorithm: Algorithm) -> SigningKey {
    SigningKey::generate(algorithm).expect("a key")
}

fn claims(spec: &TokenSpec, issuer: &str, now: u64) -> Value {
    let username = spec.claims.get("preferred_username").and_then(Value::as_str).unwrap_or("nobody");
    let expires = now.saturating_add_signed(spec.lifetime);
    let kind = if spec.lightweight { "trltcc" } else { "trrtcc" };
    let mut claims = json!({
        "exp": expires, "iat": now.min(expires), "jti": format!("{kind}:{}", Uuid::new_v4()), "iss": issuer, "aud": "account",
        "sub": Uuid::new_v5(&Uuid::NAMESPACE_DNS, username.as_bytes()).to_string(), "typ": "Bearer",
        "azp": "storage-console", "acr": "1", "scope": "email profile", "email_verified": false,
        "realm_access": { "roles": [format!("default-roles-{REALM}")] },
    });
    if let Value::Object(claims) = &mut claims {
        claims.extend(spec.claims.clone());
        claims.retain(|name, _| !spec.without.contains(name));
    }
    claims
}

fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

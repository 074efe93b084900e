//! The realm: its keys, its clients and the tokens it issued.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::keys::{SigningKey, unknown_jwk};
use super::sign_in::{People, User};
use super::token::{self, TokenSpec};

pub const REALM: &str = "cscs";

/// The audience of the tokens of `storage-provisioner`, and the client that may introspect them.
pub const PROXY_AUDIENCE: &str = "hpc-storage-proxy";

/// A client that may request tokens for itself (a service account).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// Roles in `realm_access`.
    pub roles: Vec<String>,
    /// `aud`; empty = only `account`.
    pub audience: Vec<String>,
    /// Whether its tokens are lightweight: without user name, audience and roles, which introspection adds.
    pub lightweight: bool,
    /// Lifetime of its tokens, in seconds.
    pub lifetime: u64,
    /// Whether the token endpoint returns `expires_in`.
    pub returns_lifetime: bool,
    /// Where people may be redirected after sign-in: URLs, the last of whose characters may be `*`. Empty: they cannot sign in.
    pub redirect_uris: Vec<String>,
    /// Whether sign-in needs PKCE.
    pub needs_pkce: bool,
}

impl Client {
    /// A client without roles and audience, with tokens valid for five minutes.
    pub fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            roles: Vec::new(),
            audience: Vec::new(),
            lightweight: false,
            lifetime: 300,
            returns_lifetime: true,
            redirect_uris: Vec::new(),
            needs_pkce: false,
        }
    }

    /// Adds a role in `realm_access`.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }

    /// Adds an audience.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience.push(audience.to_owned());
        self
    }

    /// Makes its tokens lightweight.
    #[must_use]
    pub fn lightweight(mut self) -> Self {
        self.lightweight = true;
        self
    }

    /// Allows people to sign in, with PKCE, and to be redirected to this URL.
    #[must_use]
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self.needs_pkce = true;
        self
    }

    pub(super) fn may_redirect_to(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => uri.starts_with(beginning),
            None => uri == allowed,
        })
    }

    /// Sets the lifetime of its tokens, in seconds.
    #[must_use]
    pub fn lifetime(mut self, seconds: u64) -> Self {
        self.lifetime = seconds;
        self
    }
}

pub struct Realm {
    issuer: Mutex<String>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) keys: Vec<SigningKey>,
    pub(super) encryption: SigningKey,
    /// Keys that are not in the key set, by algorithm.
    pub(super) foreign: HashMap<String, SigningKey>,
    clients: HashMap<String, Client>,
    issued: HashMap<String, Value>,
    revoked: HashSet<String>,
    pub(super) people: People,
}

impl Realm {
    /// A realm with one RS256 key, a key for encryption and one of an unknown kind. Its clients are `hpc-client` /
    /// `hpc-secret`; `hpc-storage-proxy` / `proxy-secret`; and `storage-provisioner` / `provisioner-secret`, whose tokens have
    /// the audience `hpc-storage-proxy` and the role `storage-reader`. The tokens of `storage-lightweight` /
    /// `lightweight-secret` are the same, but lightweight. People sign in with `storage-dashboard` / `dashboard-secret-0123456789`, as
    /// `operator`, who has the role `storage-reader`.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let state = State {
            keys: vec![SigningKey::first()?],
            encryption: SigningKey::encryption()?,
            foreign: HashMap::new(),
            clients: HashMap::new(),
            issued: HashMap::new(),
            revoked: HashSet::new(),
            people: People::default(),
        };
        let realm = Self { issuer: Mutex::default(), state: Mutex::new(state) };
        realm.register(Client::new("hpc-client", "hpc-secret"));
        realm.register(Client::new(PROXY_AUDIENCE, "proxy-secret"));
        let reader = |id, secret| Client::new(id, secret).role("storage-reader").audience(PROXY_AUDIENCE);
        realm.register(reader("storage-provisioner", "provisioner-secret"));
        realm.register(reader("storage-lightweight", "lightweight-secret").lightweight());
        realm.register(Client::new("storage-dashboard", "dashboard-secret-0123456789").redirect_uri("http*"));
        realm.register_user(User::new("operator", &["storage-reader"]));
        realm.sign_in_as(Some("operator"));
        Ok(realm)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the base of the issuer, `{base}/auth/realms/cscs`, if clients reach the simulator through another address, such
    /// as a reverse proxy.
    pub fn set_base(&self, base: &str) {
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = format!("{base}/auth/realms/{REALM}");
    }

    /// `{base}/auth/realms/cscs`.
    pub fn issuer(&self) -> String {
        self.issuer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds or replaces a client.
    pub fn register(&self, client: Client) {
        self.state().clients.insert(client.id.clone(), client);
    }

    pub(super) fn client(&self, id: &str) -> Option<Client> {
        self.state().clients.get(id).cloned()
    }

    /// Generates a new RS256 key that signs from now on, and returns its `kid`. With `keep_old` the old keys stay in the set.
    pub fn rotate(&self, keep_old: bool) -> anyhow::Result<String> {
        let key = SigningKey::generate(Algorithm::RS256)?;
        let kid = key.kid.clone();
        let mut state = self.state();
        if !keep_old {
            state.keys.clear();
        }
        state.keys.insert(0, key);
        Ok(kid)
    }

    /// The key IDs in the set; the RS256 key that signs is the first.
    pub fn kids(&self) -> Vec<String> {
        self.state().keys.iter().map(|key| key.kid.clone()).collect()
    }

    /// The key set: all keys, one for encryption, one of an unknown kind.
    pub fn jwks(&self) -> Value {
        let state = self.state();
        let mut keys = vec![state.encryption.jwk.clone(), unknown_jwk()];
        keys.extend(state.keys.iter().filter(|key| token::is_public(key.algorithm)).map(|key| key.jwk.clone()));
        json!({ "keys": keys })
    }

    pub(super) fn algorithms(&self) -> Vec<String> {
        self.state().keys.iter().map(|key| format!("{:?}", key.algorithm)).collect()
    }

    /// Creates a token; see [`TokenSpec`].
    ///
    /// # Panics
    ///
    /// If the token cannot be signed, which is a bug in this crate.
    pub fn mint(&self, spec: &TokenSpec) -> String {
        let (token, claims) = token::mint(&mut self.state(), spec, &self.issuer(), wall_clock());
        if spec.signing.is_genuine() {
            self.state().issued.insert(token.clone(), claims);
        }
        token
    }

    /// Revokes a token: introspection reports it as inactive from now on.
    pub fn revoke(&self, token: &str) {
        self.state().revoked.insert(token.to_owned());
    }

    /// The answer of introspection by this client: all claims, also those that a lightweight token lacks, and `active`; or only
    /// `{"active": false}`, which Keycloak 26 also answers about ID tokens and about tokens whose audience lacks the client.
    pub fn introspect(&self, token: &str, client: &str) -> Value {
        let claims = self.state().issued.get(token).cloned().unwrap_or(Value::Null);
        let is_for = |audience: &Value| {
            audience == client || audience.as_array().is_some_and(|all| all.contains(&client.into()))
        };
        if !self.is_active(token) || claims["typ"] != "Bearer" || !is_for(&claims["aud"]) {
            return json!({ "active": false });
        }
        let mut answer = claims;
        if let Value::Object(answer) = &mut answer {
            // Only in the token itself.
            answer.retain(|name, _| !matches!(name.as_str(), "clientHost" | "clientAddress"));
        }
        answer["client_id"] = answer["azp"].clone();
        answer["username"] = answer["preferred_username"].clone();
        answer["token_type"] = answer["typ"].clone();
        answer["active"] = true.into();
        answer
    }

    /// Whether this realm signed the token and it is neither expired nor revoked.
    pub fn is_active(&self, token: &str) -> bool {
        let state = self.state();
        !state.revoked.contains(token)
            && state.issued.get(token).is_some_and(|claims| {
                claims.get("exp").and_then(Value::as_u64).is_none_or(|expires| expires > wall_clock())
            })
    }
}

/// Seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "another process checks the expiry with its own clock")]
pub(crate) fn wall_clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

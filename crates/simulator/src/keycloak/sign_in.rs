//! Sign-in of people: authorization code with PKCE, refresh tokens and logout.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::realm::{Client, Realm, wall_clock};
use super::token::TokenSpec;
use super::{field, refusal};
use crate::http::{Call, Reply};

/// Lifetime of an authorization code, in seconds. As in a new realm of Keycloak.
const CODE_LIFETIME: u64 = 60;

/// A person who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub username: String,
    /// Roles in `realm_access`.
    pub roles: Vec<String>,
    /// Whether the person may sign in and refresh tokens.
    pub enabled: bool,
}

impl User {
    /// An enabled user with these roles.
    pub fn new(username: &str, roles: &[&str]) -> Self {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Self { username: username.to_owned(), roles, enabled: true }
    }
}

/// What the realm knows of people. The browser is not identified: the authorization endpoint signs in `at_browser` without a form.
#[derive(Debug, Default)]
pub(super) struct People {
    users: HashMap<String, User>,
    /// Who signs in; `None`: that person cancels.
    at_browser: Option<String>,
    codes: HashMap<String, Code>,
    /// The sessions that have not ended, with their users.
    sessions: HashMap<String, String>,
    refresh_tokens: HashMap<String, Refresh>,
    /// Whether a refresh token can be used only once (*Revoke Refresh Token*).
    single_use: bool,
    used: HashSet<String>,
}

/// What an authorization code is for.
#[derive(Debug, Clone)]
struct Code {
    client: String,
    session: String,
    redirect_uri: String,
    nonce: Option<String>,
    challenge: Option<String>,
    expires: u64,
    used: bool,
}

#[derive(Debug, Clone)]
struct Refresh {
    client: String,
    session: String,
}

impl Realm {
    /// Adds or replaces a user.
    pub fn register_user(&self, user: User) {
        self.state().people.users.insert(user.username.clone(), user);
    }

    /// Sets who signs in at the authorization endpoint; `None`: that person cancels.
    pub fn sign_in_as(&self, username: Option<&str>) {
        self.state().people.at_browser = username.map(str::to_owned);
    }

    /// Ends all sessions of people, like *Sign out all active sessions*.
    pub fn end_sessions(&self) {
        self.state().people.sessions.clear();
    }

    /// Number of sessions of people.
    pub fn sessions(&self) -> usize {
        self.state().people.sessions.len()
    }

    /// Sets whether a refresh token can be used only once. Using one twice ends the session.
    pub fn use_refresh_tokens_once(&self, once: bool) {
        self.state().people.single_use = once;
    }
}

/// The authorization endpoint: signs in without a form.
pub(super) fn authorize(realm: &Realm, call: &Call) -> Reply {
    let page =
        |status, text: &str| Reply::raw(status, "text/html;charset=utf-8", format!("<html><body>{text}</body></html>"));
    let client = call.last("client_id").and_then(|id| realm.client(id));
    let Some(client) = client else { return page(StatusCode::BAD_REQUEST, "Client not found.") };
    let target = call.last("redirect_uri").filter(|uri| client.may_redirect_to(uri));
    let Some(target) = target.and_then(|uri| Url::parse(uri).ok()) else {
        return page(StatusCode::BAD_REQUEST, "Invalid parameter: redirect_uri");
    };
    let answer = |parameters: &[(&str, &str)]| {
        let mut target = target.clone();
        {
            let mut query = target.query_pairs_mut();
            query.extend_pairs(parameters);
            query.extend_pairs(call.last("state").map(|state| ("state", state)));
            query.append_pair("iss", &realm.issuer());
        }
        Reply::empty(StatusCode::FOUND).with("Location", target.as_str()).with("Cache-Control", "no-store")
    };
    let invalid = |description: &str| answer(&[("error", "invalid_request"), ("error_description", description)]);
    match call.last("response_type") {
        Some("code") => {}
        Some(_) => return answer(&[("error", "unsupported_response_type")]),
        None => return invalid("Missing parameter: response_type"),
    }
    let challenge = call.last("code_challenge").map(str::to_owned);
    if challenge.is_some() && call.last("code_challenge_method") != Some("S256") {
        return invalid("Invalid parameter: code challenge method is not configured one");
    }
    if challenge.is_none() && client.needs_pkce {
        return invalid("Missing parameter: code_challenge_method");
    }
    let mut state = realm.state();
    let people = &mut state.people;
    let user = people.at_browser.as_ref().and_then(|name| people.users.get(name)).filter(|user| user.enabled).cloned();
    let Some(user) = user else {
        drop(state);
        return answer(&[("error", "access_denied")]);
    };
    let (session, code) = (Uuid::new_v4().to_string(), format!("{}.{}", Uuid::new_v4(), Uuid::new_v4()));
    people.sessions.insert(session.clone(), user.username);
    let granted = Code {
        client: client.id.clone(),
        session: session.clone(),
        redirect_uri: target.to_string(),
        nonce: call.last("nonce").map(str::to_owned),
        challenge,
        expires: wall_clock() + CODE_LIFETIME,
        used: false,
    };
    people.codes.insert(code.clone(), granted);
    drop(state);
    answer(&[("session_state", &session), ("code", &code)])
}

fn invalid_grant(description: &str) -> Reply {
    refusal(StatusCode::BAD_REQUEST, "invalid_grant", Some(description))
}

/// The token endpoint with `grant_type=authorization_code`.
pub(super) fn exchange(realm: &Realm, client: &Client, fields: &[(String, String)]) -> Reply {
    let mut state = realm.state();
    let people = &mut state.people;
    let Some(code) = field(fields, "code").and_then(|code| people.codes.get_mut(code)) else {
        return invalid_grant("Code not valid");
    };
    if code.used {
        // A used code may be stolen: the session ends.
        people.sessions.remove(&code.session);
        return invalid_grant("Code not valid");
    }
    code.used = true;
    if code.client != client.id || code.expires <= wall_clock() {
        return invalid_grant("Code not valid");
    }
    let is_redirect = |uri: &str| Url::parse(uri).is_ok_and(|uri| uri.as_str() == code.redirect_uri);
    if !field(fields, "redirect_uri").is_some_and(is_redirect) {
        return invalid_grant("Incorrect redirect_uri");
    }
    if let Some(challenge) = &code.challenge {
        let Some(verifier) = field(fields, "code_verifier") else {
            return invalid_grant("PKCE code verifier not specified");
        };
        if BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())) != *challenge {
            return invalid_grant("PKCE verification failed: Code mismatch");
        }
    }
    let (session, nonce) = (code.session.clone(), code.nonce.clone());
    drop(state);
    tokens(realm, client, &session, nonce.as_deref())
}

/// The token endpoint with `grant_type=refresh_token`.
pub(super) fn refresh(realm: &Realm, client: &Client, fields: &[(String, String)]) -> Reply {
    let mut state = realm.state();
    let people = &mut state.people;
    let Some(token) = field(fields, "refresh_token") else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request", Some("No refresh token"));
    };
    let Some(known) = people.refresh_tokens.get(token).filter(|known| known.client == client.id).cloned() else {
        return invalid_grant("Invalid refresh token");
    };
    if people.single_use && !people.used.insert(token.to_owned()) {
        people.sessions.remove(&known.session);
        return invalid_grant("Maximum allowed refresh token reuse exceeded");
    }
    drop(state);
    tokens(realm, client, &known.session, None)
}

/// New tokens of a session.
fn tokens(realm: &Realm, client: &Client, session: &str, nonce: Option<&str>) -> Reply {
    let mut state = realm.state();
    let people = &mut state.people;
    let user = people.sessions.get(session).and_then(|name| people.users.get(name)).cloned();
    let Some(user) = user else { return invalid_grant("Session not active") };
    if !user.enabled {
        return invalid_grant("User disabled");
    }
    let refresh_token = format!("{}.{}.{}", Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let granted = Refresh { client: client.id.clone(), session: session.to_owned() };
    people.refresh_tokens.insert(refresh_token.clone(), granted);
    drop(state);
    let (access, id) =
        (TokenSpec::of_user(client, &user, session), TokenSpec::id_token_of_user(client, &user, session));
    let id = nonce.map_or(id.clone(), |nonce| id.claim("nonce", nonce));
    Reply::json(
        StatusCode::OK,
        &json!({
            "access_token": realm.mint(&access), "expires_in": client.lifetime, "refresh_expires_in": 1800,
            "refresh_token": refresh_token, "token_type": "Bearer", "id_token": realm.mint(&id), "not-before-policy": 0,
            "session_state": session, "scope": "openid email profile",
        }),
    )
}

/// The logout endpoint for a client that has a refresh token.
pub(super) fn end_session(realm: &Realm, client: &Client, fields: &[(String, String)]) -> Reply {
    let mut state = realm.state();
    let people = &mut state.people;
    let known = field(fields, "refresh_token").and_then(|token| people.refresh_tokens.get(token));
    let Some(known) = known.filter(|known| known.client == client.id).cloned() else {
        return invalid_grant("Invalid refresh token");
    };
    people.sessions.remove(&known.session);
    Reply::empty(StatusCode::NO_CONTENT)
}

//! What the fuzz targets see of the judgement of tokens: all of it but the network and the clock.

use http::HeaderMap;
use serde_json::Value;
use url::Url;

use super::claims::Rules;
use super::keys::KeySet;
use super::{discovery, token};

/// The usable keys of a JWKS document.
#[derive(Debug)]
pub struct Keys(KeySet);

impl Keys {
    /// Reads a JWKS document, if it is one.
    pub fn read(document: &Value) -> Option<Self> {
        KeySet::read(document).map(Self)
    }

    /// How many usable keys there are.
    pub fn count(&self) -> usize {
        self.0.summary().len()
    }
}

/// Who is admitted.
#[derive(Debug)]
pub struct Admitted {
    /// The caller's name.
    pub username: String,
    /// The part of the token that its signature is for.
    pub signed: String,
}

/// Judges a request's headers by these keys: issuer `issuer`, audience `storage`, role `reader`.
pub fn judge(headers: &HeaderMap, keys: &Keys, issuer: &str, now: i64) -> Option<Admitted> {
    let rules = Rules {
        issuer: issuer.to_owned(),
        audience: Some(String::from("storage")),
        required_roles: vec![String::from("reader")],
        callback_roles: Vec::new(),
    };
    let token = token::Token::parse(token::bearer(headers).ok()?).ok()?;
    let approved = rules.check(&token.claims, now);
    let roles = rules.check_roles(&token.claims);
    // Also what the claims would refuse is held against the keys: that is where the libraries are.
    keys.0.verify(&token).ok()?;
    roles.ok()?;
    Some(Admitted { username: approved.ok()?.username, signed: token.signed.to_owned() })
}

/// Where a realm's discovery document says that its keys and its introspection are.
pub fn endpoints(document: &Value, issuer: &Url) -> Option<[Url; 2]> {
    let endpoints = discovery::read(document, issuer).ok()??;
    Some([endpoints.keys, endpoints.introspection])
}

//! Token validation for the fuzz targets, without the network and the clock.

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

    /// Number of usable keys.
    pub fn count(&self) -> usize {
        self.0.summary().len()
    }
}

/// An authenticated caller.
#[derive(Debug)]
pub struct Admitted {
    pub username: String,
    /// The signed part of the token.
    pub signed: String,
}

/// Authenticates a request by its headers. Requires the audience `storage` and the role `reader`.
pub fn authenticate(headers: &HeaderMap, keys: &Keys, issuer: &str, now: i64) -> Option<Admitted> {
    let rules = Rules {
        issuer: issuer.to_owned(),
        audience: Some(String::from("storage")),
        required_roles: vec![String::from("reader")],
        callback_roles: Vec::new(),
        report_roles: Vec::new(),
        introspected: false,
    };
    let token = token::Token::parse(token::bearer(headers).ok()?).ok()?;
    let admitted = rules.admit(&token.claims, now);
    // Verifies the signature even if the claims are invalid, to reach the cryptographic libraries.
    keys.0.verify(&token).ok()?;
    Some(Admitted { username: admitted.ok()?.username, signed: token.signed.to_owned() })
}

/// The URLs of keys and introspection in a discovery document.
pub fn endpoints(document: &Value, issuer: &Url) -> Option<[Url; 2]> {
    let endpoints = discovery::read(document, issuer).ok()??;
    Some([endpoints.keys, endpoints.introspection])
}

//! A Keycloak realm: keys, client-credentials tokens, introspection.

mod keys;
mod realm;
mod token;

use axum::http::{Method, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::http::{Call, Reply, form};
pub(crate) use realm::wall_clock;
pub use realm::{Client, PROXY_AUDIENCE, REALM, Realm};
pub use token::{Kid, Signing, TokenSpec};

/// Answers a request below `/auth/`.
pub(crate) fn answer(realm: &Realm, call: &Call) -> Reply {
    let Some(rest) = call.path.strip_prefix("/auth/realms/").and_then(|rest| rest.strip_prefix(REALM)) else {
        return Reply::json(StatusCode::NOT_FOUND, &json!({ "error": "Realm does not exist" }));
    };
    match (&call.method, rest) {
        (&Method::GET, "/.well-known/openid-configuration") => {
            let issuer = realm.issuer();
            let at = |path: &str| format!("{issuer}/protocol/openid-connect/{path}");
            Reply::json(
                StatusCode::OK,
                &json!({
                    "issuer": issuer, "token_endpoint": at("token"), "jwks_uri": at("certs"),
                    "introspection_endpoint": at("token/introspect"), "authorization_endpoint": at("auth"),
                    "userinfo_endpoint": at("userinfo"), "grant_types_supported": ["client_credentials"],
                    "response_types_supported": ["code"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": realm.algorithms(),
                }),
            )
        }
        (&Method::GET, "/protocol/openid-connect/certs") => Reply::json(StatusCode::OK, &realm.jwks()),
        (&Method::POST, "/protocol/openid-connect/token") => token(realm, call),
        (&Method::POST, "/protocol/openid-connect/token/introspect") => introspect(realm, call),
        _ => Reply::json(StatusCode::NOT_FOUND, &json!({ "error": "HTTP 404 Not Found" })),
    }
}

/// The client that authenticates, with form fields or HTTP Basic.
fn client(realm: &Realm, call: &Call, fields: &[(String, String)]) -> Result<Client, Reply> {
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let basic = call.header("authorization").and_then(|header| header.strip_prefix("Basic ")).and_then(|encoded| {
        let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
    });
    let stated = basic.or_else(|| Some((field("client_id")?, field("client_secret")?)));
    stated.and_then(|(id, secret)| realm.client(&id, &secret)).ok_or_else(|| {
        Reply::json(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "invalid_client", "error_description": "Invalid client or Invalid client credentials" }),
        )
    })
}

fn token(realm: &Realm, call: &Call) -> Reply {
    let fields = form(&call.body);
    let client = match client(realm, call, &fields) {
        Ok(client) => client,
        Err(reply) => return reply,
    };
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if field("grant_type") != Some("client_credentials") {
        return Reply::json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "unsupported_grant_type", "error_description": "Unsupported grant_type" }),
        );
    }
    let scope = field("scope").unwrap_or("profile email");
    let token = realm.mint(&TokenSpec::of_client(&client).claim("scope", scope));
    let mut body = json!({ "access_token": token, "refresh_expires_in": 0, "token_type": "Bearer",
        "not-before-policy": 0, "scope": scope });
    if client.returns_lifetime {
        body["expires_in"] = client.lifetime.into();
    }
    Reply::json(StatusCode::OK, &body)
}

fn introspect(realm: &Realm, call: &Call) -> Reply {
    let fields = form(&call.body);
    if let Err(reply) = client(realm, call, &fields) {
        return reply;
    }
    let token = fields.iter().find(|(key, _)| key == "token").map_or("", |(_, value)| value.as_str());
    Reply::json(StatusCode::OK, &realm.introspect(token))
}

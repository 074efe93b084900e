//! A Keycloak realm: keys, tokens of clients, sign-in of people, introspection.

mod keys;
mod realm;
mod sign_in;
mod token;

use axum::http::{Method, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::http::{Call, Reply, form};
pub(crate) use realm::wall_clock;
pub use realm::{Client, PROXY_AUDIENCE, REALM, Realm};
pub use sign_in::User;
pub use token::{Kid, Signing, TokenSpec};

/// Scopes that every client may request. As in a new realm of Keycloak.
const SCOPES: [&str; 12] = [
    "openid",
    "basic",
    "profile",
    "email",
    "roles",
    "web-origins",
    "acr",
    "address",
    "phone",
    "offline_access",
    "microprofile-jwt",
    "organization",
];

/// Answers a request below `/auth/`. Statuses, bodies and headers are those of Keycloak 26; `.ci/keycloak` compares them.
pub(crate) fn answer(realm: &Realm, call: &Call) -> Reply {
    let Some(below) = call.path.strip_prefix("/auth/realms/") else {
        return refusal(StatusCode::NOT_FOUND, "Unable to find matching target resource method", None);
    };
    let Some(rest) = below.strip_prefix(REALM).filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return refusal(StatusCode::NOT_FOUND, "Realm does not exist", None);
    };
    if rest == "/protocol/openid-connect/logout" && call.method == Method::GET {
        return Reply::raw(
            StatusCode::OK,
            "text/html;charset=utf-8",
            "<html><body>Do you want to log out?</body></html>",
        );
    }
    let (method, answer): (_, fn(&Realm, &Call) -> Reply) = match rest {
        "/.well-known/openid-configuration" => (Method::GET, discovery),
        "/protocol/openid-connect/certs" => {
            (Method::GET, |realm, _| Reply::json(StatusCode::OK, &realm.jwks()).with("Cache-Control", "no-cache"))
        }
        "/protocol/openid-connect/token" => (Method::POST, |realm, call| {
            token(realm, call).with("Cache-Control", "no-store").with("Pragma", "no-cache")
        }),
        "/protocol/openid-connect/auth" => (Method::GET, sign_in::authorize),
        "/protocol/openid-connect/logout" => (Method::POST, logout),
        "/protocol/openid-connect/token/introspect" => (Method::POST, introspect),
        _ => return refusal(StatusCode::NOT_FOUND, "HTTP 404 Not Found", None),
    };
    if call.method == method {
        answer(realm, call)
    } else {
        refusal(StatusCode::METHOD_NOT_ALLOWED, "HTTP 405 Method Not Allowed", None)
    }
}

fn refusal(status: StatusCode, error: &str, description: Option<&str>) -> Reply {
    let mut body = json!({ "error": error });
    if let Some(description) = description {
        body["error_description"] = description.into();
    }
    Reply::json(status, &body)
}

fn discovery(realm: &Realm, _call: &Call) -> Reply {
    let issuer = realm.issuer();
    let at = |path: &str| format!("{issuer}/protocol/openid-connect/{path}");
    Reply::json(
        StatusCode::OK,
        &json!({
            "issuer": issuer, "token_endpoint": at("token"), "jwks_uri": at("certs"),
            "introspection_endpoint": at("token/introspect"), "authorization_endpoint": at("auth"),
            "userinfo_endpoint": at("userinfo"), "end_session_endpoint": at("logout"),
            "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
            "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": realm.algorithms(),
        }),
    )
    .with("Cache-Control", "no-cache, must-revalidate, no-transform, no-store")
}

/// Why a client failed authentication.
enum Unauthenticated {
    /// No client was named, or there is no such client.
    Unknown,
    WrongSecret,
}

/// The client that authenticates, with form fields or HTTP Basic.
fn client(realm: &Realm, call: &Call, fields: &[(String, String)]) -> Result<Client, Unauthenticated> {
    let basic = call.header("authorization").and_then(|header| header.strip_prefix("Basic ")).and_then(|encoded| {
        let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
    });
    let in_form =
        || Some((field(fields, "client_id")?.to_owned(), field(fields, "client_secret").unwrap_or("").to_owned()));
    let (id, secret) = basic.or_else(in_form).ok_or(Unauthenticated::Unknown)?;
    let client = realm.client(&id).ok_or(Unauthenticated::Unknown)?;
    if client.secret == secret { Ok(client) } else { Err(Unauthenticated::WrongSecret) }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

const INVALID_CLIENT: &str = "Invalid client or Invalid client credentials";

fn token(realm: &Realm, call: &Call) -> Reply {
    let fields = form(&call.body);
    let bad_request = |error, description| refusal(StatusCode::BAD_REQUEST, error, Some(description));
    let grant = field(&fields, "grant_type");
    match grant {
        Some("client_credentials" | "authorization_code" | "refresh_token") => {}
        Some(_) => return bad_request("unsupported_grant_type", "Unsupported grant_type"),
        None => return bad_request("invalid_request", "Missing form parameter: grant_type"),
    }
    let client = match client(realm, call, &fields) {
        Ok(client) => client,
        Err(why) => {
            let error = match why {
                Unauthenticated::Unknown => "invalid_client",
                Unauthenticated::WrongSecret => "unauthorized_client",
            };
            return refusal(StatusCode::UNAUTHORIZED, error, Some(INVALID_CLIENT));
        }
    };
    match grant {
        Some("authorization_code") => return sign_in::exchange(realm, &client, &fields),
        Some("refresh_token") => return sign_in::refresh(realm, &client, &fields),
        _ => {}
    }
    let requested = field(&fields, "scope").unwrap_or("");
    if requested.split(' ').any(|scope| !scope.is_empty() && !SCOPES.contains(&scope)) {
        return bad_request("invalid_scope", &format!("Invalid scopes: {requested}"));
    }
    let openid = requested.split(' ').any(|scope| scope == "openid");
    let scope = if openid { "openid email profile" } else { "email profile" };
    let spec = TokenSpec::of_client(&client).claim("scope", scope);
    let mut body = json!({ "access_token": realm.mint(&spec), "refresh_expires_in": 0, "token_type": "Bearer",
        "not-before-policy": 0, "scope": scope });
    if client.returns_lifetime {
        body["expires_in"] = client.lifetime.into();
    }
    if openid {
        body["id_token"] = realm.mint(&TokenSpec::id_token(&client)).into();
    }
    Reply::json(StatusCode::OK, &body)
}

fn logout(realm: &Realm, call: &Call) -> Reply {
    let fields = form(&call.body);
    match client(realm, call, &fields) {
        Ok(client) => sign_in::end_session(realm, &client, &fields),
        Err(_) => refusal(StatusCode::UNAUTHORIZED, "unauthorized_client", Some(INVALID_CLIENT)),
    }
}

fn introspect(realm: &Realm, call: &Call) -> Reply {
    let fields = form(&call.body);
    let client = match client(realm, call, &fields) {
        Ok(client) => client,
        Err(why) => {
            let description = match why {
                Unauthenticated::Unknown => INVALID_CLIENT,
                Unauthenticated::WrongSecret => "Client authentication failed.",
            };
            return refusal(StatusCode::UNAUTHORIZED, "invalid_client", Some(description));
        }
    };
    let Some(token) = field(&fields, "token") else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request", Some("Token not provided."));
    };
    Reply::json(StatusCode::OK, &realm.introspect(token, &client.id)).with("Cache-Control", "no-cache")
}

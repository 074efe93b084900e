//! Errors of authentication, and their HTTP answers (decision D12, RFC 6750).

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use thiserror::Error;

use crate::upstream::ExchangeError;

/// Authentication failed.
#[derive(Debug, Clone, Error)]
pub enum AuthError {
    /// The token is missing or invalid: 401.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The token is valid, but lacks required roles: 403.
    #[error("the token lacks the required {}: {}", if .missing.len() == 1 { "role" } else { "roles" }, .missing.join(", "))]
    Forbidden {
        /// Roles of `auth.required_roles`, `callbacks.required_roles` or `provisioners.required_roles`.
        missing: Vec<String>,
    },
    /// The realm gave no usable answer: 502.
    #[error("the token cannot be checked: the realm that issues tokens returned no usable answer")]
    Unavailable(#[source] Arc<ExchangeError>),
}

/// The rule that a token violates. The text is shown to the caller; parts of the token in it are quoted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("no access token was sent: the header `Authorization` is missing")]
    NoCredentials,
    #[error("more than one header `Authorization` was sent")]
    SeveralCredentials,
    /// Contains the limit in bytes.
    #[error("the header `Authorization` is larger than {0} bytes")]
    TooLong(usize),
    /// Another scheme, or not exactly one token.
    #[error("the header `Authorization` is not of the form `Bearer <access token>`")]
    NotBearer,
    #[error("the token is not a signed JSON Web Token: {0}")]
    NotAToken(&'static str),
    #[error(
        "the token's algorithm {0} is not accepted (RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA are)"
    )]
    Algorithm(Quoted),
    #[error("the token's header has critical extensions (`crit`), which are not supported")]
    Critical,
    #[error("the token lacks the claim `{0}`")]
    Missing(&'static str),
    /// `preferred_username` is missing, as in Keycloak's lightweight access tokens.
    #[error(
        "{} the claim `preferred_username`",
        if *.introspected { "neither the token nor the realm's introspection has" } else { "the token lacks" }
    )]
    NoName {
        /// `auth.introspection`.
        introspected: bool,
    },
    /// A claim is of the wrong type or out of range.
    #[error("the token's claim `{claim}` is not {wanted}")]
    Malformed { claim: &'static str, wanted: &'static str },
    #[error("the token expired {seconds_ago} seconds ago (`exp` is {at})")]
    Expired {
        /// In seconds since 1970.
        at: i64,
        seconds_ago: i64,
    },
    /// `nbf` or `iat` is in the future.
    #[error("by its claim `{claim}` the token becomes valid in {seconds} seconds; do the clocks agree?")]
    NotYet { claim: &'static str, seconds: i64 },
    #[error("the token was issued by {was} (claim `iss`); only tokens of `{wanted}` are accepted")]
    Issuer { wanted: String, was: Quoted },
    #[error("the token is not meant for this service: its claim `aud` must contain `{wanted}`")]
    Audience {
        /// The configured client id (decision D13).
        wanted: String,
    },
    #[error(
        "the token is of type {was} (claim `typ`); an {} token has the type `{wanted}`",
        if *.wanted == "ID" { "ID" } else { "access" }
    )]
    TokenType { wanted: &'static str, was: Quoted },
    /// The client has to prove that it has the key (RFC 8705 section 3, RFC 9449 section 7), which nothing here checks.
    #[error(
        "the token is bound to a key or a certificate of its client (claim `cnf`); this service accepts plain bearer tokens only"
    )]
    Bound,
    #[error(
        "the token is signed with a key that the realm does not publish: the key was withdrawn, or is another realm's"
    )]
    UnknownKey,
    #[error("the token names no key (`kid`) and the realm has several for its algorithm")]
    AmbiguousKey,
    #[error("the key that the token names is for another algorithm")]
    KeyAlgorithm,
    #[error("the token's signature is wrong")]
    Signature,
    /// Recent releases of Keycloak call tokens for other audiences inactive, too.
    #[error("the token is not active: it was revoked, its session has ended, or it is not meant for this service")]
    Inactive,
}

impl Refusal {
    /// What the caller can do. Suggests a new token only where it would be different.
    fn help(&self, issuer: &str) -> String {
        match self {
            Self::NoCredentials
            | Self::SeveralCredentials
            | Self::NotBearer
            | Self::NotAToken(_)
            | Self::Issuer { .. } => format!(
                "Get an access token from {issuer} and send it as `Authorization: Bearer <access token>`. \
                 It must have the claim `preferred_username`."
            ),
            Self::Expired { .. }
            | Self::UnknownKey
            | Self::AmbiguousKey
            | Self::KeyAlgorithm
            | Self::Signature
            | Self::Inactive => format!("Get a new access token from {issuer}."),
            Self::NotYet { .. } => {
                format!("Send the token later, or have the clocks of {issuer} and of this service set right.")
            }
            Self::TokenType { .. } => {
                format!("Send the `access_token` that {issuer} gives, not its `refresh_token` or `id_token`.")
            }
            Self::Bound => format!(
                "Request the token without a DPoP proof. If it is still bound, have the administrators of {issuer} switch off \
                 DPoP bound tokens and certificate bound access tokens for your client."
            ),
            Self::NoName { introspected: false } => format!(
                "A new token would be the same. If it is a lightweight access token, have the administrators of {issuer} switch \
                 off `Always use lightweight access token` for your client, or the operators of this service switch on \
                 `auth.introspection`. Otherwise your client needs the client scope `profile`."
            ),
            Self::NoName { introspected: true } => format!(
                "A new token would be the same: have the administrators of {issuer} give your client the client scope `profile`."
            ),
            Self::Audience { wanted } => format!(
                "A new token would be the same: have the administrators of {issuer} add the audience `{wanted}` to the \
                 tokens of your client."
            ),
            Self::TooLong(_) => format!(
                "A new token would be as large: have the administrators of {issuer} put less into the tokens of your client."
            ),
            Self::Algorithm(_) | Self::Critical | Self::Missing(_) | Self::Malformed { .. } => format!(
                "A new token would be the same: have the administrators of {issuer} change the tokens of your client."
            ),
        }
    }
}

/// Untrusted text for messages: at most 80 characters, in backquotes, with everything but printable ASCII escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    const MAX: usize = 80;

    pub fn new(text: &str) -> Self {
        let mut quoted: String = text.chars().take(Self::MAX).flat_map(char::escape_default).collect();
        if text.chars().nth(Self::MAX).is_some() {
            quoted.push_str("...");
        }
        Self(quoted)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// The answer to a caller who failed authentication.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// 401, 403 or 502.
    pub status: StatusCode,
    /// `WWW-Authenticate`, except for 502.
    pub headers: HeaderMap,
    /// `detail`, `error` and `help`; for 502 `message` instead of `help`.
    pub body: Value,
}

impl Rejection {
    pub(super) fn new(error: &AuthError, realm: &str, issuer: &str) -> Self {
        let detail = error.to_string();
        let (status, name, code) = match error {
            AuthError::Refused(Refusal::NoCredentials) => (StatusCode::UNAUTHORIZED, "AuthenticationError", None),
            AuthError::Refused(_) => (StatusCode::UNAUTHORIZED, "AuthenticationError", Some("invalid_token")),
            AuthError::Forbidden { .. } => (StatusCode::FORBIDDEN, "AuthorizationError", Some("insufficient_scope")),
            AuthError::Unavailable(_) => {
                return Self {
                    status: StatusCode::BAD_GATEWAY,
                    headers: HeaderMap::new(),
                    body: json!({
                        // The cause is only logged: the caller is not authenticated.
                        "detail": detail,
                        "error": "UpstreamServiceError",
                        "message": "Failed to communicate with an upstream service.",
                    }),
                };
            }
        };
        let help = match error {
            AuthError::Refused(refusal) => refusal.help(issuer),
            _ => format!(
                "Ask the administrators of {issuer} for the roles, then get a new token. Tokens name roles only if their client \
                 has the client scope `roles`; lightweight access tokens never do, and need `auth.introspection` in this service."
            ),
        };
        let realm = quotable(realm);
        let challenge = match code {
            None => format!("Bearer realm=\"{realm}\""),
            Some(code) => {
                let description = quotable(&detail);
                format!("Bearer realm=\"{realm}\", error=\"{code}\", error_description=\"{description}\"")
            }
        };
        let mut headers = HeaderMap::new();
        let challenge = HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"));
        headers.insert(WWW_AUTHENTICATE, challenge);
        Self { status, headers, body: json!({ "detail": detail, "error": name, "help": help }) }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        (self.status, self.headers, Json(self.body)).into_response()
    }
}

/// Replaces characters that RFC 6750 does not allow in `error_description` by `?`, and quotes by apostrophes.
fn quotable(text: &str) -> String {
    let safe = |c| match c {
        '"' => '\'',
        ' '..='[' | ']'..='~' => c,
        _ => '?',
    };
    text.chars().map(safe).collect()
}

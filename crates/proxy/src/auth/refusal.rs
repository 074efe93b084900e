//! Why a caller is not admitted, and how that is said over HTTP (decision D12, RFC 6750).

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use thiserror::Error;

use crate::upstream::ExchangeError;

/// Why a caller is not admitted.
#[derive(Debug, Error)]
pub enum AuthError {
    /// The token is missing or bad: 401.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The token is good, the caller lacks roles: 403.
    #[error("the token lacks the required {}: {}", if .missing.len() == 1 { "role" } else { "roles" }, .missing.join(", "))]
    Forbidden {
        /// Those of `auth.required_roles`, or of `callbacks.required_roles`, that the caller lacks.
        missing: Vec<String>,
    },
    /// The realm cannot be asked, so that nobody can be judged: 502. Never a pass.
    #[error("the token cannot be checked, since the realm that issues tokens gives no usable answer")]
    Undecidable(#[source] Arc<ExchangeError>),
}

/// Which rule a token broke. The text is meant for the caller; what it repeats of the token is quoted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No header `Authorization`.
    #[error("no access token was sent: the header `Authorization` is missing")]
    NoCredentials,
    /// More than one header `Authorization`.
    #[error("more than one header `Authorization` was sent")]
    SeveralCredentials,
    /// The header is larger than the limit, in bytes.
    #[error("the header `Authorization` is larger than {0} bytes")]
    TooLong(usize),
    /// Another scheme, or not a single token after it.
    #[error("the header `Authorization` is not of the form `Bearer <access token>`")]
    NotBearer,
    /// Not a JSON Web Token.
    #[error("the token is not a signed JSON Web Token: {0}")]
    NotAToken(&'static str),
    /// `alg` is none of the accepted ones.
    #[error(
        "the token's algorithm {0} is not accepted (RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA are)"
    )]
    Algorithm(Quoted),
    /// `crit` demands the understanding of extensions, of which there are none.
    #[error("the token's header has critical extensions (`crit`), which are not supported")]
    Critical,
    /// A claim is missing.
    #[error("the token lacks the claim `{0}`")]
    Missing(&'static str),
    /// A claim is of the wrong type or out of range.
    #[error("the token's claim `{claim}` is not {wanted}")]
    Malformed {
        /// Name of the claim.
        claim: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// `exp` has passed.
    #[error("the token expired {seconds_ago} seconds ago (`exp` is {at})")]
    Expired {
        /// The claim, in seconds since 1970.
        at: i64,
        /// How long ago that is.
        seconds_ago: i64,
    },
    /// `nbf` or `iat` is to come.
    #[error("the token is valid only in {seconds} seconds by its claim `{claim}`; do the clocks agree?")]
    NotYet {
        /// Name of the claim.
        claim: &'static str,
        /// Seconds until then.
        seconds: i64,
    },
    /// `iss` is another.
    #[error("the token was issued by {was} (claim `iss`), accepted are tokens of `{wanted}`")]
    Issuer {
        /// Our issuer.
        wanted: String,
        /// The token's.
        was: Quoted,
    },
    /// `aud` lacks our client.
    #[error("the token is not meant for this service: its claim `aud` must contain `{wanted}`")]
    Audience {
        /// The configured client id (decision D13).
        wanted: String,
    },
    /// `typ` says that it is no access token.
    #[error("the token is of the type {was} (claim `typ`), an access token says `Bearer`")]
    TokenType {
        /// What it says.
        was: Quoted,
    },
    /// The key named by `kid` (or any for the algorithm) is not published.
    #[error("the token is signed with a key that the realm does not publish: it was withdrawn, or is of another realm")]
    UnknownKey,
    /// No `kid`, and several keys could have signed.
    #[error("the token names no key (`kid`) and the realm has several for its algorithm")]
    AmbiguousKey,
    /// The key is not for this algorithm.
    #[error("the token's algorithm is not the one of the key it names")]
    KeyAlgorithm,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// The realm says that the token is not active.
    #[error("the token is no longer active: it was revoked, or its session has ended")]
    Inactive,
}

impl Refusal {
    /// What the caller can do. A new token is no help where it would be the same.
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

/// Foreign text made harmless: at most 80 characters, in backquotes, everything but printable ASCII escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    const MOST: usize = 80;

    /// Quotes a text.
    pub fn new(text: &str) -> Self {
        let mut quoted: String = text.chars().take(Self::MOST).flat_map(char::escape_default).collect();
        if text.chars().nth(Self::MOST).is_some() {
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

/// The answer to a caller who is not admitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// 401, 403 or 502.
    pub status: StatusCode,
    /// `WWW-Authenticate`, but not for 502.
    pub headers: HeaderMap,
    /// `detail`, `error` and `help`; for 502 `message` in place of `help`.
    pub body: Value,
}

impl Rejection {
    pub(super) fn new(error: &AuthError, realm: &str, issuer: &str) -> Self {
        let detail = error.to_string();
        let (status, name, code) = match error {
            AuthError::Refused(Refusal::NoCredentials) => (StatusCode::UNAUTHORIZED, "AuthenticationError", None),
            AuthError::Refused(_) => (StatusCode::UNAUTHORIZED, "AuthenticationError", Some("invalid_token")),
            AuthError::Forbidden { .. } => (StatusCode::FORBIDDEN, "AuthorizationError", Some("insufficient_scope")),
            AuthError::Undecidable(_) => {
                return Self {
                    status: StatusCode::BAD_GATEWAY,
                    headers: HeaderMap::new(),
                    body: json!({
                        // What is wrong with the realm is logged; a stranger need not know how it is reached.
                        "detail": detail,
                        "error": "UpstreamServiceError",
                        "message": "Failed to communicate with an upstream service.",
                    }),
                };
            }
        };
        let help = match error {
            AuthError::Refused(refusal) => refusal.help(issuer),
            _ => format!("Ask the administrators of {issuer} for the roles, then get a new token."),
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

/// The characters that RFC 6750 allows in `error_description`; all others become `?`, a quote an apostrophe.
fn quotable(text: &str) -> String {
    let safe = |c| match c {
        '"' => '\'',
        ' '..='[' | ']'..='~' => c,
        _ => '?',
    };
    text.chars().map(safe).collect()
}

//! Sign-in of people with a browser: authorization code with PKCE (RFC 6749, RFC 7636, OpenID Connect Core), refresh and logout.
//!
//! `oauth2` builds the requests and parses the answers; they are sent through [`Upstream`]. Tokens are
//! validated like those of the API, also those that come directly from the realm.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, StatusCode};
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
    BasicTokenType,
};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RefreshToken, RequestTokenError, Scope, StandardErrorResponse, StandardRevocableToken, StandardTokenResponse,
    TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use super::claims::Rules;
use super::discovery::Endpoints;
use super::realm::{MAX_BODY, TIMEOUT};
use super::refusal::{AuthError, Refusal};
use super::token::Token;
use super::{TokenVerifier, Verifier};
use crate::config;
use crate::upstream::{ExchangeError, Upstream, UpstreamError};

/// After this time a session is refreshed even if its access token is valid for longer, so that a removed role and a disabled user take
/// effect.
const MAX_UNCHECKED: Duration = Duration::from_mins(5);

/// The path below `dashboard.public_url` to which the realm redirects browsers.
const CALLBACK: &str = "/ui/callback";

/// Sign-in at the realm with a client of its own.
pub(crate) struct CodeFlow {
    verifier: Arc<Verifier>,
    client_id: String,
    client_secret: SecretString,
    redirect: RedirectUrl,
    required_roles: Vec<String>,
}

/// What must be remembered from the beginning of a sign-in to its end. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    nonce: String,
    pkce_verifier: String,
}

/// A person who signed in, or whose session was refreshed.
pub(crate) struct Grant {
    /// `sub`.
    pub(crate) subject: String,
    /// `preferred_username`, never blank.
    pub(crate) username: String,
    /// Those of `dashboard.required_roles` that the person lacks.
    pub(crate) missing: Vec<String>,
    pub(crate) refresh_token: SecretString,
    /// When the session must be refreshed, in seconds since 1970.
    pub(crate) valid_until: i64,
}

/// Why the realm gave no tokens, or none that are accepted.
#[derive(Debug, Clone, Error)]
pub(crate) enum GrantError {
    /// The code was used or is too old; or the session has ended, or the user is disabled.
    #[error("the realm does not accept the code or the session (`invalid_grant`)")]
    Ended,
    /// The realm refuses the client.
    #[error(
        "the realm refuses the client ({0}); check dashboard.client_id (DASHBOARD_CLIENT_ID), dashboard.client_secret \
         (DASHBOARD_CLIENT_SECRET) and, in Keycloak, that the client has client authentication and the standard flow"
    )]
    Client(&'static str),
    /// The realm does not redirect to this URI of ours; only found by `check`.
    #[error("the realm refuses to redirect browsers to {0}; in Keycloak, add it to the client's valid redirect URIs")]
    Redirect(String),
    /// The realm issued tokens that are not accepted.
    #[error(
        "the realm issued a token that is not accepted{}",
        if matches!(.0, Refusal::Expired { .. }) { ", because the clocks of the realm and of this host differ" } else { "" }
    )]
    Token(#[source] Refusal),
    #[error("the realm gave no usable answer")]
    Unavailable(#[source] Arc<ExchangeError>),
}

impl From<Refusal> for GrantError {
    fn from(refusal: Refusal) -> Self {
        Self::Token(refusal)
    }
}

/// The part of a token answer that OpenID Connect adds.
#[derive(Serialize, Deserialize)]
struct IdToken {
    id_token: Option<SecretText>,
}

/// A text that `Debug` does not show.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdToken").finish_non_exhaustive()
    }
}

impl ExtraTokenFields for IdToken {}

type Tokens = StandardTokenResponse<IdToken, BasicTokenType>;

type Client = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

type TokenError = RequestTokenError<ExchangeError, StandardErrorResponse<BasicErrorResponseType>>;

impl fmt::Debug for CodeFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeFlow").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl CodeFlow {
    /// Sends nothing yet.
    pub(crate) fn new(verifier: Arc<Verifier>, settings: &config::SignIn) -> Self {
        let mut redirect = settings.public_url.clone();
        let path = format!("{}{CALLBACK}", redirect.path().trim_end_matches('/'));
        redirect.set_path(&path);
        Self {
            verifier,
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            redirect: RedirectUrl::from_url(redirect),
            required_roles: settings.required_roles.clone(),
        }
    }

    /// The `iss` of the realm.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.verifier.0.as_ref().map(|verifier| verifier.realm.issuer())
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.verifier.0.as_ref().map_or(0, TokenVerifier::now)
    }

    /// The URL where the browser signs in, its parameter `state`, and what to remember until it returns.
    pub(crate) async fn begin(&self) -> Result<(Url, String, Attempt), GrantError> {
        let (_, endpoints) = self.endpoints().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random().into_secret();
        let (url, state) = self
            .client(&endpoints)
            .authorize_url(CsrfToken::new_random)
            .add_scope(Scope::new(String::from("openid")))
            .add_scope(Scope::new(String::from("profile")))
            .add_extra_param("nonce", nonce.clone())
            .set_pkce_challenge(challenge)
            .url();
        Ok((url, state.into_secret(), Attempt { nonce, pkce_verifier: verifier.into_secret() }))
    }

    /// Exchanges the code with which the browser returned.
    pub(crate) async fn finish(&self, code: &str, attempt: Attempt) -> Result<Grant, GrantError> {
        let (verifier, endpoints) = self.endpoints().await?;
        let client = self.client(&endpoints);
        let request = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.pkce_verifier));
        let sender = TokenEndpoint { upstream: verifier.realm.upstream(), url: &endpoints.token };
        let tokens = request.request_async(&sender).await.map_err(|error| sender.grant_error(error))?;
        self.grant(verifier, &tokens, Some(&attempt.nonce), None).await
    }

    /// Refreshes the session of this person.
    pub(crate) async fn refresh(&self, refresh_token: &SecretString, subject: &str) -> Result<Grant, GrantError> {
        let (verifier, endpoints) = self.endpoints().await?;
        let sender = TokenEndpoint { upstream: verifier.realm.upstream(), url: &endpoints.token };
        let refresh_token = RefreshToken::new(refresh_token.expose_secret().to_owned());
        let answer = self.client(&endpoints).exchange_refresh_token(&refresh_token).request_async(&sender).await;
        let tokens = answer.map_err(|error| sender.grant_error(error))?;
        self.grant(verifier, &tokens, None, Some(subject)).await
    }

    /// Ends the session at the realm, for all its clients. Nothing happens if it has ended before.
    pub(crate) async fn end(&self, refresh_token: &SecretString) -> Result<(), GrantError> {
        let (verifier, endpoints) = self.endpoints().await?;
        let form = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose_secret()),
            ("refresh_token", refresh_token.expose_secret()),
        ];
        let upstream = verifier.realm.upstream();
        let request = upstream.post(endpoints.end_session.clone()).form(&form);
        let answer = upstream.exchange_once(request, MAX_BODY, TIMEOUT).await.map_err(unavailable)?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::BAD_REQUEST => Ok(()),
            status => {
                Err(unavailable(upstream.error(Method::POST, &endpoints.end_session, UpstreamError::Status(status))))
            }
        }
    }

    /// Where a browser ends its session at the realm itself, and then returns to `to`.
    pub(crate) async fn end_session_url(&self, to: &Url) -> Option<Url> {
        let (_, endpoints) = self.endpoints().await.ok()?;
        let mut url = endpoints.end_session;
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("post_logout_redirect_uri", to.as_str());
        Some(url)
    }

    /// Tests whether the realm accepts the client with its secret and its redirect URI. Nobody signs in.
    pub(crate) async fn check(&self) -> Result<(), GrantError> {
        let (url, _, attempt) = self.begin().await?;
        match self.finish("none", attempt).await {
            // The client was accepted, and the code was not.
            Ok(_) | Err(GrantError::Ended) => {}
            Err(error) => return Err(error),
        }
        let (verifier, _) = self.endpoints().await?;
        let upstream = verifier.realm.upstream();
        match upstream.exchange(upstream.get(url.clone()), MAX_BODY).await {
            Ok(answer) if answer.status == StatusCode::BAD_REQUEST => {
                Err(GrantError::Redirect(self.redirect.to_string()))
            }
            Ok(answer) if !answer.status.is_success() => {
                Err(unavailable(upstream.error(Method::GET, &url, UpstreamError::Status(answer.status))))
            }
            // A realm without a form of its own leads elsewhere.
            Err(error) if !matches!(error.cause, UpstreamError::Redirected(_)) => Err(unavailable(error)),
            _ => Ok(()),
        }
    }

    async fn endpoints(&self) -> Result<(&TokenVerifier, Endpoints), GrantError> {
        // There are no sessions without authentication.
        let verifier = self.verifier.0.as_ref().ok_or(GrantError::Ended)?;
        let found = verifier.realm.keys().await.map_err(GrantError::Unavailable)?;
        Ok((verifier, found.endpoints.clone()))
    }

    fn client(&self, endpoints: &Endpoints) -> Client {
        oauth2::Client::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.client_secret.expose_secret().to_owned()))
            // Not in `Basic`: servers disagree about the encoding of special characters there.
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::from_url(endpoints.authorization.clone()))
            .set_token_uri(TokenUrl::from_url(endpoints.token.clone()))
            .set_redirect_uri(self.redirect.clone())
    }

    /// Validates the tokens of an answer. For a refreshed session, `subject` is its person.
    async fn grant(
        &self,
        verifier: &TokenVerifier,
        tokens: &Tokens,
        nonce: Option<&str>,
        subject: Option<&str>,
    ) -> Result<Grant, GrantError> {
        let (now, arrived) = (verifier.now(), verifier.clock.instant());
        let SecretText(id_token) = tokens.extra_fields().id_token.as_ref().ok_or(Refusal::Missing("id_token"))?;
        let id_token = Token::parse(id_token)?;
        verifier.verify_signature(&id_token, arrived).await.map_err(token_error)?;
        let (person, username) = verifier.rules.check_id_token(&id_token.claims, &self.client_id, nonce, now)?;
        if subject.is_some_and(|subject| subject != person) {
            return Err(Refusal::Malformed { claim: "sub", wanted: "the one of this session" }.into());
        }
        let access_token = Token::parse(tokens.access_token().secret())?;
        let expires = verifier.rules.check_own_token(&access_token.claims, &self.client_id, person, now)?;
        let found = verifier.verify_signature(&access_token, arrived).await.map_err(token_error)?;
        let claims = match &verifier.introspection {
            Some(introspection) if Rules::lacks_roles(&access_token.claims) => {
                let claims = introspection.claims(&verifier.realm, &found.endpoints.introspection, &access_token).await;
                claims.map_err(unavailable)?.ok_or(GrantError::Ended)?
            }
            _ => access_token.claims,
        };
        let refresh_token = tokens.refresh_token().ok_or(Refusal::Missing("refresh_token"))?;
        Ok(Grant {
            subject: person.to_owned(),
            username: username.to_owned(),
            missing: self.missing(verifier, &claims),
            refresh_token: refresh_token.secret().as_str().into(),
            valid_until: expires.min(now.saturating_add_unsigned(MAX_UNCHECKED.as_secs())),
        })
    }

    fn missing(&self, verifier: &TokenVerifier, claims: &Map<String, Value>) -> Vec<String> {
        verifier.rules.missing(&self.required_roles, claims)
    }
}

fn unavailable(error: ExchangeError) -> GrantError {
    GrantError::Unavailable(Arc::new(error))
}

fn token_error(error: AuthError) -> GrantError {
    match error {
        AuthError::Refused(refusal) => GrantError::Token(refusal),
        AuthError::Unavailable(error) => GrantError::Unavailable(error),
        AuthError::Forbidden { .. } => GrantError::Ended,
    }
}

/// Sends the requests of the library to the token endpoint, once each: a code, and at some realms a refresh token, is valid only once.
struct TokenEndpoint<'a> {
    upstream: &'a Upstream,
    url: &'a Url,
}

impl<'c> AsyncHttpClient<'c> for TokenEndpoint<'_> {
    type Error = ExchangeError;
    type Future = BoxFuture<'c, Result<HttpResponse, ExchangeError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let request = self.upstream.post(self.url.clone()).headers(parts.headers).body(body);
            let answer = self.upstream.exchange_once(request, MAX_BODY, TIMEOUT).await?;
            if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
                return Err(self.upstream.error(Method::POST, self.url, UpstreamError::Status(answer.status)));
            }
            let mut response = HttpResponse::new(answer.body.into());
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

impl TokenEndpoint<'_> {
    /// Without the texts of the library's errors, which can contain the answer, and with it tokens.
    fn grant_error(&self, error: TokenError) -> GrantError {
        let invalid = |what: &str| {
            let error = UpstreamError::Invalid(what.to_owned());
            unavailable(self.upstream.error(Method::POST, self.url, error))
        };
        match error {
            RequestTokenError::Request(error) => unavailable(error),
            RequestTokenError::ServerResponse(answer) => match answer.error() {
                BasicErrorResponseType::InvalidGrant => GrantError::Ended,
                BasicErrorResponseType::InvalidClient => GrantError::Client("invalid_client"),
                BasicErrorResponseType::UnauthorizedClient => GrantError::Client("unauthorized_client"),
                BasicErrorResponseType::InvalidScope => GrantError::Client("invalid_scope"),
                BasicErrorResponseType::UnsupportedGrantType => GrantError::Client("unsupported_grant_type"),
                BasicErrorResponseType::InvalidRequest => GrantError::Client("invalid_request"),
                BasicErrorResponseType::Extension(_) => invalid("its error code is unknown"),
            },
            RequestTokenError::Parse(..) => invalid("it is not the answer of a token endpoint"),
            RequestTokenError::Other(_) => invalid("it is not JSON"),
        }
    }
}

//! Requests to the API with the machine token.

use http::{Method, StatusCode, header};
use url::Url;

use super::HpcUserError;
use crate::config;
use crate::oauth::{MachineToken, Token};
use crate::transport::{Transport, TransportError};
use crate::upstream::{Answer, ExchangeError, Upstream, UpstreamError};

#[derive(Debug)]
pub(super) struct Connection {
    upstream: Upstream,
    base: Url,
    tokens: MachineToken,
}

impl Connection {
    /// `Ok(Err)` contains the missing setting.
    pub(super) fn new(settings: &config::HpcUserApi) -> Result<Result<Self, &'static str>, TransportError> {
        let transport = Transport::new(settings.verify_ssl, settings.socks_proxy.clone(), settings.timeout);
        let Some(base) = settings.api_url.clone() else { return Ok(Err("hpc_user_api.api_url (HPC_USER_API_URL)")) };
        let Some(client_id) = settings.client_id.clone() else {
            return Ok(Err("hpc_user_api.client_id (HPC_USER_CLIENT_ID)"));
        };
        let Some(client_secret) = settings.client_secret.clone() else {
            return Ok(Err("hpc_user_api.client_secret (HPC_USER_CLIENT_SECRET)"));
        };
        let Some(token_url) = settings.oidc_token_url.clone() else {
            return Ok(Err("hpc_user_api.oidc_token_url (HPC_USER_OIDC_TOKEN_URL)"));
        };
        let issuer = Upstream::new("HPC User API's token endpoint", &transport)?;
        let tokens = MachineToken::new(issuer, token_url, client_id, client_secret, settings.oidc_scope.clone());
        Ok(Ok(Self { upstream: Upstream::new("HPC User API", &transport)?, base, tokens }))
    }

    pub(super) fn upstreams(&self) -> [&Upstream; 2] {
        [&self.upstream, self.tokens.upstream()]
    }

    /// The URL of a path below the configured URL, with each segment percent-encoded.
    pub(super) fn url(&self, path: impl IntoIterator<Item = impl AsRef<str>>) -> Url {
        let mut url = self.base.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Fails only for URLs like `mailto:`, which validation of the settings refuses.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    pub(super) async fn token(&self) -> Result<Token, HpcUserError> {
        self.tokens.get().await.map_err(HpcUserError::Token)
    }

    /// Sends a GET request with the machine token; after a 401 once more with a new one. Returns answers of any status except
    /// 401 and 403.
    pub(super) async fn get(&self, url: &Url, max_body: usize) -> Result<Answer, HpcUserError> {
        let token = self.token().await?;
        let mut answer = self.get_with(&token, url, max_body).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.tokens.invalidate(&token);
            answer = self.get_with(&self.token().await?, url, max_body).await?;
        }
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(HpcUserError::Refused(self.error(url, UpstreamError::Status(answer.status))))
            }
            _ => Ok(answer),
        }
    }

    async fn get_with(&self, token: &Token, url: &Url, max_body: usize) -> Result<Answer, ExchangeError> {
        let request = self
            .upstream
            .get(url.clone())
            .header(header::AUTHORIZATION, token.authorization())
            .header(header::ACCEPT, "application/json");
        self.upstream.exchange(request, max_body).await
    }

    /// The error for an answer that cannot be used.
    pub(super) fn error(&self, url: &Url, cause: UpstreamError) -> ExchangeError {
        self.upstream.error(Method::GET, url, cause)
    }
}

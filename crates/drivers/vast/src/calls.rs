//! The calls to a VAST management system.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Settings;
use super::wire::{self, Login, Quota, Refusal, Rows};
use driver_rest::{self as rest, ApiRequest, ApiResponse, Backoff, InvalidSettings, RestClient};
use storage_driver::credential::CredentialGuard;
use storage_driver::{Desired, DriverError};

/// Rows on a page of a list.
const ROWS: &str = "1000";
/// Maximum number of pages of a list, to stop endless ones.
const MAX_PAGES: u32 = 1_000;

#[derive(Debug)]
pub(super) struct Management {
    client: RestClient,
    credential: Credential,
    /// Prevents that a rejected credential is sent again, because a few more attempts would lock the manager.
    rejected: CredentialGuard,
    tenant: u64,
}

enum Credential {
    Token(HeaderValue),
    /// Logging in returns a token that expires.
    Login {
        user: String,
        password: SecretString,
        token: Mutex<Option<HeaderValue>>,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token",
            Self::Login { .. } => "Login",
        })
    }
}

impl Management {
    pub(super) fn new(settings: &Settings, backoff: Backoff) -> Result<Self, InvalidSettings> {
        let credential = match (&settings.token, &settings.user, &settings.password) {
            (Some(token), None, None) => Credential::Token(rest::authorization("Api-Token", token, "token")?),
            (None, Some(user), Some(password)) => {
                Credential::Login { user: user.clone(), password: password.clone(), token: Mutex::new(None) }
            }
            _ => return Err(InvalidSettings::Setting("give either `token`, or `user` and `password`".into())),
        };
        let client = RestClient::new(&settings.api, backoff)?;
        Ok(Self { client, credential, rejected: CredentialGuard::default(), tenant: settings.tenant })
    }

    /// All quotas of the tenant.
    pub(super) fn quotas(&self) -> Result<Vec<Quota>, DriverError> {
        let what = "list the quotas";
        let mut quotas = Vec::<Value>::new();
        for page in 1..=MAX_PAGES {
            let page = page.to_string();
            let response = self.send(what, &Method::GET, &[], &[("page", &page), ("page_size", ROWS)], None)?;
            match success(what, &response)?.json(what)? {
                Rows::All(all) => quotas = all,
                Rows::Page { results, next: Some(_), .. } => {
                    quotas.extend(results);
                    continue;
                }
                Rows::Page { results, count, next: None } => {
                    quotas.extend(results);
                    if quotas.len() != count {
                        let got = quotas.len();
                        return Err(DriverError::temporary(format!(
                            "cannot {what}: the list changed while it was read ({got} of {count} quotas received); it will be read again"
                        )));
                    }
                }
            }
            let quotas = quotas.iter().map(Quota::parse).collect::<Result<Vec<_>, _>>();
            let mut quotas = quotas.map_err(|why| DriverError::temporary(format!("cannot {what}: {why}")))?;
            quotas.retain(|quota| quota.belongs_to(self.tenant));
            return Ok(quotas);
        }
        Err(DriverError::temporary(format!("cannot {what}: the list has too many pages")))
    }

    pub(super) fn create(&self, path: &str, inode: u64, desired: &Desired) -> Result<(), DriverError> {
        let what = format!("create the quota of {path}");
        let body = wire::new_quota(path, inode, self.tenant, desired);
        success(&what, &self.send(&what, &Method::POST, &[], &[], Some(&body))?).map(drop)
    }

    pub(super) fn change(&self, id: u64, body: &Value) -> Result<(), DriverError> {
        let what = format!("change the quota {id}");
        success(&what, &self.send(&what, &Method::PATCH, &[&id.to_string()], &[], Some(body))?).map(drop)
    }

    /// Deletes a quota; succeeds if it does not exist.
    pub(super) fn delete(&self, id: u64) -> Result<(), DriverError> {
        let what = format!("delete the quota {id}");
        let response = self.send(&what, &Method::DELETE, &[&id.to_string()], &[], None)?;
        if response.status == StatusCode::NOT_FOUND { Ok(()) } else { success(&what, &response).map(drop) }
    }

    fn send(
        &self,
        what: &str,
        method: &Method,
        below: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<ApiResponse, DriverError> {
        // The interface requires a trailing slash.
        let path = [&["api", "quotas"], below, &[""]].concat();
        let mut renewed = false;
        loop {
            let authorization = self.authorization()?;
            let authorization = Some(&authorization);
            let request = ApiRequest { method: method.clone(), path: &path, query, body, authorization };
            let response = self.client.send(what, &request)?;
            let refused = matches!(response.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            match &self.credential {
                // An expired token causes either status. If a new token is refused, too, a permission is missing.
                Credential::Login { token, .. } if refused && !renewed => {
                    *lock(token) = None;
                    renewed = true;
                }
                Credential::Token(_) if response.status == StatusCode::UNAUTHORIZED => {
                    self.rejected.record("VAST rejected `token` (401)");
                    return Ok(response);
                }
                _ => return Ok(response),
            }
        }
    }

    fn authorization(&self) -> Result<HeaderValue, DriverError> {
        self.rejected.check()?;
        let (user, password, token) = match &self.credential {
            Credential::Token(token) => return Ok(token.clone()),
            Credential::Login { user, password, token } => (user, password, token),
        };
        // The lock is held during the exchange, so that concurrent callers wait for this token.
        let mut current = lock(token);
        if let Some(token) = &*current {
            return Ok(token.clone());
        }
        let what = "log in";
        let body = json!({ "username": user, "password": password.expose_secret() });
        let path = &["api", "token", ""];
        let request = ApiRequest { method: Method::POST, path, query: &[], body: Some(&body), authorization: None };
        let response = self.client.send(what, &request)?;
        if response.status == StatusCode::UNAUTHORIZED {
            self.rejected.record("VAST rejected `user` or `password` (401)");
        }
        let login: Login = success(what, &response)?.json(what)?;
        let token = rest::authorization("Bearer", &login.access.into(), "password");
        let token =
            token.map_err(|_| DriverError::temporary(format!("cannot {what}: VAST returned an invalid token")))?;
        *current = Some(token.clone());
        Ok(token)
    }
}

fn lock(token: &Mutex<Option<HeaderValue>>) -> MutexGuard<'_, Option<HeaderValue>> {
    token.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A successful response, or the reason why it is not.
fn success<'a>(what: &str, response: &'a ApiResponse) -> Result<&'a ApiResponse, DriverError> {
    match response.status {
        status if status.is_success() => Ok(response),
        StatusCode::UNAUTHORIZED => Err(DriverError::temporary(format!(
            "cannot {what}: VAST rejected the credentials (401): correct `token`, or `user` and `password`"
        ))),
        StatusCode::FORBIDDEN => Err(DriverError::temporary(format!(
            "cannot {what}: VAST refused it (403). Either the manager's role does not allow it to view and change quotas: \
             assign a role that does. Or the manager is locked after wrong passwords, or `token` has expired: unlock it, or \
             create a new token"
        ))),
        status => {
            let detail = response.json(what).map(|Refusal { detail }| rest::single_line(&detail));
            let detail = detail.unwrap_or_else(|_| status.to_string());
            Err(DriverError::temporary(format!("cannot {what}: VAST reports: {detail}")))
        }
    }
}

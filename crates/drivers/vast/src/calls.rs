//! The calls to a VAST management system.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Settings;
use super::wire::{self, Login, Quota, Refusal, Rows};
use driver_rest::{self as rest, Answer, Ask, NotSetUp, Pace, Rest};
use storage_driver::credential::CredentialGuard;
use storage_driver::{Desired, DriverError};

/// Rows on a page of a list.
const ROWS: &str = "1000";
/// No list has more pages.
const PAGES: u32 = 1_000;

#[derive(Debug)]
pub(super) struct Management {
    rest: Rest,
    credential: Credential,
    /// Whether the token, or user and password, were refused: a few more attempts lock the manager.
    guard: CredentialGuard,
    tenant: u64,
}

enum Credential {
    Token(HeaderValue),
    /// Gives a token that lives for a while.
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
    pub(super) fn new(settings: &Settings, pace: Pace) -> Result<Self, NotSetUp> {
        let credential = match (&settings.token, &settings.user, &settings.password) {
            (Some(token), None, None) => Credential::Token(rest::secret("Api-Token", token, "token")?),
            (None, Some(user), Some(password)) => {
                Credential::Login { user: user.clone(), password: password.clone(), token: Mutex::new(None) }
            }
            _ => return Err(NotSetUp::Setting("give either `token`, or `user` and `password`".into())),
        };
        let (rest, guard) = (Rest::new(&settings.api, pace)?, CredentialGuard::default());
        Ok(Self { rest, credential, guard, tenant: settings.tenant })
    }

    /// All quotas of the tenant, or a fault.
    pub(super) fn quotas(&self) -> Result<Vec<Quota>, DriverError> {
        let what = "list the quotas";
        let mut quotas = Vec::<Value>::new();
        for page in 1..=PAGES {
            let page = page.to_string();
            let answer = self.ask(what, &Method::GET, &[], &[("page", &page), ("page_size", ROWS)], None)?;
            match fine(what, &answer)?.json(what)? {
                Rows::All(all) => quotas = all,
                Rows::Page { results, next: Some(_), .. } => {
                    quotas.extend(results);
                    continue;
                }
                Rows::Page { results, count, next: None } => {
                    quotas.extend(results);
                    if quotas.len() != count {
                        let got = quotas.len();
                        return Err(DriverError::unclear(format!(
                            "{what}: {got} of {count} came; they changed on the way"
                        )));
                    }
                }
            }
            let quotas = quotas.iter().map(Quota::read).collect::<Result<Vec<_>, _>>();
            let mut quotas = quotas.map_err(|why| DriverError::unclear(format!("{what}: {why}")))?;
            quotas.retain(|quota| quota.is_of(self.tenant));
            return Ok(quotas);
        }
        Err(DriverError::unclear(format!("{what}: the pages of the list have no end")))
    }

    pub(super) fn make(&self, path: &str, inode: u64, desired: &Desired) -> Result<(), DriverError> {
        let what = format!("make the quota of {path}");
        let body = wire::make(path, inode, self.tenant, desired);
        fine(&what, &self.ask(&what, &Method::POST, &[], &[], Some(&body))?).map(drop)
    }

    pub(super) fn change(&self, id: u64, body: &Value) -> Result<(), DriverError> {
        let what = format!("change the quota {id}");
        fine(&what, &self.ask(&what, &Method::PATCH, &[&id.to_string()], &[], Some(body))?).map(drop)
    }

    /// One that is gone already is as good.
    pub(super) fn delete(&self, id: u64) -> Result<(), DriverError> {
        let what = format!("delete the quota {id}");
        let answer = self.ask(&what, &Method::DELETE, &[&id.to_string()], &[], None)?;
        if answer.status == StatusCode::NOT_FOUND { Ok(()) } else { fine(&what, &answer).map(drop) }
    }

    fn ask(
        &self,
        what: &str,
        method: &Method,
        below: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, DriverError> {
        // The interface wants a slash at the end.
        let path = [&["api", "quotas"], below, &[""]].concat();
        let mut renewed = false;
        loop {
            let authorization = self.authorization()?;
            let authorization = Some(&authorization);
            let ask = Ask { method: method.clone(), path: &path, query, body, authorization };
            let answer = self.rest.ask(what, &ask)?;
            let refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            match &self.credential {
                // A token that is over says either; it is told apart from a right that lacks by a new one.
                Credential::Login { token, .. } if refused && !renewed => {
                    *lock(token) = None;
                    renewed = true;
                }
                Credential::Token(_) if answer.status == StatusCode::UNAUTHORIZED => {
                    self.guard.record("VAST refuses `token` (401)");
                    return Ok(answer);
                }
                _ => return Ok(answer),
            }
        }
    }

    fn authorization(&self) -> Result<HeaderValue, DriverError> {
        self.guard.check()?;
        let (user, password, token) = match &self.credential {
            Credential::Token(token) => return Ok(token.clone()),
            Credential::Login { user, password, token } => (user, password, token),
        };
        // Held over the exchange: who comes meanwhile waits for this token.
        let mut held = lock(token);
        if let Some(token) = &*held {
            return Ok(token.clone());
        }
        let what = "log in";
        let body = json!({ "username": user, "password": password.expose_secret() });
        let path = &["api", "token", ""];
        let answer = self
            .rest
            .ask(what, &Ask { method: Method::POST, path, query: &[], body: Some(&body), authorization: None })?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.guard.record("VAST refuses `user` or `password` (401)");
        }
        let login: Login = fine(what, &answer)?.json(what)?;
        let token = rest::secret("Bearer", &login.access.into(), "password");
        let token = token.map_err(|_| DriverError::unclear(format!("{what}: the token that VAST gives is none")))?;
        *held = Some(token.clone());
        Ok(token)
    }
}

fn lock(token: &Mutex<Option<HeaderValue>>) -> MutexGuard<'_, Option<HeaderValue>> {
    token.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A good answer, or what a refusal says.
fn fine<'a>(what: &str, answer: &'a Answer) -> Result<&'a Answer, DriverError> {
    match answer.status {
        status if status.is_success() => Ok(answer),
        StatusCode::UNAUTHORIZED => Err(DriverError::unclear(format!(
            "{what}: VAST refuses it (401): correct `token`, or `user` and `password`"
        ))),
        StatusCode::FORBIDDEN => Err(DriverError::unclear(format!(
            "{what}: VAST refuses it (403). Either the manager's role does not permit to see and change quotas: give it one \
             that does. Or the manager is locked after wrong passwords, or `token` is over: unlock it, or make a new token"
        ))),
        status => {
            let said = answer.json(what).map(|Refusal { detail }| rest::quoted(&detail));
            Err(DriverError::unclear(format!("{what}: VAST says: {}", said.unwrap_or_else(|_| status.to_string()))))
        }
    }
}

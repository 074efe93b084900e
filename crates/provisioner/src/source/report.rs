//! Sends the provisioner's report to the proxy.

use std::time::Instant;

use program::error_chain;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};

use super::Source;
use super::response::{Failure, base, reason, unreachable};

/// Why the proxy has not taken a report.
#[derive(Debug)]
pub enum Unreported {
    /// It is an older version, which has no such path.
    Unsupported,
    /// The next one will be rejected too, unless something changes. Holds the reason.
    Rejected(String),
    /// The next one may succeed. Holds the reason.
    Failed(String),
}

impl Source {
    /// Sends a report, once.
    pub fn report(&self, name: &str, json: Vec<u8>) -> Result<(), Unreported> {
        match self.report_once(name, json.clone()) {
            // The token may have been revoked.
            Ok((StatusCode::UNAUTHORIZED, _, true)) => self.report_once(name, json),
            outcome => outcome,
        }
        .and_then(|(status, why, _)| match status {
            _ if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(Unreported::Unsupported),
            StatusCode::REQUEST_TIMEOUT => Err(Unreported::Failed(why)),
            _ if status.is_client_error() => Err(Unreported::Rejected(why)),
            _ => Err(Unreported::Failed(why)),
        })
    }

    /// The status of the answer, the reason if it is an error, and whether another token may help.
    fn report_once(&self, name: &str, json: Vec<u8>) -> Result<(StatusCode, String, bool), Unreported> {
        let failed = |failure: Failure| Unreported::Failed(error_chain(&failure.into_error()));
        let asked = Instant::now();
        let bearer = self.bearer().map_err(failed)?;
        let url = format!("{}/api/provisioners/{name}/status", base(&self.settings.proxy.url));
        let request = self.http.put(&url).header(CONTENT_TYPE, "application/json").body(json);
        let request = bearer.iter().fold(request, |request, bearer| request.header(AUTHORIZATION, bearer));
        let unreachable = |error| failed(Failure::Temporary(unreachable(&self.settings.proxy.url, error)));
        let response = request.send().map_err(unreachable)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok((status, String::new(), false));
        }
        let was_old = status == StatusCode::UNAUTHORIZED && bearer.is_some_and(|bearer| self.forget(&bearer, asked));
        Ok((status, format!("the proxy answers {status} to {url}: {}", reason(response)), was_old))
    }
}

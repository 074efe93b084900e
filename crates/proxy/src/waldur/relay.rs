//! Relays callbacks to Waldur, with the proxy's own token.

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use secrecy::ExposeSecret;
use url::Url;

use super::Waldur;
use crate::upstream::{Answer, UpstreamError};
use program::error_chain;

/// Size limit of an answer, in bytes. Waldur answers a callback with a sentence or an HTML page.
const MAX_BODY: usize = 64 << 10;

#[derive(Debug)]
pub enum Relayed {
    /// Accepted, with Waldur's message if it can be shown.
    Done(Option<String>),
    /// Refused (400, 403, 404, 405 or 409), with Waldur's message if it can be shown.
    Refused(StatusCode, Option<String>),
    /// Not sent, or without effect, with the reason.
    Failed(String),
    /// May have had an effect, with the reason for the doubt.
    Unknown(String),
}

impl Relayed {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Refused(..) => "refused",
            Self::Failed(_) => "failed",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl Waldur {
    /// Sends a POST request to a link from Waldur, once, within `timeout`. An empty body is not sent.
    ///
    /// The token is only sent to the configured Waldur: a link to another origin is not followed.
    pub async fn call(&self, link: &str, body: Bytes, timeout: Duration) -> Relayed {
        let Some(url) = own_link(link, &self.root) else {
            return Relayed::Failed(format!(
                "the order's link does not lead to {}; Waldur's own address and WALDUR_API_URL must be the same",
                self.root.origin().ascii_serialization()
            ));
        };
        let token = self.token.expose_secret();
        let mut request = self
            .upstream
            .post(url)
            .header(header::AUTHORIZATION, format!("Token {token}"))
            .header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        match self.upstream.exchange_once(request, MAX_BODY, timeout).await {
            Ok(answer) => outcome(&answer, token),
            Err(error) => {
                let reason = error_chain(&error);
                match error.cause {
                    UpstreamError::TimedOut | UpstreamError::Interrupted(_) | UpstreamError::TooLarge(_) => {
                        Relayed::Unknown(reason)
                    }
                    _ => Relayed::Failed(reason),
                }
            }
        }
    }
}

/// The link as a URL, if it is at the origin of `root` and has only a path.
fn own_link(link: &str, root: &Url) -> Option<Url> {
    let url = Url::parse(link).ok()?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (plain && url.origin() == root.origin()).then_some(url)
}

fn outcome(answer: &Answer, token: &str) -> Relayed {
    let detail = || detail(&answer.body, token);
    match answer.status {
        status if status.is_success() && is_waldurs(&answer.body) => Relayed::Done(detail()),
        // For example a maintenance or login page of a reverse proxy.
        status if status.is_success() => {
            Relayed::Unknown(format!("the body of the answer {status} is not from Waldur"))
        }
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::CONFLICT => Relayed::Refused(answer.status, detail()),
        StatusCode::UNAUTHORIZED => {
            Relayed::Failed("Waldur refuses the proxy's token; check WALDUR_API_TOKEN".to_owned())
        }
        // A reverse proxy timed out or lost the connection.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            Relayed::Unknown(format!("Waldur answered {}", answer.status))
        }
        status => Relayed::Failed(format!("Waldur answered {status}")),
    }
}

/// Whether the body may be from Waldur: JSON, or empty.
fn is_waldurs(body: &[u8]) -> bool {
    body.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// Waldur's message, if it does not contain the token.
fn detail(body: &[u8], token: &str) -> Option<String> {
    waldur_answers::reason(body).filter(|reason| !reason.contains(token))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn only_plain_links_to_waldur_are_followed() {
        let root = "https://waldur.example.org/prefix".parse().unwrap();
        for (link, own) in [
            ("https://waldur.example.org/api/marketplace-orders/1/approve_by_provider/", true),
            ("https://waldur.example.org:443/api/x/", true),
            ("http://waldur.example.org/api/x/", false),
            ("https://waldur.example.org:8443/api/x/", false),
            ("https://waldur.example.org.evil.example/api/x/", false),
            ("https://waldur.example.org@evil.example/api/x/", false),
            ("https://user:pass@waldur.example.org/api/x/", false),
            ("https://waldur.example.org/api/x/?a=1", false),
            ("https://waldur.example.org/api/x/#a", false),
            ("//waldur.example.org/api/x/", false),
            ("/api/x/", false),
            ("", false),
        ] {
            assert_eq!(own_link(link, &root).is_some(), own, "{link}");
        }
    }

    #[test]
    fn answers_become_outcomes_with_waldurs_message() {
        let result = |status: u16, body: &'static str| {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
            match outcome(&answer, "t0ken") {
                Relayed::Done(detail) => ("done", detail.unwrap_or_default()),
                Relayed::Refused(_, detail) => ("refused", detail.unwrap_or_default()),
                Relayed::Failed(why) => ("failed", why),
                Relayed::Unknown(why) => ("unknown", why),
            }
        };
        for (status, body, outcome, text) in [
            (200, "", "done", ""),
            (201, r#"{"detail": "Approved."}"#, "done", "Approved."),
            (200, "<html>maintenance</html>", "unknown", "the body of the answer 200 OK is not from Waldur"),
            (409, r#"{"detail": "Wrong state."}"#, "refused", "Wrong state."),
            (409, r#"{"detail": "Token t0ken"}"#, "refused", ""),
            (409, "<html>t0ken</html>", "refused", ""),
            (400, r#"["Project 'x' is expired."]"#, "refused", "Project 'x' is expired."),
            (400, r#"{"backend_id": ["It is not unique."]}"#, "refused", "backend_id: It is not unique."),
            (400, r#"{"detail": "a\nb"}"#, "refused", r"a\nb"),
            (400, r#"["Token t0ken"]"#, "refused", ""),
            (
                401,
                r#"{"detail": "Invalid token."}"#,
                "failed",
                "Waldur refuses the proxy's token; check WALDUR_API_TOKEN",
            ),
            (500, "<html>", "failed", "Waldur answered 500 Internal Server Error"),
            (418, "", "failed", "Waldur answered 418 I'm a teapot"),
            (504, "", "unknown", "Waldur answered 504 Gateway Timeout"),
        ] {
            assert_eq!(result(status, body), (outcome, text.to_owned()), "{status} {body}");
        }
    }
}

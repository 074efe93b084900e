//! Registers the proxy for Waldur's events.

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{Waldur, WaldurError};
use crate::upstream::UpstreamError;

/// Size limit of an answer, in bytes.
const MAX_BODY: usize = 64 << 10;

/// A queue of events, and how to read it. The password is the API token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Consumer {
    pub rmq_username: String,
    pub queue_name: String,
    pub vhost: String,
}

impl Waldur {
    /// Registers for the events of orders and resources of these offerings. Waldur creates the queue and its user if they are
    /// missing, and sets the user's password to the token. Users with the same offerings get the same queue each time.
    ///
    /// # Errors
    ///
    /// [`WaldurError::Refused`] and the status 404 mean that this Waldur has no events, or not for this token.
    pub async fn register_consumer(&self, offerings: &[Uuid]) -> Result<Consumer, WaldurError> {
        let url = self.url("/api/event-consumers/register/");
        let scope = |uuid: &Uuid| json!({ "type": "offering", "uuid": uuid.simple() });
        let body = json!({
            "object_types": ["order", "resource"], "scopes": offerings.iter().map(scope).collect::<Vec<_>>(),
        });
        let request = self
            .upstream
            .post(url.clone())
            .header(http::header::AUTHORIZATION, format!("Token {}", self.token.expose_secret()))
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let answer = self.upstream.exchange(request, MAX_BODY).await.map_err(WaldurError::Exchange)?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => {
                let consumer: Consumer = answer.json().map_err(|cause| self.error(&url, cause))?;
                if is_plain(&consumer) {
                    Ok(consumer)
                } else {
                    Err(self.error(&url, UpstreamError::Invalid(String::from("a name with unexpected characters"))))
                }
            }
            StatusCode::UNAUTHORIZED => Err(WaldurError::Refused(answer.status)),
            status => Err(self.refused_or(status, url.path())),
        }
    }

    /// The password for the queues of events.
    pub(crate) fn token(&self) -> &SecretString {
        &self.token
    }
}

/// Whether the names can be part of a login and of a destination.
fn is_plain(consumer: &Consumer) -> bool {
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_queue = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    is_name(&consumer.rmq_username)
        && is_name(&consumer.vhost)
        && !consumer.queue_name.is_empty()
        && consumer.queue_name.bytes().all(is_queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let consumer = |user: &str, queue: &str, vhost: &str| Consumer {
            rmq_username: user.to_owned(),
            queue_name: queue.to_owned(),
            vhost: vhost.to_owned(),
        };
        assert!(is_plain(&consumer("0a", "consumer_0a", "/")));
        for (user, queue, vhost) in [
            ("", "q", "v"),
            ("u", "", "v"),
            ("u", "q", ""),
            ("u\npasscode:x", "q", "v"),
            ("u", "a/b", "v"),
            ("u", "%2F", "v"),
        ] {
            assert!(!is_plain(&consumer(user, queue, vhost)), "{user:?} {queue:?} {vhost:?}");
        }
    }
}

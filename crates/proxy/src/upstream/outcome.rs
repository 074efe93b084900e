//! Outcomes of exchanges: their labels in metrics, and the times of the last ones.

use http::StatusCode;
use tokio::time::Instant;

use super::{Answer, UpstreamError};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Last {
    /// Last exchange with an answer. A refusal counts as one, except of the credential (401).
    pub success: Option<Instant>,
    /// Last exchange that failed.
    pub failure: Option<Instant>,
}

impl Last {
    pub(super) fn note(&mut self, outcome: &Result<Answer, UpstreamError>, now: Instant) {
        match (outcome, name(outcome)) {
            // Nothing was sent.
            (_, "left_alone") => {}
            (Ok(Answer { status: StatusCode::UNAUTHORIZED, .. }), _) => self.failure = Some(now),
            (_, "success" | "refused") => self.success = Some(now),
            _ => self.failure = Some(now),
        }
    }
}

/// The label in metrics.
pub(super) fn name(outcome: &Result<Answer, UpstreamError>) -> &'static str {
    match outcome {
        Ok(answer) if answer.status.is_client_error() => "refused",
        Ok(answer) if answer.status.is_server_error() => "failed",
        Ok(_) => "success",
        Err(UpstreamError::Unreachable(_)) => "unreachable",
        Err(UpstreamError::TimedOut) => "timed_out",
        Err(UpstreamError::Interrupted(_)) => "broken_off",
        Err(UpstreamError::CircuitOpen(_)) => "left_alone",
        Err(_) => "unusable",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn an_answer_is_a_success_unless_it_refuses_the_credential_or_is_a_server_error() {
        let answer = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::new() })
        };
        let (before, now) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        for (outcome, word, succeeded) in [
            (answer(200), "success", Some(true)),
            (answer(403), "refused", Some(true)),
            (answer(401), "refused", Some(false)),
            (answer(503), "failed", Some(false)),
            (Err(UpstreamError::TimedOut), "timed_out", Some(false)),
            (Err(UpstreamError::TooLarge(1)), "unusable", Some(false)),
            (Err(UpstreamError::CircuitOpen(Duration::ZERO)), "left_alone", None),
        ] {
            assert_eq!(name(&outcome), word);
            let mut last = Last { success: Some(before), failure: Some(before) };
            last.note(&outcome, now);
            let noted = |succeeded_now: bool| if succeeded == Some(succeeded_now) { Some(now) } else { Some(before) };
            assert_eq!(last, Last { success: noted(true), failure: noted(false) }, "{word}");
        }
    }
}

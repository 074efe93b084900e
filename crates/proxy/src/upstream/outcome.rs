//! How an exchange went, in a word; and when the last ones went well and badly.

use http::StatusCode;
use tokio::time::Instant;

use super::{Answer, Fault};

/// When the last exchanges ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Last {
    /// The last one that was answered. Also a refusal is an answer, but for that of a credential.
    pub success: Option<Instant>,
    /// The last one that failed.
    pub failure: Option<Instant>,
}

impl Last {
    pub(super) fn note(&mut self, outcome: &Result<Answer, Fault>, now: Instant) {
        match (outcome, name(outcome)) {
            // Nothing was asked.
            (_, "left_alone") => {}
            (Ok(Answer { status: StatusCode::UNAUTHORIZED, .. }), _) => self.failure = Some(now),
            (_, "success" | "refused") => self.success = Some(now),
            _ => self.failure = Some(now),
        }
    }
}

/// How an exchange went. There are only so many words.
pub(super) fn name(outcome: &Result<Answer, Fault>) -> &'static str {
    match outcome {
        Ok(answer) if answer.status.is_client_error() => "refused",
        Ok(answer) if answer.status.is_server_error() => "failed",
        Ok(_) => "success",
        Err(Fault::Unreachable(_)) => "unreachable",
        Err(Fault::TimedOut) => "timed_out",
        Err(Fault::BrokenOff(_)) => "broken_off",
        Err(Fault::LeftAlone(_)) => "left_alone",
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
    fn an_answer_is_a_success_unless_it_refuses_the_credential_or_tells_of_a_fault() {
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
            (Err(Fault::TimedOut), "timed_out", Some(false)),
            (Err(Fault::TooLarge(1)), "unusable", Some(false)),
            (Err(Fault::LeftAlone(Duration::ZERO)), "left_alone", None),
        ] {
            assert_eq!(name(&outcome), word);
            let mut last = Last { success: Some(before), failure: Some(before) };
            last.note(&outcome, now);
            let noted = |succeeded_now: bool| if succeeded == Some(succeeded_now) { Some(now) } else { Some(before) };
            assert_eq!(last, Last { success: noted(true), failure: noted(false) }, "{word}");
        }
    }
}

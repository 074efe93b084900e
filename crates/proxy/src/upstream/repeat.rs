//! Which attempts are retried, and when.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{HeaderMap, StatusCode, header};

use super::{Answer, UpstreamError};

/// Attempts of one exchange, including the first.
pub(crate) const ATTEMPTS: usize = 3;

/// `Retry-After` is cut to this, so that adding it to a time cannot overflow.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The pauses between the attempts of one exchange: about 0.1 s and 0.2 s, each up to doubled by random jitter, so that
/// many clients do not retry at the same moment.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_times(ATTEMPTS - 1)
        .with_jitter()
        .build()
}

/// What the outcome of an attempt says about the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works, even if it refused this request.
    Works,
    /// It failed, and a retry would not help.
    Lasting,
    /// It failed, and a retry may help, after the `Retry-After` if it sent one.
    Transient(Option<Duration>),
}

pub(super) fn verdict(outcome: &Result<Answer, UpstreamError>) -> Verdict {
    match outcome {
        Ok(Answer { status, headers, .. }) => match *status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Verdict::Transient(retry_after(headers)),
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                Verdict::Transient(None)
            }
            status if status.is_server_error() => Verdict::Lasting,
            _ => Verdict::Works,
        },
        Err(UpstreamError::Unreachable(_) | UpstreamError::Interrupted(_)) => Verdict::Transient(None),
        // The deadline has passed, or the answer would be the same.
        Err(_) => Verdict::Lasting,
    }
}

/// The time in `Retry-After`: seconds, or a date by the upstream's clock (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = text(header::RETRY_AFTER)?;
    if !after.is_empty() && after.bytes().all(|digit| digit.is_ascii_digit()) {
        // Fails if the number does not fit into 64 bits.
        let seconds = after.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let date = httpdate::parse_http_date(after).ok()?;
    // Relative to the upstream's clock, which may differ from ours.
    let now = httpdate::parse_http_date(text(header::DATE)?).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::new() }
    }

    #[test]
    fn transient_and_lasting_failures_are_distinguished() {
        let seconds = |seconds| Verdict::Transient(Some(Duration::from_secs(seconds)));
        let day = Verdict::Transient(Some(MAX_RETRY_AFTER));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (outcome, verdict) in [
            (Ok(answer(200, &[])), Verdict::Works),
            (Ok(answer(401, &[])), Verdict::Works),
            (Ok(answer(404, &[("retry-after", "5")])), Verdict::Works),
            (Ok(answer(500, &[])), Verdict::Transient(None)),
            (Ok(answer(501, &[])), Verdict::Lasting),
            (Ok(answer(502, &[])), Verdict::Transient(None)),
            (Ok(answer(503, &[])), Verdict::Transient(None)),
            (Ok(answer(504, &[])), Verdict::Transient(None)),
            (Ok(answer(429, &[("retry-after", "7")])), seconds(7)),
            (Ok(answer(503, &[("retry-after", " 0 ")])), seconds(0)),
            (Ok(answer(503, &[("retry-after", "")])), Verdict::Transient(None)),
            (Ok(answer(429, &[("retry-after", "18446744073709551615")])), day),
            (Ok(answer(429, &[("retry-after", "99999999999999999999")])), day),
            (Ok(answer(429, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"), ("date", date)])), day),
            (Ok(answer(503, &[("retry-after", "soon")])), Verdict::Transient(None)),
            (Ok(answer(503, &[("retry-after", "-5")])), Verdict::Transient(None)),
            (Ok(answer(429, &[("retry-after", date)])), Verdict::Transient(None)),
            (Ok(answer(429, &[("retry-after", date), ("date", "Sun, 06 Nov 1994 08:49:34 GMT")])), seconds(3)),
            (Ok(answer(429, &[("retry-after", date), ("date", "Sun, 06 Nov 1994 09:49:34 GMT")])), seconds(0)),
            (Err(UpstreamError::TimedOut), Verdict::Lasting),
            (Err(UpstreamError::TooLarge(1)), Verdict::Lasting),
            (Err(UpstreamError::Redirected(String::new())), Verdict::Lasting),
        ] {
            assert_eq!(super::verdict(&outcome), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = pauses().map(|pause| pause.as_millis()).collect();
        let [first, second] = pauses[..] else { panic!("{pauses:?}") };
        assert!((100..=200).contains(&first) && (200..=400).contains(&second), "{pauses:?}");
    }
}

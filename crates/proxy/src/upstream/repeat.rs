//! Which exchanges are repeated, and when. Requests that ask for something and change nothing may be sent again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{HeaderMap, StatusCode, header};

use super::{Answer, Fault};

/// Attempts of one exchange, with the first one.
pub(crate) const ATTEMPTS: usize = 3;

/// The longest time that is believed of a `Retry-After`; an upstream can name one that no clock can tell.
const LONGEST_NAMED: Duration = Duration::from_hours(24);

/// The pauses between the attempts of one exchange: about 0.1 s and 0.2 s, each up to twice as long by chance, so that
/// many clients do not come back at once.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_times(ATTEMPTS - 1)
        .with_jitter()
        .build()
}

/// What an attempt says about the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works, even if it refuses this request.
    Works,
    /// It fails, and trying again at once is no use.
    Fails,
    /// It fails, and may not when asked again, after the time that it names if it names one.
    MayPass(Option<Duration>),
}

/// Judges the outcome of an attempt.
pub(super) fn judge(outcome: &Result<Answer, Fault>) -> Verdict {
    match outcome {
        Ok(Answer { status, headers, .. }) => match *status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Verdict::MayPass(retry_after(headers)),
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                Verdict::MayPass(None)
            }
            status if status.is_server_error() => Verdict::Fails,
            _ => Verdict::Works,
        },
        Err(Fault::Unreachable(_) | Fault::BrokenOff(_)) => Verdict::MayPass(None),
        // Time is up, or it would say the same again.
        Err(_) => Verdict::Fails,
    }
}

/// How long an upstream wants to be left alone: seconds, or a date by its own clock (RFC 9110, 10.2.3). At most
/// [`LONGEST_NAMED`].
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = text(header::RETRY_AFTER)?;
    if !after.is_empty() && after.bytes().all(|digit| digit.is_ascii_digit()) {
        // More digits than a number holds.
        let seconds = after.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_NAMED));
    }
    let date = httpdate::parse_http_date(after).ok()?;
    // The upstream's clock may be an hour off, and without knowing its time the date says nothing.
    let now = httpdate::parse_http_date(text(header::DATE)?).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(LONGEST_NAMED))
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
    fn what_may_pass_is_told_from_what_lasts() {
        let seconds = |seconds| Verdict::MayPass(Some(Duration::from_secs(seconds)));
        let day = Verdict::MayPass(Some(LONGEST_NAMED));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (outcome, verdict) in [
            (Ok(answer(200, &[])), Verdict::Works),
            (Ok(answer(401, &[])), Verdict::Works),
            (Ok(answer(404, &[("retry-after", "5")])), Verdict::Works),
            (Ok(answer(500, &[])), Verdict::MayPass(None)),
            (Ok(answer(501, &[])), Verdict::Fails),
            (Ok(answer(502, &[])), Verdict::MayPass(None)),
            (Ok(answer(503, &[])), Verdict::MayPass(None)),
            (Ok(answer(504, &[])), Verdict::MayPass(None)),
            (Ok(answer(429, &[("retry-after", "7")])), seconds(7)),
            (Ok(answer(503, &[("retry-after", " 0 ")])), seconds(0)),
            (Ok(answer(503, &[("retry-after", "")])), Verdict::MayPass(None)),
            (Ok(answer(429, &[("retry-after", "18446744073709551615")])), day),
            (Ok(answer(429, &[("retry-after", "99999999999999999999")])), day),
            (Ok(answer(429, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"), ("date", date)])), day),
            (Ok(answer(503, &[("retry-after", "soon")])), Verdict::MayPass(None)),
            (Ok(answer(503, &[("retry-after", "-5")])), Verdict::MayPass(None)),
            (Ok(answer(429, &[("retry-after", date)])), Verdict::MayPass(None)),
            (Ok(answer(429, &[("retry-after", date), ("date", "Sun, 06 Nov 1994 08:49:34 GMT")])), seconds(3)),
            (Ok(answer(429, &[("retry-after", date), ("date", "Sun, 06 Nov 1994 09:49:34 GMT")])), seconds(0)),
            (Err(Fault::TimedOut), Verdict::Fails),
            (Err(Fault::TooLarge(1)), Verdict::Fails),
            (Err(Fault::Redirected(String::new())), Verdict::Fails),
        ] {
            assert_eq!(judge(&outcome), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = pauses().map(|pause| pause.as_millis()).collect();
        let [first, second] = pauses[..] else { panic!("{pauses:?}") };
        assert!((100..=200).contains(&first) && (200..=400).contains(&second), "{pauses:?}");
    }
}

//! Bodies and errors of responses.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::Response;
use storage_driver::DriverError;
use url::Url;

/// Why a page or a token was not obtained.
pub(super) enum Failure {
    /// A retry may succeed.
    Temporary(DriverError),
    /// A retry would fail the same way, and could lock an account.
    Permanent(DriverError),
}

impl Failure {
    pub(super) fn of_status(status: StatusCode, error: DriverError) -> Self {
        let is_temporary =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if is_temporary { Self::Temporary(error) } else { Self::Permanent(error) }
    }

    pub(super) fn into_error(self) -> DriverError {
        match self {
            Self::Temporary(error) | Self::Permanent(error) => error,
        }
    }
}

/// Reads a whole body of at most `max` bytes within `timeout`. The client's own time-out starts again with each byte.
pub(crate) fn read_body(
    mut response: Response,
    timeout: Duration,
    max: u64,
    stop: &AtomicBool,
) -> Result<Vec<u8>, DriverError> {
    let deadline = Instant::now() + timeout;
    let (mut body, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(DriverError::Stopped("the response was read".into()));
        }
        let read =
            response.read(&mut piece).map_err(|error| DriverError::temporary_from("the response broke off", error))?;
        body.extend_from_slice(&piece[..read]);
        if read == 0 {
            return Ok(body);
        }
        if body.len() as u64 > max {
            return Err(DriverError::temporary(format!("the response is larger than {max} bytes")));
        }
        if Instant::now() > deadline {
            return Err(DriverError::temporary(format!(
                "the response was not complete within {} s",
                timeout.as_secs()
            )));
        }
    }
}

/// The reason that an error response gives.
pub(super) fn reason(response: Response) -> String {
    let body = read_body(response, Duration::from_secs(10), 64 << 10, &AtomicBool::new(false)).unwrap_or_default();
    waldur_answers::reason(&body).unwrap_or_else(|| "it gives no reason".to_owned())
}

pub(super) fn unreachable(url: &Url, error: reqwest::Error) -> DriverError {
    let what = format!("{} cannot be reached: check the URL, and that a server is running there", public(url));
    DriverError::temporary_from(what, error.without_url())
}

/// A URL without a slash at its end.
pub(super) fn base(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

/// The part of a URL that may be logged.
pub(super) fn public(url: &Url) -> String {
    settings::check::public_part(url)
}

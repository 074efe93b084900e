//! The body of a response, whose progress is tracked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as Inner;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::connection::SharedActivity;
use super::limits::PROGRESS;

/// A body that reports its progress to the connection's activity. Large chunks are split so that progress is visible,
/// without copying.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Inner,
    /// The rest of a chunk that was split.
    rest: Bytes,
    /// `None` if progress is not tracked, or no longer.
    progress: Option<Progress>,
}

/// The progress of one response; it ends when this is dropped.
#[derive(Debug)]
struct Progress {
    activity: SharedActivity,
    number: u64,
}

/// The last bytes of a response, which may wait for the client long after the body was polled to its end.
struct LastChunk {
    bytes: Bytes,
    _progress: Progress,
}

impl TrackedBody {
    /// Tracks the progress in `activity`, if given.
    pub(super) fn new(body: Inner, activity: Option<SharedActivity>) -> Self {
        let progress = activity.filter(|_| !body.is_end_stream()).map(|activity| {
            let number = activity.lock().response_started(Instant::now());
            Progress { activity, number }
        });
        Self { body, rest: Bytes::new(), progress }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.activity.lock().response_ended(self.number);
    }
}

impl AsRef<[u8]> for LastChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(progress) = &this.progress else { return Pin::new(&mut this.body).poll_frame(context) };
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let mut chunk = this.rest.split_to(this.rest.len().min(PROGRESS));
        progress.activity.lock().response_progressed(progress.number, chunk.len(), Instant::now());
        if this.is_end_stream()
            && let Some(progress) = this.progress.take()
        {
            chunk = Bytes::from_owner(LastChunk { bytes: chunk, _progress: progress });
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

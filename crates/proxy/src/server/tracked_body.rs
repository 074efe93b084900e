//! The body of a response, whose progress is tracked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as Inner;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::chunks::Chunks;
use super::connection::SharedActivity;
use super::limits::{BYTES_AT_ONCE, CHUNKS_AT_ONCE, PROGRESS};

/// A response body. Its chunks are collected, so that a small response is sent with its head in one write. If progress is tracked, the body
/// reports it to the connection's activity instead, and large chunks are split so that progress is visible. Nothing is copied.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Inner,
    /// The rest of a chunk that was split.
    rest: Bytes,
    /// What follows the collected chunks; `None` if that is not known yet.
    next: Option<Polled<Bytes>>,
    /// `None` if progress is not tracked, or no longer.
    progress: Option<Progress>,
}

/// A frame, or the end of the body.
type Polled<D> = Option<Result<Frame<D>, axum::Error>>;

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
        Self { body, rest: Bytes::new(), next: None, progress }
    }
}

impl TrackedBody {
    /// The chunks that are ready, or the next other frame or the end.
    fn poll_chunks(&mut self, context: &mut Context<'_>) -> Poll<Polled<Chunks>> {
        let mut chunks = Chunks::default();
        while self.next.is_none() && chunks.len() < CHUNKS_AT_ONCE && chunks.remaining() < BYTES_AT_ONCE {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => chunks.push(data),
                    Err(frame) => self.next = Some(Some(Ok(frame))),
                },
                Poll::Ready(end) => self.next = Some(end),
                Poll::Pending if chunks.has_remaining() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(if chunks.has_remaining() {
            Some(Ok(Frame::data(chunks)))
        } else {
            let next = self.next.take_if(|next| next.is_some()).flatten();
            next.map(|next| next.map(|frame| frame.map_data(Chunks::from)))
        })
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
    type Data = Chunks;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Polled<Chunks>> {
        let this = &mut *self;
        let Some(progress) = &this.progress else { return this.poll_chunks(context) };
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame.map_data(Chunks::from)))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let mut chunk = this.rest.split_to(this.rest.len().min(PROGRESS));
        progress.activity.lock().response_progressed(progress.number, chunk.len(), Instant::now());
        if this.is_end_stream()
            && let Some(progress) = this.progress.take()
        {
            chunk = Bytes::from_owner(LastChunk { bytes: chunk, _progress: progress });
        }
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Some(next) => next.is_none(),
            None => self.rest.is_empty() && self.body.is_end_stream(),
        }
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

#[cfg(test)]
mod tests {
    use std::io;

    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn ready_chunks_are_sent_together_and_what_follows_is_kept() {
        let ready = |text: &'static str| stream::iter([Ok(Bytes::from(text))]);
        let pause = stream::once(tokio::task::yield_now()).filter_map(|()| std::future::ready(None));
        let failure = stream::iter([Err(io::Error::other("failed"))]);
        let chunks = ready("a").chain(ready("")).chain(ready("b")).chain(pause).chain(ready("c")).chain(failure);
        let mut body = TrackedBody::new(Inner::from_stream(chunks), None);
        for expected in ["ab", "c"] {
            assert!(!body.is_end_stream());
            let mut data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(data.copy_to_bytes(data.remaining()), expected);
        }
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "failed");
        assert!(body.frame().await.is_none() && body.is_end_stream());
        assert!(body.frame().now_or_never().unwrap().is_none(), "the body is not polled after its end");
    }
}

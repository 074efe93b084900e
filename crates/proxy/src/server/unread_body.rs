//! Request bodies that no handler reads.
//!
//! An unread body precedes the next request on the connection. A short one is discarded, so that the connection stays
//! usable; otherwise the response announces that the connection closes.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as Inner;
use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use program::lock;
use tokio::time::timeout;

/// Maximum number of bytes that are discarded, and the time for them to arrive.
const LARGEST: u64 = 64 << 10;
const TIMEOUT: Duration = Duration::from_millis(200);

/// A body that its handler may leave unread. The lock is held during a poll.
#[derive(Debug, Clone)]
struct SharedBody(Arc<Mutex<Incoming>>);

/// The part of a body that its handler has not read.
#[derive(Debug)]
pub(super) struct UnreadBody(SharedBody);

/// Splits a request into the one for the handler and the part of its body that the handler leaves unread; `None` without a body.
pub(super) fn split(request: Request<Incoming>) -> (Request<Inner>, Option<UnreadBody>) {
    if request.body().is_end_stream() {
        return (request.map(|_| Inner::empty()), None);
    }
    let (parts, body) = request.into_parts();
    let body = SharedBody(Arc::new(Mutex::new(body)));
    (Request::from_parts(parts, Inner::new(body.clone())), Some(UnreadBody(body)))
}

impl UnreadBody {
    /// Discards a short rest; otherwise the response announces that the connection closes.
    pub(super) async fn finish<B>(mut self, response: &mut Response<B>) {
        if self.0.is_end_stream() {
            return;
        }
        let closes = response.headers().contains_key(header::CONNECTION);
        if closes || !timeout(TIMEOUT, self.discard()).await.unwrap_or(false) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Whether the body reached its end.
    async fn discard(&mut self) -> bool {
        let mut left = LARGEST;
        if self.0.size_hint().lower() > left {
            return false;
        }
        while let Some(frame) = self.0.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Buf::remaining) as u64;
            let Some(less) = left.checked_sub(length) else { return false };
            left = less;
        }
        true
    }
}

impl Body for SharedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).size_hint()
    }
}

//! An answer on its way to a client that may have several under way at one time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as Inner;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::connection::SharedActivity;
use super::limits::PROGRESS;

/// A body that tells the connection's activity how it goes on. Large pieces are cut so that there is something to tell; no byte
/// is copied.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Inner,
    /// Of a piece that is cut, what is still to come.
    rest: Bytes,
    /// `None` where nothing is to be told, or not any more.
    way: Option<Way>,
}

/// The way of one answer, until it is dropped.
#[derive(Debug)]
struct Way {
    activity: SharedActivity,
    number: u64,
}

/// The last bytes of an answer: they may wait for the client long after the body is used up.
struct Last {
    bytes: Bytes,
    _way: Way,
}

impl TrackedBody {
    /// `told` is what is told of it, if anything is.
    pub(super) fn new(body: Inner, told: Option<SharedActivity>) -> Self {
        let way = told.filter(|_| !body.is_end_stream()).map(|activity| {
            let number = activity.lock().sending(Instant::now());
            Way { activity, number }
        });
        Self { body, rest: Bytes::new(), way }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.activity.lock().gone(self.number);
    }
}

impl AsRef<[u8]> for Last {
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
        let Some(way) = &this.way else { return Pin::new(&mut this.body).poll_frame(context) };
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let mut piece = this.rest.split_to(this.rest.len().min(PROGRESS));
        way.activity.lock().went_on(way.number, piece.len(), Instant::now());
        if this.is_end_stream()
            && let Some(way) = this.way.take()
        {
            piece = Bytes::from_owner(Last { bytes: piece, _way: way });
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
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

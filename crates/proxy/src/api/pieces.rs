//! A body of several chunks, which are sent without joining them if they are large.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// More chunks than this are joined if the body is small: copying costs less than several writes.
const FEW: usize = 32;
/// Size of a small body.
const SMALL: usize = 128 << 10;

/// The chunks of a body of known length.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// In reverse order.
    pieces: Vec<Bytes>,
    left: u64,
}

impl Pieces {
    pub(crate) fn new(mut pieces: Vec<Bytes>) -> Self {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        pieces.retain(|piece| !piece.is_empty());
        if pieces.len() > FEW && length <= SMALL {
            pieces = vec![pieces.concat().into()];
        }
        pieces.reverse();
        Self { pieces, left: length as u64 }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop();
        self.left -= piece.as_ref().map_or(0, |piece| piece.remaining() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_chunks_are_sent_in_order_and_their_length_is_known() {
        let pieces = ["a", "", "bc", "d"].map(Bytes::from).into();
        let body = Pieces::new(pieces);
        assert_eq!(body.size_hint().exact(), Some(4));
        assert_eq!(axum::body::to_bytes(axum::body::Body::new(body), 10).await.unwrap(), "abcd");
        assert!(Pieces::new(vec![Bytes::new()]).is_end_stream());
        let many = Pieces::new(vec![Bytes::from("xy"); FEW + 1]);
        assert_eq!((many.pieces.len(), many.left), (1, 2 * FEW as u64 + 2));
        let large = Pieces::new(vec![Bytes::from(vec![b'x'; SMALL]), Bytes::from("y")]);
        assert_eq!(large.size_hint().exact(), Some(SMALL as u64 + 1));
        assert!(axum::body::to_bytes(axum::body::Body::new(large), SMALL + 1).await.unwrap().ends_with(b"xy"));
    }
}

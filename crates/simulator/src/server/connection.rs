//! Connections with a number that can be reset.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A listener that numbers the connections it accepts.
pub(super) struct NumberedListener {
    listener: TcpListener,
    accepted: Arc<AtomicU64>,
}

impl NumberedListener {
    pub(super) fn new(listener: TcpListener, accepted: Arc<AtomicU64>) -> Self {
        Self { listener, accepted }
    }
}

/// Handle of a connection for request handlers.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) number: u64,
    pub(super) address: SocketAddr,
    reset: Arc<AtomicBool>,
}

impl Peer {
    /// Resets the connection at the next write.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::SeqCst);
    }
}

impl Listener for NumberedListener {
    type Io = Socket;
    type Addr = Peer;

    async fn accept(&mut self) -> (Socket, Peer) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let number = self.accepted.fetch_add(1, Ordering::SeqCst);
        let reset = Arc::<AtomicBool>::default();
        (Socket { stream, reset: Arc::clone(&reset) }, Peer { number, address, reset })
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        let address = self.listener.local_addr()?;
        Ok(Peer { number: 0, address, reset: Arc::default() })
    }
}

impl Connected<IncomingStream<'_, NumberedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, NumberedListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// The stream of a connection.
pub(super) struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.reset.load(Ordering::SeqCst) {
            // With a linger time of 0, closing sends a reset instead of a normal end.
            let _ = self.stream.set_zero_linger();
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

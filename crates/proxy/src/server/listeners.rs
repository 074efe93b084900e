//! Opens listeners: TCP addresses, Unix sockets, and sockets passed by systemd.

use std::io::{self, ErrorKind};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::either::Either;
use tracing::info;

use super::unix_socket::UnixSocket;
use crate::config::Listen;

/// An address on which the proxy cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {what}{hint}", hint = hint(.source))]
pub struct BindError {
    what: String,
    #[source]
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => " (another program uses it: stop that program, or choose another --listen)",
        ErrorKind::PermissionDenied => {
            " (ports below 1024 need a privilege, sockets write permission on their folder: choose another --listen)"
        }
        ErrorKind::AddrNotAvailable => " (no interface of this machine has this address)",
        ErrorKind::NotFound => " (its folder does not exist: create it, or choose another --listen)",
        ErrorKind::AlreadyExists => {
            " (a file with this name exists and is not a socket: remove it, or choose another --listen)"
        }
        _ => "",
    }
}

/// A TCP or Unix socket that listens.
#[derive(Debug)]
pub struct Listener(Either<TcpListener, UnixSocket>);

/// An accepted connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Either::Left(listener))
    }
}

impl Listener {
    /// The address, as written in the settings.
    pub fn address(&self) -> String {
        match &self.0 {
            Either::Left(listener) => {
                listener.local_addr().map_or_else(|_| String::from("unknown"), |address| address.to_string())
            }
            Either::Right(socket) => socket.address(),
        }
    }

    /// Whether only programs on this machine can connect.
    pub fn is_local(&self) -> bool {
        match &self.0 {
            Either::Left(listener) => listener.local_addr().is_ok_and(|address| address.ip().is_loopback()),
            Either::Right(_) => true,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Either::Left(listener) => {
                let (stream, _) = listener.accept().await?;
                // Send responses without delay; failing to set this only costs speed.
                drop(stream.set_nodelay(true));
                Ok(Either::Left(stream))
            }
            Either::Right(socket) => Ok(Either::Right(socket.accept().await?)),
        }
    }
}

/// Returns the sockets that systemd has opened for this process; if there are none, opens all of `listen`, or none on error.
pub async fn bind(listen: &[Listen]) -> Result<Vec<Listener>, BindError> {
    let passed = passed(ListenFd::from_env())?;
    if !passed.is_empty() {
        info!(sockets = passed.len(), "using the sockets passed by systemd: server.listen is ignored");
        return Ok(passed);
    }
    open(listen).await
}

/// Opens all addresses, or none on error, whether or not systemd has passed sockets.
pub async fn open(listen: &[Listen]) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::new();
    for listen in listen {
        let listener = match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Either::Left),
            Listen::Unix(path) => UnixSocket::bind(path).map(Either::Right),
        };
        listeners.push(Listener(listener.map_err(|source| BindError { what: listen.to_string(), source })?));
    }
    Ok(listeners)
}

/// Takes the sockets that systemd has passed to this process (`sd_listen_fds(3)`).
fn passed(mut files: ListenFd) -> Result<Vec<Listener>, BindError> {
    let count = files.len();
    let mut listener = |index| {
        if let Ok(Some(listener)) = files.take_tcp_listener(index) {
            is_listening(&listener)?;
            listener.set_nonblocking(true)?;
            return TcpListener::from_std(listener).map(Either::Left);
        }
        let listener = files.take_unix_listener(index)?.ok_or(ErrorKind::NotFound)?;
        is_listening(&listener)?;
        UnixSocket::passed(listener).map(Either::Right)
    };
    let error = |index, source| BindError { what: format!("socket {index} passed by systemd"), source };
    (0..count).map(|index| listener(index).map(Listener).map_err(|source| error(index, source))).collect()
}

/// Checks that the socket listens. A unit with `Accept=yes` would pass single connections.
fn is_listening(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    if socket_acceptconn(socket)? {
        Ok(())
    } else {
        Err(io::Error::other("the socket does not listen: set Accept=no in the socket unit"))
    }
}

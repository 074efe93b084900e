//! What is listened on: addresses, sockets in the file system, and what a supervisor has opened.

use std::io::{self, ErrorKind};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::either::Either;
use tracing::info;

use super::unix_socket::UnixSocket;
use crate::config::Listen;

/// Something that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {what}{hint}", hint = hint(.source))]
pub struct BindError {
    what: String,
    #[source]
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => " (another program does: stop it, or give another --listen)",
        ErrorKind::PermissionDenied => {
            " (ports below 1024 need a privilege, sockets the right to write to their folder: give another --listen)"
        }
        ErrorKind::AddrNotAvailable => " (no interface of this machine has this address)",
        ErrorKind::NotFound => " (its folder is not there: make it, or give another --listen)",
        ErrorKind::AlreadyExists => {
            " (a file of this name is there and is no socket: remove it, or give another --listen)"
        }
        _ => "",
    }
}

/// One of the things that are listened on.
#[derive(Debug)]
pub struct Listener(Either<TcpListener, UnixSocket>);

/// A connection, before anything was said on it.
pub(super) type Stream = Either<TcpStream, UnixStream>;

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Either::Left(listener))
    }
}

impl Listener {
    /// Where it listens, as settings say it.
    pub fn address(&self) -> String {
        match &self.0 {
            Either::Left(listener) => {
                listener.local_addr().map_or_else(|_| String::from("unknown"), |address| address.to_string())
            }
            Either::Right(socket) => socket.address(),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Either::Left(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers go out at once; a failure to say so costs speed alone.
                drop(stream.set_nodelay(true));
                Ok(Either::Left(stream))
            }
            Either::Right(socket) => Ok(Either::Right(socket.accept().await?)),
        }
    }
}

/// The sockets that systemd has opened for this process, else all that is to be listened on; all, or none.
pub async fn bind(listen: &[Listen]) -> Result<Vec<Listener>, BindError> {
    let passed = passed(ListenFd::from_env())?;
    if !passed.is_empty() {
        info!(sockets = passed.len(), "the supervisor has opened what is listened on: server.listen is not used");
        return Ok(passed);
    }
    open(listen).await
}

/// Opens all, or none, whatever a supervisor has opened.
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

/// Takes what was opened for this process before it started (`sd_listen_fds(3)`).
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
    let error = |index, source| BindError { what: format!("socket {index} of those that systemd passed"), source };
    (0..count).map(|index| listener(index).map(Listener).map_err(|source| error(index, source))).collect()
}

/// A unit with `Accept=yes` would pass single connections.
fn is_listening(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    if socket_acceptconn(socket)? { Ok(()) } else { Err(io::Error::other("it does not listen: set Accept=no")) }
}

//! Listening on a Unix socket.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use program::unix_socket;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// A listening Unix socket. Dropping it removes the file of the socket, if this process created it.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    _file: Option<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixSocket {
    /// Creates the socket with mode 0660. Replaces a socket that a dead process has left behind.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        unix_socket::remove_stale(path)?;
        // With the umask the file has the right mode from the start. Nothing else in this process creates files now.
        let before = umask(Mode::from_raw_mode(0o117));
        let listener = UnixListener::bind(path);
        umask(before);
        let (listener, created) = (listener?, fs::symlink_metadata(path)?);
        let file = File { path: path.to_owned(), device: created.dev(), inode: created.ino() };
        Ok(Self { listener, _file: Some(file) })
    }

    /// A socket that systemd has created and will remove.
    pub(super) fn passed(listener: net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, _file: None })
    }

    /// The address, as written in the settings.
    pub(super) fn address(&self) -> String {
        let address = self.listener.local_addr();
        let path = address.as_ref().ok().and_then(|address| address.as_pathname());
        path.map_or_else(|| String::from("unix:"), |path| format!("unix:{}", path.display()))
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Self { path, device, inode } = self;
        // Another file may have this path by now.
        let is_own = |found: Metadata| (found.dev(), found.ino()) == (*device, *inode);
        if fs::symlink_metadata(&*path).is_ok_and(is_own)
            && let Err(error) = fs::remove_file(&*path)
        {
            warn!(%error, path = %path.display(), "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_replaced_only_if_nothing_listens_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let refused = |path: &Path| UnixSocket::bind(path).unwrap_err().kind();
        let first = UnixSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert_eq!(first.address(), format!("unix:{}", path.display()));
        assert_eq!(refused(&path), ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());

        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let second = UnixSocket::bind(&path).unwrap();
        // Another program's file is not removed.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(second);
        assert!(path.exists());
        assert_eq!(refused(&path), ErrorKind::AlreadyExists);
        assert_eq!(refused(&directory.path().join("none/api.sock")), ErrorKind::NotFound);
    }
}

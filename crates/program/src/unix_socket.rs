//! Unix sockets in the file system.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Removes a socket on which no process listens, so that the path can be bound. Fails if a process listens on it, or if the
/// file is not a socket.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file is not a socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        // `WouldBlock`: the queue of the listener is full.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_socket_without_a_listener_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [file, socket] = ["file", "socket"].map(|name| folder.path().join(name));
        let refused = |path| remove_stale(path).unwrap_err().kind();
        fs::write(&file, "kept").unwrap();
        assert_eq!(refused(&file), ErrorKind::AlreadyExists);
        let listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(refused(&socket), ErrorKind::AddrInUse);
        drop(listener);
        assert!(file.exists() && socket.exists());
        for _ in 0..2 {
            remove_stale(&socket).unwrap();
            assert!(!socket.exists());
        }
    }
}

//! Limits on what clients may use.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Maximum size of a request's head, in bytes; a larger one gets status 431.
pub(super) const MAX_HEAD: u32 = 64 * 1024;
/// Maximum number of concurrent requests on an HTTP/2 connection: each may hold a response that waits for the client.
pub(super) const MAX_STREAMS: u32 = 32;
/// Bytes of a response that a client must read within [`ConnectionLimits::idle`] for the connection to stay open. With
/// HTTP/2 each response is measured separately.
pub(super) const PROGRESS: usize = 16 * 1024;

/// Maximum number of chunks of a response that are collected for one write, less than the hundreds that system calls take.
pub(super) const CHUNKS_AT_ONCE: usize = 32;
/// Bytes of a response from which no more chunks are collected.
pub(super) const BYTES_AT_ONCE: usize = 256 * 1024;

/// Maximum number of connections, however many files may be open.
pub(super) const MAX_CONNECTIONS: usize = 16_384;

/// Timeouts of clients, and the maximum number of connections.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimits {
    /// Time for a request's head, from its first byte; for the first request, from the start of the connection.
    pub(super) head: Duration,
    /// Time between two requests, and time without [`PROGRESS`] in sending a response.
    pub(super) idle: Duration,
    /// Time between announcing the close and closing, when no request runs and nothing is being sent.
    pub(super) farewell: Duration,
    /// Maximum number of concurrent connections, over all listeners.
    pub(super) connections: usize,
}

impl ConnectionLimits {
    /// The limits for this process. A quarter of its file descriptors is reserved for everything but client connections.
    pub(super) fn of_this_process() -> Self {
        let open_files = getrlimit(Resource::Nofile).current;
        Self {
            head: Duration::from_secs(10),
            // More than the 60 seconds for which gateways usually keep a connection: if the server closes first, a
            // request can be lost.
            idle: Duration::from_secs(75),
            farewell: Duration::from_secs(1),
            connections: connections(open_files),
        }
    }

    /// The same with few connections, which use some of the reserved file descriptors.
    pub(super) fn for_health(self) -> Self {
        Self { connections: (self.connections / 16).max(1), ..self }
    }
}

/// Maximum number of connections with this limit on open files; `None`: no limit.
fn connections(open_files: Option<u64>) -> usize {
    let open_files = open_files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    (open_files / 4 * 3).clamp(1, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_file_descriptors_is_reserved() {
        let cases = [(None, 16_384), (Some(u64::MAX), 16_384), (Some(8192), 6144), (Some(1024), 768), (Some(256), 192)];
        for (open_files, expected) in cases {
            assert_eq!(connections(open_files), expected, "{open_files:?}");
        }
        assert_eq!(connections(Some(0)), 1);
    }
}

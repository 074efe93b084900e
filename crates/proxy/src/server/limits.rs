//! What clients may take.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The largest head of a request, in bytes; a larger one is answered 431.
pub(super) const MAX_HEAD: u32 = 64 * 1024;
/// The most requests at one time on an HTTP/2 connection: each may hold an answer that waits for the client.
pub(super) const MAX_STREAMS: u32 = 32;
/// Bytes of an answer, fewer of which are no progress in sending: a client that takes less within [`ConnectionLimits::idle`]
/// might as well take nothing. For HTTP/2 this counts for each answer by itself.
pub(super) const PROGRESS: usize = 16 * 1024;

/// The most connections, however many files may be open.
const MAX_CONNECTIONS: usize = 4096;

/// How long clients may take, and how many there may be.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimits {
    /// From the first byte of a request's head to its last; for the first request, from the connection's start.
    pub(super) head: Duration,
    /// Between requests; and without progress in sending an answer.
    pub(super) idle: Duration,
    /// From telling the client that the connection closes until it is closed, if nothing runs or is being sent.
    pub(super) farewell: Duration,
    /// Connections at one time, over all listeners.
    pub(super) connections: usize,
}

impl ConnectionLimits {
    /// The limits for this process: a quarter of the files that it may open is left for what is no client's connection.
    pub(super) fn of_this_process() -> Self {
        let open_files = getrlimit(Resource::Nofile).current;
        Self {
            head: Duration::from_secs(10),
            // More than the 60 seconds for which the gateways usually in front keep a connection: one that the
            // server closes first can swallow a request.
            idle: Duration::from_secs(75),
            farewell: Duration::from_secs(1),
            connections: connections(open_files),
        }
    }

    /// The same for few connections, which have a place of their own among the files that are left.
    pub(super) fn for_few(self) -> Self {
        Self { connections: (self.connections / 16).max(1), ..self }
    }
}

/// How many connections there may be when so many files may be open; no number stands for any.
fn connections(open_files: Option<u64>) -> usize {
    let open_files = open_files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    (open_files / 4 * 3).clamp(1, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_quarter_of_the_files() {
        let cases = [(None, 4096), (Some(u64::MAX), 4096), (Some(8192), 4096), (Some(1024), 768), (Some(256), 192)];
        for (open_files, expected) in cases {
            assert_eq!(connections(open_files), expected, "{open_files:?}");
        }
        assert_eq!(connections(Some(0)), 1);
    }
}

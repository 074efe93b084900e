//! Writes log lines to standard output in a separate thread, so that a slow reader does not block the program.

use std::io;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Maximum number of queued lines. More are lost and counted.
const MAX_QUEUED: usize = 16 * 1024;

/// Time for the reader to take the rest of the log at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts lost lines.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Writes the queued lines when dropped.
#[derive(Debug)]
pub(super) struct FlushOnDrop(Option<WorkerGuard>);

/// The writer for the log, and the guard that writes the last lines.
pub(super) fn start() -> (NonBlocking, FlushOnDrop) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(MAX_QUEUED).lossy(true).thread_name("log");
    let (lines, guard) = builder.finish(io::stdout());
    // Fails only if the process has a log already.
    let _ = LOST.set(lines.error_counter());
    (lines, FlushOnDrop(Some(guard)))
}

/// Number of lines lost because nothing read them in time.
pub(crate) fn lost_lines() -> usize {
    LOST.get().map_or(0, ErrorCounter::dropped_lines)
}

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        let guard = self.0.take();
        let (flushing, flushed) = mpsc::channel::<()>();
        // The guard may write to standard output, and a reader that hangs would block it forever.
        let flush = move || {
            drop(guard);
            drop(flushing);
        };
        if thread::Builder::new().spawn(flush).is_ok() {
            // Nothing is sent: an error means that the sender was dropped, or a timeout.
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

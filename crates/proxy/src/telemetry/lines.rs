//! The way of the log's lines to standard output, in a thread of its own, so that nobody waits for whoever reads them.

use std::io;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that wait for their reader. More are lost, and counted.
const MOST: usize = 16 * 1024;

/// How long the reader has for what is left at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Counts the lines that were lost.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Has the lines that still wait written when it is dropped.
#[derive(Debug)]
pub(super) struct Rest(Option<WorkerGuard>);

/// Where lines are written to, and what writes the last of them.
pub(super) fn start() -> (NonBlocking, Rest) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(MOST).lossy(true).thread_name("log");
    let (lines, guard) = builder.finish(io::stdout());
    // An error says that the process has a log already.
    let _ = LOST.set(lines.error_counter());
    (lines, Rest(Some(guard)))
}

/// Lines that were lost, since nobody read them in time.
pub(crate) fn lost() -> usize {
    LOST.get().map_or(0, ErrorCounter::dropped_lines)
}

impl Drop for Rest {
    fn drop(&mut self) {
        let guard = self.0.take();
        let (flushing, flushed) = mpsc::channel::<()>();
        // The guard complains on standard output, where a reader that hangs would keep it for ever.
        let flush = move || {
            drop(guard);
            drop(flushing);
        };
        if thread::Builder::new().spawn(flush).is_ok() {
            // Nothing is ever sent: an error is the end of the sender, or of the time.
            let _ = flushed.recv_timeout(FAREWELL);
        }
    }
}

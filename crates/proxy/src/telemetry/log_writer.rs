//! Writes log lines to standard output in a separate thread, so that a slow reader does not block the program.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Maximum number of queued lines. More are lost and counted.
const MAX_QUEUED: usize = 16 * 1024;

/// Pause after the queued lines are written. Lines that come meanwhile are written together, and waking the thread costs a request
/// nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// Maximum number of bytes that are written at once.
const WRITTEN_AT_ONCE: usize = 64 << 10;

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
    let (lines, guard) = builder.finish(Batches(BufWriter::with_capacity(WRITTEN_AT_ONCE, io::stdout())));
    // Fails only if the process has a log already.
    let _ = LOST.set(lines.error_counter());
    (lines, FlushOnDrop(Some(guard)))
}

/// Standard output. The thread flushes it whenever the queue is empty.
struct Batches(BufWriter<Stdout>);

impl Write for Batches {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(PAUSE);
        Ok(())
    }
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

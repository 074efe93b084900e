//! Shows what the program waits for, if standard error is a terminal.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::terminal::Terminal;

/// Shorter waits are not shown.
const DELAY: Duration = Duration::from_millis(300);
const FRAME: Duration = Duration::from_millis(100);
const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Waits for `future`, showing `what` and the elapsed seconds.
pub(super) async fn wait<T>(terminal: Terminal, what: &str, future: impl Future<Output = T>) -> T {
    wait_with(terminal, || what.to_owned(), future).await
}

/// Like [`wait`], with a text that may change.
pub(super) async fn wait_with<T>(terminal: Terminal, what: impl Fn() -> String, future: impl Future<Output = T>) -> T {
    if !terminal.progress {
        return future.await;
    }
    let start = Instant::now();
    let mut ticks = interval_at(start + DELAY, FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut frames = FRAMES.iter().cycle();
    let mut drawn = false;
    tokio::pin!(future);
    loop {
        tokio::select! {
            outcome = &mut future => {
                if drawn {
                    draw("\r\x1b[2K");
                }
                return outcome;
            }
            _ = ticks.tick() => {
                let frame = frames.next().unwrap_or(&' ');
                draw(&format!("\r\x1b[2K{frame} {} ({} s)", what(), start.elapsed().as_secs()));
                drawn = true;
            }
        }
    }
}

fn draw(text: &str) {
    let mut err = io::stderr().lock();
    // Failing to show progress does no harm.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

//! Progress: a bar on a terminal, otherwise a line every minute.

use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use storage_driver::walked::Walked;
use tracing::info;

use super::out;
use crate::pass::{Phase, Progress};
use crate::provisioner::Provisioner;

/// Time between updates of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// Time between lines.
const LINE_INTERVAL: Duration = Duration::from_mins(1);

/// Shows the number of files that `work` has walked.
pub(super) fn during<T>(walked: &Walked, work: impl FnOnce() -> T) -> T {
    shown(walked, &Progress::new(), work)
}

/// Shows the number of tasks that `work` has completed, and of files that it has walked.
pub(super) fn of_tasks<T>(provisioner: &Provisioner, work: impl FnOnce() -> T) -> T {
    shown(&provisioner.walked, &provisioner.progress, work)
}

/// Logs what [`of_tasks`] shows.
pub(super) fn logged<T>(provisioner: &Provisioner, work: impl FnOnce() -> T) -> T {
    let before = provisioner.walked.files();
    let log = || described(provisioner.progress.now(), provisioner.walked.files() - before).map(|text| info!("{text}"));
    every(LINE_INTERVAL, || _ = log(), work)
}

fn shown<T>(walked: &Walked, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let before = walked.files();
    let files = || walked.files() - before;
    if !io::stderr().is_terminal() {
        let print = || described(progress.now(), files()).map(|text| out::eprint(&text));
        return every(LINE_INTERVAL, || _ = print(), work);
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let done = every(BAR_INTERVAL, || draw(&bar, progress.now(), files()), work);
    bar.finish_and_clear();
    done
}

fn draw(bar: &ProgressBar, phase: Option<Phase>, files: u64) {
    let Some(text) = described(phase, files) else { return };
    if let Some(Phase { done, all, .. }) = phase {
        let style = ProgressStyle::with_template("{bar:20} {msg}, {elapsed}, {eta} to go");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    } else {
        bar.set_style(ProgressStyle::default_spinner());
    }
    bar.set_message(text);
}

/// The progress as text; `None` if nothing is counted.
fn described(phase: Option<Phase>, files: u64) -> Option<String> {
    match (phase, files) {
        (None, 0) => None,
        (None, files) => Some(format!("{files} files")),
        (Some(Phase { what, done, all }), 0) => Some(format!("{done} of {all} {what}")),
        (Some(Phase { what, done, all }), files) => Some(format!("{done} of {all} {what}, {files} files")),
    }
}

/// Runs `work`, and calls `tick` at this interval meanwhile.
fn every<T>(interval: Duration, mut tick: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let (running, ended) = mpsc::channel::<Infallible>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        });
        let done = work();
        drop(running);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_files_are_counted_during_the_work() {
        let (walked, progress) = (Walked::default(), Progress::new());
        let (sender, texts) = mpsc::channel();
        let send = || _ = sender.send(described(progress.now(), walked.files()));
        every(Duration::from_millis(1), send, || {
            let until = |text: Option<&str>| while texts.recv().unwrap().as_deref() != text {};
            until(None);
            walked.one();
            until(Some("1 files"));
            progress.begin("approvals", 1000);
            progress.counted(|| ());
            until(Some("1 of 1000 approvals, 1 files"));
            progress.begin("tasks", 1000);
            until(Some("0 of 1000 tasks, 1 files"));
        });
    }

    #[test]
    fn the_bar_shows_the_progress() {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        draw(&bar, None, 0);
        assert_eq!((bar.length(), bar.message()), (None, String::new()));
        draw(&bar, Some(Phase { what: "tasks", done: 20, all: 1000 }), 0);
        assert_eq!((bar.length(), bar.position(), &*bar.message()), (Some(1000), 20, "20 of 1000 tasks"));
    }
}

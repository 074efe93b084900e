//! How far the work has come, for somebody who waits: a bar on a terminal, else a line a minute.

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

/// How often the bar is drawn.
const EACH: Duration = Duration::from_millis(200);
/// How often there is a line where there is no terminal.
const MINUTE: Duration = Duration::from_mins(1);

/// Does what may walk over many files, and shows how many they are.
pub(super) fn during<T>(walked: &Walked, work: impl FnOnce() -> T) -> T {
    shown(walked, &Progress::new(), work)
}

/// Works on many resources, and shows how many are done.
pub(super) fn of_tasks<T>(site: &Provisioner, work: impl FnOnce() -> T) -> T {
    shown(&site.walked, &site.progress, work)
}

/// The same for the loop, in the log.
pub(super) fn logged<T>(site: &Provisioner, work: impl FnOnce() -> T) -> T {
    let before = site.walked.files();
    let log = || words(site.progress.now(), site.walked.files() - before).map(|words| info!("{words}"));
    every(MINUTE, || _ = log(), work)
}

fn shown<T>(walked: &Walked, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let before = walked.files();
    let files = || walked.files() - before;
    if !io::stderr().is_terminal() {
        let tell = || words(progress.now(), files()).map(|words| out::tell(&words));
        return every(MINUTE, || _ = tell(), work);
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let done = every(EACH, || draw(&bar, progress.now(), files()), work);
    bar.finish_and_clear();
    done
}

fn draw(bar: &ProgressBar, phase: Option<Phase>, files: u64) {
    let Some(words) = words(phase, files) else { return };
    if let Some(Phase { done, all, .. }) = phase {
        let style = ProgressStyle::with_template("{bar:20} {msg}, {elapsed}, {eta} to go");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    } else {
        bar.set_style(ProgressStyle::default_spinner());
    }
    bar.set_message(words);
}

/// How far it is; `None` where nothing is counted.
fn words(phase: Option<Phase>, files: u64) -> Option<String> {
    match (phase, files) {
        (None, 0) => None,
        (None, files) => Some(format!("{files} files")),
        (Some(Phase { what, done, all }), 0) => Some(format!("{done} of {all} {what}")),
        (Some(Phase { what, done, all }), files) => Some(format!("{done} of {all} {what}, {files} files")),
    }
}

/// Works, and ticks meanwhile.
fn every<T>(each: Duration, mut tick: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let (going_on, ended) = mpsc::channel::<Infallible>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(each) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        });
        let done = work();
        drop(going_on);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_files_are_counted_while_the_work_goes_on() {
        let (walked, progress) = (Walked::default(), Progress::new());
        let (told, heard) = mpsc::channel();
        let tell = || _ = told.send(words(progress.now(), walked.files()));
        every(Duration::from_millis(1), tell, || {
            let until = |words: Option<&str>| while heard.recv().unwrap().as_deref() != words {};
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
    fn the_bar_is_as_far_as_the_work() {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        draw(&bar, None, 0);
        assert_eq!((bar.length(), bar.message()), (None, String::new()));
        draw(&bar, Some(Phase { what: "tasks", done: 20, all: 1000 }), 0);
        assert_eq!((bar.length(), bar.position(), &*bar.message()), (Some(1000), 20, "20 of 1000 tasks"));
    }
}

//! The command under test, as a process group of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Time to stop after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How many of the last lines of the output are shown.
const TAIL: usize = 15;

/// What another thread needs to kill the command.
#[derive(Debug, Clone)]
pub(crate) struct Victim {
    pid: Pid,
    /// Whether the command was killed, or has ended.
    gone: Arc<AtomicBool>,
}

impl Victim {
    pub(crate) fn kill(&self) {
        if !self.gone.swap(true, Ordering::SeqCst) {
            // Fails if it has ended just now.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// The running command. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) victim: Victim,
}

impl Running {
    /// Starts the command. Its output is appended to the file.
    pub(crate) fn start(command: &[String], environment: &[(&'static str, String)], output: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(output)?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, victim: Victim { pid, gone: Arc::default() } })
    }

    /// How the command ended by itself; `None` if it runs, or was killed by the suite.
    pub(crate) fn ended(&mut self) -> io::Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        if self.victim.gone.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        }))
    }

    /// Whether the suite has killed it.
    pub(crate) fn was_killed(&self) -> bool {
        self.victim.gone.load(Ordering::SeqCst)
    }

    /// Sends SIGTERM; kills it if it does not stop in time. Returns whether it stopped by itself.
    pub(crate) fn stop(mut self) -> bool {
        let stops = !self.was_killed() && kill_process_group(self.victim.pid, Signal::TERM).is_ok();
        let begun = Instant::now();
        while stops && begun.elapsed() < GRACE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Also what it has started and left behind. Fails if nothing is left.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process_group(self.victim.pid, Signal::KILL);
        }
        self.victim.gone.store(true, Ordering::SeqCst);
        let _ = self.child.wait();
    }
}

/// The last lines of a file.
pub(crate) fn tail(file: &PathBuf) -> Vec<String> {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| (*line).to_owned()).collect()
}

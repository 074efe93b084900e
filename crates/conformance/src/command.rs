//! The command under test, as a process group of its own.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, waitid};

/// Time to stop after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How many of the last lines of the output are shown, and at most how many characters of each.
const TAIL: (usize, usize) = (15, 500);
/// Most bytes of the output that are read for that.
const TAIL_BYTES: u64 = 64 * 1024;
/// Size at which the file with the output is emptied.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;
/// Variable of the command alone, with a value that no other case has: it finds processes that have left the group.
pub(crate) const MARK: &str = "STORAGE_CASE";

/// What another thread needs to kill the command.
#[derive(Debug, Clone)]
pub(crate) struct Victim {
    pid: Pid,
    /// Whether the suite has killed the command.
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

/// The running command. Dropping it kills it, with everything that it has started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) victim: Victim,
    /// `MARK=VALUE`.
    mark: String,
}

impl Running {
    /// Starts the command. Its output is appended to the file. `mark` is the value of [`MARK`].
    pub(crate) fn start(
        command: &[String],
        environment: &[(&'static str, String)],
        mark: &str,
        output: &Path,
    ) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(output)?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .envs(environment.iter().cloned())
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, victim: Victim { pid, gone: Arc::default() }, mark: format!("{MARK}={mark}") })
    }

    /// How the command ended by itself; `None` if it runs, or was killed by the suite.
    pub(crate) fn ended(&self) -> io::Result<Option<String>> {
        let Some(status) = self.status()?.filter(|_| !self.was_killed()) else { return Ok(None) };
        Ok(Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        }))
    }

    /// How it ended. Nobody else gets its process ID before it is dropped.
    fn status(&self) -> io::Result<Option<WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.victim.pid), options)?)
    }

    /// Whether the suite has killed it.
    pub(crate) fn was_killed(&self) -> bool {
        self.victim.gone.load(Ordering::SeqCst)
    }

    /// Sends SIGTERM; kills it if it does not stop in time. Returns whether it stopped by itself.
    pub(crate) fn stop(self) -> bool {
        let stops = !self.was_killed() && kill_process_group(self.victim.pid, Signal::TERM).is_ok();
        let begun = Instant::now();
        while stops && begun.elapsed() < GRACE {
            if matches!(self.status(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.victim.gone.store(true, Ordering::SeqCst);
        // Also what it has started and left behind. Fails if nothing is left.
        let _ = kill_process_group(self.victim.pid, Signal::KILL);
        let _ = self.child.wait();
        // A process that is killed may have started another one just before.
        let begun = Instant::now();
        while kill_marked(&self.mark) && begun.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Kills all processes with this variable in their environment, as daemons that have left their process group. Returns whether there were any.
fn kill_marked(mark: &str) -> bool {
    let mut found = false;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // Processes of others cannot be read; those that have ended have no environment.
        let Some((pid, environment)) = pid.zip(fs::read(entry.path().join("environ")).ok()) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            found |= kill_process(pid, Signal::KILL).is_ok();
        }
    }
    found
}

/// The last lines of the output.
pub(crate) fn tail(file: &Path) -> Vec<String> {
    // Nothing, if there is none.
    let bytes = last_bytes(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL.0)..].iter().map(|line| line.chars().take(TAIL.1).collect()).collect()
}

fn last_bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Empties the file with the output when it is large, so that no command fills the disk.
pub(crate) fn bound_output(file: &Path) {
    if fs::metadata(file).is_ok_and(|metadata| metadata.len() > MAX_OUTPUT) {
        // Fails if it is gone.
        let _ = File::options().write(true).truncate(true).open(file);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::{MAX_OUTPUT, Running, bound_output, tail};

    fn start(directory: &Path, script: &str) -> Running {
        let command = ["sh", "-c", script].map(str::to_owned);
        let environment = [("DIRECTORY", directory.display().to_string())];
        Running::start(&command, &environment, &directory.display().to_string(), &directory.join("output")).unwrap()
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_mins(1), "never: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the process of this number still runs; one that nobody has waited for does not.
    fn runs(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[test]
    fn a_command_that_ends_by_itself_says_how_at_every_look() {
        let directory = TempDir::new().unwrap();
        for (script, how) in [("exit 7", "exited with code 7"), ("kill -9 $$", "was ended by signal 9")] {
            let running = start(directory.path(), script);
            until(how, || running.ended().unwrap().is_some());
            for _ in 0..2 {
                assert_eq!(running.ended().unwrap().as_deref(), Some(how));
            }
            assert!(!running.was_killed());
        }
    }

    #[test]
    fn a_killed_command_has_not_ended_by_itself() {
        let directory = TempDir::new().unwrap();
        let running = start(directory.path(), "sleep 600");
        running.victim.kill();
        until("it ends", || running.status().unwrap().is_some());
        assert_eq!(running.ended().unwrap(), None);
        assert!(running.was_killed());
    }

    #[test]
    fn nothing_that_the_command_has_started_outlives_it() {
        let directory = TempDir::new().unwrap();
        // One in its group, and one that has left it.
        let fork = "sleep 600 & echo $! > $DIRECTORY/a; setsid sh -c 'echo $$ > $DIRECTORY/b.new; mv $DIRECTORY/b.new $DIRECTORY/b; sleep 600; :' & ";
        for rest in ["wait", "trap 'exit 0' TERM; wait", "exit 0"] {
            let running = start(directory.path(), &format!("{fork} {rest}"));
            let pid = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
            until("both run", || !pid("b").is_empty());
            assert!(runs(&pid("a")) && runs(&pid("b")), "{rest}");
            running.stop();
            assert!(!runs(&pid("a")) && !runs(&pid("b")), "{rest}");
            fs::remove_file(directory.path().join("b")).unwrap();
        }
    }

    #[test]
    fn the_output_is_bounded() {
        let directory = TempDir::new().unwrap();
        let output = directory.path().join("output");
        assert_eq!(tail(&output), Vec::<String>::new());
        let running = start(directory.path(), "yes \"$(head -c 2000 /dev/zero | tr '\\0' x)\" & yes");
        let length = || fs::metadata(&output).unwrap().len();
        until("it prints a lot", || length() > MAX_OUTPUT);
        let lines = tail(&output);
        assert!(lines.len() <= 15 && lines.iter().all(|line| line.len() <= 500), "{lines:?}");
        drop(running);
        bound_output(&output);
        assert_eq!(length(), 0);
    }
}

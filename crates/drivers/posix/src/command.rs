//! The one place where commands are started.
//!
//! No shell, no search along a PATH that somebody set, no environment but [`ENVIRONMENT`], no standard input. A command has a
//! time and a size of output; beyond either, it is killed with all that it started.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use thiserror::Error;

/// All that a command finds in its environment: messages in English, and the folders below for programs of its own.
pub const ENVIRONMENT: [(&str, &str); 2] = [("LC_ALL", "C"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];

/// The folders in which a program is looked for, in this order.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The most that a command may say on each of its outputs, in bytes.
const MOST: usize = 16 << 20;
/// How much of what a failed command said is told, in characters.
const TOLD: usize = 300;

/// A program on this machine, by its absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(PathBuf);

impl Program {
    /// The program at an absolute path, or the one with this name in `/usr/sbin`, `/usr/bin`, `/sbin` or `/bin`.
    pub fn find(name: &str) -> Result<Self, Failed> {
        let path = Path::new(name);
        if path.is_absolute() {
            return if is_program(path) { Ok(Self(path.to_owned())) } else { Err(Failed::NoProgram(name.to_owned())) };
        }
        let plain = !name.is_empty() && !name.contains('/');
        let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| plain && is_program(path));
        found.map(Self).ok_or_else(|| Failed::NoProgram(name.to_owned()))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Why a command came to nothing.
#[derive(Debug, Error)]
pub enum Failed {
    /// There is no such program.
    #[error(
        "there is no program {0} (neither an absolute path of one, nor a name in /usr/sbin, /usr/bin, /sbin or /bin): \
         install it, or name its path"
    )]
    NoProgram(String),
    /// It could not be started or waited for.
    #[error("{program} cannot be run")]
    NotRun {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long, and was killed.
    #[error("{program} was killed, for it did not end within {} s", time.as_secs_f64())]
    Late {
        /// The program.
        program: String,
        /// The time it had.
        time: Duration,
    },
    /// It said too much, and was killed.
    #[error("{program} was killed, for it said more than {MOST} bytes")]
    Garrulous {
        /// The program.
        program: String,
    },
    /// It failed.
    #[error("{program} ended with {how}: {said}")]
    Ended {
        /// The program.
        program: String,
        /// Its exit code, or the signal that killed it.
        how: String,
        /// The exit code, if it was one.
        code: Option<i32>,
        /// The first line of what it said on standard error.
        said: String,
    },
    /// What it said is no UTF-8.
    #[error("{program} said something that is no text")]
    NoText {
        /// The program.
        program: String,
    },
}

/// Runs a command to its end; what it said on standard output. Any exit code but 0 is an error.
pub fn run(program: &Program, arguments: &[impl AsRef<OsStr>], time: Duration) -> Result<String, Failed> {
    let name = || program.to_string();
    let not_run = |source| Failed::NotRun { program: name(), source };
    let deadline = Instant::now() + time;
    let child = Command::new(&program.0)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut group = Group(child.map_err(not_run)?);
    let (status, [said, complaint]) = match group.collect(deadline).map_err(not_run)? {
        Collected::All(status, said) => (status, said),
        Collected::Late => return Err(Failed::Late { program: name(), time }),
        Collected::Garrulous => return Err(Failed::Garrulous { program: name() }),
    };
    if !status.success() {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        return Err(Failed::Ended { program: name(), how, code: status.code(), said: first_line(&complaint) });
    }
    String::from_utf8(said).map_err(|_| Failed::NoText { program: name() })
}

/// What fits into a message.
fn first_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
    line.chars().take(TOLD).filter(|character| !character.is_control()).collect()
}

/// A command and all that it started, as far as that stayed in its process group.
struct Group(Child);

/// How the waiting ended.
enum Collected {
    All(ExitStatus, [Vec<u8>; 2]),
    Late,
    Garrulous,
}

impl Group {
    /// Reads both outputs to their ends and waits for the command's.
    fn collect(&mut self, deadline: Instant) -> io::Result<Collected> {
        let ended = rustix::process::pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let outputs = (self.0.stdout.take().map(OwnedFd::from), self.0.stderr.take().map(OwnedFd::from));
        // The command's end, and its outputs while they are open.
        let mut waiting = [Some(ended), outputs.0, outputs.1];
        let mut said = [Vec::new(), Vec::new()];
        while waiting.iter().any(Option::is_some) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(Collected::Late) };
            let ready = wait(&waiting, left)?;
            for (at, slot) in waiting.iter_mut().enumerate().filter(|(at, _)| ready[*at]) {
                if let (Some(output), Some(fd)) = (at.checked_sub(1), &slot) {
                    if read(fd, &mut said[output])? == 0 {
                        *slot = None;
                    } else if said[output].len() > MOST {
                        return Ok(Collected::Garrulous);
                    }
                } else {
                    *slot = None;
                    // What it left running could keep the outputs open.
                    self.kill();
                }
            }
        }
        Ok(Collected::All(self.0.wait()?, said))
    }

    /// Kills the group. The command has not been waited for, so the number is still its own.
    fn kill(&self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.kill();
            let _ = self.0.wait();
        }
    }
}

/// Which of these are ready; none of them when the time is over.
fn wait(waiting: &[Option<OwnedFd>; 3], left: Duration) -> io::Result<[bool; 3]> {
    let mut ready = [false; 3];
    let open: Vec<(usize, &OwnedFd)> =
        waiting.iter().enumerate().filter_map(|(at, fd)| Some((at, fd.as_ref()?))).collect();
    let mut polled: Vec<PollFd<'_>> =
        open.iter().map(|(_, fd)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
    match rustix::event::poll(&mut polled, Timespec::try_from(left).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    for ((at, _), fd) in open.iter().zip(&polled) {
        ready[*at] = !fd.revents().is_empty();
    }
    Ok(ready)
}

fn read(from: &OwnedFd, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut block = [0; 1 << 14];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut block))?;
    into.extend_from_slice(&block[..length]);
    Ok(length)
}

#[cfg(test)]
mod tests;

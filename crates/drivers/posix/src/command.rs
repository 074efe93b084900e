//! Runs external commands.
//!
//! Commands get no shell, and no environment or PATH of this program. A command that exceeds its timeout or prints too much is
//! killed together with its child processes.

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
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use thiserror::Error;

/// The environment of commands: English messages, and the folders for programs that they start.
pub const ENVIRONMENT: [(&str, &str); 2] = [("LC_ALL", "C"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];

/// The folders that are searched for programs, in this order.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Maximum output of a command on each of stdout and stderr, in bytes.
const MAX_OUTPUT: usize = 16 << 20;
/// How much of a failed command's stderr is shown, in characters.
const MAX_SHOWN: usize = 300;
/// How often a running command is allowed to go on ([`Execution::proceed`]).
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a killed command is waited for.
const DYING: Duration = Duration::from_secs(5);

/// The absolute path of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(PathBuf);

impl Program {
    /// Finds a program by its absolute path, or by its name in `/usr/sbin`, `/usr/bin`, `/sbin` or `/bin`.
    pub fn find(name: &str) -> Result<Self, CommandError> {
        let path = Path::new(name);
        if path.is_absolute() {
            return if is_program(path) {
                Ok(Self(path.to_owned()))
            } else {
                Err(CommandError::NoProgram(name.to_owned()))
            };
        }
        let plain = !name.is_empty() && !name.contains('/');
        let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| plain && is_program(path));
        found.map(Self).ok_or_else(|| CommandError::NoProgram(name.to_owned()))
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

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The program does not exist.
    #[error(
        "program {0} not found (it is not an absolute path, nor a name in /usr/sbin, /usr/bin, /sbin or /bin): install it, \
         or give its absolute path"
    )]
    NoProgram(String),
    /// The program could not be started, or waiting for it failed.
    #[error("{program} cannot be run")]
    NotRun { program: String, source: io::Error },
    /// The program took too long and was killed.
    #[error("{program} was killed because it did not exit within {} s", timeout.as_secs_f64())]
    TimedOut { program: String, timeout: Duration },
    /// The program printed too much and was killed.
    #[error("{program} was killed because it printed more than {MAX_OUTPUT} bytes")]
    TooMuchOutput { program: String },
    /// [`Execution::proceed`] returned false, and the program was killed.
    #[error("{program} was killed because its work has to stop")]
    Stopped { program: String },
    /// The program failed.
    #[error("{program} failed with {cause}: {stderr}")]
    Unsuccessful {
        program: String,
        /// Exit code or signal.
        cause: String,
        /// The exit code, if there is one.
        code: Option<i32>,
        /// The first line on stderr.
        stderr: String,
    },
    /// The output is not UTF-8.
    #[error("the output of {program} is not UTF-8 text")]
    NotUtf8 { program: String },
}

/// Runs a command without input and returns its stdout. Any exit code but 0 is an error.
pub fn run(program: &Program, arguments: &[impl AsRef<OsStr>], timeout: Duration) -> Result<String, CommandError> {
    let execution = Execution { program, arguments, environment: &[], input: &[], timeout, proceed: &|| true };
    let Finished { status, output, stderr } = execute(&execution)?;
    let program = program.to_string();
    if !status.success() {
        let (cause, code) = (cause(status), status.code());
        return Err(CommandError::Unsuccessful { program, cause, code, stderr: first_line(&stderr) });
    }
    String::from_utf8(output).map_err(|_| CommandError::NotUtf8 { program })
}

/// A command, and how to run it.
pub struct Execution<'a, A> {
    pub program: &'a Program,
    pub arguments: &'a [A],
    /// Variables in addition to [`ENVIRONMENT`], or instead of them.
    pub environment: &'a [(String, String)],
    /// For its standard input.
    pub input: &'a [u8],
    pub timeout: Duration,
    /// Called every second while the command runs. If it returns false, the command is killed.
    pub proceed: &'a dyn Fn() -> bool,
}

/// What a command returned.
pub struct Finished {
    pub status: ExitStatus,
    pub output: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a command to its end, whatever its exit code is.
pub fn execute<A: AsRef<OsStr>>(execution: &Execution<'_, A>) -> Result<Finished, CommandError> {
    let Execution { program, arguments, environment, timeout, .. } = *execution;
    let name = || program.to_string();
    let not_run = |source| CommandError::NotRun { program: name(), source };
    let deadline = Instant::now() + timeout;
    let child = Command::new(&program.0)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut group = Group { child: child.map_err(not_run)?, has_ended: false };
    match group.collect(execution.input, deadline, execution.proceed).map_err(not_run)? {
        Collected::Finished(status, [output, stderr]) => Ok(Finished { status, output, stderr }),
        Collected::TimedOut => Err(CommandError::TimedOut { program: name(), timeout }),
        Collected::TooMuchOutput => Err(CommandError::TooMuchOutput { program: name() }),
        Collected::Stopped => Err(CommandError::Stopped { program: name() }),
    }
}

/// The exit code or the signal that ended a command, for messages.
pub fn cause(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

/// The first line of stderr, shortened.
fn first_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no error message");
    line.chars().take(MAX_SHOWN).filter(|character| !character.is_control()).collect()
}

/// The process group of a command.
struct Group {
    child: Child,
    /// The group was killed, and the command waited for.
    has_ended: bool,
}

/// Why [`Group::collect`] stopped waiting.
enum Collected {
    Finished(ExitStatus, [Vec<u8>; 2]),
    TimedOut,
    TooMuchOutput,
    Stopped,
}

impl Group {
    /// Writes the input, reads both outputs and waits for the command. When it has ended, its outputs are complete, even if a process
    /// that has left the group keeps them open.
    fn collect(&mut self, mut input: &[u8], deadline: Instant, proceed: &dyn Fn() -> bool) -> io::Result<Collected> {
        let ended = rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let outputs = (self.child.stdout.take().map(OwnedFd::from), self.child.stderr.take().map(OwnedFd::from));
        let into = self.child.stdin.take().map(OwnedFd::from).filter(|_| !input.is_empty());
        if let Some(into) = &into {
            rustix::fs::fcntl_setfl(into, OFlags::NONBLOCK)?;
        }
        // The command, its outputs while they are open, and its input until it is written.
        let mut waiting = [Some(ended), outputs.0, outputs.1, into];
        let mut read = [Vec::new(), Vec::new()];
        let mut ask = Instant::now() + INTERVAL;
        while waiting[..3].iter().any(Option::is_some) {
            let now = Instant::now();
            let Some(left) = deadline.checked_duration_since(now) else { return Ok(Collected::TimedOut) };
            if now >= ask {
                if !proceed() {
                    return Ok(Collected::Stopped);
                }
                ask = Instant::now() + INTERVAL;
            }
            let has_ended = waiting[0].is_none();
            let ready = wait(&waiting, if has_ended { Duration::ZERO } else { left.min(INTERVAL) })?;
            if has_ended && !ready[1] && !ready[2] {
                break;
            }
            for (at, slot) in waiting.iter_mut().enumerate().filter(|(at, _)| ready[*at]) {
                match (at, &slot) {
                    (1 | 2, Some(fd)) => {
                        if read_block(fd, &mut read[at - 1])? == 0 {
                            *slot = None;
                        } else if read[at - 1].len() > MAX_OUTPUT {
                            return Ok(Collected::TooMuchOutput);
                        }
                    }
                    (3, Some(fd)) => {
                        if write_block(fd, &mut input)? == 0 {
                            *slot = None;
                        }
                    }
                    _ => {
                        *slot = None;
                        // Nothing of it may go on.
                        self.kill();
                    }
                }
            }
        }
        self.has_ended = true;
        Ok(Collected::Finished(self.child.wait()?, read))
    }

    /// Kills the group. Its process ID is still valid, because the command has not been waited for.
    fn kill(&self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.kill();
        let until = Instant::now() + DYING;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > until {
                // It hangs in the kernel, for example on a file system without its server, and ends later or never.
                let command = Pid::from_child(&self.child);
                std::thread::spawn(move || rustix::process::waitpid(Some(command), WaitOptions::empty()));
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until at least one of these is ready, and returns which ones are. After the timeout, none is.
fn wait(waiting: &[Option<OwnedFd>; 4], left: Duration) -> io::Result<[bool; 4]> {
    let mut ready = [false; 4];
    let open: Vec<(usize, &OwnedFd)> =
        waiting.iter().enumerate().filter_map(|(at, fd)| Some((at, fd.as_ref()?))).collect();
    let events = |at: usize| if at == 3 { PollFlags::OUT } else { PollFlags::IN };
    let mut polled: Vec<PollFd<'_>> =
        open.iter().map(|(at, fd)| PollFd::from_borrowed_fd(fd.as_fd(), events(*at))).collect();
    match rustix::event::poll(&mut polled, Timespec::try_from(left).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    for ((at, _), fd) in open.iter().zip(&polled) {
        ready[*at] = !fd.revents().is_empty();
    }
    Ok(ready)
}

/// Writes the beginning of `input` and removes it there. Returns how many bytes are left; none if the command does not read them.
fn write_block(into: &OwnedFd, input: &mut &[u8]) -> io::Result<usize> {
    match rustix::io::retry_on_intr(|| rustix::io::write(into, input)) {
        Ok(written) => *input = &input[written..],
        Err(Errno::AGAIN) => {}
        Err(Errno::PIPE) => *input = &[],
        Err(error) => return Err(error.into()),
    }
    Ok(input.len())
}

fn read_block(from: &OwnedFd, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut block = [0; 1 << 14];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut block))?;
    into.extend_from_slice(&block[..length]);
    Ok(length)
}

#[cfg(test)]
mod tests;

//! The driver `exec`: a program of the site drives the storage. `docs/exec-drivers.md` describes the protocol.
//!
//! Each call starts the program with a request on its standard input; the answer is on its standard output. [`suite`] checks
//! such a program.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use driver_posix::command::{CommandError, Execution, Finished, Program, cause, execute};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage_driver::limits::{QuotaLimits, Usage};
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Observed, Trashed};

mod registration;
pub mod suite;
mod trust;
mod wire;

#[cfg(test)]
mod tests;

pub use registration::{DRIVERS, environment};
use wire::{Capabilities, Directories, Directory, Nothing, Request, Trash, shown};

/// Exit code of a program: the operation may succeed later (EX_TEMPFAIL).
const TEMPORARY: i32 = 75;
/// Exit code of a program: something that does not belong to the resource is in the way (EX_CANTCREAT).
const CONFLICT: i32 = 73;
/// Exit code of a program: it does not support this verb or this version (EX_USAGE).
const UNSUPPORTED: i32 = 64;
/// Maximum number of directories in one request.
const BATCH: usize = 1000;

/// Timeouts of one run of the program.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Of most verbs.
    pub usual: Duration,
    /// Of `usage` and `purge`, which may walk over all files of a directory.
    pub walk: Duration,
}

/// A program that drives a storage system.
#[derive(Debug)]
pub struct Exec {
    command: Command,
    root: PathBuf,
    /// Variables of the program, with their values.
    environment: Vec<(String, String)>,
    timeouts: Timeouts,
    capabilities: Mutex<Capabilities>,
    timed_out: AtomicUsize,
}

/// The program and its arguments.
#[derive(Debug, Clone)]
pub struct Command {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Command {
    /// The first word is the path of the program. `None` if it is not absolute.
    pub fn new(words: &[String]) -> Option<Self> {
        let (path, arguments) = words.split_first()?;
        let path = PathBuf::from(path);
        path.is_absolute().then(|| Self { path, arguments: arguments.to_vec() })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Why a call failed.
enum CallError {
    /// The program does not support the verb.
    Unsupported(DriverError),
    Failed(DriverError),
}

impl From<CallError> for DriverError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unsupported(error) | CallError::Failed(error) => error,
        }
    }
}

impl Exec {
    /// Checks the program and asks it for its capabilities. `environment` are variables in addition to `PATH` and `LC_ALL`.
    pub fn open(
        command: Command,
        root: PathBuf,
        environment: Vec<(String, String)>,
        timeouts: Timeouts,
    ) -> Result<Self, DriverError> {
        let capabilities = Mutex::default();
        let exec = Self { command, root, environment, timeouts, capabilities, timed_out: AtomicUsize::new(0) };
        exec.refresh()?;
        Ok(exec)
    }

    /// The same program, killed after this time.
    fn killed_after(&self, time: Duration) -> Self {
        Self {
            command: self.command.clone(),
            root: self.root.clone(),
            environment: self.environment.clone(),
            timeouts: Timeouts { usual: time, walk: time },
            capabilities: Mutex::new(self.capabilities()),
            timed_out: AtomicUsize::new(0),
        }
    }

    fn capabilities(&self) -> Capabilities {
        *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that nobody else can replace the program, and asks for its capabilities.
    fn refresh(&self) -> Result<(), DriverError> {
        trust::check(&self.command.path)?;
        let capabilities: Capabilities = self.read("capabilities", Nothing {})?;
        let valid = capabilities.validated().map_err(|why| self.invalid("capabilities", &why))?;
        *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner) = valid;
        Ok(())
    }

    fn invalid(&self, verb: &str, why: &str) -> DriverError {
        DriverError::temporary(format!("{} {verb}: its answer is invalid: {}", self.command, shown(why)))
    }

    /// Runs a verb without side effects.
    fn read<T: DeserializeOwned>(&self, verb: &str, fields: impl Serialize) -> Result<T, CallError> {
        self.call(verb, fields, self.timeouts.usual, &|| true)
    }

    /// Runs a verb with side effects. The guard is called before it and every second; the program is killed if it refuses.
    fn act(&self, verb: &str, fields: impl Serialize, time: Duration, guard: Guard<'_>) -> Result<(), DriverError> {
        let effect = format!("{} {verb}", self.command);
        guard(&effect)?;
        let refusal = Cell::new(None);
        let proceed = || guard(&effect).map_err(|error| refusal.set(Some(error))).is_ok();
        let done = self.call::<Nothing>(verb, fields, time, &proceed);
        match refusal.take() {
            Some(error) => Err(error),
            None => Ok(done.map(drop)?),
        }
    }

    fn call<T: DeserializeOwned>(
        &self,
        verb: &str,
        fields: impl Serialize,
        timeout: Duration,
        proceed: &dyn Fn() -> bool,
    ) -> Result<T, CallError> {
        let Command { path, arguments } = &self.command;
        let failed = |error| CallError::Failed(DriverError::temporary_from(format!("{} {verb}", self.command), error));
        let program = Program::find(&path.to_string_lossy()).map_err(failed)?;
        let request = Request { version: wire::VERSION, verb, root: &self.root, fields };
        let input = serde_json::to_vec(&request).map_err(|error| {
            CallError::Failed(DriverError::temporary_from(format!("{} {verb}: no request", self.command), error))
        })?;
        let (environment, program) = (&self.environment[..], &program);
        let execution = Execution { program, arguments, environment, input: &input, timeout, proceed };
        let Finished { status, output, stderr } = execute(&execution).map_err(|error| {
            if matches!(error, CommandError::TimedOut { .. }) {
                self.timed_out.fetch_add(1, Ordering::Relaxed);
            }
            failed(error)
        })?;
        let text = || format!("{} {verb}: {}", self.command, shown(&String::from_utf8_lossy(&stderr)));
        match status.code() {
            Some(0) => serde_json::from_slice(&output)
                .map_err(|error| CallError::Failed(self.invalid(verb, &error.to_string()))),
            Some(TEMPORARY) => Err(CallError::Failed(DriverError::temporary(text()))),
            Some(CONFLICT) => Err(CallError::Failed(DriverError::Conflict(text()))),
            Some(UNSUPPORTED) => {
                let text =
                    format!("{} does not support `{verb}`: {}", self.command, shown(&String::from_utf8_lossy(&stderr)));
                Err(CallError::Unsupported(DriverError::temporary(text)))
            }
            _ => {
                Err(CallError::Failed(DriverError::temporary(format!("{} (it failed with {})", text(), cause(status)))))
            }
        }
    }

    /// Asks for the usage of directories, or of directories in the trash.
    fn used(&self, of: &Directories<'_>) -> Result<Vec<Option<Usage>>, CallError> {
        let answer: wire::Usages = self.call("usage", of, self.timeouts.walk, &|| true)?;
        answer.usages(of).map_err(|why| CallError::Failed(self.invalid("usage", &why)))
    }

    fn all_trash(&self) -> Result<Vec<Trash>, DriverError> {
        Ok(self.read::<wire::Trashes>("trash", Nothing {})?.trash)
    }
}

fn each<T>(result: Result<Vec<T>, DriverError>, count: usize) -> Vec<Result<T, DriverError>> {
    match result {
        Ok(all) => all.into_iter().map(Ok).collect(),
        Err(error) => storage_driver::same_for_all(&error, count),
    }
}

impl Driver for Exec {
    fn ready(&self) -> Result<(), DriverError> {
        self.refresh()?;
        Ok(self.read::<Nothing>("ready", Nothing {}).map(drop)?)
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        let Capabilities { block, soft_limits, .. } = self.capabilities();
        let limits = limits.in_blocks_of(block);
        if soft_limits { limits } else { limits.only_hard() }
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        let batch = |batch: &[&Desired]| {
            let directories = Directories::of(batch);
            let answer: wire::Observations = self.read("observe", &directories)?;
            answer.states(batch).map_err(|why| self.invalid("observe", &why))
        };
        let batches = desired.chunks(BATCH).flat_map(|each| {
            batch(each).unwrap_or_else(|error: DriverError| storage_driver::same_for_all(&error, each.len()))
        });
        batches.collect()
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        Ok(self.all_trash()?.iter().filter(|it| !it.claimed).map(Trash::trashed).collect())
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        Ok(self.all_trash()?.iter().filter(|it| it.claimed).map(Trash::trashed).collect())
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        Ok(self.read::<wire::Marks>("marked", wire::Levels { levels })?.into())
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let batch = |batch: &[(Trashed, Option<u32>)]| {
            let of =
                Directories { directories: Vec::new(), trashed: batch.iter().map(|(trashed, _)| trashed).collect() };
            each(self.used(&of).map_err(DriverError::from), batch.len())
        };
        trashed.chunks(BATCH).flat_map(batch).collect()
    }

    fn changed(&self, trashed: &Trashed) -> Result<Option<u64>, DriverError> {
        Ok(self.all_trash()?.iter().find(|it| it.trashed() == *trashed).and_then(|it| it.changed))
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act("ensure", Directory::of(desired).alone(None), self.timeouts.usual, guard)
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act("retire", Directory::of(desired).alone(Some(now)), self.timeouts.usual, guard)
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act("restore", Directory::of(desired).alone(None), self.timeouts.usual, guard)
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act("adopt", Directory::of(desired).alone(None), self.timeouts.usual, guard)
    }

    fn claim(&self, trashed: &Trashed, _: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act("claim", wire::OneTrashed { trashed }, self.timeouts.usual, guard)
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        self.claim(trashed, project, guard)?;
        self.act("purge", wire::OneTrashed { trashed }, self.timeouts.walk, guard)
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let batch = |batch: &[&Desired]| match self.used(&Directories::of(batch)) {
            // Then the program reports it with the state.
            Err(CallError::Unsupported(_)) => {
                self.observe(batch).into_iter().map(|observed| observed.map(Observed::usage)).collect()
            }
            result => each(result.map_err(DriverError::from), batch.len()),
        };
        desired.chunks(BATCH).flat_map(batch).collect()
    }
}

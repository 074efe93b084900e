//! Runs the conformance suite on a program: first as it is, then with each verb killed several times and called twice.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage_driver::conformance::{Bench, Failure, each_check, is_of_suite};
use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Usage};
use storage_driver::place::Place;
use storage_driver::{Desired, Driver, DriverError, Guard, Marked, Mode, Observed, Trashed};

use crate::Exec;

/// How a run of the suite calls the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Each verb once.
    Once,
    /// Each verb with side effects is killed this often, then called twice.
    Killed(u32),
}

/// Runs the suite on an empty system, and removes its directories afterwards. Calls `report` with the name of each check, the behaviour
/// that it requires, and its failure. Returns how often the program was killed; an error if directories are left over.
pub fn run(bench: &Bench<'_>, exec: &Exec, calls: Calls, report: Report<'_>) -> Result<usize, DriverError> {
    empty(exec, bench)?;
    let killed = match calls {
        Calls::Once => {
            all_checks(&Bench { driver: exec, ..*bench }, exec, report);
            0
        }
        Calls::Killed(kills) => {
            let driver = Repeated { exec, kills, state: Mutex::default() };
            all_checks(&Bench { driver: &driver, ..*bench }, exec, report);
            driver.state.into_inner().unwrap_or_else(PoisonError::into_inner).killed
        }
    };
    empty(exec, bench)?;
    Ok(killed)
}

type Report<'a> = &'a mut dyn FnMut(&'static str, &'static str, Option<Failure>);

/// The checks of the suite, and one of files if the root is a directory of this machine.
fn all_checks(bench: &Bench<'_>, exec: &Exec, report: Report<'_>) {
    each_check(bench, report);
    if exec.root.is_dir() {
        report(CONTENTS, "files in a directory survive `ensure`, `retire` and `restore`", contents(bench, exec).err());
    }
}

const CONTENTS: &str = "contents";

fn contents(bench: &Bench<'_>, exec: &Exec) -> Result<(), Failure> {
    let (driver, desired) = (bench.driver, bench.desired(20));
    let limits = QuotaLimits::new([Bytes(1 << 45); 2], [Inodes(3_000_000); 2]).unwrap_or(desired.limits);
    let other = Desired { limits: driver.stored_limits(limits), mode: Mode(0o750), ..desired.clone() };
    let file = exec.root.join(desired.place.to_string()).join("file");
    let failed = |step: &str, expected: &str, observed: String| Failure {
        check: CONTENTS,
        step: step.into(),
        expected: expected.into(),
        observed,
    };
    let succeeds = |step: &str, result: Result<(), DriverError>| {
        result.map_err(|error| failed(step, "success", format!("the error: {}", storage_driver::error_chain(&error))))
    };
    let survives = |step: &str| match fs::read_to_string(&file) {
        Ok(text) if text == CONTENTS => Ok(()),
        Ok(_) => Err(failed(step, "an unchanged file", "another content".into())),
        Err(error) => Err(failed(step, "an unchanged file", format!("{}: {error}", file.display()))),
    };
    succeeds("ensure", driver.ensure(&desired, &allow))?;
    fs::write(&file, CONTENTS)
        .map_err(|error| failed("after ensure", "a directory for files", format!("{}: {error}", file.display())))?;
    succeeds("ensure with other limits and mode", driver.ensure(&other, &allow))?;
    survives("after ensure with other limits and mode")?;
    succeeds("retire", driver.retire(&other, 1000, &allow))?;
    succeeds("restore", driver.restore(&desired, &allow))?;
    survives("after retire and restore")
}

/// Removes the directories of the suite. Fails if the system has others.
fn empty(exec: &Exec, bench: &Bench<'_>) -> Result<(), DriverError> {
    exec.ready()?;
    let all_trash = || Ok::<_, DriverError>([exec.trash()?, exec.claimed()?].concat());
    let (marked, trash) = (exec.marked(LEVELS)?, all_trash()?);
    let mut ids = marked.iter().map(|it| it.id).chain(trash.iter().map(|it| it.id));
    if let Some(id) = ids.find(|id| !is_of_suite(*id)) {
        return Err(DriverError::temporary(format!(
            "there is a directory of resource {id}: run the suite on an empty system, never on one in use"
        )));
    }
    for n in bench.unmarked() {
        let desired = bench.desired(n);
        if matches!(exec.observe(&[&desired])[..], [Ok(Observed::Unmarked(_))]) {
            exec.adopt(&desired, &allow)?;
        }
    }
    for Marked { id, path } in exec.marked(LEVELS)? {
        let place = Place::parse(&format!("/sys/{path}"), "/sys");
        let place = place.map_err(|error| DriverError::temporary_from("`marked` returned an invalid path", error))?;
        exec.retire(&Desired { id, place, ..bench.desired(1) }, 1, &allow)?;
    }
    for trashed in all_trash()? {
        exec.purge(&trashed, None, &allow)?;
    }
    Ok(())
}

/// The suite's directories are four levels deep, and one is inside another.
const LEVELS: usize = 6;

#[expect(clippy::unnecessary_wraps, reason = "the signature of a guard")]
fn allow(_: &str) -> Result<(), DriverError> {
    Ok(())
}

/// A program whose verbs with side effects are killed and repeated.
#[derive(Debug)]
struct Repeated<'a> {
    exec: &'a Exec,
    kills: u32,
    state: Mutex<Kills>,
}

#[derive(Debug, Default)]
struct Kills {
    /// The longest time that each verb took.
    longest: BTreeMap<&'static str, Duration>,
    tried: u32,
    killed: usize,
}

impl Kills {
    /// The time after which the next call of a verb is killed: somewhere in the longest time that one took.
    fn next(&mut self, verb: &str) -> Option<Duration> {
        let longest = self.longest.get(verb)?;
        self.tried += 1;
        // The multiples of the golden ratio fill the interval evenly, and differ in each run as the times do.
        let fraction = (f64::from(self.tried) * 0.618_033_988_749_895).fract();
        Some(longest.mul_f64(fraction))
    }
}

type Operation<'a> = &'a dyn Fn(&Exec) -> Result<(), DriverError>;

impl Repeated<'_> {
    fn kills(&self) -> std::sync::MutexGuard<'_, Kills> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act<T: Debug + PartialEq>(
        &self,
        verb: &'static str,
        guard: Guard<'_>,
        operation: Operation<'_>,
        state: &dyn Fn() -> Result<T, DriverError>,
    ) -> Result<(), DriverError> {
        guard(verb)?;
        for _ in 0..self.kills {
            let Some(time) = self.kills().next(verb) else { break };
            let exec = self.exec.killed_after(time);
            // Its failure is the kill, or one that the complete call shows as well.
            let _ = operation(&exec);
            self.kills().killed += exec.timed_out.into_inner();
        }
        let begun = Instant::now();
        operation(self.exec)?;
        let took = begun.elapsed();
        let longest = &mut self.kills().longest;
        let known = longest.entry(verb).or_insert(took);
        *known = took.max(*known);
        let once = state()?;
        operation(self.exec)?;
        let twice = state()?;
        if once == twice {
            return Ok(());
        }
        Err(DriverError::temporary(format!("`{verb}` called a second time changed {once:?} to {twice:?}")))
    }

    fn act_on(
        &self,
        verb: &'static str,
        desired: &Desired,
        guard: Guard<'_>,
        operation: Operation<'_>,
    ) -> Result<(), DriverError> {
        self.act(verb, guard, operation, &|| {
            let observed = self.exec.observe(&[desired]).pop();
            observed.unwrap_or_else(|| Err(DriverError::temporary("no answer"))).map(Observed::without_usage)
        })
    }
}

impl Driver for Repeated<'_> {
    fn ready(&self) -> Result<(), DriverError> {
        self.exec.ready()
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        self.exec.stored_limits(limits)
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        self.exec.observe(desired)
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        self.exec.trash()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        self.exec.claimed()
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        self.exec.marked(levels)
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        self.exec.trash_usage(trashed)
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act_on("ensure", desired, guard, &|exec| exec.ensure(desired, &allow))
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act_on("retire", desired, guard, &|exec| exec.retire(desired, now, &allow))
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act_on("restore", desired, guard, &|exec| exec.restore(desired, &allow))
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.act_on("adopt", desired, guard, &|exec| exec.adopt(desired, &allow))
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let state = || Ok([self.exec.trash()?, self.exec.claimed()?]);
        self.act("claim", guard, &|exec| exec.claim(trashed, project, &allow), &state)
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let state = || Ok([self.exec.trash()?, self.exec.claimed()?]);
        self.act("purge", guard, &|exec| exec.purge(trashed, project, &allow), &state)
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        self.exec.usage(desired)
    }
}

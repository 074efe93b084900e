//! `run`: passes until a signal stops it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use program::error_chain;
use provisioner_core::plan::{Hold, Plan, Step};
use settings::Loaded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

use super::check::misnamed;
use super::{Failure, failure, progress};
use crate::config::Settings;
use crate::lease::LeaseError;
use crate::listen;
use crate::metrics::Metrics;
use crate::pass::{PassError, Report, Survey};
use crate::provisioner::{BeginError, LOOP, Provisioner};
use crate::report::{Complete, Reporter};

mod document_watch;
mod reload;

use document_watch::DocumentWatch;
pub(super) use reload::Load;
use reload::{LOOK, Reloader};

/// The shortest time between the starts of two passes. It is also at least twice the duration of a pass, up to [`LONGEST`], so that a
/// document that changes all the time leaves the storage time for its users.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// How often a pass without a lease is tried again, so that the provisioner that takes over notices the end of the lease soon.
const RETRY: Duration = Duration::from_secs(1);

/// Why the loop wakes. A later one includes those before it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    /// Start a pass, because its time has come or the document has changed.
    Pass,
    /// Start a pass that has the proxy read Waldur, because somebody knows of a change.
    Nudge,
    /// Reload the settings for this reason, and start a pass.
    Reload(&'static str),
    Stop,
}

/// Runs passes until a signal stops it. A running pass stops before its next side effect. `loaded`: the settings of the
/// provisioner; `load` reads them again.
pub(super) fn run(mut provisioner: Provisioner, loaded: Loaded<Settings>, load: Load<'_>) -> Result<(), Failure> {
    let (wake, woken) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGHUP])
        .map_err(|error| failure(format!("cannot handle signals: {error}")))?;
    let stop = std::sync::Arc::clone(&provisioner.stop);
    let by_signal = wake.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let wake = match signal {
                SIGUSR1 => Wake::Nudge,
                SIGHUP => Wake::Reload("SIGHUP"),
                // A second signal ends the process at once: it can be killed at any time.
                _ if stop.swap(true, Ordering::Relaxed) => std::process::exit(1),
                _ => Wake::Stop,
            };
            if by_signal.send(wake).is_err() {
                break;
            }
        }
    });
    let metrics = Metrics::new(&provisioner.clock, provisioner.settings.run.interval);
    let reporter = Reporter::start(&provisioner.clock);
    let watch = DocumentWatch::start(wake.clone());
    listen::serve(&provisioner.settings.run.listen, &metrics, move || wake.send(Wake::Nudge).is_ok())?;
    let mut reloader = Reloader::new(loaded, load);
    let mut log = HoldLog::default();
    let mut no_lease = NoLease::default();
    info!(systems = provisioner.systems.len(), "started");
    let mut fresh = true;
    while !provisioner.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        metrics.began();
        let interval = provisioner.settings.run.interval;
        let mut next = jittered(interval);
        match pass(&provisioner, fresh, &metrics, &mut log) {
            Ok((survey, report)) => {
                metrics.ended(&report.ended, report.failed.len(), began.elapsed());
                log_report(&report);
                reporter.completed(&provisioner, Complete { survey, report }, began.elapsed());
                watch.wait_for_change(&provisioner.source);
            }
            Err(fault) if provisioner.stop.load(Ordering::Relaxed) => {
                info!("the pass was stopped by a signal: {}", error_chain(&fault));
            }
            Err(NoPass::Begin(BeginError::Lease(error))) => {
                next = RETRY.min(interval);
                if no_lease.is_repeated(&error, interval) {
                    metrics.waiting();
                } else if error.is_held() {
                    // A command, or the provisioner that is active now: nothing is wrong.
                    metrics.kept_away();
                    info!("no pass: {}", error_chain(&error));
                } else {
                    metrics.failed(began.elapsed());
                    error!("no pass: {}", error_chain(&error));
                    reporter.failed(&provisioner, error_chain(&error), began.elapsed());
                }
            }
            Err(fault) => {
                metrics.failed(began.elapsed());
                reporter.failed(&provisioner, error_chain(&fault), began.elapsed());
                error!("no pass: {}", error_chain(&fault));
            }
        }
        let earliest = began + (2 * began.elapsed()).clamp(SHORTEST, LONGEST);
        match wait(&woken, earliest, Instant::now() + next, &mut reloader) {
            Wake::Pass => fresh = false,
            Wake::Nudge => fresh = true,
            Wake::Reload(why) => {
                fresh = true;
                if let Some(new) = reloader.reload(&provisioner, why) {
                    metrics.set_interval(new.settings.run.interval);
                    provisioner = new;
                }
            }
            Wake::Stop => break,
        }
    }
    info!("stopped");
    Ok(())
}

/// Waits until the time of the next pass: `until`, or `earliest` if there is a reason before. Several of them are
/// answered by one pass. A signal to stop ends the wait at once.
fn wait(woken: &Receiver<Wake>, earliest: Instant, until: Instant, reloader: &mut Reloader<'_>) -> Wake {
    let mut pending = None;
    loop {
        let end = if pending.is_some() { earliest } else { until.max(earliest) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return pending.unwrap_or(Wake::Pass);
        }
        match woken.recv_timeout(left.min(LOOK)) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
            Ok(wake) => pending = pending.into_iter().chain([wake]).max(),
            Err(RecvTimeoutError::Timeout) if reloader.secrets_changed() => {
                pending = Some(Wake::Reload("a file with a secret has changed"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum NoPass {
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error(transparent)]
    Pass(#[from] PassError),
}

/// Runs one pass. The leases are released after it, so that commands can run between two passes.
fn pass(
    provisioner: &Provisioner,
    fresh: bool,
    metrics: &Metrics,
    log: &mut HoldLog,
) -> Result<(Survey, Report), NoPass> {
    let mut session = provisioner.begin(LOOP, Duration::ZERO)?;
    let (survey, plan) = if fresh { session.plan(false) } else { session.plan_recent() }?;
    metrics.planned(&plan, &survey.cases);
    log.update(&plan, &misnamed(provisioner, &survey.document));
    let report = progress::logged(provisioner, || session.carry_out(&survey, plan, false))?;
    Ok((survey, report))
}

/// When it was last logged that there is no lease, and whether another provisioner had it.
#[derive(Default)]
struct NoLease(Option<(Instant, bool)>);

impl NoLease {
    /// Whether that was logged less than one interval ago. If not, it is to be logged now.
    fn is_repeated(&mut self, error: &LeaseError, interval: Duration) -> bool {
        let is_held = error.is_held();
        let is_repeated = self.0.is_some_and(|(logged, was_held)| is_held == was_held && logged.elapsed() < interval);
        if !is_repeated {
            self.0 = Some((Instant::now(), is_held));
        }
        is_repeated
    }
}

/// Logs held resources when they change.
#[derive(Default)]
struct HoldLog {
    /// The number of resources by system and hold, and the reason of the first one.
    held: BTreeMap<(String, Hold), (usize, String)>,
    misnamed: Vec<(String, String)>,
}

impl HoldLog {
    fn update(&mut self, plan: &Plan, misnamed: &[(String, String)]) {
        let mut held = BTreeMap::new();
        for it in &plan.held {
            let (count, _) = held.entry((it.system.clone(), it.hold)).or_insert_with(|| (0, it.reason.clone()));
            *count += 1;
        }
        for ((system, hold), (count, reason)) in held.iter().filter(|(key, now)| self.held.get(*key) != Some(now)) {
            let kind = hold.name();
            let first = if *count == 1 { "" } else { ", first one" };
            if matches!(hold, Hold::Fault | Hold::Asks | Hold::Conflict | Hold::Declined) {
                warn!(system, count, "held ({kind}){first}: {reason}");
            } else {
                info!(system, count, "held ({kind}){first}: {reason}");
            }
        }
        for (system, hold) in self.held.keys().filter(|key| !held.contains_key(*key)) {
            info!(system, "nothing is held any more ({})", hold.name());
        }
        if self.misnamed != misnamed {
            for (system, why) in misnamed {
                warn!(system, "{why}");
            }
        }
        (self.held, self.misnamed) = (held, misnamed.to_vec());
    }
}

fn log_report(report: &Report) {
    for (resource, fault) in &report.failed {
        warn!(%resource, "failed: {fault}");
    }
    for task in report.plan.tasks.iter().filter(|task| !report.failed.contains_key(&task.id)) {
        let steps = task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", ");
        info!(resource = %task.id, path = task.path, "{}: {}: {steps}", task.action.past(), task.why);
    }
    let (done, failed, held) = (report.ended.len(), report.failed.len(), report.plan.held.len());
    if done + failed > 0 {
        info!(done, failed, held, "pass");
    }
}

/// Varies the interval by up to a tenth, so that many provisioners do not send requests at the same moment.
fn jittered(interval: Duration) -> Duration {
    let share = RandomState::new().hash_one(()) % 201;
    #[expect(clippy::cast_precision_loss, reason = "at most 200")]
    interval.mul_f64(0.9 + share as f64 / 1000.0)
}

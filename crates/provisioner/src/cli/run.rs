//! `run`: pass after pass.

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
use crate::listen;
use crate::metrics::Metrics;
use crate::pass::{PassError, Report};
use crate::provisioner::{BeginError, LOOP, Provisioner};

mod reload;

pub(super) use reload::Load;
use reload::{LOOK, Reloader};

/// The least time from the beginning of a pass to that of the next.
const BREATH: Duration = Duration::from_secs(1);

/// Why the loop wakes before its time.
enum Wake {
    /// Begin a pass.
    Nudge,
    /// Reload the settings, and begin a pass.
    Reload(&'static str),
    /// Come to an end.
    Stop,
}

/// Passes until a signal says stop. A pass under way stops before its next effect. `loaded`: the settings of the provisioner;
/// `load` reads them again.
pub(super) fn run(mut provisioner: Provisioner, loaded: Loaded<Settings>, load: Load<'_>) -> Result<(), Failure> {
    let (wake, woken) = mpsc::channel();
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGHUP]).map_err(|error| failure(format!("no signals: {error}")))?;
    let stop = std::sync::Arc::clone(&provisioner.stop);
    let by_signal = wake.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let said = match signal {
                SIGUSR1 => Wake::Nudge,
                SIGHUP => Wake::Reload("SIGHUP"),
                // A second one ends it where it stands: it can be killed anywhere.
                _ if stop.swap(true, Ordering::Relaxed) => std::process::exit(1),
                _ => Wake::Stop,
            };
            if by_signal.send(said).is_err() {
                break;
            }
        }
    });
    let metrics = Metrics::new(&provisioner.clock, provisioner.settings.run.interval);
    listen::serve(&provisioner.settings.run.listen, &metrics, move || wake.send(Wake::Nudge).is_ok())?;
    let mut reloader = Reloader::new(loaded, load);
    let mut said = Told::default();
    info!(systems = provisioner.systems.len(), "started");
    while !provisioner.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        metrics.began();
        match one(&provisioner, &metrics, &mut said) {
            Ok(report) => {
                metrics.ended(&report.ended, report.failed.len(), began.elapsed());
                tell(&report);
            }
            // Somebody's command, or the one that drives now: nothing is wrong.
            Err(NoPass::Begin(BeginError::Lease(held))) if held.is_held() => {
                metrics.kept_away();
                info!("no pass: {}", error_chain(&held));
            }
            Err(fault) if provisioner.stop.load(Ordering::Relaxed) => {
                info!("the pass was stopped by a signal: {}", error_chain(&fault));
            }
            Err(fault) => {
                metrics.failed(began.elapsed());
                error!("no pass: {}", error_chain(&fault));
            }
        }
        let mut wake = wait(&woken, Instant::now() + jittered(provisioner.settings.run.interval), &mut reloader);
        // Nobody can have more than a pass a second. Nudges that came meanwhile are answered by one.
        std::thread::sleep(BREATH.saturating_sub(began.elapsed()));
        while let Ok(next) = woken.try_recv() {
            wake = match (wake, next) {
                (Wake::Stop, _) | (_, Wake::Stop) => Wake::Stop,
                (reload @ Wake::Reload(_), _) | (_, reload) => reload,
            };
        }
        match wake {
            Wake::Nudge => {}
            Wake::Reload(why) => {
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

/// Waits for the time of the next pass, or for what comes before it: a signal, a nudge, a file with a secret that changed.
fn wait(woken: &Receiver<Wake>, until: Instant, reloader: &mut Reloader<'_>) -> Wake {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match woken.recv_timeout(left.min(LOOK)) {
            Ok(wake) => return wake,
            Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
            Err(RecvTimeoutError::Timeout) if reloader.secrets_changed() => {
                return Wake::Reload("a file with a secret has changed");
            }
            Err(RecvTimeoutError::Timeout) if left <= LOOK => return Wake::Nudge,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Why there was no pass.
#[derive(Debug, thiserror::Error)]
enum NoPass {
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error(transparent)]
    Pass(#[from] PassError),
}

/// One pass. The leases are held for no longer, so that a person's commands come between two passes.
fn one(provisioner: &Provisioner, metrics: &Metrics, told: &mut Told) -> Result<Report, NoPass> {
    let mut session = provisioner.begin(LOOP, Duration::ZERO)?;
    let (survey, plan) = session.plan(false)?;
    metrics.planned(&plan, &survey.cases);
    told.looked(&plan, &misnamed(provisioner, &survey.document));
    Ok(progress::logged(provisioner, || session.carry_out(&survey, plan, false))?)
}

/// What the log has said: only what changes is said anew.
#[derive(Default)]
struct Told {
    held: BTreeMap<(String, Hold), (usize, String)>,
    misnamed: Vec<(String, String)>,
}

impl Told {
    fn looked(&mut self, plan: &Plan, misnamed: &[(String, String)]) {
        let mut held = BTreeMap::new();
        for it in &plan.held {
            let (count, _) = held.entry((it.system.clone(), it.hold)).or_insert_with(|| (0, it.reason.clone()));
            *count += 1;
        }
        for ((system, hold), (count, reason)) in held.iter().filter(|(key, told)| self.held.get(*key) != Some(told)) {
            let kind = format!("{hold:?}").to_lowercase();
            let first = if *count == 1 { "" } else { ", the first one" };
            if matches!(hold, Hold::Fault | Hold::Asks | Hold::Conflict | Hold::Declined) {
                warn!(system, count, "held ({kind}){first}: {reason}");
            } else {
                info!(system, count, "held ({kind}){first}: {reason}");
            }
        }
        for (system, hold) in self.held.keys().filter(|key| !held.contains_key(*key)) {
            info!(system, "nothing is held any more ({})", format!("{hold:?}").to_lowercase());
        }
        if self.misnamed != misnamed {
            for (system, why) in misnamed {
                warn!(system, "{why}");
            }
        }
        (self.held, self.misnamed) = (held, misnamed.to_vec());
    }
}

fn tell(report: &Report) {
    for (resource, fault) in &report.failed {
        warn!(%resource, "failed: {fault}");
    }
    for task in report.plan.tasks.iter().filter(|task| report.ended.contains(&task.id)) {
        let steps = task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", ");
        info!(resource = %task.id, path = task.path, "{}: {}: {steps}", task.action.past(), task.why);
    }
    let (done, failed, held) = (report.ended.len(), report.failed.len(), report.plan.held.len());
    if done + failed > 0 {
        info!(done, failed, held, "pass");
    }
}

/// A tenth more or less, so that many provisioners do not ask at one moment.
fn jittered(interval: Duration) -> Duration {
    let share = RandomState::new().hash_one(()) % 201;
    #[expect(clippy::cast_precision_loss, reason = "at most 200")]
    interval.mul_f64(0.9 + share as f64 / 1000.0)
}

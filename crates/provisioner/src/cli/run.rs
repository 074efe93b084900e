//! `run`: pass after pass.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

use super::{Failure, failure};
use crate::listen;
use crate::pass::{PassError, Report, told};
use crate::plan::Hold;
use crate::seen::Seen;
use crate::site::{BeginError, Site};

/// The least time from the beginning of a pass to that of the next.
const BREATH: Duration = Duration::from_secs(1);

/// Why the loop wakes before its time.
pub(crate) enum Wake {
    /// Begin a pass.
    Nudge,
    /// Come to an end.
    Stop,
}

/// Passes until a signal says stop. A pass under way stops before its next effect.
pub(super) fn run(site: &Site) -> Result<(), Failure> {
    let (wake, woken) = mpsc::channel();
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGUSR1]).map_err(|error| failure(format!("no signals: {error}")))?;
    let stop = std::sync::Arc::clone(&site.stop);
    let by_signal = wake.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let said = match signal {
                SIGUSR1 => Wake::Nudge,
                // A second one ends it where it stands: it can be killed anywhere.
                _ if stop.swap(true, Ordering::Relaxed) => std::process::exit(1),
                _ => Wake::Stop,
            };
            if by_signal.send(said).is_err() {
                break;
            }
        }
    });
    let seen = Seen::new(&site.clock, site.settings.run.interval);
    listen::serve(&site.settings.run.listen, &seen, &wake)?;
    info!(systems = site.systems.len(), "started");
    while !site.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        seen.began();
        match one(site, &seen) {
            Ok(report) => {
                seen.ended(&report, began.elapsed());
                tell(&report);
            }
            // Somebody's command, or the one that drives now: nothing is wrong.
            Err(NoPass::Begin(BeginError::Lease(held))) if held.is_held() => {
                seen.kept_away();
                info!("no pass: {}", told(&held));
            }
            Err(fault) => {
                seen.failed(began.elapsed());
                error!("no pass: {}", told(&fault));
            }
        }
        match woken.recv_timeout(jittered(site.settings.run.interval)) {
            Ok(Wake::Nudge) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
        // Nobody can have more than a pass a second. Nudges that came meanwhile are answered by one.
        std::thread::sleep(BREATH.saturating_sub(began.elapsed()));
        while let Ok(Wake::Nudge) = woken.try_recv() {}
    }
    info!("stopped");
    Ok(())
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
fn one(site: &Site, seen: &Seen) -> Result<Report, NoPass> {
    let mut work = site.begin("run", Duration::ZERO)?;
    let (survey, plan) = work.plan(false)?;
    seen.planned(&plan, &survey);
    Ok(work.carry_out(&survey, plan, false)?)
}

fn tell(report: &Report) {
    for (resource, fault) in &report.failed {
        warn!(%resource, "not brought to its end: {fault}");
    }
    for held in report.plan.held.iter().filter(|held| held.hold == Hold::Asks).take(1) {
        warn!(system = held.system, "{}", held.reason);
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

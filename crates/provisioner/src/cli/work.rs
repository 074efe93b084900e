//! `apply`: carrying a plan out, once.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::check::misnamed;
use super::{EXIT_FAILURE, EXIT_HELD, EXIT_MOVED, Failure, failure, look, out, progress};
use crate::pass::{self, Report, Survey, told};
use crate::plan::Hold;
use crate::site::{BeginError, Site, Work};

/// How long a command waits for a pass of the loop to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Begins work on all systems, or says that another provisioner has them.
pub(super) fn begin<'a>(site: &'a Site, command: &str) -> Result<Work<'a>, Failure> {
    let by = format!("{command} by user {}", rustix::process::getuid().as_raw());
    site.begin(&by, PATIENCE).map_err(|error| {
        let held = matches!(&error, BeginError::Lease(no) if no.is_held());
        Failure { code: if held { EXIT_HELD } else { EXIT_FAILURE }, text: told(&error) }
    })
}

/// Carries out what is to be done, or exactly what the file says.
pub(super) fn apply(site: &Site, file: Option<&Path>, yes_to_many: bool, json: bool) -> Result<(), Failure> {
    let expected = file.map(read).transpose()?;
    let mut work = begin(site, "apply")?;
    let confirmed = yes_to_many || expected.is_some();
    let (survey, plan) = work.plan(confirmed)?;
    if let Some(expected) = expected {
        // As text: what a person has seen is what is done, to the letter.
        if serde_json::to_value(&plan)? != expected {
            let text = "the plan that would be made now is another one than the file's: nothing was done. Make a new one \
                        with `plan --out`";
            return Err(Failure { code: EXIT_MOVED, text: text.into() });
        }
        if let Some(reason) = asks(site, &survey).filter(|_| !yes_to_many) {
            return Err(failure(format!(
                "nothing was done, for the plan asks: say --yes-to-many if it is meant. {reason}"
            )));
        }
    }
    let shown = look::shown(&plan, &survey);
    for (system, why) in misnamed(site, &survey.document) {
        out::tell(&format!("note: {system}: {why}"));
    }
    let unread = plan.held.iter().any(|held| held.hold == Hold::Fault);
    let report = progress::during(&site.walked, || work.carry_out(&survey, plan, confirmed))?;
    if json {
        out::print_json(&report)?;
    } else {
        out::print(&shown)?;
        out::print(&summary(&report))?;
    }
    if report.failed.is_empty() && !unread { Ok(()) } else { Err(Failure { code: EXIT_FAILURE, text: String::new() }) }
}

/// Why something would be held for being too much.
fn asks(site: &Site, survey: &Survey) -> Option<String> {
    let plan = pass::planned(survey, site.settings.policy, false);
    plan.held.into_iter().find(|held| held.hold == Hold::Asks).map(|held| held.reason)
}

fn read(file: &Path) -> Result<serde_json::Value, Failure> {
    let text = std::fs::read(file).map_err(|error| failure(format!("{}: {error}", file.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| failure(format!("{} is no plan of `plan --out`: {error}", file.display())))
}

/// What came of it, for people.
pub(super) fn summary(report: &Report) -> String {
    let mut text = String::new();
    for (id, fault) in &report.failed {
        // Cannot fail: writing to a text.
        _ = writeln!(text, "{id}  not brought to its end: {}", out::harmless(fault));
    }
    text + &format!("{} done, {} not brought to their end.\n", report.ended.len(), report.failed.len())
}

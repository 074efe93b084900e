//! `apply`: carries out a plan once.

use std::path::Path;
use std::time::Duration;

use program::error_chain;
use provisioner_core::plan::Hold;

use super::check::misnamed;
use super::out::{self, Page};
use super::saved::Saved;
use super::{EXIT_FAILURE, EXIT_HELD, EXIT_MOVED, Failure, failure, orphans, plans, progress};
use crate::pass::{self, Survey};
use crate::provisioner::{BeginError, Provisioner, Session};

/// How long a command waits for a pass of the loop to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Takes the exclusive rights to all systems.
pub(super) fn begin<'a>(provisioner: &'a Provisioner, command: &str) -> Result<Session<'a>, Failure> {
    provisioner.begin(&by_user(command), PATIENCE).map_err(|error| {
        let held = matches!(&error, BeginError::Lease(no) if no.is_held());
        Failure { code: if held { EXIT_HELD } else { EXIT_FAILURE }, text: error_chain(&error) }
    })
}

/// Who runs a command, for the journal.
pub(super) fn by_user(command: &str) -> String {
    format!("user {} with {command}", rustix::process::getuid().as_raw())
}

/// Carries out the current plan, or exactly what the file says.
pub(super) fn apply(
    provisioner: &Provisioner,
    file: Option<&Path>,
    yes_to_many: bool,
    json: bool,
    plans::Limit { limit }: plans::Limit,
) -> Result<(), Failure> {
    let saved = file.map(Saved::read).transpose()?;
    let mut session = begin(provisioner, "apply")?;
    let confirmed = yes_to_many || saved.is_some();
    let (survey, mut plan) = session.plan(confirmed)?;
    if let Some(saved) = &saved {
        let differences = saved.differences(&plan, &survey)?;
        if !differences.is_empty() {
            for line in differences {
                out::eprint(&line);
            }
            let text = "what the file's tasks depend on is not as it was, see above: nothing was done. Make a new plan with \
                        `plan --out`";
            return Err(Failure { code: EXIT_MOVED, text: text.into() });
        }
        if let Some(reason) = asks(provisioner, &survey, saved).filter(|_| !yes_to_many) {
            return Err(failure(format!(
                "nothing was done, since the plan needs a confirmation (--yes-to-many): {reason}"
            )));
        }
        let (ours, all) = (saved.resources(), plan.tasks.len());
        plan.tasks.retain(|task| ours.contains(&task.id));
        if let others @ 1.. = all - plan.tasks.len() {
            out::eprint(&format!("note: {others} to do that are not in the file: they wait"));
        }
    }
    for (system, why) in misnamed(provisioner, &survey.document) {
        out::eprint(&format!("note: {system}: {why}"));
    }
    let unread = plan.held.iter().any(|held| held.hold == Hold::Fault);
    let report = progress::of_tasks(provisioner, || match saved {
        Some(_) => session.perform(&survey, plan, confirmed),
        None => session.carry_out(&survey, plan, confirmed),
    })?;
    if json {
        out::print_json(&report)?;
    } else {
        let mut page = Page::new();
        plans::done(&mut page, &report, &provisioner.systems, limit);
        page.print()?;
    }
    orphans::empty(provisioner, &survey)?;
    if report.failed.is_empty() && !unread { Ok(()) } else { Err(Failure { code: EXIT_FAILURE, text: String::new() }) }
}

/// Why tasks of the file would be held because they are too many.
fn asks(provisioner: &Provisioner, survey: &Survey, saved: &Saved) -> Option<String> {
    let (plan, ours) = (pass::planned(survey, provisioner.settings.policy, false), saved.resources());
    let is_ours = |id: Option<uuid::Uuid>| id.is_some_and(|id| ours.contains(&id));
    plan.held.into_iter().find(|held| held.hold == Hold::Asks && is_ours(held.id)).map(|held| held.reason)
}

//! `adopt`, `restore`, `retire` and `reject`: what a person decides.

use std::time::SystemTime;

use super::work::begin;
use super::{Failure, failure, look, out, progress};
use crate::document::Status;
use crate::driver::{Fault, Seen};
use crate::plan::{self, Case};
use crate::site::{Site, Work};

/// Marks the directory at the resource's place as its own.
pub(super) fn adopt(site: &Site, name: &str) -> Result<(), Failure> {
    let mut work = begin(site, "adopt")?;
    let (survey, _) = work.plan(false)?;
    let case = look::find(&survey, name)?;
    match &case.seen {
        Ok(Seen::Unmarked(_)) => {}
        Ok(Seen::Ours(_)) => return out::print("It is marked as this resource's already.\n"),
        Ok(Seen::Obstructed(what)) => return Err(failure(format!("it cannot be adopted: {what}"))),
        Ok(Seen::Absent | Seen::Trashed { .. }) => {
            return Err(failure("there is no directory at its place to be adopted"));
        }
        Err(fault) => return Err(failure(fault.clone())),
    }
    drive(&mut work, case, &|driver, wanted, before| driver.adopt(wanted, before))?;
    out::print(&format!(
        "{} is now the directory of {}; the next pass makes it as an order says, or tells in what it differs from the \
         document.\n",
        case.resource.path, case.resource.id
    ))
}

/// Brings the directory back, or makes one.
pub(super) fn restore(site: &Site, name: &str, make: bool) -> Result<(), Failure> {
    let mut work = begin(site, "restore")?;
    let (survey, _) = work.plan(false)?;
    let case = look::find(&survey, name)?;
    if !matches!(case.resource.status, Status::Active | Status::Updating) {
        return Err(failure(format!(
            "the resource is {}, not in use in Waldur: nothing would keep the directory. Have its termination rejected there, \
             or where that is done already, order it anew and copy from the trash",
            format!("{:?}", case.resource.status).to_lowercase()
        )));
    }
    match &case.seen {
        Ok(Seen::Trashed { .. }) => drive(&mut work, case, &|driver, wanted, before| driver.restore(wanted, before))?,
        Ok(Seen::Absent) if make => drive(&mut work, case, &|driver, wanted, before| driver.ensure(wanted, before))?,
        Ok(Seen::Absent) => return Err(failure("it is not in the trash; --make makes an empty directory")),
        Ok(Seen::Ours(_)) => return out::print("Its directory is there already.\n"),
        Ok(Seen::Unmarked(_)) => {
            return Err(failure("a directory without our mark is at its place: `adopt` it if it is the right one"));
        }
        Ok(Seen::Obstructed(what)) => return Err(failure(what.clone())),
        Err(fault) => return Err(failure(fault.clone())),
    }
    out::print(&format!("{} is there again.\n", case.resource.path))
}

/// Puts the directory of a resource into the trash that is terminated in Waldur, without an order to do it for: one that was
/// withdrawn while the directory was made, or ended by staff.
pub(super) fn retire(site: &Site, name: &str) -> Result<(), Failure> {
    let mut work = begin(site, "retire")?;
    let (survey, _) = work.plan(false)?;
    let case = look::find(&survey, name)?;
    if case.resource.status != Status::Removed {
        return Err(failure(
            "the resource is not terminated in Waldur: order its termination there, and the directory goes with it",
        ));
    }
    match &case.seen {
        Ok(Seen::Ours(_)) => {}
        Ok(_) => return Err(failure("no directory of this resource is at its place")),
        Err(fault) => return Err(failure(fault.clone())),
    }
    let now = site.clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    drive(&mut work, case, &|driver, wanted, before| driver.retire(wanted, now, before))?;
    out::print(&format!("{} is in the trash now.\n", case.resource.path))
}

/// Ends an order without carrying it out: rejects it, or sets it erred after its approval. Without `yes` it only shows that.
pub(super) fn reject(site: &Site, name: &str, reason: &str, yes: bool) -> Result<(), Failure> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(failure("--reason is empty: Waldur shows it to the customer"));
    }
    let mut work = begin(site, "reject")?;
    let (survey, _) = work.plan(false)?;
    let case = look::find(&survey, name)?;
    let task = plan::reject(case, reason).map_err(|why| failure(format!("{}: {why}", case.resource.path)))?;
    let steps = task.steps.iter().map(plan::Step::name).collect::<Vec<_>>().join(", ");
    let order = case.resource.order.as_ref().map(|order| format!("{:?} order {}", order.kind, order.id));
    let what = format!("{}: {}", case.resource.path, order.unwrap_or_default());
    if !yes {
        return out::print(&out::harmless(&format!("{what} would be ended by: {steps}. --yes does it.\n")));
    }
    let report = work.perform(&survey, plan::Plan { tasks: vec![task], held: Vec::new() }, true)?;
    match report.failed.into_values().next() {
        Some(fault) => Err(failure(format!("{what} was not rejected: {fault}"))),
        None => out::print(&out::harmless(&format!("{what} was rejected ({steps}).\n"))),
    }
}

type Deed<'a> =
    &'a dyn Fn(&dyn crate::driver::Driver, &crate::driver::Wanted, crate::driver::Before<'_>) -> Result<(), Fault>;

/// Has the system's driver do something for a case, each effect in the journal before it is had.
fn drive(work: &mut Work<'_>, case: &Case, deed: Deed<'_>) -> Result<(), Failure> {
    let wanted = case.wanted.as_ref().map_err(|refusal| failure(refusal.reason.clone()))?;
    let system = work.site.systems.iter().find(|system| system.key == case.resource.system);
    let system = system.ok_or_else(|| failure("its system is not driven here"))?;
    let walked = &work.site.walked;
    let done = || work.drive(system, wanted.id, &case.resource.path, &|before| deed(&*system.driver, wanted, before));
    Ok(progress::during(walked, done)?)
}

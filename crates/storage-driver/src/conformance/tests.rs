//! The suite passes a correct driver, and names the check that each faulty one fails.

use super::*;
use crate::Present;
use crate::limits::Usage;
use crate::memory::Memory;

#[test]
fn the_driver_in_memory_conforms() {
    let driver = Memory::default();
    assert_conforms(&Bench { driver: &driver, ids: (0, 30_500), make_unmarked: &|place| driver.put_unmarked(place) });
}

#[test]
fn the_documentation_lists_the_checks() {
    let document = include_str!("../../../../docs/drivers.md");
    for (name, promise, _) in CHECKS {
        let line = format!("| `{name}` | {promise} |");
        assert!(document.contains(&line), "docs/drivers.md lacks this line:\n{line}");
    }
}

/// How a mutant differs from [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NotReady,
    WrongMode,
    FailsOnExisting,
    IgnoresNewLimits,
    NoUsage,
    UsageOfAbsent,
    ListsNoMarks,
    RetireDeletes,
    RetireAgainFails,
    RestoreLeavesMode,
    NoTrashUsage,
    ClaimDoesNothing,
    RestoresClaimed,
    PurgeLeavesClaim,
    PurgesAnything,
    IgnoresTime,
    AlwaysFree,
    NeverFree,
    AdoptsUnmarked,
    TakesForeign,
    Nests,
    NoGuardInEnsure,
    NoGuardInRetire,
    GuardAfterEffect,
    NoGuardInPurge,
    NoGuardInAdopt,
    IgnoresGuard,
    StaysHalfMade,
}

#[test]
fn each_faulty_driver_fails_the_check_for_its_fault() {
    use Fault::*;
    for (fault, check) in [
        (NotReady, "ready"),
        (WrongMode, "create"),
        (FailsOnExisting, "repeat"),
        (IgnoresNewLimits, "change"),
        (NoUsage, "usage"),
        (UsageOfAbsent, "usage"),
        (ListsNoMarks, "marks"),
        (RetireDeletes, "retire"),
        (RetireAgainFails, "retire"),
        (RestoreLeavesMode, "restore"),
        (NoTrashUsage, "trash-usage"),
        (ClaimDoesNothing, "claim"),
        (RestoresClaimed, "claim"),
        (PurgeLeavesClaim, "purge"),
        (PurgesAnything, "purge-only"),
        (IgnoresTime, "purge-only"),
        (AlwaysFree, "project-ids"),
        (NeverFree, "project-ids"),
        (AdoptsUnmarked, "unmarked"),
        (TakesForeign, "foreign"),
        (Nests, "nested"),
        (NoGuardInEnsure, "guard"),
        (NoGuardInRetire, "guard"),
        (GuardAfterEffect, "guard"),
        (NoGuardInPurge, "guard"),
        (NoGuardInAdopt, "guard"),
        (IgnoresGuard, "guard"),
        (StaysHalfMade, "stopped"),
    ] {
        let failures = of(fault);
        let named = failures.iter().find(|failure| failure.check == check);
        let failure = named.unwrap_or_else(|| panic!("{fault:?} passes `{check}`: {failures:#?}"));
        let text = failure.to_string();
        assert!(text.starts_with(&format!("check `{check}`, ")) && text.contains(": expected "), "{text}");
    }
    assert_eq!(of(None), []);
}

fn of(fault: Fault) -> Vec<Failure> {
    let driver = Mutant { memory: Memory::default(), fault };
    let make_unmarked = |place: &Place| driver.memory.put_unmarked(place);
    failures(&Bench { driver: &driver, ids: (0, 30_500), make_unmarked: &make_unmarked })
}

#[derive(Debug)]
struct Mutant {
    memory: Memory,
    fault: Fault,
}

impl Mutant {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn look(&self, desired: &Desired) -> Observed {
        self.memory.observe(&[desired]).remove(0).unwrap()
    }

    /// The guard, unless the mutant forgets it in this operation.
    fn guard<'a>(&self, forgets: Fault, guard: Guard<'a>) -> Guard<'a> {
        if self.has(forgets) || self.has(Fault::IgnoresGuard) { &allow } else { guard }
    }
}

impl Driver for Mutant {
    fn ready(&self) -> Result<(), DriverError> {
        if self.has(Fault::NotReady) { Err(DriverError::temporary("away")) } else { Ok(()) }
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        self.memory.stored_limits(limits)
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        match self.fault {
            Fault::AlwaysFree => Ok(true),
            Fault::NeverFree => Ok(false),
            _ => self.memory.is_free(project),
        }
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        let mut observed = self.memory.observe(desired);
        for (observed, desired) in observed.iter_mut().zip(desired) {
            if self.has(Fault::Nests)
                && matches!(observed, Ok(Observed::Obstructed(_)))
                && desired.place.name() == "sub"
            {
                *observed = Ok(Observed::Absent);
            }
        }
        observed
    }

    fn trash(&self) -> Result<Vec<Trashed>, DriverError> {
        self.memory.trash()
    }

    fn claimed(&self) -> Result<Vec<Trashed>, DriverError> {
        self.memory.claimed()
    }

    fn marked(&self, levels: usize) -> Result<Vec<Marked>, DriverError> {
        if self.has(Fault::ListsNoMarks) { Ok(Vec::new()) } else { self.memory.marked(levels) }
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let usage = self.memory.trash_usage(trashed);
        if self.has(Fault::NoTrashUsage) { usage.into_iter().map(|_| Ok(None)).collect() } else { usage }
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let forgotten = self.guard(Fault::NoGuardInEnsure, guard);
        match (self.fault, self.look(desired)) {
            (Fault::WrongMode, _) => {
                self.memory.ensure(desired, guard)?;
                self.memory.disturb(&desired.place, Mode(0o700));
                Ok(())
            }
            (Fault::FailsOnExisting, Observed::Ours(_)) => Err(DriverError::Conflict("it exists".into())),
            (Fault::IgnoresNewLimits, Observed::Ours(Present { limits: Some(limits), .. })) => {
                self.memory.ensure(&Desired { limits, ..desired.clone() }, guard)
            }
            (Fault::AdoptsUnmarked, Observed::Unmarked(_)) => {
                self.memory.adopt(desired, guard)?;
                self.memory.ensure(desired, guard)
            }
            (Fault::TakesForeign, Observed::Obstructed(_)) => {
                self.memory.put_marked(&desired.place, desired.id);
                Ok(())
            }
            (Fault::StaysHalfMade, Observed::Absent) => {
                self.memory.put_unmarked(&desired.place);
                guard("mark")?;
                self.memory.put_marked(&desired.place, desired.id);
                self.memory.ensure(desired, guard)
            }
            (Fault::GuardAfterEffect, Observed::Ours(_)) => {
                self.memory.ensure(desired, &allow)?;
                guard("mode")
            }
            _ => self.memory.ensure(desired, forgotten),
        }
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let forgotten = self.guard(Fault::NoGuardInRetire, guard);
        match (self.fault, self.look(desired)) {
            (Fault::RetireAgainFails, Observed::Trashed { .. }) => Err(DriverError::Conflict("it is gone".into())),
            (Fault::RetireDeletes, _) => {
                self.memory.retire(desired, now, guard)?;
                self.memory.purge(&Trashed { id: desired.id, since: now }, desired.project, guard)
            }
            _ => self.memory.retire(desired, now, forgotten),
        }
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        if self.has(Fault::RestoresClaimed) && matches!(self.look(desired), Observed::Purging { .. }) {
            return Ok(());
        }
        self.memory.restore(desired, guard)?;
        if self.has(Fault::RestoreLeavesMode) {
            self.memory.disturb(&desired.place, Mode(0));
        }
        Ok(())
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.memory.adopt(desired, self.guard(Fault::NoGuardInAdopt, guard))
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        if self.has(Fault::ClaimDoesNothing) { Ok(()) } else { self.memory.claim(trashed, project, guard) }
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let guard = self.guard(Fault::NoGuardInPurge, guard);
        match self.fault {
            Fault::PurgeLeavesClaim => self.memory.claim(trashed, project, guard),
            Fault::PurgesAnything => {
                self.memory.trash()?.iter().try_for_each(|trashed| self.memory.purge(trashed, project, guard))
            }
            Fault::IgnoresTime => {
                let all = self.memory.trash()?;
                all.iter().filter(|it| it.id == trashed.id).try_for_each(|it| self.memory.purge(it, project, guard))
            }
            _ => self.memory.purge(trashed, project, guard),
        }
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let usage = self.memory.usage(desired);
        let zero = Usage { space: Bytes(0), inodes: Inodes(0) };
        match self.fault {
            Fault::NoUsage => usage.into_iter().map(|_| Ok(None)).collect(),
            Fault::UsageOfAbsent => usage.into_iter().map(|_| Ok(Some(zero))).collect(),
            _ => usage,
        }
    }
}

//! Tests that a correct driver passes the suite, and that each faulty driver fails the check for its defect.

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

/// The way in which a mutant differs from [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
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
    OverwritesRecord,
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
fn each_faulty_driver_fails_the_check_for_its_defect() {
    use Defect::*;
    for (defect, check) in [
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
        (OverwritesRecord, "record"),
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
        let failures = failures_of(defect);
        let named = failures.iter().find(|failure| failure.check == check);
        let failure = named.unwrap_or_else(|| panic!("{defect:?} passes `{check}`: {failures:#?}"));
        let text = failure.to_string();
        assert!(text.starts_with(&format!("check `{check}`, ")) && text.contains(": expected "), "{text}");
    }
    assert_eq!(failures_of(None), []);
}

fn failures_of(defect: Defect) -> Vec<Failure> {
    let driver = Mutant { memory: Memory::default(), defect };
    let make_unmarked = |place: &Place| driver.memory.put_unmarked(place);
    failures(&Bench { driver: &driver, ids: (0, 30_500), make_unmarked: &make_unmarked })
}

#[derive(Debug)]
struct Mutant {
    memory: Memory,
    defect: Defect,
}

impl Mutant {
    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn observe_one(&self, desired: &Desired) -> Observed {
        self.memory.observe(&[desired]).remove(0).unwrap()
    }

    /// The guard, unless the mutant forgets it in this operation.
    fn guard<'a>(&self, forgets: Defect, guard: Guard<'a>) -> Guard<'a> {
        if self.has(forgets) || self.has(Defect::IgnoresGuard) { &allow } else { guard }
    }
}

impl Driver for Mutant {
    fn ready(&self) -> Result<(), DriverError> {
        if self.has(Defect::NotReady) { Err(DriverError::temporary("away")) } else { Ok(()) }
    }

    fn stored_limits(&self, limits: QuotaLimits) -> QuotaLimits {
        self.memory.stored_limits(limits)
    }

    fn is_free(&self, project: u32) -> Result<bool, DriverError> {
        match self.defect {
            Defect::AlwaysFree => Ok(true),
            Defect::NeverFree => Ok(false),
            _ => self.memory.is_free(project),
        }
    }

    fn read_record(&self) -> Result<Option<Vec<u8>>, DriverError> {
        self.memory.read_record()
    }

    fn append_to_record(&self, text: &[u8]) -> Result<(), DriverError> {
        if self.has(Defect::OverwritesRecord) {
            self.memory.replace_record(text);
            return Ok(());
        }
        self.memory.append_to_record(text)
    }

    fn observe(&self, desired: &[&Desired]) -> Vec<Result<Observed, DriverError>> {
        let mut observed = self.memory.observe(desired);
        for (observed, desired) in observed.iter_mut().zip(desired) {
            if self.has(Defect::Nests)
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
        if self.has(Defect::ListsNoMarks) { Ok(Vec::new()) } else { self.memory.marked(levels) }
    }

    fn trash_usage(&self, trashed: &[(Trashed, Option<u32>)]) -> Vec<Result<Option<Usage>, DriverError>> {
        let usage = self.memory.trash_usage(trashed);
        if self.has(Defect::NoTrashUsage) { usage.into_iter().map(|_| Ok(None)).collect() } else { usage }
    }

    fn ensure(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        let forgotten = self.guard(Defect::NoGuardInEnsure, guard);
        match (self.defect, self.observe_one(desired)) {
            (Defect::WrongMode, _) => {
                self.memory.ensure(desired, guard)?;
                self.memory.disturb(&desired.place, Mode(0o700));
                Ok(())
            }
            (Defect::FailsOnExisting, Observed::Ours(_)) => Err(DriverError::Conflict("it exists".into())),
            (Defect::IgnoresNewLimits, Observed::Ours(Present { limits: Some(limits), .. })) => {
                self.memory.ensure(&Desired { limits, ..desired.clone() }, guard)
            }
            (Defect::AdoptsUnmarked, Observed::Unmarked(_)) => {
                self.memory.adopt(desired, guard)?;
                self.memory.ensure(desired, guard)
            }
            (Defect::TakesForeign, Observed::Obstructed(_)) => {
                self.memory.put_marked(&desired.place, desired.id);
                Ok(())
            }
            (Defect::StaysHalfMade, Observed::Absent) => {
                self.memory.put_unmarked(&desired.place);
                guard("mark")?;
                self.memory.put_marked(&desired.place, desired.id);
                self.memory.ensure(desired, guard)
            }
            (Defect::GuardAfterEffect, Observed::Ours(_)) => {
                self.memory.ensure(desired, &allow)?;
                guard("mode")
            }
            _ => self.memory.ensure(desired, forgotten),
        }
    }

    fn retire(&self, desired: &Desired, now: u64, guard: Guard<'_>) -> Result<(), DriverError> {
        let forgotten = self.guard(Defect::NoGuardInRetire, guard);
        match (self.defect, self.observe_one(desired)) {
            (Defect::RetireAgainFails, Observed::Trashed { .. }) => Err(DriverError::Conflict("it is gone".into())),
            (Defect::RetireDeletes, _) => {
                self.memory.retire(desired, now, guard)?;
                self.memory.purge(&Trashed { id: desired.id, since: now }, desired.project, guard)
            }
            _ => self.memory.retire(desired, now, forgotten),
        }
    }

    fn restore(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        if self.has(Defect::RestoresClaimed) && matches!(self.observe_one(desired), Observed::Purging { .. }) {
            return Ok(());
        }
        self.memory.restore(desired, guard)?;
        if self.has(Defect::RestoreLeavesMode) {
            self.memory.disturb(&desired.place, Mode(0));
        }
        Ok(())
    }

    fn adopt(&self, desired: &Desired, guard: Guard<'_>) -> Result<(), DriverError> {
        self.memory.adopt(desired, self.guard(Defect::NoGuardInAdopt, guard))
    }

    fn claim(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        if self.has(Defect::ClaimDoesNothing) { Ok(()) } else { self.memory.claim(trashed, project, guard) }
    }

    fn purge(&self, trashed: &Trashed, project: Option<u32>, guard: Guard<'_>) -> Result<(), DriverError> {
        let guard = self.guard(Defect::NoGuardInPurge, guard);
        match self.defect {
            Defect::PurgeLeavesClaim => self.memory.claim(trashed, project, guard),
            Defect::PurgesAnything => {
                self.memory.trash()?.iter().try_for_each(|trashed| self.memory.purge(trashed, project, guard))
            }
            Defect::IgnoresTime => {
                let all = self.memory.trash()?;
                all.iter().filter(|it| it.id == trashed.id).try_for_each(|it| self.memory.purge(it, project, guard))
            }
            _ => self.memory.purge(trashed, project, guard),
        }
    }

    fn usage(&self, desired: &[&Desired]) -> Vec<Result<Option<Usage>, DriverError>> {
        let usage = self.memory.usage(desired);
        let zero = Usage { space: Bytes(0), inodes: Inodes(0) };
        match self.defect {
            Defect::NoUsage => usage.into_iter().map(|_| Ok(None)).collect(),
            Defect::UsageOfAbsent => usage.into_iter().map(|_| Ok(Some(zero))).collect(),
            _ => usage,
        }
    }
}

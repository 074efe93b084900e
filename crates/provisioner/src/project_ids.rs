//! Assigns project IDs to directories: the one in the ledger, else the one found on the tree, else a new one that is free on the
//! storage.

use std::collections::BTreeMap;

use provisioner_core::document::{Resource, Status};
use provisioner_core::preflight::{self, Obstacle, Unnumbered};
use provisioner_core::{Observation, Turn};
use storage_driver::{Desired, Driver, DriverError, Observed, Trashed, error_chain};

use crate::ledger::{Ledger, ProjectIds};

/// A resource with its desired state and its observation.
pub type Unassigned<'a> = (&'a Resource, Result<Unnumbered, Obstacle>, &'a Observation);

/// Whether a directory gets a project ID.
enum Assignment {
    /// This one, or none.
    Known(Option<u32>),
    New,
    /// The tree has one, which cannot be read for this reason.
    Unknown(String),
}

/// Assigns project IDs to all directories of a system, in their order; `ids` is `None` if the system has none. New IDs are entered
/// into the ledger, but the ledger is not saved.
pub fn assign(
    cases: Vec<Unassigned<'_>>,
    system: &str,
    ids: Option<ProjectIds>,
    driver: &dyn Driver,
    ledger: &mut Ledger,
) -> Vec<Result<Desired, Obstacle>> {
    let Some(ids) = ids else {
        return cases.into_iter().map(|(_, desired, _)| Ok(desired?.with_project(None))).collect();
    };
    let mut trees = BTreeMap::<u32, usize>::new();
    let found: Vec<_> = cases.iter().map(|case| found(case, system, driver, ledger)).collect();
    for found in found.iter().filter_map(|found| *found.as_ref().ok()?) {
        *trees.entry(found).or_default() += 1;
    }
    let known = |((resource, desired, observed), found): (&Unassigned<'_>, &Result<Option<u32>, DriverError>)| {
        if desired.is_err() {
            return Assignment::Known(None);
        }
        if let Some(id) = ledger.known(system, resource.id) {
            return Assignment::Known(Some(id));
        }
        // Its tree may have an ID that cannot be read now, or the record does. The planner holds it.
        if observed.is_err() {
            return Assignment::Known(None);
        }
        // Owners can change the ID of their tree. If two trees have the same one, it is unknown whose it is.
        let found = match found {
            Ok(found) => *found,
            Err(error) => return Assignment::Unknown(error_chain(error)),
        };
        let own = found.filter(|id| trees[id] == 1 && !ledger.is_anothers(system, resource.id, *id));
        if let (ProjectIds::From(first), Some(own)) = (ids, own) {
            ledger.learn(system, resource.id, own, first);
        }
        // A tree that goes away gets no new ID: it is frozen under its current one. Neither does a directory that nothing creates.
        let leaves = preflight::is_being_terminated(resource) || resource.status == Status::Removed;
        let exists = matches!(observed, Ok(Observed::Ours(_) | Observed::Trashed { .. }));
        if let Some(id) = ledger.known(system, resource.id) {
            Assignment::Known(Some(id))
        } else if leaves || (resource.unclaimed && !exists) {
            Assignment::Known(own)
        } else {
            Assignment::New
        }
    };
    let assignments: Vec<_> = cases.iter().zip(&found).map(known).collect();
    // After all existing IDs were learned, so that none of them is given to another tree.
    let assigned = |((resource, desired, observed), assignment): (Unassigned<'_>, Assignment)| {
        let desired = desired?;
        let id = match assignment {
            Assignment::Known(id) => id,
            Assignment::Unknown(why) => {
                return Err(Obstacle::waiting(Turn::Storage, format!("its project ID is unknown: {why}")));
            }
            Assignment::New => {
                // With GIDs, an existing tree itself may already count under its GID.
                let is_its_own = ids == ProjectIds::Gid && !matches!(observed, Ok(Observed::Absent));
                let is_free = |id| if is_its_own { Ok(true) } else { driver.is_free(id) };
                let gid = desired.to_observe().gid;
                let id = ledger.project(system, resource.id, gid, ids, &is_free);
                Some(id.map_err(|error| Obstacle::waiting(Turn::Storage, error_chain(&error)))?)
            }
        };
        Ok(desired.with_project(id))
    };
    cases.into_iter().zip(assignments).map(assigned).collect()
}

/// The project ID found on a resource's own tree. Read in the trash only if the ledger does not know it.
fn found(
    (resource, desired, observed): &Unassigned<'_>,
    system: &str,
    driver: &dyn Driver,
    ledger: &Ledger,
) -> Result<Option<u32>, DriverError> {
    match observed {
        Ok(Observed::Ours(present)) => Ok(present.project.filter(|id| *id != 0)),
        Ok(Observed::Trashed { since }) if desired.is_ok() && ledger.known(system, resource.id).is_none() => {
            driver.trash_project(&Trashed { id: resource.id, since: *since })
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use provisioner_core::document::{Document, Offering, OrderKind, OrderState};
    use provisioner_core::preflight::{Modes, SystemRules, check};
    use storage_driver::limits::Terabyte;
    use storage_driver::memory::Memory;

    use super::*;
    use crate::pass::model;

    fn resource(n: u128) -> Resource {
        model::resource(n, Status::Pending, None, 2.0)
    }

    fn leaving(n: u128) -> Resource {
        let order = (OrderKind::Terminate, OrderState::PendingProvider, Offering::SiteAgent);
        model::resource(n, Status::Removing, Some(order), 2.0)
    }

    fn rules() -> SystemRules {
        SystemRules {
            published_root: "/capstor".into(),
            terabyte: Terabyte::Decimal,
            owner_uid: 0,
            lowest_id: 1000,
            modes: Modes::default(),
        }
    }

    /// The IDs assigned to these resources, or why there is none. `on_storage`: the IDs of their trees, `None` for an absent one.
    fn assigned(
        ids: ProjectIds,
        resources: &[Resource],
        on_storage: &[Option<u32>],
        ledger: &mut Ledger,
    ) -> Vec<Result<Option<u32>, String>> {
        let driver = Memory::default();
        let resources: Vec<_> = resources.iter().collect();
        let desired = check(&resources, &Document::default(), "capstor", &rules(), &|_| false);
        for (desired, id) in desired.iter().flatten().zip(on_storage) {
            if id.is_some() {
                driver.ensure(&desired.clone().with_project(*id), &|_| Ok(())).unwrap();
            }
        }
        let observed = |desired: &Unnumbered| Ok(driver.observe(&[desired.to_observe()]).remove(0).unwrap());
        let observed: Vec<_> = desired.iter().flatten().map(observed).collect();
        let cases = resources.into_iter().zip(desired).zip(&observed);
        let cases = cases.map(|((resource, desired), observed)| (resource, desired, observed)).collect();
        let assigned = assign(cases, "capstor", Some(ids), &driver, ledger).into_iter();
        assigned.map(|it| it.map(|desired| desired.project).map_err(|obstacle| obstacle.reason)).collect()
    }

    #[test]
    fn ids_on_the_storage_are_learned_before_new_ones_are_assigned() {
        let resources = [resource(1), resource(2), resource(3), leaving(4)];
        let mut ledger = Ledger::default();
        let on_storage = [None, Some(1002), Some(1003), None];
        let ids = assigned(ProjectIds::From(1000), &resources, &on_storage, &mut ledger);
        assert_eq!(ids, [Ok(Some(1004)), Ok(Some(1002)), Ok(Some(1003)), Ok(None)], "above all existing ones");
        assert_eq!(assigned(ProjectIds::From(1000), &resources, &[None; 4], &mut ledger), ids);
        // An ID below the configured range is not learned.
        let on_storage = [1001, 1002, 1003, 1004].map(Some);
        let others = assigned(ProjectIds::From(5000), &resources, &on_storage, &mut Ledger::default());
        assert_eq!(others, [Ok(Some(5000)), Ok(Some(5001)), Ok(Some(5002)), Ok(Some(1004))]);
    }

    #[test]
    fn an_id_found_on_several_trees_is_assigned_to_none() {
        let resources = [resource(1), resource(2), leaving(3)];
        let ids = assigned(ProjectIds::From(1000), &resources, &[Some(1001); 3], &mut Ledger::default());
        assert_eq!(ids, [Ok(Some(1000)), Ok(Some(1002)), Ok(None)]);
    }

    #[test]
    fn a_tree_that_cannot_be_observed_gets_no_id() {
        let (resource, mut ledger) = (resource(1), Ledger::default());
        let desired = check(&[&resource], &Document::default(), "capstor", &rules(), &|_| false).remove(0);
        let unknown = Err(std::sync::Arc::new(DriverError::temporary("it cannot be read")));
        let cases = vec![(&resource, desired, &unknown)];
        let ids = Some(ProjectIds::From(1000));
        let assigned = assign(cases, "capstor", ids, &Memory::default(), &mut ledger).remove(0).unwrap();
        assert_eq!((assigned.project, ledger.has_unsaved("capstor")), (None, false));
    }

    #[test]
    fn a_gid_in_use_elsewhere_is_not_assigned() {
        let of_group = |n, gid| Resource { gid: Some(gid), ..resource(n) };
        // The first tree has the ID 1001, which is the GID of the second one.
        let resources = [of_group(1, 30_000), of_group(2, 1001), of_group(3, 30_003)];
        let ids = assigned(ProjectIds::Gid, &resources, &[Some(1001), None, None], &mut Ledger::default());
        assert!(ids[1].as_ref().is_err_and(|why| why.contains("in use on the storage")), "{ids:?}");
        assert_eq!((&ids[0], &ids[2]), (&Ok(Some(30_000)), &Ok(Some(30_003))));
    }
}

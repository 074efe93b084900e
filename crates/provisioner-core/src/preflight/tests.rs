use storage_driver::{DriverError, Observed};
use uuid::Uuid;

use super::*;
use crate::Observation;
use crate::document::{Node, Offering, QuotaProblem, Quotas, Status};

const PROJECT: &str = "/capstor/store/cscs/customer/project";

fn resource(n: u128, path: &str) -> Resource {
    let quotas = Some(Quotas { space: [1.5, 2.0], inodes: [10.0, 20.0] });
    Resource { path: path.into(), quotas, ..crate::document::tests::resource(n, Status::Pending) }
}

fn desired(resources: &[Resource]) -> Vec<Result<Unnumbered, Obstacle>> {
    let node = |path: &str| Node { system: "capstor".into(), path: path.into(), mode: Mode(0o775) };
    let nodes = vec![node("/capstor/store/cscs"), node("/capstor/store/cscs/customer")];
    let document = Document { nodes, ..Document::default() };
    let resources: Vec<_> = resources.iter().collect();
    check(&resources, &document, "capstor", &rules(), &|_| false)
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

/// The desired state of one resource without an obstacle.
fn only(resource: Resource) -> Desired {
    desired(&[resource]).pop().unwrap().unwrap().with_project(None)
}

/// A resource with an order that requests these permissions.
fn requesting(permissions: &serde_json::Value) -> Resource {
    let mut resource = ordered(OrderKind::Update, resource(1, PROJECT));
    let options = serde_json::json!({"permissions": permissions});
    resource.order.as_mut().unwrap().new_options = options.as_object().cloned();
    resource
}

fn obstacle(resource: Resource) -> (ObstacleKind, String) {
    let Obstacle { kind, reason, .. } = desired(&[resource]).pop().unwrap().unwrap_err();
    (kind, reason)
}

#[test]
fn the_desired_state_has_the_modes_of_the_directories_above() {
    let desired = only(resource(1, PROJECT));
    assert_eq!(desired.parents, [Mode(0o755), Mode(0o775), Mode(0o775)]);
    assert_eq!((desired.uid, desired.gid), (0, 30_000));
    assert_eq!(desired.limits.space_soft().0, 1_500_000_000_000);
}

#[test]
fn a_path_of_a_customer_or_of_another_resource_is_a_conflict() {
    let customers = "/capstor/store/cscs/customer";
    for path in [customers, "/capstor/store/cscs", "/capstor/store"] {
        let (kind, reason) = obstacle(resource(1, path));
        assert!(kind == ObstacleKind::Conflict && reason.contains("path of another item"), "{path}: {reason}");
    }
    let project = format!("{customers}/project");
    for other in [project.clone(), format!("{project}/below")] {
        let both = desired(&[resource(1, &project), resource(2, &other)]);
        assert!(both.iter().all(Result::is_err), "{both:?}");
    }
}

fn ordered(kind: OrderKind, resource: Resource) -> Resource {
    let (state, offering) = (OrderState::PendingProvider, Offering::SiteAgent);
    Resource { order: Some(Order { id: Uuid::from_u128(9), kind, state, offering, new_options: None }), ..resource }
}

#[test]
fn a_new_resource_takes_no_path_in_use() {
    let there = Resource { status: Status::Active, ..resource(1, PROJECT) };
    for other in [PROJECT.to_owned(), format!("{PROJECT}/below")] {
        let new = ordered(OrderKind::Create, resource(2, &other));
        for both in [[there.clone(), new.clone()], [new, there.clone()]] {
            let desired = desired(&both);
            let of = |id| desired[both.iter().position(|it| it.id == Uuid::from_u128(id)).unwrap()].as_ref();
            assert!(
                of(1).is_ok() && of(2).is_err_and(|obstacle| obstacle.kind == ObstacleKind::Conflict),
                "{other}: {desired:?}"
            );
        }
    }
    let twins = [1, 2].map(|n| ordered(OrderKind::Create, resource(n, PROJECT)));
    let desired = desired(&twins);
    assert!(desired[0].is_ok() && desired[1].is_err(), "{desired:?}");
}

#[test]
fn a_new_order_for_a_path_waits_for_the_termination_of_the_old_resource() {
    let old = ordered(OrderKind::Terminate, Resource { status: Status::Removing, ..resource(1, PROJECT) });
    let new = ordered(OrderKind::Create, resource(2, PROJECT));
    let both = desired(&[old.clone(), new]);
    assert!(
        both[0].is_ok() && both[1].as_ref().is_err_and(|obstacle| obstacle.kind == ObstacleKind::Waiting),
        "{both:?}"
    );
    let below = ordered(OrderKind::Create, resource(2, &format!("{PROJECT}/below")));
    assert!(desired(&[old, below])[1].as_ref().is_err_and(|obstacle| obstacle.kind == ObstacleKind::Conflict));
}

fn problem(zero_ordered: bool) -> QuotaProblem {
    QuotaProblem { zero_ordered, detail: "the storage limit is 0".to_owned() }
}

/// All reasons for which an order may be rejected.
#[test]
fn only_a_request_of_the_order_itself_is_impossible() {
    // The order's new options have invalid permissions.
    for invalid in ["rwx", "78", "0o770"] {
        let (kind, reason) = obstacle(requesting(&invalid.into()));
        assert!(kind == ObstacleKind::Impossible && reason.contains("octal digits"), "{invalid}: {reason}");
    }
    // The order's own limits are 0.
    for kind in [OrderKind::Create, OrderKind::Update] {
        let zero = Resource { quota_problem: Some(problem(true)), ..resource(1, PROJECT) };
        let quotas = zero.quotas.filter(|_| kind == OrderKind::Update);
        let (kind, reason) = obstacle(ordered(kind, Resource { quotas, ..zero }));
        assert!(kind == ObstacleKind::Impossible && reason.contains("asks for a quota of 0"), "{reason}");
    }
}

/// Absent, unreadable or overridden values, and mistakes of others, never make an order impossible.
#[test]
fn all_other_obstacles_are_for_a_person_or_temporary() {
    let at = |path: &str| resource(1, path);
    let zero = Quotas { space: [0.0; 2], inodes: [1.0; 2] };
    let pinned = Quotas { space: [20.0, 10.0], inodes: [1.0; 2] };
    let absurd = Quotas { space: [1e300; 2], inodes: [1.0; 2] };
    let for_operator = [
        Resource { quotas: None, ..at(PROJECT) },
        Resource { quotas: Some(zero), ..at(PROJECT) },
        Resource { quotas: Some(pinned), ..at(PROJECT) },
        Resource { quotas: Some(absurd), ..at(PROJECT) },
        Resource { quota_problem: Some(problem(false)), ..at(PROJECT) },
        // A problem of a completed order.
        Resource { quota_problem: Some(problem(true)), status: Status::Active, ..at(PROJECT) },
        Resource { gid: Some(0), ..at(PROJECT) },
        Resource { gid: Some(999), ..at(PROJECT) },
        Resource { gid: Some(u32::MAX), ..at(PROJECT) },
        at("/capstor/store/cscs/customer/.."),
        at("/capstor/store/cscs/customer/a b"),
        at("/vast/store/cscs/customer/project"),
        at("hpc-proj-10"),
    ];
    let waiting = [Resource { gid: None, ..at(PROJECT) }, Resource { kind: Kind::User, ..at(PROJECT) }];
    for (kind, resources) in [(ObstacleKind::NeedsOperator, &for_operator[..]), (ObstacleKind::Waiting, &waiting)] {
        for resource in resources {
            let orders = [OrderKind::Create, OrderKind::Update].map(|kind| ordered(kind, resource.clone()));
            let with_orders =
                orders.into_iter().filter(|_| !resource.quota_problem.as_ref().is_some_and(|it| it.zero_ordered));
            for resource in with_orders.chain([resource.clone()]) {
                let (found, reason) = obstacle(resource.clone());
                assert_eq!(found, kind, "{resource:?}: {reason}");
            }
        }
    }
}

/// A cleared option is an empty string. Neither an empty string nor a value of another type requests anything.
#[test]
fn cleared_or_unreadable_permissions_are_for_a_person() {
    for unclear in ["".into(), " ".into(), 700.into(), serde_json::json!(["770"])] {
        let (kind, reason) = obstacle(requesting(&unclear));
        assert!(
            kind == ObstacleKind::NeedsOperator && reason.contains("new_options.permissions"),
            "{unclear}: {reason}"
        );
    }
}

#[test]
fn a_quota_of_zero_that_the_document_contradicts_is_for_a_person() {
    let some = Some(Quotas { space: [2.0; 2], inodes: [1.0; 2] });
    for (kind, quotas, new_quotas) in [(OrderKind::Create, some, None), (OrderKind::Update, None, some)] {
        let contradicting = Resource { quota_problem: Some(problem(true)), quotas, new_quotas, ..resource(1, PROJECT) };
        let (found, reason) = obstacle(ordered(kind, contradicting));
        assert!(
            found == ObstacleKind::NeedsOperator && reason.contains("publishes other quotas"),
            "{kind:?}: {reason}"
        );
    }
}

#[test]
fn an_invalid_backend_id_is_reported_with_the_remedy() {
    let (_, reason) = obstacle(ordered(OrderKind::Create, resource(1, "hpc-proj-10")));
    assert_eq!(reason, "backend_id in Waldur (hpc-proj-10) is not a path of this system; clear it there");
}

#[test]
fn an_update_without_quotas_keeps_the_current_ones() {
    let desired = only(ordered(OrderKind::Update, resource(1, PROJECT)));
    assert_eq!(desired.limits.space_hard().0, 2_000_000_000_000);
}

#[test]
fn the_permissions_that_an_order_requests_are_desired() {
    assert_eq!(only(requesting(&"2750".into())).mode, Mode(0o2750));
}

#[test]
fn a_terminated_resource_frees_its_path() {
    let gone = Resource { status: Status::Removed, ..resource(1, PROJECT) };
    assert!(desired(&[gone, resource(2, PROJECT)])[1].is_ok());
}

#[test]
fn an_unaccepted_mode_holds_the_resource_unless_it_is_removed() {
    let of = |mode: u32, modes: Modes, node: u32| {
        let resource = Resource { mode: Mode(mode), ..resource(1, "/capstor/store/cscs/customer/p") };
        let node = Node { system: "capstor".into(), path: "/capstor/store/cscs/customer".into(), mode: Mode(node) };
        let document = Document { nodes: vec![node], ..Document::default() };
        let rules = SystemRules { modes, ..rules() };
        let desired = check(&[&resource], &document, "capstor", &rules, &|_| false).remove(0);
        desired.map(|desired| desired.with_project(None).mode.0)
    };
    let preset = Modes::default();
    for mode in [0o700, 0o770, 0o2770, 0o1777, 0o3775] {
        assert_eq!(of(mode, preset, 0o775), Ok(mode));
    }
    let held = |obstacle: Result<u32, Obstacle>, words: &str| {
        let obstacle = obstacle.unwrap_err();
        assert_eq!(obstacle.kind, ObstacleKind::NeedsOperator, "the order is not rejected");
        assert!(obstacle.reason.contains(words), "{}", obstacle.reason);
    };
    held(of(0o4770, preset, 0o775), "the mode 4770 has bits that are not accepted, 4000 (setuid)");
    held(of(0o770, preset, 0o4775), "a directory above has the mode 4775, with setuid");
    assert_eq!(of(0o4770, Modes { highest: Mode(0o7777), ..preset }, 0o4775), Ok(0o4770));
    let strict = Modes { lowest: Mode(0o2700), highest: Mode(0o2770) };
    assert_eq!(of(0o2750, strict, 0o775), Ok(0o2750), "not checked for the directories above");
    held(of(0o2775, strict, 0o775), "not accepted, 0005");
    held(of(0o770, strict, 0o775), "the mode 0770 lacks required bits, 2000");

    let gone =
        Resource { mode: Mode(0o4770), status: Status::Removed, ..resource(1, "/capstor/store/cscs/customer/p") };
    assert!(desired(&[gone])[0].is_ok());
}

#[test]
fn a_resource_terminated_here_frees_its_path_even_if_waldur_shows_it() {
    let shown = Resource { status: Status::Removing, ..resource(1, PROJECT) };
    let new = ordered(OrderKind::Create, resource(2, PROJECT));
    for ended in [true, false] {
        let desired = check(&[&shown, &new], &Document::default(), "capstor", &rules(), &|_| ended);
        assert_eq!(desired[1].is_ok(), ended, "{desired:?}");
    }
}

#[test]
fn a_resource_being_terminated_does_not_block_one_in_use() {
    let goes = |n| ordered(OrderKind::Terminate, resource(n, PROJECT));
    let ok = |resources: &[Resource]| desired(resources).iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(ok(&[goes(1), resource(2, PROJECT)]), [true, true]);
    assert_eq!(ok(&[goes(1), ordered(OrderKind::Update, resource(2, PROJECT))]), [true, true]);
    assert_eq!(ok(&[goes(1), goes(2)]), [true, true]);
    assert_eq!(ok(&[goes(1), resource(2, PROJECT), resource(3, PROJECT)]), [true, false, false]);
    // A new resource has to wait for it, and none is created inside it.
    let next = desired(&[goes(1), ordered(OrderKind::Create, resource(2, PROJECT))]).remove(1).unwrap_err();
    assert_eq!(next.kind, ObstacleKind::Waiting);
    let inside = ordered(OrderKind::Create, resource(2, &format!("{PROJECT}/inside")));
    assert_eq!(desired(&[goes(1), inside]).remove(1).unwrap_err().kind, ObstacleKind::Conflict);
}

/// The desired state of two resources with the same path: an unclaimed one with this observation, and an ordered one.
fn desired_next_to_unclaimed(observed: Observation) -> Vec<Result<Unnumbered, Obstacle>> {
    let path = "/capstor/store/cscs/customer/a";
    let unclaimed = Resource { unclaimed: true, ..resource(1, path) };
    let resources = [unclaimed, ordered(OrderKind::Create, resource(2, path))];
    let mut desired = desired(&resources);
    hold_paths_of_unclaimed(&resources.iter().collect::<Vec<_>>(), &mut desired, &[observed, Ok(Observed::Absent)]);
    desired
}

#[test]
fn an_unclaimed_resource_reserves_its_path_only_with_a_directory() {
    let desired = desired_next_to_unclaimed(Ok(Observed::Absent));
    assert!(desired.iter().all(Result::is_ok), "{desired:?}");
    for observed in
        [Ok(Observed::Trashed { since: 1 }), Err(DriverError::temporary("the storage cannot be read").into())]
    {
        let desired = desired_next_to_unclaimed(observed);
        let obstacle = desired[1].as_ref().unwrap_err();
        assert!(
            obstacle.kind == ObstacleKind::Conflict && obstacle.reason.contains("without an order"),
            "{obstacle:?}"
        );
    }
}

/// A resource with a termination that waits for another party's approval.
fn may_leave(resource: Resource) -> Resource {
    let mut resource = ordered(OrderKind::Terminate, Resource { status: Status::Active, ..resource });
    resource.order.as_mut().unwrap().state = OrderState::Other;
    resource
}

#[test]
fn until_its_termination_is_approved_a_resource_is_in_use() {
    // `restore` creates its directory, which then needs its real owner.
    let person = Resource { kind: Kind::User, uid: Some(23_001), ..resource(1, PROJECT) };
    let [used, may_leave_then, leaves] =
        [person.clone(), may_leave(person.clone()), ordered(OrderKind::Terminate, person)].map(only);
    assert_eq!((&may_leave_then, may_leave_then.uid, leaves.uid), (&used, 23_001, 0));
    let unowned = Resource { gid: None, ..resource(1, PROJECT) };
    assert_eq!(obstacle(may_leave(unowned.clone())).0, ObstacleKind::Waiting);
    assert!(desired(&[ordered(OrderKind::Terminate, unowned)])[0].is_ok());
    // It keeps its path. A new resource can get the path later.
    let kinds = |other| {
        let both = desired(&[may_leave(resource(1, PROJECT)), other]);
        both.into_iter().map(|desired| desired.err().map(|obstacle| obstacle.kind)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(resource(2, PROJECT)), [Some(ObstacleKind::Conflict); 2]);
    assert_eq!(kinds(ordered(OrderKind::Create, resource(2, PROJECT))), [None, Some(ObstacleKind::Waiting)]);
}

#[test]
fn an_order_that_waits_for_the_customer_changes_nothing_yet() {
    let new_quotas = Some(Quotas { space: [30.0; 2], inodes: [30.0; 2] });
    let resource = Resource { status: Status::Active, new_quotas, ..requesting(&"2750".into()) };
    let of = |state| {
        let mut resource = resource.clone();
        resource.order.as_mut().unwrap().state = state;
        let desired = only(resource);
        (desired.limits.space_hard().0, desired.mode)
    };
    assert_eq!(of(OrderState::Other), (2_000_000_000_000, Mode(0o770)));
    assert_eq!(of(OrderState::PendingProvider), (30_000_000_000_000, Mode(0o2750)));
}

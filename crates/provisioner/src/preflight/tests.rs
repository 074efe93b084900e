use super::*;
use crate::document::{Links, Node, QuotaProblem, Quotas, Status};
use crate::driver::Driver as _;
use crate::driver::memory::Memory;
use uuid::Uuid;

fn resource(n: u128, path: &str) -> Resource {
    Resource {
        id: Uuid::from_u128(n),
        system: "capstor".into(),
        path: path.into(),
        status: Status::Pending,
        kind: Kind::Project,
        name: None,
        mode: Mode(0o770),
        gid: Some(30_000),
        uid: None,
        quotas: Some(Quotas { space: [1.5, 2.0], inodes: [10.0, 20.0] }),
        new_quotas: None,
        quota_problem: None,
        order: None,
        links: Links::default(),
        unclaimed: false,
    }
}

fn judged(resources: &[Resource]) -> Vec<Result<Desired, Obstacle>> {
    let node = |path: &str| Node { system: "capstor".into(), path: path.into(), mode: Mode(0o775) };
    let nodes = vec![node("/capstor/store/cscs"), node("/capstor/store/cscs/customer")];
    let document = Document { nodes, ..Document::default() };
    let resources: Vec<_> = resources.iter().collect();
    judge(&resources, &document, "capstor", &site(ProjectIds::Gid), &|_| false)
}

fn site(ids: ProjectIds) -> Site {
    Site {
        published_root: "/capstor".into(),
        terabyte: Terabyte::Decimal,
        owner_uid: 0,
        lowest_id: 1000,
        modes: Modes::default(),
        projects: Some(ids),
    }
}

/// Numbers of these resources, all of which the storage has under 1001 and on, but for those that are `absent`; the
/// number, or why there is none.
fn numbered(ids: ProjectIds, resources: &[Resource], absent: &[u128], ledger: &mut Ledger) -> Vec<Result<u32, String>> {
    let driver = Memory::default();
    let mut judged = judged(resources);
    for (desired, id) in judged.iter().flatten().zip(1001..) {
        if !absent.contains(&desired.id.as_u128()) {
            driver.ensure(&Desired { project: Some(id), ..desired.clone() }, &|_| Ok(())).unwrap();
        }
    }
    let observed: Vec<_> =
        judged.iter().flatten().map(|desired| Ok(driver.observe(&[desired]).remove(0).unwrap())).collect();
    let system = System { key: "capstor".into(), site: site(ids), driver: Box::new(driver), at_once: 1 };
    let cases = resources.iter().zip(&mut judged).zip(&observed);
    number(cases.map(|((resource, judged), observed)| (resource, judged, observed)), &system, ledger);
    judged
        .into_iter()
        .map(|judged| judged.map(|desired| desired.project.unwrap_or_default()).map_err(|obstacle| obstacle.reason))
        .collect()
}

#[test]
fn what_the_ledger_forgot_is_learned_from_the_storage_before_a_new_number_is_given() {
    let resources: Vec<_> = (1..=4).map(|n| resource(n, &format!("/capstor/store/cscs/customer/{n}"))).collect();
    let [absent, leaves] = [1, 4];
    let mut resources = resources;
    resources[3] = ordered(OrderKind::Terminate, resources[3].clone());
    let mut ledger = Ledger::default();
    let numbers = numbered(ProjectIds::From(1000), &resources, &[absent, leaves], &mut ledger);
    assert_eq!(numbers, [Ok(1004), Ok(1002), Ok(1003), Ok(0)], "one beyond all that is there");
    assert_eq!(numbered(ProjectIds::From(1000), &resources, &[1, 2, 3, 4], &mut ledger), numbers);
    // Below the site's own range a number is nobody's of ours.
    let others = numbered(ProjectIds::From(5000), &resources, &[], &mut Ledger::default());
    assert_eq!(others, [Ok(5000), Ok(5001), Ok(5002), Ok(1004)]);
}

#[test]
fn a_number_that_its_owner_may_have_taken_from_another_is_nobodys() {
    let resources: Vec<_> = (1..=3).map(|n| resource(n, &format!("/capstor/store/cscs/customer/{n}"))).collect();
    let mut judged = judged(&resources);
    let driver = Memory::default();
    for desired in judged.iter().flatten() {
        driver.ensure(&Desired { project: Some(1001), ..desired.clone() }, &|_| Ok(())).unwrap();
    }
    let observed: Vec<_> =
        judged.iter().flatten().map(|desired| Ok(driver.observe(&[desired]).remove(0).unwrap())).collect();
    let system =
        System { key: "capstor".into(), site: site(ProjectIds::From(1000)), driver: Box::new(driver), at_once: 1 };
    let leaves = ordered(OrderKind::Terminate, resources[2].clone());
    let resources = [&resources[0], &resources[1], &leaves];
    let mut ledger = Ledger::default();
    let cases = resources.into_iter().zip(&mut judged).zip(&observed);
    number(cases.map(|((resource, judged), observed)| (resource, judged, observed)), &system, &mut ledger);
    let numbers: Vec<_> = judged.iter().map(|desired| desired.as_ref().unwrap().project.unwrap_or_default()).collect();
    assert_eq!(numbers, [1000, 1002, 0], "each another one, and nothing of the three is frozen or kept");
}

#[test]
fn a_gid_that_counts_elsewhere_is_no_project_id() {
    let of_group = |n, gid| Resource { gid: Some(gid), ..resource(n, &format!("/capstor/store/cscs/customer/{n}")) };
    // The first tree counts under 1001, which is the second one's GID.
    let resources = [of_group(1, 30_000), of_group(2, 1001), of_group(3, 30_003)];
    let numbers = numbered(ProjectIds::Gid, &resources, &[2, 3], &mut Ledger::default());
    assert!(numbers[1].as_ref().is_err_and(|why| why.contains("in use on the storage")), "{numbers:?}");
    assert_eq!((&numbers[0], &numbers[2]), (&Ok(30_000), &Ok(30_003)));
}

fn obstacle(resource: Resource) -> (ObstacleKind, String) {
    let Obstacle { kind, reason } = judged(&[resource]).pop().unwrap().unwrap_err();
    (kind, reason)
}

#[test]
fn what_is_wanted_has_the_modes_of_those_above() {
    let desired = judged(&[resource(1, "/capstor/store/cscs/customer/project")]).pop().unwrap().unwrap();
    assert_eq!(desired.parents, [Mode(0o755), Mode(0o775), Mode(0o775)]);
    assert_eq!((desired.uid, desired.gid), (0, 30_000));
    assert_eq!(desired.limits.space_soft().0, 1_500_000_000_000);
}

#[test]
fn nobody_gets_the_directory_of_a_customer_or_of_another_resource() {
    let customers = "/capstor/store/cscs/customer";
    for path in [customers, "/capstor/store/cscs", "/capstor/store"] {
        let (kind, reason) = obstacle(resource(1, path));
        assert!(kind == ObstacleKind::Conflict && reason.contains("path of another item"), "{path}: {reason}");
    }
    let project = format!("{customers}/project");
    for other in [project.clone(), format!("{project}/below")] {
        let both = judged(&[resource(1, &project), resource(2, &other)]);
        assert!(both.iter().all(Result::is_err), "{both:?}");
    }
}

fn ordered(kind: OrderKind, resource: Resource) -> Resource {
    let (state, offering) = (crate::document::OrderState::PendingProvider, crate::document::Offering::SiteAgent);
    Resource {
        order: Some(crate::document::Order { id: Uuid::from_u128(9), kind, state, offering, new_options: None }),
        ..resource
    }
}

#[test]
fn a_newcomer_takes_nobodys_place() {
    let project = "/capstor/store/cscs/customer/project";
    let there = Resource { status: Status::Active, ..resource(1, project) };
    for other in [project.to_owned(), format!("{project}/below")] {
        let newcomer = ordered(OrderKind::Create, resource(2, &other));
        for both in [[there.clone(), newcomer.clone()], [newcomer, there.clone()]] {
            let judged = judged(&both);
            let of = |id| judged[both.iter().position(|it| it.id == Uuid::from_u128(id)).unwrap()].as_ref();
            assert!(
                of(1).is_ok() && of(2).is_err_and(|obstacle| obstacle.kind == ObstacleKind::Conflict),
                "{other}: {judged:?}"
            );
        }
    }
    let twins = [1, 2].map(|n| ordered(OrderKind::Create, resource(n, project)));
    let judged = judged(&twins);
    assert!(judged[0].is_ok() && judged[1].is_err(), "{judged:?}");
}

#[test]
fn who_orders_anew_waits_until_the_old_one_is_gone() {
    let project = "/capstor/store/cscs/customer/project";
    let old = ordered(OrderKind::Terminate, Resource { status: Status::Removing, ..resource(1, project) });
    let newcomer = ordered(OrderKind::Create, resource(2, project));
    let both = judged(&[old.clone(), newcomer]);
    assert!(
        both[0].is_ok() && both[1].as_ref().is_err_and(|obstacle| obstacle.kind == ObstacleKind::Waiting),
        "{both:?}"
    );
    let below = ordered(OrderKind::Create, resource(2, &format!("{project}/below")));
    assert!(judged(&[old, below])[1].as_ref().is_err_and(|obstacle| obstacle.kind == ObstacleKind::Conflict));
}

const PROJECT: &str = "/capstor/store/cscs/customer/project";

fn problem(zero_ordered: bool) -> QuotaProblem {
    QuotaProblem { zero_ordered, detail: "the limit storage is 0".to_owned() }
}

/// Every reason for which an order may be rejected, each with what in the order makes it one. There are no others.
#[test]
fn only_what_the_order_itself_asks_for_is_impossible() {
    // The order's new options hold permissions that are none.
    for odd in ["rwx", "78", "0o770"] {
        let mut resource = ordered(OrderKind::Update, resource(1, PROJECT));
        if let Some(order) = &mut resource.order {
            order.new_options = serde_json::json!({"permissions": odd}).as_object().cloned();
        }
        let (kind, reason) = obstacle(resource);
        assert!(kind == ObstacleKind::Impossible && reason.contains("octal digits"), "{odd}: {reason}");
    }
    // The order's own limits say 0.
    for kind in [OrderKind::Create, OrderKind::Update] {
        let zero = Resource { quota_problem: Some(problem(true)), ..resource(1, PROJECT) };
        let quotas = zero.quotas.filter(|_| kind == OrderKind::Update);
        let (kind, reason) = obstacle(ordered(kind, Resource { quotas, ..zero }));
        assert!(kind == ObstacleKind::Impossible && reason.contains("asks for a quota of 0"), "{reason}");
    }
}

/// What is absent, unreadable, overridden or somebody else's doing never makes an order impossible.
#[test]
fn everything_else_is_for_a_person_or_goes_away() {
    let at = |path: &str| resource(1, path);
    let zero = Quotas { space: [0.0; 2], inodes: [1.0; 2] };
    let pinned = Quotas { space: [20.0, 10.0], inodes: [1.0; 2] };
    let absurd = Quotas { space: [1e300; 2], inodes: [1.0; 2] };
    let person = [
        Resource { quotas: None, ..at(PROJECT) },
        Resource { quotas: Some(zero), ..at(PROJECT) },
        Resource { quotas: Some(pinned), ..at(PROJECT) },
        Resource { quotas: Some(absurd), ..at(PROJECT) },
        Resource { quota_problem: Some(problem(false)), ..at(PROJECT) },
        // A problem of an order that is over by now.
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
    for (kind, resources) in [(ObstacleKind::Person, &person[..]), (ObstacleKind::Waiting, &waiting)] {
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

/// A cleared option is an empty text, and what is no text is not read: neither literally asks for anything.
#[test]
fn permissions_that_are_cleared_or_unreadable_are_for_a_person() {
    for odd in [serde_json::json!(""), serde_json::json!(" "), serde_json::json!(700), serde_json::json!(["770"])] {
        let mut resource = ordered(OrderKind::Update, resource(1, PROJECT));
        if let Some(order) = &mut resource.order {
            order.new_options = serde_json::json!({"permissions": odd}).as_object().cloned();
        }
        let (kind, reason) = obstacle(resource);
        assert!(kind == ObstacleKind::Person && reason.contains("new_options.permissions"), "{odd}: {reason}");
    }
}

#[test]
fn a_quota_of_zero_that_the_document_itself_contradicts_is_for_a_person() {
    let some = Some(Quotas { space: [2.0; 2], inodes: [1.0; 2] });
    for (kind, quotas, new_quotas) in [(OrderKind::Create, some, None), (OrderKind::Update, None, some)] {
        let lie = Resource { quota_problem: Some(problem(true)), quotas, new_quotas, ..resource(1, PROJECT) };
        let (found, reason) = obstacle(ordered(kind, lie));
        assert!(found == ObstacleKind::Person && reason.contains("publishes other quotas"), "{kind:?}: {reason}");
    }
}

#[test]
fn a_backend_id_that_is_no_path_names_its_remedy() {
    let (_, reason) = obstacle(ordered(OrderKind::Create, resource(1, "hpc-proj-10")));
    assert_eq!(reason, "backend_id in Waldur (hpc-proj-10) is not a path of this system; clear it there");
}

#[test]
fn an_update_that_changes_no_quotas_keeps_those_that_hold() {
    let switch = ordered(OrderKind::Update, resource(1, PROJECT));
    let desired = judged(&[switch]).pop().unwrap().unwrap();
    assert_eq!(desired.limits.space_hard().0, 2_000_000_000_000);
}

#[test]
fn an_order_for_a_permission_is_what_is_wanted() {
    let mut resource = ordered(OrderKind::Update, resource(1, "/capstor/store/cscs/customer/project"));
    let options = serde_json::json!({"permissions": "2750"});
    if let Some(order) = &mut resource.order {
        order.new_options = options.as_object().cloned();
    }
    assert_eq!(judged(&[resource]).pop().unwrap().unwrap().mode, Mode(0o2750));
}

#[test]
fn a_terminated_resource_leaves_its_place_to_the_next_one() {
    let path = "/capstor/store/cscs/customer/project";
    let gone = Resource { status: Status::Removed, ..resource(1, path) };
    assert!(judged(&[gone, resource(2, path)])[1].is_ok());
}

#[test]
fn a_mode_outside_of_what_the_system_accepts_holds_the_resource_until_it_is_to_go() {
    let of = |mode: u32, modes: Modes, node: u32| {
        let resource = Resource { mode: Mode(mode), ..resource(1, "/capstor/store/cscs/customer/p") };
        let node = Node { system: "capstor".into(), path: "/capstor/store/cscs/customer".into(), mode: Mode(node) };
        let document = Document { nodes: vec![node], ..Document::default() };
        let site = Site { modes, ..site(ProjectIds::Gid) };
        judge(&[&resource], &document, "capstor", &site, &|_| false).remove(0).map(|desired| desired.mode.0)
    };
    let preset = Modes::default();
    for mode in [0o700, 0o770, 0o2770, 0o1777, 0o3775] {
        assert_eq!(of(mode, preset, 0o775), Ok(mode));
    }
    let held = |obstacle: Result<u32, Obstacle>, words: &str| {
        let obstacle = obstacle.unwrap_err();
        assert_eq!(obstacle.kind, ObstacleKind::Person, "nothing that is rejected");
        assert!(obstacle.reason.contains(words), "{}", obstacle.reason);
    };
    held(of(0o4770, preset, 0o775), "the mode 4770 has bits that are not accepted, 4000 (setuid)");
    held(of(0o770, preset, 0o4775), "a directory above has the mode 4775, with setuid");
    assert_eq!(of(0o4770, Modes { highest: Mode(0o7777), ..preset }, 0o4775), Ok(0o4770));
    let strict = Modes { lowest: Mode(0o2700), highest: Mode(0o2770) };
    assert_eq!(of(0o2750, strict, 0o775), Ok(0o2750), "directories above have modes of their own");
    held(of(0o2775, strict, 0o775), "not accepted, 0005");
    held(of(0o770, strict, 0o775), "the mode 0770 lacks bits that each must have, 2000");

    let gone =
        Resource { mode: Mode(0o4770), status: Status::Removed, ..resource(1, "/capstor/store/cscs/customer/p") };
    assert!(judged(&[gone])[0].is_ok());
}

#[test]
fn what_was_terminated_here_keeps_no_place_whatever_waldur_shows() {
    let path = "/capstor/store/cscs/customer/project";
    let shown = Resource { status: Status::Removing, ..resource(1, path) };
    let new = ordered(OrderKind::Create, resource(2, path));
    for ended in [true, false] {
        let judged = judge(&[&shown, &new], &Document::default(), "capstor", &site(ProjectIds::Gid), &|_| ended);
        assert_eq!(judged[1].is_ok(), ended, "{judged:?}");
    }
}

#[test]
fn a_termination_keeps_no_place_from_a_resource_in_use() {
    let path = "/capstor/store/cscs/customer/project";
    let goes = |n| ordered(OrderKind::Terminate, resource(n, path));
    let ok = |resources: &[Resource]| judged(resources).iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(ok(&[goes(1), resource(2, path)]), [true, true]);
    assert_eq!(ok(&[goes(1), ordered(OrderKind::Update, resource(2, path))]), [true, true]);
    assert_eq!(ok(&[goes(1), goes(2)]), [true, true]);
    assert_eq!(ok(&[goes(1), resource(2, path), resource(3, path)]), [true, false, false]);
    // One that is new comes after it, and nothing is made in what goes away.
    let next = judged(&[goes(1), ordered(OrderKind::Create, resource(2, path))]).remove(1).unwrap_err();
    assert_eq!(next.kind, ObstacleKind::Waiting);
    let inside = ordered(OrderKind::Create, resource(2, "/capstor/store/cscs/customer/project/inside"));
    assert_eq!(judged(&[goes(1), inside]).remove(1).unwrap_err().kind, ObstacleKind::Conflict);
}

/// The wanted of two resources with one path: a ghost for which this is found, and one that is ordered.
fn beside_a_ghost(observed: &Result<Observed, String>) -> Vec<Result<Desired, Obstacle>> {
    let path = "/capstor/store/cscs/customer/a";
    let ghost = Resource { unclaimed: true, ..resource(1, path) };
    let resources = [ghost, ordered(OrderKind::Create, resource(2, path))];
    let mut desired = judged(&resources);
    ghosts(&resources.iter().collect::<Vec<_>>(), &mut desired, &[observed.clone(), Ok(Observed::Absent)]);
    desired
}

#[test]
fn a_ghost_keeps_its_path_only_by_what_it_has_on_the_storage() {
    let desired = beside_a_ghost(&Ok(Observed::Absent));
    assert!(desired.iter().all(Result::is_ok), "{desired:?}");
    for observed in [Ok(Observed::Trashed { since: 1 }), Err("the storage cannot be read".to_owned())] {
        let desired = beside_a_ghost(&observed);
        let obstacle = desired[1].as_ref().unwrap_err();
        assert!(
            obstacle.kind == ObstacleKind::Conflict && obstacle.reason.contains("without an order"),
            "{obstacle:?}"
        );
    }
}

#[test]
fn an_order_that_awaits_the_customer_changes_nothing_yet() {
    use crate::document::OrderState;
    let mut resource = ordered(OrderKind::Update, Resource { status: Status::Active, ..resource(1, PROJECT) });
    resource.new_quotas = Some(Quotas { space: [30.0; 2], inodes: [30.0; 2] });
    if let Some(order) = &mut resource.order {
        order.new_options = serde_json::json!({"permissions": "2750"}).as_object().cloned();
    }
    let of = |state| {
        let mut resource = resource.clone();
        resource.order.as_mut().unwrap().state = state;
        let desired = judged(&[resource]).pop().unwrap().unwrap();
        (desired.limits.space_hard().0, desired.mode)
    };
    assert_eq!(of(OrderState::Other), (2_000_000_000_000, Mode(0o770)));
    assert_eq!(of(OrderState::PendingProvider), (30_000_000_000_000, Mode(0o2750)));
}

use proptest::prelude::*;

use storage_driver::limits::{Bytes, Inodes, QuotaLimits, Terabyte, Usage};
use storage_driver::place::Place;
use storage_driver::{Mode, Present};

use super::*;
use crate::document::tests::resource;
use crate::document::{Offering, Order, OrderKind, OrderState, Status};
use crate::last_order::{SENT, SET_STATE_OK};
use crate::preflight::ObstacleKind;

#[expect(clippy::unnecessary_wraps, reason = "the type of the resource's field")]
fn order(kind: OrderKind, state: OrderState, offering: Offering) -> Option<Order> {
    Some(Order { id: Uuid::from_u128(99), kind, state, offering, new_options: None })
}

fn desired(resource: &Resource) -> Desired {
    Desired {
        id: resource.id,
        place: Place::parse(&resource.path, "/capstor").unwrap(),
        parents: vec![Mode(0o755)],
        uid: 0,
        gid: 30_000,
        mode: resource.mode,
        limits: QuotaLimits::new([Bytes(1 << 40); 2], [Inodes(100); 2]).unwrap(),
        project: Some(30_000),
    }
}

fn present(desired: &Desired) -> Present {
    let Desired { uid, gid, mode, limits, project, .. } = *desired;
    let usage = Some(Usage { space: Bytes(1 << 30), inodes: Inodes(50) });
    Present { uid, gid, mode, limits: Some(limits), project, usage, acl: None }
}

fn case(status: Status, order: Option<Order>, observed: impl FnOnce(&Desired) -> Observed) -> Case {
    let resource = Resource { order, ..resource(1, status) };
    let desired = desired(&resource);
    Case { observed: Ok(observed(&desired)), resource, desired: Ok(desired), unfinished: false, last_order: None }
}

type Observe<'a> = &'a dyn Fn(&Desired) -> Observed;

/// No recent work.
static NOTHING: Recent = Recent::new();
const NEEDED: Consent<'_> = Consent::Needed(&NOTHING);

fn steps(case: &Case) -> Vec<&'static str> {
    let plan = plan(std::slice::from_ref(case), Policy::default(), NEEDED);
    plan.tasks.iter().flat_map(|task| task.steps.iter().map(Step::name)).collect()
}

fn held(case: &Case) -> Option<Hold> {
    plan(std::slice::from_ref(case), Policy::default(), NEEDED).held.first().map(|held| held.hold)
}

#[test]
fn orders_of_both_offering_types_have_the_right_steps_in_the_right_order() {
    use Offering::{Basic, SiteAgent};
    use OrderKind::{Create, Restore, Terminate, Update};
    use OrderState::{Executing, PendingProvider};
    use Status::{Active, Pending, Removed, Removing, Updating};
    let absent = |_: &Desired| Observed::Absent;
    let ours = |desired: &Desired| Observed::Ours(present(desired));
    let changed = |desired: &Desired| Observed::Ours(Present { limits: None, ..present(desired) });
    let trashed = |_: &Desired| Observed::Trashed { since: 1 };
    let cases: [(_, _, _, _, Observe<'_>, _); 19] = [
        (SiteAgent, Create, PendingProvider, Pending, &absent, "approve, ensure, set_backend_id, done"),
        (SiteAgent, Create, Executing, Pending, &absent, "ensure, set_backend_id, done"),
        (SiteAgent, Create, Executing, Pending, &ours, "set_backend_id, done"),
        (Basic, Create, PendingProvider, Pending, &absent, "ensure, set_backend_id, approve"),
        (Basic, Create, PendingProvider, Pending, &ours, "set_backend_id, approve"),
        (SiteAgent, Update, PendingProvider, Updating, &changed, "approve, ensure, set_backend_id, done"),
        (Basic, Update, PendingProvider, Updating, &changed, "ensure, set_backend_id, approve"),
        (SiteAgent, Terminate, PendingProvider, Removing, &ours, "approve, retire, done"),
        (SiteAgent, Terminate, Executing, Removing, &ours, "retire, done"),
        (SiteAgent, Terminate, Executing, Removing, &absent, ""),
        (SiteAgent, Terminate, Executing, Removing, &trashed, "done"),
        (SiteAgent, Create, Executing, Active, &absent, ""),
        (SiteAgent, Terminate, Executing, Removed, &ours, ""),
        // Users keep their access until the approval.
        (Basic, Terminate, PendingProvider, Removing, &ours, "approve, retire"),
        (Basic, Terminate, PendingProvider, Removing, &trashed, "approve"),
        (SiteAgent, Restore, PendingProvider, Pending, &trashed, "approve, restore, set_backend_id, done"),
        (Basic, Restore, PendingProvider, Pending, &trashed, "restore, set_backend_id, approve"),
        // An empty directory is no replacement.
        (SiteAgent, Restore, PendingProvider, Pending, &absent, ""),
        (Basic, Create, Executing, Pending, &absent, ""),
    ];
    for (offering, kind, state, status, observed, expected) in cases {
        let case = case(status, order(kind, state, offering), observed);
        assert_eq!(steps(&case).join(", "), expected, "{offering:?} {kind:?} {state:?} {status:?}");
    }
}

#[test]
fn a_task_has_its_action_and_the_changing_fields() {
    use OrderKind::{Create, Terminate, Update};
    let order = |kind| order(kind, OrderState::Executing, Offering::SiteAgent);
    let smaller = QuotaLimits::new([Bytes(1 << 39); 2], [Inodes(100); 2]).unwrap();
    let resized = |desired: &Desired| Observed::Ours(Present { limits: Some(smaller), ..present(desired) });
    let changed = |desired: &Desired| {
        Observed::Ours(Present { limits: Some(smaller), mode: Mode(0o700), gid: 1, ..present(desired) })
    };
    let observed: [(_, _, Observe<'_>, _, &[&str]); 6] = [
        (Create, Status::Pending, &|_| Observed::Absent, "create", &[]),
        (Update, Status::Updating, &resized, "resize", &["space 0.5 TiB → 1 TiB"]),
        (
            Update,
            Status::Updating,
            &changed,
            "change",
            &["space 0.5 TiB → 1 TiB", "mode 700 → 770", "owner 0:1 → 0:30000"],
        ),
        (Update, Status::Updating, &|desired| Observed::Ours(present(desired)), "report", &[]),
        (Terminate, Status::Removing, &resized, "trash", &[]),
        (Create, Status::Pending, &|_| Observed::Trashed { since: 1 }, "restore", &[]),
    ];
    for (kind, status, observed, action, changes) in observed {
        let plan = plan(&[case(status, order(kind), observed)], Policy::default(), NEEDED);
        let changed: Vec<_> = plan.tasks[0].changes.iter().map(|it| it.describe(Terabyte::Binary)).collect();
        let changed: Vec<_> = changed.iter().map(String::as_str).collect();
        assert_eq!((plan.tasks[0].action.name(), &changed[..]), (action, changes));
    }
    let drifted = plan(&[case(Status::Active, None, resized)], Policy::default(), NEEDED);
    let json = serde_json::to_value(&drifted.held[0].changes).unwrap();
    assert_eq!((&json[0]["what"], &json[0]["old"]["space_hard"]), (&"quota".into(), &(1_u64 << 39).into()));
}

#[test]
fn the_status_removing_alone_changes_nothing() {
    let pending = order(OrderKind::Terminate, OrderState::Other, Offering::SiteAgent);
    for (order, hold) in [(None, Hold::Conflict), (pending, Hold::Waiting)] {
        let case = case(Status::Removing, order, |desired| Observed::Ours(present(desired)));
        assert_eq!((steps(&case), held(&case)), (vec![], Some(hold)));
    }
    let gone = case(Status::Removed, None, |desired| Observed::Ours(present(desired)));
    assert_eq!((steps(&gone), held(&gone)), (vec![], Some(Hold::Conflict)));
}

#[test]
fn a_cancelled_termination_restores_the_directory() {
    assert_eq!(steps(&case(Status::Active, None, |_| Observed::Trashed { since: 1 })), ["restore"]);
}

#[test]
fn drift_is_reported_and_healed_only_by_policy() {
    let drifted =
        case(Status::Active, None, |desired| Observed::Ours(Present { mode: Mode(0o777), ..present(desired) }));
    assert_eq!((steps(&drifted), held(&drifted)), (vec![], Some(Hold::Drift)));
    let heals = Policy { heal: true, ..Policy::default() };
    assert_eq!(plan(std::slice::from_ref(&drifted), heals, NEEDED).tasks.len(), 1);
    let begun = Case { unfinished: true, ..drifted };
    assert_eq!(steps(&begun), ["ensure"]);
}

#[test]
fn quotas_do_not_shrink_below_the_usage() {
    let full = |desired: &Desired| {
        let limits = QuotaLimits::new([Bytes(1 << 50); 2], [Inodes(1000); 2]).ok();
        Observed::Ours(Present {
            limits,
            usage: Some(Usage { space: Bytes(1 << 45), inodes: Inodes(50) }),
            ..present(desired)
        })
    };
    let update = case(Status::Updating, order(OrderKind::Update, OrderState::Executing, Offering::SiteAgent), full);
    assert_eq!((steps(&update), held(&update)), (vec![], Some(Hold::Refused)));
    let allowed = Policy { shrink_below_usage: true, ..Policy::default() };
    assert_eq!(plan(std::slice::from_ref(&update), allowed, NEEDED).tasks.len(), 1);
}

fn with_obstacle(kind: ObstacleKind, state: OrderState) -> Case {
    let case = case(Status::Pending, order(OrderKind::Create, state, Offering::SiteAgent), |_| Observed::Absent);
    Case { desired: Err(Obstacle { kind, turn: Turn::Identity, reason: "why".into() }), ..case }
}

#[test]
fn an_obstacle_holds_the_order_and_nothing_is_rejected_by_default() {
    for (kind, expected) in [
        (ObstacleKind::Waiting, Hold::Waiting),
        (ObstacleKind::NeedsOperator, Hold::Refused),
        (ObstacleKind::Conflict, Hold::Conflict),
        (ObstacleKind::Impossible, Hold::Refused),
    ] {
        for state in [OrderState::PendingProvider, OrderState::Executing] {
            let case = with_obstacle(kind, state);
            assert_eq!((steps(&case), held(&case)), (vec![], Some(expected)), "{kind:?}");
        }
    }
}

#[test]
fn with_the_policy_only_impossible_orders_are_rejected() {
    let policy = Policy { refuse: true, ..Policy::default() };
    let steps = |case: &Case| -> Vec<_> {
        let plan = plan(std::slice::from_ref(case), policy, NEEDED);
        plan.tasks.iter().flat_map(|task| task.steps.iter().map(Step::name)).collect()
    };
    for kind in [ObstacleKind::Waiting, ObstacleKind::NeedsOperator, ObstacleKind::Conflict] {
        assert!(steps(&with_obstacle(kind, OrderState::PendingProvider)).is_empty(), "{kind:?}");
    }
    let impossible = |state| with_obstacle(ObstacleKind::Impossible, state);
    assert_eq!(steps(&impossible(OrderState::PendingProvider)), ["reject"]);
    assert_eq!(steps(&impossible(OrderState::Executing)), ["erred"]);
    assert_eq!(steps(&Case { unfinished: true, ..impossible(OrderState::Executing) }), ["set_backend_id", "erred"]);
}

#[test]
fn many_rejections_need_confirmation() {
    let policy = Policy { refuse: true, ..Policy::default() };
    let rejected = |count: u128| {
        let one = |n| Case {
            resource: Resource {
                id: Uuid::from_u128(n),
                ..with_obstacle(ObstacleKind::Impossible, OrderState::PendingProvider).resource
            },
            ..with_obstacle(ObstacleKind::Impossible, OrderState::PendingProvider)
        };
        plan(&(1..=count).map(one).collect::<Vec<_>>(), policy, NEEDED)
    };
    assert_eq!(rejected(5).tasks.len(), 5);
    let needs_confirmation = rejected(6);
    assert!(
        needs_confirmation.tasks.is_empty() && needs_confirmation.held.iter().all(|held| held.hold == Hold::Asks),
        "{needs_confirmation:?}"
    );
}

#[test]
fn a_person_can_reject_every_order_that_waits_for_the_provider() {
    use OrderState::{Executing, Other, PendingProvider};
    let names = |case: &Case| {
        super::reject(case, "no money").map(|task| task.steps.iter().map(Step::name).collect::<Vec<_>>().join(", "))
    };
    let of = |kind, state, offering, observed: fn(&Desired) -> Observed| {
        names(&case(Status::Pending, order(kind, state, offering), observed))
    };
    let absent = |_: &Desired| Observed::Absent;
    let ours = |desired: &Desired| Observed::Ours(present(desired));
    let (create, terminate) = (OrderKind::Create, OrderKind::Terminate);
    assert_eq!(of(create, PendingProvider, Offering::SiteAgent, absent), Ok("reject".to_owned()));
    assert_eq!(of(create, PendingProvider, Offering::Basic, ours), Ok("reject".to_owned()));
    assert_eq!(of(create, Executing, Offering::SiteAgent, absent), Ok("erred".to_owned()));
    assert_eq!(of(create, Executing, Offering::SiteAgent, ours), Ok("set_backend_id, erred".to_owned()));
    assert_eq!(of(terminate, PendingProvider, Offering::SiteAgent, ours), Ok("reject".to_owned()));
    assert!(of(create, Other, Offering::SiteAgent, absent).is_err_and(|why| why.contains("does not wait")));
    assert!(of(create, Executing, Offering::Basic, absent).is_err_and(|why| why.contains("by itself")));
    assert!(names(&case(Status::Active, None, ours)).is_err_and(|why| why.contains("no order")));
    // Nothing was observed: a directory may exist.
    let unknown = with_obstacle(ObstacleKind::NeedsOperator, Executing);
    assert_eq!(names(&unknown), Ok("set_backend_id, erred".to_owned()));
}

#[test]
fn many_removals_in_one_pass_need_confirmation() {
    let planned = |n, consent| plan(&removals(1..=n), Policy::default(), consent);
    assert_eq!((planned(5, NEEDED).tasks.len(), planned(5, NEEDED).held.len()), (5, 0));
    let needs_confirmation = planned(6, NEEDED);
    assert!(
        needs_confirmation.tasks.is_empty() && needs_confirmation.held.iter().all(|held| held.hold == Hold::Asks),
        "{needs_confirmation:?}"
    );
    assert_eq!(planned(6, Consent::Given).tasks.len(), 6);
}

#[test]
fn terminated_resources_do_not_raise_the_limit() {
    let gone = (1000..4000).map(|_| case(Status::Removed, None, |_| Observed::Absent)).zip(1000..);
    let gone = gone.map(|(case, n)| Case { resource: resource(n, Status::Removed), ..case });
    let cases: Vec<_> = removals(1..=40).into_iter().chain(gone).collect();
    let plan = plan(&cases, Policy::default(), NEEDED);
    assert!(plan.tasks.is_empty() && plan.held.iter().all(|held| held.hold == Hold::Asks), "{:?}", plan.tasks);
}

#[test]
fn confirming_a_missing_directory_as_gone_counts_as_a_removal() {
    let policy = Policy { absent_is_gone: true, ..Policy::default() };
    let absent = |case: Case| Case { observed: Ok(Observed::Absent), ..case };
    let there = case(Status::Active, None, |desired| Observed::Ours(present(desired)));
    let there = Case { resource: resource(100, Status::Active), ..there };
    let of = |n, others: &[Case]| {
        let cases: Vec<_> = removals(1..=n).into_iter().map(absent).chain(others.iter().cloned()).collect();
        plan(&cases, policy, NEEDED).tasks.len()
    };
    assert_eq!(of(5, std::slice::from_ref(&there)), 5);
    assert_eq!(of(6, &[there]), 0, "too many");
    assert_eq!(of(1, &[]), 0, "no directory exists: it may be the wrong file system");
}

#[test]
fn few_removals_in_each_pass_need_confirmation_if_they_are_many_in_a_day() {
    let recent = |n: u128| Recent::from([(("capstor".into(), Mass::Removal), (1..=n).map(Uuid::from_u128).collect())]);
    let planned = |recent: &Recent, n| plan(&removals(n), Policy::default(), Consent::Needed(recent));
    let of = |plan: &Plan| (plan.tasks.len(), plan.held.len());
    assert_eq!(of(&planned(&recent(17), 18..=20)), (3, 0));
    let needs_confirmation = planned(&recent(18), 18..=21);
    assert_eq!(of(&needs_confirmation), (1, 3), "begun work continues: {needs_confirmation:?}");
    assert!(
        needs_confirmation.held[0].reason.starts_with("21 removals on capstor within 24 hours, more than the 20"),
        "{needs_confirmation:?}"
    );
    // Other kinds and other systems do not count.
    let refusals = Recent::from([(("capstor".into(), Mass::Refusal), (1..=50).map(Uuid::from_u128).collect())]);
    let elsewhere = Recent::from([(("vast".into(), Mass::Removal), (1..=50).map(Uuid::from_u128).collect())]);
    for other in [refusals, elsewhere] {
        assert_eq!(of(&planned(&other, 51..=53)), (3, 0));
    }
}

#[test]
fn if_no_directory_in_use_exists_creating_one_needs_confirmation() {
    let create = order(OrderKind::Create, OrderState::Executing, Offering::SiteAgent);
    let new = case(Status::Pending, create, |_| Observed::Absent);
    let used = |n, observed: fn(&Desired) -> Observed| {
        let resource = resource(n, Status::Active);
        let desired = desired(&resource);
        Case { observed: Ok(observed(&desired)), resource, desired: Ok(desired), unfinished: false, last_order: None }
    };
    let planned = |cases: Vec<Case>, consent| {
        let plan = plan(&cases, Policy::default(), consent);
        (plan.tasks.len(), plan.held.iter().filter(|held| held.hold == Hold::Asks).count())
    };
    let absent = |n| used(n, |_| Observed::Absent);
    let there = |n| used(n, |desired| Observed::Unmarked(present(desired)));
    assert_eq!(planned(vec![new.clone()], NEEDED), (1, 0), "an unused system");
    assert_eq!(planned(vec![absent(2), absent(3), new.clone()], NEEDED), (0, 1));
    assert_eq!(planned(vec![absent(2), absent(3), new.clone()], Consent::Given), (1, 0));
    assert_eq!(planned(vec![absent(2), there(3), new], NEEDED), (1, 0));
}

fn removals(numbers: impl IntoIterator<Item = u128>) -> Vec<Case> {
    let terminate = order(OrderKind::Terminate, OrderState::Executing, Offering::SiteAgent);
    let one = |n| {
        let resource = Resource { order: terminate.clone(), ..resource(n, Status::Removing) };
        let desired = desired(&resource);
        let observed = Ok(Observed::Ours(present(&desired)));
        Case { resource, desired: Ok(desired), observed, unfinished: false, last_order: None }
    };
    numbers.into_iter().map(one).collect()
}

proptest! {
    #[test]
    fn nothing_is_removed_without_a_terminate_order_for_this_provider(
        status in 0_usize..6, kind in 0_usize..4, state in 0_usize..3, offering in 0_usize..3, has in any::<bool>(), heal in any::<bool>(),
        unfinished in any::<bool>(), observed in 0_usize..5,
    ) {
        let status = [Status::Pending, Status::Active, Status::Updating, Status::Removing, Status::Removed, Status::Error][status];
        let kind = [OrderKind::Create, OrderKind::Update, OrderKind::Terminate, OrderKind::Other][kind];
        let state = [OrderState::PendingProvider, OrderState::Executing, OrderState::Other][state];
        let offering = [Offering::SiteAgent, Offering::Basic, Offering::Other][offering];
        let order = if has { order(kind, state, offering) } else { None };
        let mut case = case(status, order, |desired| match observed {
            0 => Observed::Absent,
            1 => Observed::Ours(present(desired)),
            2 => Observed::Unmarked(present(desired)),
            3 => Observed::Obstructed("a file".into()),
            _ => Observed::Trashed { since: 1 },
        });
        case.unfinished = unfinished;
        let plan = plan(std::slice::from_ref(&case), Policy { heal, ..Policy::default() }, NEEDED);
        let removes = plan.tasks.iter().any(Task::removes);
        let ordered = has && kind == OrderKind::Terminate && state != OrderState::Other && offering != Offering::Other;
        prop_assert!(!removes || (ordered && observed == 1));
        // No order affects directories of other resources.
        prop_assert!(!matches!(observed, 2 | 3) || plan.tasks.is_empty());
    }
}

/// The last order of a case; `sent`: whether a call that completes it was sent.
fn last(kind: OrderKind, sent: bool) -> LastOrder {
    let mut last = LastOrder::new(Uuid::from_u128(99), kind, 0);
    if sent {
        last.note(1, "approve_by_provider", SENT, false);
    }
    last
}

/// The last order of a case, with a call that Waldur has just refused.
fn refused(kind: OrderKind, call: &str, reason: &str) -> LastOrder {
    let mut last = last(kind, true);
    last.note(1, call, reason, true);
    last.refused.as_mut().unwrap().backs_off = true;
    last
}

#[test]
fn a_refused_call_holds_the_resource_with_the_reason_until_the_retry() {
    let order = order(OrderKind::Terminate, OrderState::PendingProvider, Offering::Basic);
    let mut case = case(Status::Removing, order, |desired| Observed::Ours(present(desired)));
    case.last_order = Some(refused(OrderKind::Terminate, "approve_by_provider", "Project 'x' is expired."));
    let plan = plan(std::slice::from_ref(&case), Policy::default(), NEEDED);
    assert_eq!((plan.tasks.len(), plan.held[0].hold), (0, Hold::Declined));
    let reason = &plan.held[0].reason;
    assert!(reason.starts_with("Waldur refuses approve_by_provider: Project 'x' is expired. Tried once"), "{reason}");
    assert_eq!(case.refused().map(WaldurRefusal::kind), Some("expired_project"));

    let mut due = case.clone();
    due.last_order.as_mut().unwrap().refused.as_mut().unwrap().backs_off = false;
    assert_eq!(steps(&due), ["approve", "retire"]);
    assert!(due.refused().is_some(), "still in the metrics");
    // A refusal of another order, or of a call that is not needed, holds nothing.
    let mut other = case.clone();
    other.last_order.as_mut().unwrap().order = Uuid::from_u128(98);
    assert_eq!(steps(&other), ["approve", "retire"]);
    case.last_order = Some(refused(OrderKind::Terminate, "set_backend_id", "It is not unique."));
    assert_eq!(steps(&case), ["approve", "retire"]);
}

#[test]
fn a_changing_resource_whose_order_was_completed_is_set_ok_or_is_a_conflict() {
    let linked = |status, kind, sent, observed: &dyn Fn(&Desired) -> Observed| {
        let mut case = case(status, None, observed);
        case.resource.links.ok = Some("https://waldur.example.org/".into());
        case.last_order = Some(last(kind, sent));
        case
    };
    let ours = |desired: &Desired| Observed::Ours(present(desired));
    let trashed = |_: &Desired| Observed::Trashed { since: 1 };
    for (status, kind) in [
        (Status::Pending, OrderKind::Create),
        (Status::Pending, OrderKind::Restore),
        (Status::Updating, OrderKind::Update),
    ] {
        let case = linked(status, kind, true, &ours);
        assert_eq!(steps(&case), ["set_state_ok"], "{status:?}");
        let mut missing = case.clone();
        missing.last_order = Some(refused(kind, SET_STATE_OK, "this Waldur does not have this call"));
        assert_eq!(hold_and_reason_of(&missing), (Hold::Conflict, "set its state to OK in Waldur's administration"));
        let mut without_link = case.clone();
        without_link.resource.links.ok = None;
        assert_eq!(
            hold_and_reason_of(&without_link),
            (Hold::Conflict, "set its state to OK in Waldur's administration")
        );
        // Not if it differs from the document, nor if its order was not completed here.
        let changed = |desired: &Desired| Observed::Ours(Present { mode: Mode(0o700), ..present(desired) });
        assert_eq!(held(&linked(status, kind, true, &changed)), Some(Hold::Drift));
        let mut begun = linked(status, kind, true, &changed);
        begun.unfinished = true;
        assert_eq!(steps(&begun), ["ensure", "set_state_ok"]);
        assert_eq!(held(&linked(status, kind, false, &ours)), Some(Hold::Conflict));
        assert_eq!(held(&linked(status, OrderKind::Terminate, true, &ours)), Some(Hold::Conflict));
    }
    // Its order was withdrawn while it was approved here: the reason must not advise to terminate a resource in use.
    let withdrawn = plan(&[linked(Status::Removing, OrderKind::Terminate, true, &ours)], Policy::default(), NEEDED);
    assert!(withdrawn.held[0].reason.contains("it has no order in progress"), "{withdrawn:?}");
    let ended = linked(Status::Removing, OrderKind::Terminate, true, &trashed);
    assert_eq!(hold_and_reason_of(&ended), (Hold::Conflict, "its directory is in the trash already"));
}

/// Why a case is held, and the end of the reason.
fn hold_and_reason_of(case: &Case) -> (Hold, &'static str) {
    const ENDS: [&str; 3] = [
        "set its state to OK in Waldur's administration",
        "its directory is in the trash already",
        "set its state to Terminated in Waldur's administration",
    ];
    let plan = plan(std::slice::from_ref(case), Policy::default(), NEEDED);
    let held = &plan.held[0];
    let end = ENDS.into_iter().find(|end| held.reason.ends_with(end));
    (held.hold, end.unwrap_or_else(|| panic!("{}", held.reason)))
}

#[test]
fn a_termination_approved_here_retires_the_directory_once_waldur_shows_it() {
    let mut case = case(Status::Removed, None, |desired| Observed::Ours(present(desired)));
    case.last_order = Some(last(OrderKind::Terminate, true));
    assert_eq!(held(&case), Some(Hold::Conflict), "the termination was completed: this directory is newer");
    case.unfinished = true;
    assert_eq!(steps(&case), ["retire"]);
    for (kind, sent) in [(OrderKind::Terminate, false), (OrderKind::Update, true)] {
        case.last_order = Some(last(kind, sent));
        assert_eq!((steps(&case), held(&case)), (vec![], Some(Hold::Conflict)), "{kind:?}");
    }
}

#[test]
fn an_unclaimed_resource_without_a_directory_is_reported_with_its_remedy() {
    let mut unclaimed = case(Status::Pending, None, |_| Observed::Absent);
    unclaimed.resource.unclaimed = true;
    assert_eq!(
        hold_and_reason_of(&unclaimed),
        (Hold::Conflict, "set its state to Terminated in Waldur's administration")
    );
    unclaimed.observed = Ok(Observed::Trashed { since: 1 });
    let plan = plan(&[unclaimed], Policy::default(), NEEDED);
    assert!(plan.held[0].hold == Hold::Conflict && !plan.held[0].reason.contains("its path"), "{plan:?}");
}

#[test]
fn each_hold_says_whose_turn_it_is() {
    use Offering::{Basic, Other, SiteAgent};
    use OrderKind::{Create, Restore, Terminate, Update};
    use OrderState::{Executing, PendingProvider};
    use Status::{Active, Error, Pending, Removed, Removing, Updating};
    let absent: Observe<'_> = &|_| Observed::Absent;
    let ours: Observe<'_> = &|desired| Observed::Ours(present(desired));
    let drifted: Observe<'_> = &|desired| Observed::Ours(Present { mode: Mode(0o700), ..present(desired) });
    let full: Observe<'_> = &|desired| {
        let limits = QuotaLimits::new([Bytes(1 << 50); 2], [Inodes(100); 2]).unwrap();
        let usage = Usage { space: Bytes(1 << 45), inodes: Inodes(50) };
        Observed::Ours(Present { limits: Some(limits), usage: Some(usage), ..present(desired) })
    };
    let unmarked: Observe<'_> = &|desired| Observed::Unmarked(present(desired));
    let purging: Observe<'_> = &|_| Observed::Purging { since: 1 };
    let obstructed: Observe<'_> = &|_| Observed::Obstructed("a file".into());
    let slurm = |kind, state| order(kind, state, SiteAgent);
    let turn = |case: &Case| {
        let plan = plan(std::slice::from_ref(case), Policy::default(), NEEDED);
        plan.held.first().map(|held| (held.hold, held.turn))
    };
    for (status, order, observed, hold, expected) in [
        (Pending, slurm(Create, OrderState::Other), absent, Hold::Waiting, Turn::Customer),
        (Pending, order(Create, Executing, Basic), absent, Hold::Waiting, Turn::Provider),
        (Pending, order(Create, Executing, Other), absent, Hold::Refused, Turn::Provider),
        (Pending, slurm(OrderKind::Other, Executing), absent, Hold::Refused, Turn::Provider),
        (Removed, slurm(Create, Executing), absent, Hold::Refused, Turn::Provider),
        (Error, None, absent, Hold::Refused, Turn::Provider),
        (Updating, None, ours, Hold::Conflict, Turn::Provider),
        (Removed, None, ours, Hold::Conflict, Turn::Operator),
        (Active, None, absent, Hold::Drift, Turn::Operator),
        (Active, None, drifted, Hold::Drift, Turn::Operator),
        (Active, None, full, Hold::Drift, Turn::Customer),
        (Active, None, unmarked, Hold::Conflict, Turn::Operator),
        (Active, None, purging, Hold::Conflict, Turn::Operator),
        (Active, None, obstructed, Hold::Conflict, Turn::Operator),
        (Updating, slurm(Update, PendingProvider), full, Hold::Refused, Turn::Customer),
        (Updating, slurm(Update, PendingProvider), absent, Hold::Drift, Turn::Operator),
        (Pending, slurm(Restore, PendingProvider), absent, Hold::Conflict, Turn::Operator),
        (Removing, slurm(Terminate, Executing), absent, Hold::Conflict, Turn::Operator),
        (Removing, slurm(Terminate, Executing), unmarked, Hold::Conflict, Turn::Operator),
        (Removing, slurm(Terminate, Executing), obstructed, Hold::Conflict, Turn::Operator),
    ] {
        let case = case(status, order, observed);
        assert_eq!(turn(&case), Some((hold, expected)), "{status:?} {:?} {:?}", case.resource.order, case.observed);
    }
    let unreadable = Err(std::sync::Arc::new(storage_driver::DriverError::temporary("down")));
    let unreadable = Case { observed: unreadable, ..case(Active, None, ours) };
    assert_eq!(turn(&unreadable), Some((Hold::Fault, Turn::Storage)));
    assert_eq!(turn(&with_obstacle(ObstacleKind::Waiting, PendingProvider)), Some((Hold::Waiting, Turn::Identity)));
    let asks = plan(&removals(1..=6), Policy::default(), NEEDED);
    assert!(asks.held.iter().all(|held| (held.hold, held.turn) == (Hold::Asks, Turn::Operator)), "{asks:?}");
    let refused = refused(Create, "approve_by_provider", "Project 'x' is expired.");
    let declined = Case { last_order: Some(refused), ..case(Pending, slurm(Create, PendingProvider), absent) };
    assert_eq!(turn(&declined), Some((Hold::Declined, Turn::Provider)));
}

use std::collections::HashMap;

use provisioner_report::{self as report, Amount, HoldKind, Observed, TaskState, Trashed};
use serde_json::json;
use time::Duration;

use super::testing::*;
use super::*;
use crate::reports::Sample;

/// The conclusion about the only resource.
fn conclusion(changes: serde_json::Value, reports: Vec<Received>) -> Conclusion {
    story(&[record(0, changes)], reports).rows.remove(0).conclusion
}

fn with(change: impl FnOnce(&mut report::Resource)) -> Vec<Received> {
    let mut resource = reported(0);
    change(&mut resource);
    vec![received("alpha", vec![resource])]
}

#[track_caller]
fn check(conclusion: &Conclusion, turn: Turn, since: Option<OffsetDateTime>, why: &str) {
    assert_eq!((conclusion.turn, conclusion.since), (turn, since), "{conclusion:?}");
    assert!(conclusion.why.contains(why), "{conclusion:?}");
    assert!(!conclusion.why.contains(".."), "{conclusion:?}");
    assert_eq!(conclusion.next.is_empty(), turn == Turn::Nobody, "{conclusion:?}");
}

#[test]
fn a_resource_as_it_should_be_is_nobodys_turn() {
    let idle = conclusion(json!({}), vec![received("alpha", vec![reported(0)])]);
    check(&idle, Turn::Nobody, None, "as the document says");
}

#[test]
fn the_customer_decides_first() {
    for (state, why) in [
        ("pending-consumer", "customer's approval"),
        ("pending-project", "start of the project"),
        ("pending-start-date", "start date"),
    ] {
        let changes = json!({"state": "Creating", "order_in_progress": order("Create", state)});
        // Also without a provisioner, and whatever it reports.
        check(&conclusion(changes.clone(), Vec::new()), Turn::Customer, Some(ago(2)), why);
        let held = with(|it| it.hold = Some(hold(HoldKind::Fault, report::Turn::Storage)));
        check(&conclusion(changes, held), Turn::Customer, Some(ago(2)), why);
    }
}

#[test]
fn a_project_without_gid_is_the_turn_of_the_identity_service() {
    let changes =
        json!({"project_slug": "unknown", "order_in_progress": order("Create", "executing"), "state": "Creating"});
    let story = story(&[record(0, changes)], Vec::new());
    let row = &story.rows[0];
    check(
        &row.conclusion,
        Turn::Identity,
        Some(ago(2)),
        "The project “unknown” has no Unix GID: the HPC User API does not know it.",
    );
    assert_eq!(
        (row.system.as_str(), row.data_type.as_str(), row.customer.as_str()),
        ("capstor", "store", "University of Zürich")
    );
    assert_eq!(
        (row.slug.as_str(), row.state, row.status),
        ("resource-0", Some(State::Creating), Some(Status::Pending))
    );
    assert!(story.find(id(0)).is_some() && row.published.is_none());
}

#[test]
fn a_bad_record_is_the_providers_turn() {
    let story = story(&[record(0, json!({"limits": {"storage": "much"}})), json!(5)], Vec::new());
    check(&story.rows[0].conclusion, Turn::Provider, None, "limits.storage");
    check(&story.rows[1].conclusion, Turn::Provider, None, "is not a map");
    assert_eq!((story.rows[0].id, story.rows[1].id), (Some(id(0)), None));
}

#[test]
fn a_hold_says_what_the_operator_does_next() {
    let next = |kind, observed, commands: &[&str]| {
        let commands = commands.iter().map(|command| (*command).to_owned()).collect();
        let held = report::Hold { commands, ..hold(kind, report::Turn::Operator) };
        conclusion(json!({}), with(|it| (it.hold, it.observed) = (Some(held), observed))).next
    };
    for (kind, observed, commands, text) in [
        (HoldKind::Conflict, Observed::Obstructed, &[][..], "move away what is there"),
        (HoldKind::Drift, Observed::Present, &[], "Correct the directory on the storage, or the resource in Waldur"),
        (HoldKind::Conflict, Observed::Unmarked, &["a"], "Run the command"),
        (HoldKind::Asks, Observed::Present, &["a", "b"], "Review the plan"),
        (HoldKind::Refused, Observed::Present, &[], "Resolve the reason"),
    ] {
        let next = next(kind, observed, commands);
        assert!(next.contains(text), "{kind:?}: {next}");
    }
}

#[test]
fn a_hold_says_whose_turn_it_is() {
    for (of_report, turn) in [
        (report::Turn::Customer, Turn::Customer),
        (report::Turn::Provider, Turn::Provider),
        (report::Turn::Identity, Turn::Identity),
        (report::Turn::Storage, Turn::Storage),
        (report::Turn::Operator, Turn::Operator),
        (report::Turn::Provisioner, Turn::Provisioner),
    ] {
        let held = conclusion(json!({}), with(|it| it.hold = Some(hold(HoldKind::Conflict, of_report))));
        check(&held, turn, Some(ago(3)), "the reason");
        assert_eq!(held.commands, ["hpc-storage-provisioner adopt x"]);
    }
    // Without a time of its own, a hold is as old as the order.
    let changes = json!({"state": "Updating", "order_in_progress": order("Update", "executing")});
    let held =
        with(|it| it.hold = Some(report::Hold { since: None, ..hold(HoldKind::Refused, report::Turn::Provider) }));
    check(&conclusion(changes, held), Turn::Provider, Some(ago(2)), "the reason");
}

#[test]
fn work_is_the_provisioners_turn() {
    let changes = || json!({"state": "Creating", "order_in_progress": order("Create", "executing")});
    let due = conclusion(changes(), with(|it| it.task = Some(task(TaskState::Due))));
    check(&due, Turn::Provisioner, Some(ago(1)), "Create order executing.");
    assert_eq!(due.next, "The next pass: create, set_state_done.");
    let failed = report::Task { error: Some("disk full".into()), ..task(TaskState::Failed) };
    check(
        &conclusion(changes(), with(|it| it.task = Some(failed))),
        Turn::Provisioner,
        Some(ago(1)),
        "failed: disk full.",
    );
    let done = with(|it| it.task = Some(task(TaskState::Done)));
    check(&conclusion(changes(), done), Turn::Provisioner, Some(ago(2)), "still shows it as executing");
    // Nothing of it is reported yet.
    let other = vec![received("alpha", vec![reported(1)])];
    check(&conclusion(changes(), other), Turn::Provisioner, Some(ago(2)), "last report does not contain it yet");
    check(
        &conclusion(json!({}), with(|it| it.id = id(9))),
        Turn::Provisioner,
        None,
        "last report does not contain it yet",
    );
}

#[test]
fn done_work_is_nobodys_turn() {
    check(
        &conclusion(json!({}), with(|it| it.task = Some(task(TaskState::Done)))),
        Turn::Nobody,
        None,
        "as the document",
    );
}

#[test]
fn nobody_reports() {
    let waiting =
        conclusion(json!({"state": "Creating", "order_in_progress": order("Create", "executing")}), Vec::new());
    check(&waiting, Turn::Operator, Some(ago(2)), "nobody reports about this storage system");
    assert!(waiting.commands[0].starts_with("systemctl status"), "{waiting:?}");
    check(&conclusion(json!({}), Vec::new()), Turn::Nobody, None, "Nobody reports about this storage system");
    // A provisioner of another system changes nothing.
    let mut other = received("beta", Vec::new());
    other.report.systems[0].name = "vast".into();
    let story = story(&[record(0, json!({}))], vec![other]);
    check(&story.rows[0].conclusion, Turn::Nobody, None, "Nobody reports about this storage system");
    let systems: Vec<_> =
        story.systems.iter().map(|it| (it.name.as_str(), it.is_configured, it.reporters.len())).collect();
    assert_eq!(systems, [("capstor", true, 0), ("vast", false, 1)]);
}

#[test]
fn a_silent_provisioner_is_the_operators_turn() {
    let silent = |mut reports: Vec<Received>| {
        reports[0].received_at = ago(2);
        reports
    };
    let due = silent(with(|it| it.task = Some(task(TaskState::Due))));
    let order = json!({"state": "Creating", "order_in_progress": order("Create", "executing")});
    check(&conclusion(order, due), Turn::Operator, Some(ago(2)), "alpha is silent");
    // What other parties must do, they must do anyway; and where nothing was to do, nothing is.
    let held = silent(with(|it| it.hold = Some(hold(HoldKind::Refused, report::Turn::Provider))));
    check(&conclusion(json!({}), held), Turn::Provider, Some(ago(3)), "the reason");
    check(&conclusion(json!({}), silent(with(|_| {}))), Turn::Nobody, None, "as the document says");
}

#[test]
fn two_provisioners_of_one_system_are_the_operators_turn() {
    let both = |change: fn(&mut report::Resource)| {
        let [mut reports, more] = [with(change), with(change)];
        reports.extend(more);
        reports[1].name = "beta".into();
        reports
    };
    let due = both(|it| it.task = Some(task(TaskState::Due)));
    check(&conclusion(json!({}), due), Turn::Operator, Some(ago(1)), "alpha and beta both report");
    check(&conclusion(json!({}), both(|_| {})), Turn::Nobody, None, "as the document says");
    // If one is silent, the other one counts.
    let mut one = both(|it| it.task = Some(task(TaskState::Due)));
    one[0].received_at = ago(5);
    check(&conclusion(json!({}), one), Turn::Provisioner, Some(ago(1)), "Create order executing");
}

#[test]
fn a_report_does_not_hide_what_another_provisioner_says() {
    // The newest of all, for a moment.
    let mut hostile = received("beta", vec![reported(0)]);
    (hostile.received_at, hostile.report.next_within_seconds) = (now() - Duration::minutes(2), 60);
    let held = || with(|it| it.hold = Some(hold(HoldKind::Waiting, report::Turn::Customer))).remove(0);
    let story_of = |hostile: &Received| story(&[record(0, json!({}))], vec![held(), hostile.clone()]);
    check(&story_of(&hostile).rows[0].conclusion, Turn::Customer, Some(ago(3)), "the reason");
    assert_eq!(story_of(&hostile).systems[0].reporters, [0, 1]);
    // As long as it is not silent.
    hostile.report.next_within_seconds = 600;
    for resources in [vec![reported(0)], Vec::new()] {
        hostile.report.resources = resources;
        check(&story_of(&hostile).rows[0].conclusion, Turn::Customer, Some(ago(3)), "the reason");
        assert_eq!(story_of(&hostile).systems[0].reporters, [1, 0]);
    }
    // Nor for resources that Waldur does not list, whatever the names.
    let mut orphan = reported(5);
    let plain = received("a", vec![orphan.clone()]);
    orphan.hold = Some(hold(HoldKind::Conflict, report::Turn::Provider));
    let story = story(&[], vec![plain, received("b", vec![orphan])]);
    check(&story.rows[0].conclusion, Turn::Provider, Some(ago(3)), "the reason");
    assert_eq!(story.rows.len(), 1);
}

#[test]
fn items_are_rejected_only_by_the_provisioner_of_their_system() {
    let mut other = received("beta", Vec::new());
    other.report.systems[0].name = "vast".into();
    other.report.rejected.push(report::Rejected { id: Some(id(0)), reason: "nonsense".into() });
    let own = received("alpha", vec![reported(0)]);
    check(&conclusion(json!({}), vec![own, other]), Turn::Nobody, None, "as the document says");
}

#[test]
fn a_pass_that_failed_is_the_operators_turn() {
    let mut failed = with(|it| it.task = Some(task(TaskState::Due)));
    failed[0].report.pass.error = Some("the lease is held by another host".into());
    let at = now() - Duration::minutes(5);
    check(&conclusion(json!({}), failed), Turn::Operator, Some(at), "the lease is held by another host");
}

#[test]
fn storage_that_cannot_be_read_is_its_own_turn() {
    let mut reports = with(|it| (it.observed, it.detail) = (Observed::Unknown, "not mounted".into()));
    check(&conclusion(json!({}), with(|it| it.observed = Observed::Unknown)), Turn::Storage, None, "could not be read");
    reports[0].report.systems[0].error = Some("it is not mounted".into());
    check(&conclusion(json!({}), reports), Turn::Storage, None, "cannot read the storage system: it is not mounted.");
}

#[test]
fn a_directory_that_is_missing_or_strange_needs_somebody() {
    for (observed, turn) in [
        (Observed::Absent, Turn::Provisioner),
        (Observed::Trashed, Turn::Provisioner),
        (Observed::Unmarked, Turn::Operator),
        (Observed::Obstructed, Turn::Operator),
        (Observed::Purging, Turn::Operator),
    ] {
        check(&conclusion(json!({}), with(|it| it.observed = observed)), turn, None, "In use in Waldur, but");
    }
}

#[test]
fn a_state_that_only_waldur_can_change_is_the_providers_turn() {
    for (state, backend_id, why, has_command) in [
        ("Updating", "/capstor/x", "Updating in Waldur, but it has no order", true),
        ("Creating", "/capstor/x", "Creating in Waldur, but it has no order", true),
        ("Creating", "", "its order was deleted", false),
        ("Terminating", "/capstor/x", "Terminating in Waldur, but it has no order", true),
        ("Erred", "/capstor/x", "Erred: an order failed", true),
    ] {
        let stuck = conclusion(json!({"state": state, "backend_id": backend_id}), Vec::new());
        check(&stuck, Turn::Provider, None, why);
        assert_eq!(stuck.commands.len(), usize::from(has_command), "{stuck:?}");
        let url = format!("'https://waldur.example.org/api/marketplace-provider-resources/{}/set_state_ok/'", id(0));
        assert!(stuck.commands.iter().all(|command| command.ends_with(&url)), "{stuck:?}");
    }
}

#[test]
fn quotas_that_cannot_be_trusted_are_the_providers_turn() {
    check(&conclusion(json!({"limits": {"storage": 0}}), with(|_| {})), Turn::Provider, None, "the storage limit is 0");
}

#[test]
fn a_rejected_item_is_the_operators_turn() {
    let mut reports = vec![received("alpha", Vec::new())];
    reports[0].report.rejected.push(report::Rejected { id: Some(id(0)), reason: "the path has no owner".into() });
    check(&conclusion(json!({}), reports), Turn::Operator, None, "the path has no owner");
}

#[test]
fn a_terminated_resource_is_nobodys_turn_unless_its_directory_is_left() {
    let terminated = || json!({"state": "Terminated"});
    for (observed, turn, why) in [
        (Observed::Trashed, Turn::Nobody, "in the trash"),
        (Observed::Absent, Turn::Nobody, "Nothing of it"),
        (Observed::Present, Turn::Provisioner, "still there"),
    ] {
        check(&conclusion(terminated(), with(|it| it.observed = observed)), turn, None, why);
    }
    check(&conclusion(terminated(), Vec::new()), Turn::Nobody, None, "Terminated in Waldur.");
}

#[test]
fn resources_that_only_a_provisioner_knows_are_rows() {
    let mut orphan = reported(5);
    orphan.hold = Some(hold(HoldKind::Conflict, report::Turn::Operator));
    let story = story(&[record(0, json!({}))], vec![received("alpha", vec![reported(0), orphan])]);
    let row = story.find(id(5)).unwrap();
    check(&row.conclusion, Turn::Operator, Some(ago(3)), "the reason");
    assert_eq!((row.path.as_str(), row.state), ("/capstor/store/provider/uni/p5", None));
}

#[test]
fn the_document_is_joined_with_the_report() {
    let update = json!({
        "uuid": Uuid::from_u128(7), "type": "Update", "state": "executing", "created": "2027-01-15T06:00:00Z",
        "url": "https://waldur.example.org/api/marketplace-orders/7/", "limits": {"storage": 20},
        "attributes": {"old_limits": {"storage": 10}},
    });
    let story = story(&[record(0, json!({"state": "Updating", "order_in_progress": update}))], with(|_| {}));
    let row = &story.rows[0];
    let published = row.published.as_ref().unwrap();
    assert_eq!((published.mode.as_str(), published.gid, published.uid), ("775", Some(30_000), None));
    let [old, new] = published.update.unwrap().map(|quotas| quotas.unwrap().hard_space);
    assert_eq!((old, new, published.quotas.unwrap().soft_space), (10.0, 20.0, 10.0));
    assert_eq!((row.project.as_str(), row.path.as_str()), ("p0", "/capstor/store/provider/uni/p0"));
    let order = row.order.as_ref().unwrap();
    assert_eq!((order.kind.as_str(), order.state.as_str(), order.created), ("Update", "executing", Some(ago(2))));
    assert!((row.fullness().unwrap() - 0.5).abs() < 1e-9);
}

#[test]
fn growth_is_extended_into_the_future() {
    let mut reports = with(|_| {});
    let sample = |hours, gib| {
        Arc::new(Sample { at: ago(hours), usage: HashMap::from([(id(0), Amount { bytes: gib * GIB, inodes: 1_000 })]) })
    };
    // 1 GiB in 10 hours, and 5 GiB are left.
    reports[0].report.pass.ended_at = now();
    reports[0].samples = vec![sample(10, 4), sample(1, 5)];
    let full_at = |reports| story(&[record(0, json!({}))], reports).rows[0].full_at();
    assert_eq!(full_at(reports), Some(now() + Duration::hours(50)));
    let mut shrinking = with(|_| {});
    shrinking[0].samples = vec![sample(10, 6)];
    assert_eq!(full_at(shrinking), None);
    assert_eq!(full_at(with(|_| {})), None);
}

#[test]
fn the_trash_is_sorted_by_expiry() {
    let mut reports = with(|it| it.observed = Observed::Trashed);
    let trashed = |number, expires: Option<i64>| Trashed {
        id: id(number),
        system: "capstor".into(),
        since: ago(24),
        expires: expires.map(|hours| now() + Duration::hours(hours)),
        usage: None,
    };
    reports[0].report.trash = vec![trashed(3, None), trashed(0, Some(48)), trashed(2, Some(2))];
    let story = story(&[record(0, json!({"state": "Terminated"}))], reports);
    let order: Vec<_> = story.trash.iter().map(|trashed| (trashed.id, trashed.row)).collect();
    assert_eq!(order, [(id(2), None), (id(0), Some(0)), (id(3), None)]);
}

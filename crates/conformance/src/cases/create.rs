//! New directories.

use serde_json::json;
use simulator::world::{OrderState, ResourceState};

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level, both};
use crate::outcome::{Outcome, seen};

const SITE_AGENT: &str = "8.1: approve; wait for executing; create, verify; set_backend_id; set_state_done";
const BASIC: &str =
    "8.1: Basic: create, verify; set_backend_id; approve, which completes the order: the directory must exist before";
const STATES: &str = "8.1: Act only on orders in the state pending-provider or executing";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("create/site-agent", Level::Must, SITE_AGENT, site_agent),
        Case::new("create/basic", Level::Must, BASIC, basic).basic(),
        Case::new("create/already-executing", Level::Must, SITE_AGENT, already_executing),
        Case::new("create/modes", Level::Must, "4: permission: three or four octal digits", modes),
        Case::new(
            "create/after-a-user-target",
            Level::Must,
            "4: Targets: a user's key and name are null",
            after_a_user_target,
        ),
        Case::new("create/user-target", Level::Should, "4: Targets: user: primaryProject {unixGid}", user_target),
        Case::new(
            "create/without-an-order",
            Level::Must,
            "8.1: Act only on orders in the state pending-provider or executing. 7: resourceLinks: a resource that is Creating without an order or a backend_id was never created",
            without_an_order,
        ),
        Case::new("create/again-changes-nothing", Level::Should, "8: Each pass derives everything again", again),
    ];
    cases.extend(both("create/waits-for-approval", Level::Must, STATES, waits_for_approval));
    cases.extend(both(
        "create/never-half-made",
        Level::Should,
        "8.3: Create directories at a temporary name and rename them: owner, project ID, quotas, then mode",
        never_half_made,
    ));
    cases
}

fn site_agent(bench: &mut Bench<'_>) -> Outcome {
    let ordered = bench.order(0, 10);
    bench.start()?;
    bench.done(ordered)?;
    bench.order_of_calls(ordered, &["approve_by_provider", "set_backend_id", "set_state_done"])?;
    if bench.call(ordered, "approve_by_provider")?.probed.is_some_and(|probed| probed.exists == Some(true)) {
        return seen("the directory existed before the order was approved");
    }
    bench.was(ordered, "set_state_done", &Expected::of(0, 10))?;
    finished(bench, ordered)
}

fn basic(bench: &mut Bench<'_>) -> Outcome {
    let ordered = bench.order(0, 10);
    bench.start()?;
    bench.done(ordered)?;
    bench.order_of_calls(ordered, &["set_backend_id", "approve_by_provider"])?;
    bench.was(ordered, "approve_by_provider", &Expected::of(0, 10))?;
    finished(bench, ordered)
}

/// The directory stays as it is, and Waldur has its path.
fn finished(bench: &mut Bench<'_>, ordered: Ordered) -> Outcome {
    let (path, known) = (
        bench.path(ordered.resource),
        bench.world(|world| world.resources[&ordered.resource].text("backend_id").to_owned()),
    );
    if known.is_empty() || known != path {
        return seen(format!("Waldur's backend_id is {known:?}, not {path:?}"));
    }
    bench.settle()?;
    bench.is(ordered, &Expected::of(0, 10))?;
    let parents = bench.probe.parents(&path).map_err(|error| bench.probe.failure(&error))?;
    match parents.iter().find(|(_, mode)| mode & 0o3 != 0o1) {
        Some((parent, mode)) => seen(format!(
            "the mode of {parent}, above it, is {mode:o}: users must be able to enter it, and only its owner and group may write there (775)"
        )),
        None => Ok(()),
    }
}

/// Whenever somebody looks, the directory is either absent or complete.
fn never_half_made(bench: &mut Bench<'_>) -> Outcome {
    let all: Vec<_> = (0..4).map(|number| (bench.order(number, 10), Expected::of(number, 10))).collect();
    bench.start()?;
    bench.until("all orders are done", |bench| {
        let mut done = 0;
        for (ordered, expected) in &all {
            let probed = bench.read(ordered.resource)?;
            if probed.exists == Some(true) {
                bench.matches(*ordered, expected, &probed, ", seen while it is made")?;
            }
            done += usize::from(bench.order_state(*ordered) == Some(OrderState::Done));
        }
        Ok(done == all.len())
    })
}

/// Nobody has ordered a directory, or the order is over; its directory is not there.
fn without_an_order(bench: &mut Bench<'_>) -> Outcome {
    let states = [ResourceState::Creating, ResourceState::Ok, ResourceState::Erred, ResourceState::Updating];
    // With all directories missing, a careful command suspects that the storage is not mounted.
    let made = bench.create(4)?;
    bench.stop();
    let resources: Vec<Ordered> = (10..)
        .zip(states)
        .map(|(number, state)| {
            let ordered = bench.order(number, 10);
            bench.force(ordered, OrderState::Erred, state);
            ordered
        })
        .collect();
    let known = bench.order_size(made[0].resource, 20);
    bench.start()?;
    bench.done(known)?;
    bench.settle()?;
    for ordered in resources {
        bench.no_calls(ordered)?;
        bench.is_absent(ordered)?;
    }
    Ok(())
}

fn already_executing(bench: &mut Bench<'_>) -> Outcome {
    let ordered = bench.order(0, 10);
    bench.world(|world| world.force_order(ordered.order, OrderState::Executing));
    bench.start()?;
    bench.done(ordered)?;
    bench.no_calls_of(ordered, |action| action == "approve_by_provider")?;
    bench.was(ordered, "set_state_done", &Expected::of(0, 10))
}

fn waits_for_approval(bench: &mut Bench<'_>) -> Outcome {
    let pending = [OrderState::PendingConsumer, OrderState::PendingProject, OrderState::PendingStartDate];
    let mut waiting = Vec::new();
    for (number, state) in (0..).zip(pending) {
        let attributes = json!({ "storage_data_type": "store", "permissions": "2770" });
        let ordered = bench.request(number, json!({ "storage": 10 }), attributes);
        bench.world(|world| world.force_order(ordered.order, state));
        waiting.push(ordered);
    }
    bench.start()?;
    bench.settle()?;
    for ordered in &waiting {
        bench.no_calls(*ordered)?;
        bench.is_absent(*ordered)?;
    }
    bench.world(|world| world.force_order(waiting[0].order, OrderState::PendingProvider));
    bench.done(waiting[0])
}

fn modes(bench: &mut Bench<'_>) -> Outcome {
    let mut all = Vec::new();
    for (number, mode) in (0..).zip(["775", "0770", "2750", "700"]) {
        let attributes = json!({ "storage_data_type": "store", "permissions": mode });
        let ordered = bench.request(number, json!({ "storage": 10 }), attributes);
        all.push((bench.approved(ordered), number, mode));
    }
    bench.start()?;
    for (ordered, number, mode) in all {
        bench.done(ordered)?;
        let mode = u32::from_str_radix(mode, 8).unwrap_or_default();
        bench.is(ordered, &Expected { mode, ..Expected::of(number, 10) })?;
    }
    Ok(())
}

fn after_a_user_target(bench: &mut Bench<'_>) -> Outcome {
    for number in 0..2 {
        let attributes = json!({ "storage_data_type": "scratch", "permissions": "700" });
        let users = bench.request(number, json!({ "storage": 1 }), attributes);
        bench.approved(users);
    }
    let ordered = bench.order(2, 10);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected::of(2, 10))
}

fn user_target(bench: &mut Bench<'_>) -> Outcome {
    let attributes = json!({ "storage_data_type": "users", "permissions": "700" });
    let ordered = bench.request(0, json!({ "storage": 10 }), attributes);
    bench.world(|world| {
        let slug = world.resources[&ordered.resource].text("slug").to_owned();
        world.hpc.users.insert(slug, json!({ "unixUid": 23_001, "email": "user@example.org" }));
    });
    bench.approved(ordered);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected { mode: 0o700, ..Expected::of(0, 10) })
}

fn again(bench: &mut Bench<'_>) -> Outcome {
    let all = bench.create(2)?;
    bench.settle()?;
    let calls = |bench: &Bench<'_>| all.iter().map(|ordered| bench.accepted(*ordered).len()).sum::<usize>();
    let before = calls(bench);
    bench.stop();
    bench.start()?;
    bench.settle()?;
    let more = calls(bench) - before;
    if more > 0 { seen(format!("{more} callbacks for orders that were done already")) } else { Ok(()) }
}

//! Removed directories.

use simulator::world::ResourceState;

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level, both};
use crate::outcome::{Failure, Outcome, seen};

const SITE_AGENT: &str = "8.1: Terminate, site agent: approve; freeze, move to a trash; set_state_done";
const BASIC: &str = "8.1: Terminate, Basic: approve; once the resource is removed: freeze, move to a trash. Until then the users keep their directory";
const REFUSED: &str = "8.1: Terminate: approve first. 8.2: 400 is a refusal: nothing happens to the directory of a termination that Waldur has not approved";
const REMOVING: &str = "8.1: The status removing alone never touches data. 7: resourceLinks: its state does not change until an operator acts";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("terminate/site-agent", Level::Must, SITE_AGENT, site_agent),
        Case::new("terminate/basic", Level::Must, BASIC, basic).basic(),
        Case::new("terminate/others-stay", Level::Must, SITE_AGENT, others_stay),
    ];
    cases.extend(both("terminate/approval-refused", Level::Must, REFUSED, approval_refused));
    cases.extend(both("terminate/waits-for-approval", Level::Must, REMOVING, waits_for_approval));
    cases.extend(both("terminate/removing-without-order", Level::Must, REMOVING, removing_without_order));
    cases.extend(both(
        "terminate/restore",
        Level::Should,
        "8.1: Restore: as Create, with the directory from the trash",
        restore,
    ));
    cases.extend(both(
        "terminate/many-at-once",
        Level::Should,
        "8.3: Require an operator's confirmation before many removals at once",
        many,
    ));
    cases
}

fn site_agent(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let ordered = bench.order_end(made.resource);
    bench.done(ordered)?;
    bench.order_of_calls(ordered, &["approve_by_provider", "set_state_done"])?;
    bench.was(ordered, "approve_by_provider", &Expected::of(0, 10))?;
    let probed = bench.call(ordered, "set_state_done")?.probed.unwrap_or_default();
    if probed.exists == Some(true) {
        return seen("the directory was still in place when set_state_done was called");
    }
    bench.settle()?;
    bench.is_in_trash(ordered)
}

fn basic(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let ordered = bench.order_end(made.resource);
    bench.done(ordered)?;
    bench.was(ordered, "approve_by_provider", &Expected::of(0, 10))?;
    gone(bench, ordered)?;
    bench.settle()?;
    bench.is_in_trash(ordered)
}

/// Waits until the directory is gone from its path.
pub(super) fn gone(bench: &mut Bench<'_>, ordered: Ordered) -> Outcome {
    bench.until("the directory leaves its path", |bench| Ok(bench.read(ordered.resource)?.exists != Some(true)))
}

fn others_stay(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(4)?;
    let ordered = bench.order_end(made[1].resource);
    bench.done(ordered)?;
    bench.settle()?;
    bench.is_in_trash(ordered)?;
    for number in [0, 2, 3] {
        bench.is(made[number as usize], &Expected::of(number, 10))?;
    }
    Ok(())
}

fn approval_refused(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.world(|world| {
        let project = world.resources[&made[0].resource].project;
        if let Some(project) = world.projects.get_mut(&project) {
            project.expired = true;
        }
    });
    let ordered = bench.order_end(made[0].resource);
    bench.until("approve_by_provider is called", |bench| {
        let log = bench.gateway().log();
        Ok(log.iter().any(|exchange| exchange.status == Some(400) && exchange.action() == Some("approve_by_provider")))
    })?;
    bench.settle()?;
    bench.is(ordered, &Expected::of(0, 10))?;
    bench.no_calls_of(ordered, |action| action == "set_state_done")?;
    // Other orders go on.
    let other = bench.order_size(made[1].resource, 20);
    bench.done(other)?;
    bench.is(ordered, &Expected::of(0, 10))
}

fn waits_for_approval(bench: &mut Bench<'_>) -> Outcome {
    bench.waits_for_approval(Bench::order_end)
}

fn removing_without_order(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(3)?;
    bench.stop();
    let ordered = bench.order_end(made[0].resource);
    bench.world(|world| {
        // The order is deleted before anybody has approved it.
        let _ = world.delete_order(ordered.order);
        world.change(made[2].resource, "state", ResourceState::Erred.as_str().into());
    });
    if bench.resource_state(ordered.resource) != Some(ResourceState::Terminating) {
        return Err(Failure::Broken("the resource is not Terminating".into()));
    }
    bench.start()?;
    bench.settle()?;
    bench.is(ordered, &Expected::of(0, 10))?;
    let other = bench.order_size(made[1].resource, 20);
    bench.done(other)?;
    for (number, ordered) in [(0, ordered), (2, made[2])] {
        bench.no_calls_of(ordered, |action| action == "set_state_ok")?;
        bench.is(ordered, &Expected::of(number, 10))?;
    }
    Ok(())
}

fn restore(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let ended = bench.order_end(made.resource);
    bench.done(ended)?;
    gone(bench, ended)?;
    let order = bench.world(|world| world.order_restore(made.resource)).unwrap_or_default();
    let restored = bench.approved(Ordered { order, ..made });
    bench.done(restored)?;
    bench.is(restored, &Expected::of(0, 10))?;
    match bench.read(restored.resource)?.trash {
        Some(true) => seen("the data is still in the trash"),
        _ => Ok(()),
    }
}

fn many(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(40)?;
    bench.stop();
    let ended: Vec<Ordered> = made.iter().map(|made| bench.order_end(made.resource)).collect();
    bench.start()?;
    bench.settle()?;
    bench.settle()?;
    let mut gone = 0;
    for ordered in &ended {
        gone += usize::from(bench.read(ordered.resource)?.exists != Some(true));
    }
    if gone == ended.len() {
        seen(format!("all {gone} directories were removed, without a confirmation"))
    } else {
        Ok(())
    }
}

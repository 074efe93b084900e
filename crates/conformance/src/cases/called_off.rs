//! Orders that are called off at every step.

use simulator::World;
use simulator::world::{OrderState, ResourceState};

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level, both};
use crate::outcome::{Outcome, seen};

const BEFORE: &str = "8.2: 409: unclear: read the document again. 8.1: the work follows the approval";
const AFTER: &str =
    "8: A provisioner works from state: each pass derives everything again. 8.2: 409: read the document again";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("called-off/create", Level::Must, BEFORE, create),
        Case::new("called-off/create-executing", Level::Must, AFTER, create_executing),
        Case::new("called-off/resize", Level::Must, BEFORE, resize),
        Case::new(
            "called-off/resize-basic",
            Level::May,
            "5.1: quotas apply now; newQuotas are null unless an order in progress changes quotas",
            resize_basic,
        )
        .basic(),
        Case::new("called-off/resize-executing", Level::Must, AFTER, resize_executing),
        Case::new(
            "called-off/terminate-executing",
            Level::Must,
            "8.3: Delete it later, in a separate job, and only if Waldur shows removed",
            terminate_executing,
        ),
        Case::new("called-off/terminate-restores", Level::Should, AFTER, terminate_restores),
    ];
    cases.extend(both("called-off/terminate", Level::Must, BEFORE, terminate));
    cases.extend(both("called-off/before-it-is-read", Level::Must, BEFORE, before_it_is_read));
    cases
}

fn cancel(ordered: Ordered) -> impl FnOnce(&mut World) + Send {
    move |world| {
        // It is pending.
        let _ = world.cancel(ordered.order);
    }
}

/// An operator ends the executing order.
fn end(ordered: Ordered, resource: ResourceState) -> impl FnOnce(&mut World) + Send {
    move |world| {
        world.force_order(ordered.order, OrderState::Erred);
        world.change(ordered.resource, "state", resource.as_str().into());
    }
}

/// Other orders go on.
fn others_go_on(bench: &mut Bench<'_>) -> Outcome {
    let other = bench.order(9, 10);
    bench.done(other)?;
    bench.is(other, &Expected::of(9, 10))
}

/// Starts the command. This change happens when it makes this call, before the effect of the call.
fn called_off_at(
    bench: &mut Bench<'_>,
    ordered: Ordered,
    action: &'static str,
    change: impl FnOnce(&mut World) + Send + 'static,
) -> Outcome {
    bench.change_before(ordered, action, change);
    bench.start()?;
    bench.until(&format!("{action} is called"), |bench| Ok(bench.gateway().rules() == 0))
}

/// A resource with 10 TB, and an order for it. The command is stopped.
fn order_for_existing(bench: &mut Bench<'_>, order: impl FnOnce(&Bench<'_>, Ordered) -> Ordered) -> Outcome<Ordered> {
    let made = bench.create(1)?[0];
    bench.stop();
    Ok(order(bench, made))
}

fn resized(bench: &Bench<'_>, made: Ordered) -> Ordered {
    bench.order_size(made.resource, 20)
}

fn ended(bench: &Bench<'_>, made: Ordered) -> Ordered {
    bench.order_end(made.resource)
}

fn create(bench: &mut Bench<'_>) -> Outcome {
    let ordered = bench.order(0, 10);
    called_off_at(bench, ordered, "approve_by_provider", cancel(ordered))?;
    bench.settle()?;
    bench.is_absent(ordered)?;
    bench.no_calls_of(ordered, |action| action == "set_state_done")?;
    others_go_on(bench)
}

fn create_executing(bench: &mut Bench<'_>) -> Outcome {
    let ordered = bench.order(0, 10);
    let failed = bench.order(1, 10);
    bench.change_before(failed, "set_state_done", end(failed, ResourceState::Erred));
    called_off_at(bench, ordered, "set_state_done", end(ordered, ResourceState::Terminated))?;
    bench.settle()?;
    for ordered in [ordered, failed] {
        if bench.order_state(ordered) != Some(OrderState::Erred) {
            return seen("the order that an operator has ended changed again");
        }
    }
    let calls = |bench: &Bench<'_>| {
        let log = bench.gateway().log();
        log.iter().filter(|exchange| exchange.callback.is_some()).count()
    };
    let before = calls(bench);
    bench.settle()?;
    if calls(bench) > before {
        return seen("callbacks still came for orders that an operator had ended");
    }
    others_go_on(bench)
}

fn resize(bench: &mut Bench<'_>) -> Outcome {
    let ordered = order_for_existing(bench, resized)?;
    called_off_at(bench, ordered, "approve_by_provider", cancel(ordered))?;
    bench.settle()?;
    bench.is(ordered, &Expected::of(0, 10))?;
    others_go_on(bench)
}

fn resize_basic(bench: &mut Bench<'_>) -> Outcome {
    let ordered = order_for_existing(bench, resized)?;
    called_off_at(bench, ordered, "approve_by_provider", cancel(ordered))?;
    bench.becomes(ordered, &Expected::of(0, 10))
}

fn resize_executing(bench: &mut Bench<'_>) -> Outcome {
    let ordered = order_for_existing(bench, resized)?;
    called_off_at(bench, ordered, "set_state_done", end(ordered, ResourceState::Ok))?;
    bench.settle()?;
    let probed = bench.read(ordered.resource)?;
    if probed.exists == Some(false) {
        return seen("the directory is gone");
    }
    if bench.order_state(ordered) != Some(OrderState::Erred) {
        return seen("the order that an operator has ended changed again");
    }
    others_go_on(bench)
}

fn terminate(bench: &mut Bench<'_>) -> Outcome {
    let ordered = order_for_existing(bench, ended)?;
    called_off_at(bench, ordered, "approve_by_provider", cancel(ordered))?;
    bench.settle()?;
    bench.is(ordered, &Expected::of(0, 10))?;
    others_go_on(bench)
}

fn terminate_called_off_while_executing(bench: &mut Bench<'_>) -> Outcome<Ordered> {
    let ordered = order_for_existing(bench, ended)?;
    called_off_at(bench, ordered, "set_state_done", end(ordered, ResourceState::Ok))?;
    bench.settle()?;
    Ok(ordered)
}

fn terminate_executing(bench: &mut Bench<'_>) -> Outcome {
    let ordered = terminate_called_off_while_executing(bench)?;
    let probed = bench.read(ordered.resource)?;
    if probed.exists == Some(false) && probed.trash == Some(false) {
        return seen("the data is neither at its path nor in the trash");
    }
    others_go_on(bench)
}

fn terminate_restores(bench: &mut Bench<'_>) -> Outcome {
    let ordered = terminate_called_off_while_executing(bench)?;
    bench.becomes(ordered, &Expected::of(0, 10))
}

fn before_it_is_read(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.stop();
    let (ended, resized) = (bench.order_end(made[0].resource), bench.order_size(made[1].resource, 20));
    bench.world(|world| {
        for ordered in [ended, resized] {
            cancel(ordered)(world);
        }
    });
    bench.start()?;
    bench.settle()?;
    for (number, ordered) in (0..).zip([ended, resized]) {
        bench.no_calls_of(ordered, |action| action != "set_backend_id")?;
        bench.is(ordered, &Expected::of(number, 10))?;
    }
    others_go_on(bench)
}

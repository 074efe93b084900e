//! The command is killed at any moment and started again.

use std::time::Duration;

use simulator::world::OrderState;

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level, both};
use crate::gateway::{Effect, When};
use crate::outcome::{Failure, Outcome, seen};

const RULE: &str = "8: Each pass derives everything again, so a provisioner can be killed at any moment";

/// A kill before and after the effect of each of these calls.
const SITE_AGENT: [&str; 3] = ["approve_by_provider", "set_backend_id", "set_state_done"];
const BASIC: [&str; 2] = ["set_backend_id", "approve_by_provider"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(both("kills/create", Level::Must, RULE, create));
    cases.extend(both("kills/resize", Level::Must, RULE, resize));
    cases.extend(both("kills/terminate", Level::Must, RULE, terminate));
    cases.extend(both("kills/random", Level::Must, RULE, random));
    cases.push(Case::new("kills/without-its-state", Level::Should, RULE, without_state));
    cases
}

/// Kills the command at each of the calls of these orders: one order for each.
fn kill_at(bench: &Bench<'_>, orders: &[Ordered], calls: &[(&'static str, When)]) {
    for (ordered, (action, when)) in orders.iter().zip(calls) {
        bench.on(*ordered, action, Effect::Kill(*when));
    }
}

/// Kills the command at each of these calls. The orders are carried out, for directories of this size.
fn killed_at_each(
    bench: &mut Bench<'_>,
    orders: &[Ordered],
    calls: &[(&'static str, When)],
    terabytes: u64,
) -> Outcome {
    kill_at(bench, orders, calls);
    bench.start()?;
    for (number, ordered) in (0..).zip(orders) {
        bench.done(*ordered)?;
        bench.is(*ordered, &Expected::of(number, terabytes))?;
    }
    Ok(())
}

fn calls(bench: &Bench<'_>, actions: &[&'static str]) -> Vec<(&'static str, When)> {
    let all: &[&'static str] = if bench.is_basic() { &BASIC } else { &SITE_AGENT };
    let used = all.iter().filter(|action| actions.is_empty() || actions.contains(action));
    used.flat_map(|action| [(*action, When::Before), (*action, When::After)]).collect()
}

fn create(bench: &mut Bench<'_>) -> Outcome {
    let calls = calls(bench, &[]);
    let orders: Vec<Ordered> = (0..).zip(&calls).map(|(number, _)| bench.order(number, 10)).collect();
    killed_at_each(bench, &orders, &calls, 10)
}

fn resize(bench: &mut Bench<'_>) -> Outcome {
    let calls = calls(bench, &["approve_by_provider", "set_state_done"]);
    let made = bench.create(u32::try_from(calls.len()).unwrap_or(4))?;
    bench.stop();
    let orders: Vec<Ordered> = made.iter().map(|made| bench.order_size(made.resource, 20)).collect();
    killed_at_each(bench, &orders, &calls, 20)
}

fn terminate(bench: &mut Bench<'_>) -> Outcome {
    let calls = calls(bench, &["approve_by_provider", "set_state_done"]);
    let made = bench.create(u32::try_from(calls.len()).unwrap_or(4))?;
    bench.stop();
    let orders: Vec<Ordered> = made.iter().map(|made| bench.order_end(made.resource)).collect();
    kill_at(bench, &orders, &calls);
    bench.start()?;
    for ordered in orders {
        bench.done(ordered)?;
        super::terminate::gone(bench, ordered)?;
        bench.is_in_trash(ordered)?;
    }
    Ok(())
}

/// Kills at moments that have nothing to do with what the command does, while it has all kinds of work.
fn random(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(4)?;
    bench.stop();
    let orders = [
        bench.order(10, 10),
        bench.order(11, 10),
        bench.order_size(made[0].resource, 20),
        bench.order_size(made[1].resource, 5),
        bench.order_end(made[2].resource),
    ];
    // The same moments in every run: a linear congruential generator.
    let mut state = 1_u32;
    for _ in 0..bench.options.kills {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bench.start()?;
        std::thread::sleep(Duration::from_millis(u64::from(state >> 22) / 2));
        bench.kill();
    }
    bench.start()?;
    for ordered in orders {
        bench.done(ordered)?;
    }
    super::terminate::gone(bench, orders[4])?;
    bench.settle()?;
    for (ordered, expected) in [
        (orders[0], Expected::of(10, 10)),
        (orders[1], Expected::of(11, 10)),
        (orders[2], Expected::of(0, 20)),
        (orders[3], Expected::of(1, 5)),
        (made[3], Expected::of(3, 10)),
    ] {
        bench.is(ordered, &expected)?;
    }
    bench.is_in_trash(orders[4])
}

/// Started again on another host: the directory with the command's state is empty.
fn without_state(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.kill();
    let state = bench.root().with_file_name("state");
    let emptied = std::fs::remove_dir_all(&state).and_then(|()| std::fs::create_dir(&state));
    emptied.map_err(|error| Failure::Broken(error.to_string()))?;
    let (resized, ended) = (bench.order_size(made[0].resource, 20), bench.order_end(made[1].resource));
    bench.start()?;
    bench.done(resized)?;
    bench.is(resized, &Expected::of(0, 20))?;
    bench.done(ended)?;
    if bench.order_state(made[0]) != Some(OrderState::Done) {
        return seen("another order changed");
    }
    bench.is_in_trash(ended)
}

//! Changed quotas and options.

use serde_json::json;
use simulator::world::OrderState;

use crate::bench::{Bench, Expected, TERABYTE};
use crate::case::{Case, Level, both};
use crate::outcome::{Outcome, seen};

const UPDATE: &str = "8.1: Update: set the absolute quotas, read them back; then report. 5.1: newQuotas are requested by the order in progress";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "resize/approve-first",
            Level::Must,
            "8.1: Update, site agent: approve; set the absolute quotas, read them back; set_state_done",
            approve_first,
        ),
        Case::new("resize/several-at-once", Level::Must, UPDATE, several),
    ];
    cases.extend(both("resize/grow", Level::Must, UPDATE, |bench| resize(bench, 20)));
    cases.extend(both("resize/shrink", Level::Must, UPDATE, |bench| resize(bench, 5)));
    cases.extend(both("resize/options", Level::Must, "5.3: space hard: option hard_quota_space; inodes: options soft_quota_inodes, hard_quota_inodes; 6: permission: options.permissions", options));
    cases.extend(both(
        "resize/waits-for-approval",
        Level::Must,
        "8.1: Act only on orders in the state pending-provider or executing",
        waits_for_approval,
    ));
    cases.extend(both(
        "resize/options-with-report",
        Level::Should,
        "8.2: approve_by_provider: {\"attributes\": {\"new_options\": …}} with the order's newOptions",
        options_with_report,
    ));
    cases.extend(both(
        "resize/plan-switch",
        Level::Must,
        "5.1: An Update order with newQuotas: null changes no quotas: quotas apply (D26)",
        plan_switch,
    ));
    cases
}

fn resize(bench: &mut Bench<'_>, terabytes: u64) -> Outcome {
    let made = bench.create(1)?[0];
    let ordered = bench.order_size(made.resource, terabytes);
    bench.done(ordered)?;
    let report = if bench.is_basic() { "approve_by_provider" } else { "set_state_done" };
    bench.was(ordered, report, &Expected::of(0, terabytes))?;
    bench.settle()?;
    bench.is(ordered, &Expected::of(0, terabytes))
}

fn waits_for_approval(bench: &mut Bench<'_>) -> Outcome {
    bench.waits_for_approval(|bench, resource| bench.order_size(resource, 20))
}

fn approve_first(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let ordered = bench.order_size(made.resource, 20);
    bench.done(ordered)?;
    bench.order_of_calls(ordered, &["approve_by_provider", "set_state_done"])?;
    bench.was(ordered, "approve_by_provider", &Expected::of(0, 10))
}

fn several(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(3)?;
    let ordered: Vec<_> =
        made.iter().zip([20, 5, 30]).map(|(made, size)| (bench.order_size(made.resource, size), size)).collect();
    for (number, (ordered, size)) in (0..).zip(ordered) {
        bench.done(ordered)?;
        bench.is(ordered, &Expected::of(number, size))?;
    }
    Ok(())
}

fn options(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let options =
        json!({ "hard_quota_space": 12, "soft_quota_inodes": 1_000, "hard_quota_inodes": 2_000, "permissions": "750" });
    let ordered = bench.order_options(made.resource, &options);
    bench.done(ordered)?;
    let expected =
        Expected { mode: 0o750, space: [10 * TERABYTE, 12 * TERABYTE], inodes: [1_000, 2_000], ..Expected::of(0, 10) };
    // Waldur may complete the order at its approval, before the work.
    bench.becomes(ordered, &expected)?;
    // By less than a thousandth, but by more than a block.
    let options = json!({ "hard_quota_space": 12.000_01, "soft_quota_inodes": 1_000, "hard_quota_inodes": 2_001, "permissions": "750" });
    let ordered = bench.order_options(made.resource, &options);
    bench.done(ordered)?;
    let space = [10 * TERABYTE, 12 * TERABYTE + 10_000_000];
    bench.becomes(ordered, &Expected { space, inodes: [1_000, 2_001], ..expected })
}

/// With a Waldur that waits for the report.
fn options_with_report(bench: &mut Bench<'_>) -> Outcome {
    bench.world(|world| world.options_end_on_approval = false);
    let made = bench.create(1)?[0];
    let ordered = bench.order_options(made.resource, &json!({ "hard_quota_space": 12 }));
    bench.done(ordered)?;
    let expected = Expected { space: [10 * TERABYTE, 12 * TERABYTE], ..Expected::of(0, 10) };
    let report = if bench.is_basic() { "approve_by_provider" } else { "set_state_done" };
    bench.was(ordered, report, &expected)?;
    let options = bench.world(|world| world.resources[&ordered.resource].record["options"].clone());
    if options["hard_quota_space"] == 12 { Ok(()) } else { seen(format!("Waldur's options are {options}")) }
}

fn plan_switch(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    bench.stop();
    let ordered = bench.order_size(made.resource, 10);
    bench.world(|world| {
        if let Some(order) = world.orders.get_mut(&ordered.order) {
            order.set("attributes", json!({}));
        }
    });
    bench.start()?;
    bench.done(ordered)?;
    if bench.order_state(made) != Some(OrderState::Done) {
        return seen("another order changed");
    }
    bench.is(ordered, &Expected::of(0, 10))
}

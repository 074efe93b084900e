//! Values of quotas.

use serde_json::{Value, json};
use simulator::world::OrderState;

use crate::bench::{BLOCK, Bench, Expected, TERABYTE};
use crate::case::{Case, Level, both};
use crate::outcome::{Outcome, seen};

const PROBLEM: &str = "5.1: An item in quotaProblems has quotas that must not be applied, and its order must not be rejected because of them. 5.2: never set a quota of 0";
const ZERO: &str = "5.2: Storage systems treat 0 as unlimited: never set a quota of 0";
const UNITS: &str = "5.2: Values may be fractions; round up to whole bytes, inodes and blocks (D27)";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("quotas/pinned-by-an-option", Level::Must, PROBLEM, pinned),
        Case::new("quotas/missing-component", Level::Must, PROBLEM, missing_component),
        Case::new(
            "quotas/null-in-use",
            Level::Must,
            "5.1: null means that no space is granted. 5.2: never set a quota of 0",
            null_in_use,
        ),
        Case::new("quotas/fraction-of-a-terabyte", Level::Must, UNITS, fraction),
        Case::new("quotas/fraction-of-a-byte", Level::Must, UNITS, fraction_of_a_byte),
        Case::new(
            "quotas/hard-above-soft",
            Level::Must,
            "5.3: space soft: storage; space hard: option hard_quota_space, else storage",
            hard_above_soft,
        ),
        Case::new(
            "quotas/beyond-2-53-bytes",
            Level::Must,
            "5.2: tera is 10^12 bytes: whole bytes, also above 2^53",
            |bench| exact(bench, 9_008),
        ),
        Case::new("quotas/odd-beyond-2-53-bytes", Level::Should, UNITS, odd),
        Case::new("quotas/near-2-63-bytes", Level::Should, "5.2: tera is 10^12 bytes: whole bytes", |bench| {
            exact(bench, 9_000_000)
        }),
        Case::new(
            "quotas/beyond-2-64-bytes",
            Level::Must,
            "5.2: whole bytes: a number that does not fit must not become a smaller one, nor unlimited",
            too_large,
        ),
    ];
    cases.extend(both("quotas/zero-ordered", Level::Must, PROBLEM, zero_ordered));
    cases.extend(both("quotas/shrink-to-zero", Level::Must, PROBLEM, shrink_to_zero));
    cases.extend(both("quotas/zero-without-a-problem", Level::Must, ZERO, zero_without_problem));
    cases
}

fn not_unlimited(bench: &mut Bench<'_>, resource: uuid::Uuid) -> Outcome {
    let probed = bench.read(resource)?;
    for (what, pair) in [("space", probed.space), ("inodes", probed.inodes)] {
        if pair.is_some_and(|pair| pair.soft == Some(0) || pair.hard == Some(0)) {
            return seen(format!("the quota of {what} is 0, which is unlimited"));
        }
    }
    Ok(())
}

/// The order is neither done nor rejected.
fn is_held(bench: &mut Bench<'_>, ordered: crate::bench::Ordered) -> Outcome {
    bench.settle()?;
    match bench.order_state(ordered) {
        Some(OrderState::Done) => seen("the order was reported as done"),
        Some(OrderState::Rejected | OrderState::Erred) => {
            seen("the order was ended, although its quotas only cannot be trusted")
        }
        _ => Ok(()),
    }
}

fn zero_ordered(bench: &mut Bench<'_>) -> Outcome {
    // The order itself asks for the impossible.
    bench.allow_refusal();
    let ordered = bench.order(0, 0);
    bench.start()?;
    bench.settle()?;
    not_unlimited(bench, ordered.resource)?;
    if bench.order_state(ordered) == Some(OrderState::Done) {
        return seen("the order was reported as done");
    }
    Ok(())
}

fn shrink_to_zero(bench: &mut Bench<'_>) -> Outcome {
    bench.allow_refusal();
    let made = bench.create(1)?[0];
    let ordered = bench.order_size(made.resource, 0);
    bench.settle()?;
    not_unlimited(bench, ordered.resource)?;
    bench.is(made, &Expected::of(0, 10))?;
    if bench.order_state(ordered) == Some(OrderState::Done) {
        return seen("the order was reported as done");
    }
    Ok(())
}

/// Quotas of 0 in a listing that does not call them a problem.
fn zero_without_problem(bench: &mut Bench<'_>) -> Outcome {
    bench.allow_refusal();
    let ordered = bench.order(0, 10);
    bench.edit_listing(|page| {
        for item in page["resources"].as_array_mut().into_iter().flatten() {
            for quota in item["quotas"].as_array_mut().into_iter().flatten() {
                quota["quota"] = json!(0.0);
            }
        }
    });
    bench.start()?;
    bench.settle()?;
    not_unlimited(bench, ordered.resource)?;
    match bench.order_state(ordered) {
        Some(OrderState::Done) => seen("the order was reported as done"),
        _ => Ok(()),
    }
}

fn pinned(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    bench.stop();
    bench.world(|world| world.change(made.resource, "options", json!({ "hard_quota_space": 10 })));
    let ordered = bench.order_size(made.resource, 20);
    bench.start()?;
    is_held(bench, ordered)?;
    bench.is(made, &Expected::of(0, 10))
}

fn missing_component(bench: &mut Bench<'_>) -> Outcome {
    let ordered =
        bench.request(0, json!({ "storage_tb": 10 }), json!({ "storage_data_type": "store", "permissions": "2770" }));
    bench.approved(ordered);
    bench.start()?;
    is_held(bench, ordered)?;
    bench.is_absent(ordered)
}

fn null_in_use(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    bench.edit_listing(|page| {
        for item in page["resources"].as_array_mut().into_iter().flatten() {
            item["quotas"] = Value::Null;
        }
    });
    bench.settle()?;
    bench.is(made, &Expected::of(0, 10))
}

fn fraction(bench: &mut Bench<'_>) -> Outcome {
    let attributes = json!({ "storage_data_type": "store", "permissions": "2770" });
    let ordered = bench.request(0, json!({ "storage": 0.25 }), attributes);
    bench.approved(ordered);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected { space: [TERABYTE / 4; 2], inodes: [375_000, 500_000], ..Expected::of(0, 1) })
}

/// 1.5 bytes more than a TB become two.
fn fraction_of_a_byte(bench: &mut Bench<'_>) -> Outcome {
    at_least(bench, 1.000_000_000_001_5, TERABYTE + 2)
}

/// A number of bytes that a double cannot hold: not one byte less than ordered.
fn odd(bench: &mut Bench<'_>) -> Outcome {
    at_least(bench, 9_007.199_254_740_993, 9_007_199_254_740_993)
}

fn at_least(bench: &mut Bench<'_>, terabytes: f64, bytes: u64) -> Outcome {
    let attributes = json!({ "storage_data_type": "store", "permissions": "2770" });
    let ordered = bench.request(0, json!({ "storage": terabytes }), attributes);
    bench.approved(ordered);
    bench.start()?;
    bench.done(ordered)?;
    match bench.read(ordered.resource)?.space.and_then(|space| space.hard) {
        Some(hard) if hard < bytes => seen(format!("the quota is {hard} bytes, less than {bytes}")),
        Some(hard) if hard - bytes > BLOCK => {
            seen(format!("the quota is {hard} bytes, by more than a block more than {bytes}"))
        }
        _ => Ok(()),
    }
}

fn hard_above_soft(bench: &mut Bench<'_>) -> Outcome {
    let attributes = json!({ "storage_data_type": "store", "permissions": "2770" });
    let ordered = bench.request(0, json!({ "storage": 10 }), attributes);
    bench.world(|world| world.change(ordered.resource, "options", json!({ "hard_quota_space": 11 })));
    bench.approved(ordered);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected { space: [10 * TERABYTE, 11 * TERABYTE], ..Expected::of(0, 10) })
}

fn exact(bench: &mut Bench<'_>, terabytes: u64) -> Outcome {
    let ordered = bench.order(0, terabytes);
    bench.start()?;
    bench.done(ordered)?;
    bench.is(ordered, &Expected::of(0, terabytes))
}

fn too_large(bench: &mut Bench<'_>) -> Outcome {
    bench.allow_refusal();
    let (large, other) = (bench.order(0, 20_000_000), bench.order(1, 10));
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    not_unlimited(bench, large.resource)?;
    let probed = bench.read(large.resource)?;
    match probed.space.and_then(|space| space.hard) {
        Some(hard) if hard < u64::MAX => seen(format!("the quota is {hard} bytes, less than ordered")),
        _ => Ok(()),
    }
}

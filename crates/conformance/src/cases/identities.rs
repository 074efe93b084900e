//! Groups.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level};
use crate::outcome::{Outcome, seen};
use crate::site::{FIRST_GID, PROJECTS};

const MISSING: &str = "7: skipped: MissingIdentityError: no GID (D7). 4: unixGid is an integer from 1 to 4294967294: do not give a directory to any other value, and do not use 0 in its place";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("identities/gid-missing", Level::Must, MISSING, missing),
        Case::new("identities/gid-null", Level::Must, MISSING, |bench| strange(bench, [Value::Null])),
        Case::new("identities/gid-null-basic", Level::Must, MISSING, |bench| strange(bench, [Value::Null])).basic(),
        Case::new("identities/gid-0", Level::Must, MISSING, |bench| strange(bench, [json!(0)])),
        Case::new("identities/gid-negative", Level::Must, MISSING, |bench| strange(bench, [json!(-1)])),
        Case::new("identities/gid-text", Level::Must, MISSING, |bench| strange(bench, [json!("30500")])),
        // The first one is 0 in 32 bits. The second one is -1, with which chown changes nothing.
        Case::new("identities/gid-too-large", Level::Must, MISSING, |bench| {
            strange(bench, [4_294_967_296_u64, 4_294_967_295].map(Value::from))
        }),
        Case::new(
            "identities/gid-changed",
            Level::Must,
            "8.3: Use an existing directory only if it has the resource's own mark; absence or a new GID never means delete",
            changed,
        ),
        Case::new(
            "identities/two-trees-of-one-group",
            Level::Must,
            "5: the quotas of an item hold for its directory; several resources of a project have the same unixGid",
            two_trees,
        ),
        Case::new(
            "identities/two-trees-terminate",
            Level::Must,
            "8.1: Terminate: freeze and move the resource's own directory",
            two_trees_terminate,
        ),
    ]
}

/// A project without a GID waits until it has one; others do not.
fn missing(bench: &mut Bench<'_>) -> Outcome {
    // A project of its own, because the proxy keeps the GIDs that it has seen.
    bench.world(|world| {
        let customer = world.customers[0].uuid;
        world.add_project(customer, "late-gid", "A project that gets its GID late");
    });
    let (waits, other) = (bench.order(PROJECTS, 10), bench.order(1, 10));
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    bench.is_absent(waits)?;
    bench.no_calls(waits)?;
    bench.world(|world| world.hpc.set_gid("late-gid", Some(FIRST_GID + PROJECTS)));
    bench.done(waits)?;
    bench.is(waits, &Expected::of(PROJECTS, 10))
}

/// Orders whose items have GIDs that cannot be used, and one with a GID.
fn strange<const N: usize>(bench: &mut Bench<'_>, gids: [Value; N]) -> Outcome {
    bench.allow_refusal();
    let strange: Vec<(Ordered, Value)> = (2..).zip(gids).map(|(number, gid)| (bench.order(number, 10), gid)).collect();
    let other = bench.order(1, 10);
    let gids: HashMap<String, Value> =
        strange.iter().map(|(ordered, gid)| (ordered.resource.to_string(), gid.clone())).collect();
    bench.edit_listing(move |page| {
        for item in page["resources"].as_array_mut().into_iter().flatten() {
            if let Some(gid) = item["itemId"].as_str().and_then(|id| gids.get(id)) {
                item["target"]["targetItem"]["unixGid"] = gid.clone();
            }
        }
    });
    bench.start()?;
    bench.done(other)?;
    bench.settle()?;
    for (ordered, _) in strange {
        bench.is_absent(ordered)?;
        bench.no_calls_of(ordered, |action| action == "set_state_done" || action == "reject_by_provider")?;
    }
    Ok(())
}

fn changed(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.world(|world| world.hpc.set_gid("p0", Some(31_000)));
    bench.settle()?;
    let probed = bench.read(made[0].resource)?;
    if probed.exists == Some(false) {
        return seen("the directory is gone");
    }
    if probed.gid.is_some_and(|gid| gid != 30_500 && gid != 31_000) {
        return seen(format!("the group is {:?}, neither the old one nor the new one", probed.gid));
    }
    let resized = bench.order_size(made[1].resource, 20);
    bench.done(resized)
}

/// A project with a directory for each of two data types.
fn pair(bench: &mut Bench<'_>) -> Outcome<[Ordered; 2]> {
    let mut pair = Vec::new();
    for (data_type, terabytes) in [("store", 10), ("archive", 30)] {
        let attributes = json!({ "storage_data_type": data_type, "permissions": "2770" });
        let ordered = bench.request(0, json!({ "storage": terabytes }), attributes);
        pair.push(bench.approved(ordered));
    }
    bench.start()?;
    for ordered in &pair {
        bench.done(*ordered)?;
    }
    let pair = [pair[0], pair[1]];
    sizes(bench, pair, [10, 30])?;
    Ok(pair)
}

fn sizes(bench: &mut Bench<'_>, pair: [Ordered; 2], sizes: [u64; 2]) -> Outcome {
    for (ordered, size) in pair.into_iter().zip(sizes) {
        bench.is(ordered, &Expected::of(0, size))?;
    }
    Ok(())
}

fn two_trees(bench: &mut Bench<'_>) -> Outcome {
    let pair = pair(bench)?;
    let resized = bench.order_size(pair[0].resource, 20);
    bench.done(resized)?;
    bench.settle()?;
    sizes(bench, pair, [20, 30])
}

fn two_trees_terminate(bench: &mut Bench<'_>) -> Outcome {
    let pair = pair(bench)?;
    let ended = bench.order_end(pair[0].resource);
    bench.done(ended)?;
    bench.settle()?;
    bench.is_in_trash(ended)?;
    bench.is(pair[1], &Expected::of(0, 30))
}

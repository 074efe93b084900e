//! What happens to every service: tokens expire, programs restart, lists are long.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use simulator::world::{OrderState, ResourceState};

use crate::bench::{Bench, Expected, Ordered};
use crate::case::{Case, Level};
use crate::gateway::{Answer, ListingChange};
use crate::outcome::{Failure, Outcome, seen};

const TOKEN: &str = "2: Both need an access token of the realm; 401: no token, or one that is not valid";
const STORAGE: &str =
    "8.1: create, verify; then report. 8.3: Read back before you report. Never report erred for a temporary error";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("operation/token-expires", Level::Must, TOKEN, token_expires),
        Case::new("operation/token-is-revoked", Level::Should, TOKEN, token_is_revoked),
        Case::new("operation/token-expires-between-pages", Level::Should, TOKEN, token_expires_between_pages),
        Case::new(
            "operation/proxy-restarts",
            Level::Must,
            "8: A provisioner runs a loop and works from state. 8.3: Never act on a list that is an error",
            proxy_restarts,
        ),
        Case::new("operation/storage-is-away", Level::Must, STORAGE, storage_is_away),
        Case::new("operation/storage-is-away-basic", Level::Must, STORAGE, storage_is_away).basic(),
        Case::new(
            "operation/1000-resources",
            Level::Should,
            "3: To read the whole document, read all pages from 1 to pages",
            thousand,
        ),
        Case::new(
            "operation/polls-if-the-proxy-does-not-wait",
            Level::Should,
            "2.1: Without Preference-Applied the proxy has not waited: then poll. 8.2: back off",
            polls,
        ),
        Case::new("operation/stops-on-sigterm", Level::Should, "8: A provisioner can be stopped at any moment", stops),
        Case::new(
            "operation/reacts-within-5-s",
            Level::May,
            "8: A provisioner runs a loop: read the whole document, compare it with the storage, act, report",
            reacts,
        ),
    ]
}

fn token_expires(bench: &mut Bench<'_>) -> Outcome {
    bench.site.register(2);
    bench.gateway().expire_strictly();
    let made = bench.create(1)?;
    for number in 1..4 {
        std::thread::sleep(Duration::from_secs(1));
        let ordered = bench.order(number, 10);
        bench.done(ordered)?;
    }
    bench.is(made[0], &Expected::of(0, 10))
}

fn token_is_revoked(bench: &mut Bench<'_>) -> Outcome {
    bench.create(1)?;
    // So that the next token differs.
    std::thread::sleep(Duration::from_secs(1));
    bench.gateway().revoke_tokens();
    let ordered = bench.order(1, 10);
    bench.done(ordered)
}

fn token_expires_between_pages(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(4)?;
    bench.gateway().change_listing(|listing| {
        listing.page_size = Some(3);
        listing.fail_page = Some((2, 401));
    });
    bench.settle()?;
    let resized = bench.order_size(made[3].resource, 20);
    bench.done(resized)?;
    bench.is(resized, &Expected::of(3, 20))
}

fn proxy_restarts(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(2)?;
    bench.site.stop_proxy();
    let outcome = bench.settle();
    // Later cases need it, too.
    bench.site.start_proxy().map_err(|error| Failure::Broken(format!("{error:#}")))?;
    outcome?;
    for (number, ordered) in (0..).zip(&made) {
        bench.is(*ordered, &Expected::of(number, 10))?;
    }
    let ordered = bench.order(2, 10);
    bench.done(ordered)
}

/// The storage is gone for a while, as a file system that is not mounted.
fn storage_is_away(bench: &mut Bench<'_>) -> Outcome {
    let made = bench.create(1)?[0];
    let (root, away) = (bench.root(), bench.root().with_file_name("away"));
    let moved = |from: &Path, to: &Path| {
        std::fs::rename(from, to).map_err(|error| Failure::Broken(format!("cannot move {}: {error}", from.display())))
    };
    moved(&root, &away)?;
    let orders =
        [(bench.order(1, 10), Expected::of(1, 10)), (bench.order_size(made.resource, 20), Expected::of(0, 20))];
    let outcome = bench.settle();
    bench.stop();
    if root.exists() {
        // What the command made there is not on the storage.
        std::fs::remove_dir_all(&root).map_err(|error| Failure::Broken(error.to_string()))?;
    }
    moved(&away, &root)?;
    for (ordered, expected) in &orders {
        if bench.order_state(*ordered) == Some(OrderState::Done) {
            bench.is(*ordered, expected)?;
        }
    }
    outcome?;
    bench.start()?;
    for (ordered, expected) in &orders {
        bench.done(*ordered)?;
        bench.is(*ordered, expected)?;
    }
    Ok(())
}

fn thousand(bench: &mut Bench<'_>) -> Outcome {
    bench.world(|world| {
        let (offering, customer) = (world.offerings[0].uuid, world.customers[0].uuid);
        for number in 0..960 {
            let slug = format!("old{number}");
            let project = world.add_project(customer, &slug, &slug);
            world.hpc.add_project(&slug, Some(40_000 + number));
            let record = json!({ "limits": { "storage": 1 }, "attributes": { "storage_data_type": "store" } });
            let record = record.as_object().cloned().unwrap_or_default();
            world.add_resource((offering, project), &slug, ResourceState::Terminated, record);
        }
    });
    let all: Vec<Ordered> = (0..40).map(|number| bench.order(number, 10)).collect();
    bench.start()?;
    for (number, ordered) in (0..).zip(all) {
        bench.done(ordered)?;
        bench.is(ordered, &Expected::of(number, 10))?;
    }
    Ok(())
}

fn stops(bench: &mut Bench<'_>) -> Outcome {
    bench.create(1)?;
    if bench.stop() { Ok(()) } else { seen("the command still runs 10 s after SIGTERM") }
}

/// With a proxy that does not know how to wait, and with one that is overloaded, the command does not ask without a pause.
fn polls(bench: &mut Bench<'_>) -> Outcome {
    bench.gateway().change_listing(|listing| listing.ignores_waits = true);
    bench.create(1)?;
    bench.settle()?;
    at_most_20_requests(bench, "with nothing to do")?;
    bench.change_listing(Some(ListingChange::Answer(Answer::Status(503))));
    at_most_20_requests(bench, "to a proxy that answers 503")
}

fn at_most_20_requests(bench: &Bench<'_>, when: &str) -> Outcome {
    let before = bench.gateway().log().len();
    std::thread::sleep(Duration::from_secs(2));
    let requests = bench.gateway().log().len() - before;
    if requests > 20 { seen(format!("{requests} requests within 2 s, {when}")) } else { Ok(()) }
}

fn reacts(bench: &mut Bench<'_>) -> Outcome {
    bench.create(1)?;
    bench.settle()?;
    let begun = std::time::Instant::now();
    let ordered = bench.order(1, 10);
    bench.done(ordered)?;
    let seconds = begun.elapsed().as_secs_f64();
    if seconds <= 5.0 { Ok(()) } else { seen(format!("it took {seconds:.1} s")) }
}

//! Processor time of building, rendering and hashing 100,000 resources, all of them and after small changes.
//!
//! `cargo bench --package hpc-storage-proxy --bench refresh`

#![expect(clippy::print_stdout, reason = "the figures are the output")]

#[path = "catalogue/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalogue, Customer, Identities, Resource};
use proxy::snapshot::Snapshot;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use world::{World, parse, records, world};

const RESOURCES: usize = 100_000;
const ROUNDS: usize = 9;

/// A world changes in each round, given its number.
type Change = fn(&mut World, usize, &[Arc<Resource>]);

fn main() {
    let mut world = world(RESOURCES);
    // Resources that are not in the world, of new projects and customers.
    let new = parse(&records(RESOURCES + 40 * ROUNDS)).split_off(RESOURCES);
    let (mut catalogue, mut snapshot) = (None, None);
    let full: Vec<_> = (0..ROUNDS).map(|_| refresh(&world, None, None, &mut catalogue, &mut snapshot)).collect();
    let full = median(full);
    println!("{:<46} {:>9} {:>9} {:>8}  target", "change since the last refresh", "median", "maximum", "of full");
    println!("{:<46} {:>9} {:>9}", "full: no catalogue before", shown(full.0), shown(full.1));
    // With the target in percent of a full one.
    let changes: [(&str, Option<f64>, Change); 5] = [
        ("nothing", None, |_, _, _| {}),
        ("10 resources", Some(3.0), |world, round, _| change(world, round, 10)),
        ("100 resources", None, |world, round, _| change(world, round, 100)),
        ("a new resource of a new project, at the end", Some(10.0), |world, round, new| {
            let customer_slug = world.resources[0].customer_slug.clone();
            let resource = Arc::new(Resource { customer_slug, ..Resource::clone(&new[round * 40]) });
            add_gid(world, &resource);
            world.resources.push(resource);
        }),
        ("the same with a new customer, at the front", Some(10.0), |world, round, new| {
            let resource = &new[round * 40 + 1];
            add_gid(world, resource);
            let customer = Customer { uuid: Uuid::from_u128(round as u128), name: None };
            Arc::make_mut(&mut world.customers).insert(resource.customer_slug.clone(), customer);
            world.resources.insert(0, Arc::clone(resource));
        }),
    ];
    for (name, target, change) in changes {
        let round = |round| {
            change(&mut world, round, &new);
            let (last, before) = (catalogue.take(), snapshot.take());
            refresh(&world, last, before.as_ref(), &mut catalogue, &mut snapshot)
        };
        let (median, maximum) = median((0..ROUNDS).map(round).collect());
        let ratio = median.as_secs_f64() / full.0.as_secs_f64() * 100.0;
        let verdict = |target| format!("≤ {target} %: {}", if ratio <= target { "met" } else { "missed" });
        let verdict = target.map(verdict).unwrap_or_default();
        println!("{name:<46} {:>9} {:>9} {ratio:>6.1} %  {verdict}", shown(median), shown(maximum));
    }
}

/// Builds and renders; returns the processor time.
#[expect(clippy::expect_used, reason = "an item is always valid JSON")]
fn refresh(
    world: &World,
    last: Option<Catalogue>,
    before: Option<&Snapshot>,
    catalogue: &mut Option<Catalogue>,
    snapshot: &mut Option<Snapshot>,
) -> Duration {
    let began = processor_time();
    let built = world.build(last);
    *snapshot = Some(Snapshot::render(&built, Vec::new(), before).expect("a catalogue can be rendered"));
    *catalogue = Some(built);
    processor_time().saturating_sub(began)
}

/// Changes `count` resources, distributed over all.
fn change(world: &mut World, round: usize, count: usize) {
    let resources = world.resources.len();
    for number in 0..count {
        let resource = &mut world.resources[(number * (resources / count) + round * 331) % resources];
        let mut changed = Resource::clone(resource);
        changed.backend_id = Some(format!("/capstor/changed/{round}/{number}"));
        *resource = Arc::new(changed);
    }
}

fn add_gid(world: &mut World, resource: &Resource) {
    let Identities { gids, .. } = Arc::make_mut(&mut world.identities);
    gids.insert(resource.project_slug.clone(), Ok(29_999));
}

/// Of all threads.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The median and the maximum.
fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

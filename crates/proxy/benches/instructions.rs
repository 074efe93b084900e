//! One piece of work, once, for counting its instructions: `benches/instructions` runs it under callgrind.
//!
//! The argument says which piece; without one all are done.

#[path = "catalogue/world.rs"]
mod world;

use std::hint::black_box;

use catalog::{Catalogue, Filter, Resource, Status};
use proxy::snapshot::Snapshot;
use serde_json::value::RawValue;

use world::{World, records, world};

const RESOURCES: usize = 1_000;

fn main() {
    let records = records(RESOURCES);
    let world = world(RESOURCES);
    let catalogue = measured_build(&world);
    let snapshot = measured_render(&catalogue);
    black_box(measured_parse(&records));
    black_box(measured_select(&snapshot));
}

// Callgrind counts in these functions alone, so they have to stay functions.

#[inline(never)]
fn measured_parse(records: &[Box<RawValue>]) -> Vec<Resource> {
    world::parse(black_box(records))
}

#[inline(never)]
fn measured_build(world: &World) -> Catalogue<'_> {
    let World { resources, customers, identities, policy } = black_box(world);
    black_box(catalog::build(resources, customers, identities, policy))
}

#[inline(never)]
#[expect(clippy::expect_used, reason = "an item has nothing that JSON cannot say")]
fn measured_render(catalogue: &Catalogue<'_>) -> Snapshot {
    Snapshot::render(black_box(catalogue), Vec::new()).expect("a catalogue that can be rendered")
}

/// A page of all items, and the first page of a filter.
#[inline(never)]
fn measured_select(snapshot: &Snapshot) -> usize {
    let filter = Filter { storage_system: Some("vast".into()), status: Some(Status::Active), ..Filter::default() };
    let all = black_box(snapshot.page(&Filter::default(), RESOURCES / 2, 100));
    let some = black_box(snapshot.page(&filter, 0, 100));
    all.total + some.total
}

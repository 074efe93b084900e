//! One piece of work, once, for counting its instructions: `benches/instructions` runs it under callgrind.
//!
//! Each piece is a function of its own, named `measured_…`.

#[path = "catalogue/world.rs"]
mod world;

use std::hint::black_box;

use catalog::{Catalogue, Filter, Index, Resource, Status};
use proxy::snapshot::Snapshot;
use serde_json::value::RawValue;

use world::{World, records, world};

const RESOURCES: usize = 1_000;

/// Selecting is so little that it is done this often.
const SELECTIONS: usize = 100;

fn main() {
    let records = records(RESOURCES);
    let world = world(RESOURCES);
    let catalogue = measured_build(&world);
    let index = catalogue.index.clone();
    let snapshot = measured_render(catalogue);
    // For the allocator: what it puts off until a larger allocation is not to be counted.
    black_box(select(&index, &snapshot));
    measured_select(&index, &snapshot);
    black_box(measured_parse(&records));
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
fn measured_render(catalogue: Catalogue<'_>) -> Snapshot {
    Snapshot::render(black_box(catalogue), Vec::new(), None).expect("a catalogue that can be rendered")
}

#[inline(never)]
fn measured_select(index: &Index, snapshot: &Snapshot) {
    for _ in 0..SELECTIONS {
        black_box(select(black_box(index), black_box(snapshot)));
    }
}

/// A page of all items, and what a filter selects.
fn select(index: &Index, snapshot: &Snapshot) -> usize {
    let filter = Filter { storage_system: Some("vast".into()), status: Some(Status::Active), ..Filter::default() };
    snapshot.page(&Filter::default(), RESOURCES / 2, 100).total + index.select(&filter).items.len()
}

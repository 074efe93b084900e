//! Runs each part of a refresh once, to count its instructions: `benches/instructions` runs this program under callgrind.
//!
//! Each part is a separate function, named `measured_…`.

#[path = "catalogue/world.rs"]
mod world;

use std::hint::black_box;
use std::sync::Arc;

use catalog::{Catalogue, Filter, Index, Resource, Status};
use proxy::snapshot::Snapshot;
use serde_json::value::RawValue;

use world::{World, records, world};

const RESOURCES: usize = 1_000;

/// Selecting is so fast that it is repeated.
const SELECTIONS: usize = 100;

fn main() {
    let records = records(RESOURCES);
    let world = world(RESOURCES);
    let catalogue = measured_build(&world);
    let index = &catalogue.index;
    let snapshot = measured_render(&catalogue);
    // Let the allocator do its deferred work before the measurement.
    black_box(select(index, &snapshot));
    measured_select(index, &snapshot);
    black_box(measured_parse(&records));
}

// Callgrind counts only in these functions, so they must not be inlined.

#[inline(never)]
fn measured_parse(records: &[Box<RawValue>]) -> Vec<Arc<Resource>> {
    world::parse(black_box(records))
}

#[inline(never)]
fn measured_build(world: &World) -> Catalogue {
    black_box(black_box(world).build(None))
}

#[inline(never)]
#[expect(clippy::expect_used, reason = "an item is always valid JSON")]
fn measured_render(catalogue: &Catalogue) -> Snapshot {
    Snapshot::render(black_box(catalogue), Vec::new(), None).expect("a catalogue can be rendered")
}

#[inline(never)]
fn measured_select(index: &Index, snapshot: &Snapshot) {
    for _ in 0..SELECTIONS {
        black_box(select(black_box(index), black_box(snapshot)));
    }
}

/// A page of all items, and of a filter.
fn select(index: &Index, snapshot: &Snapshot) -> usize {
    let filter = Filter { storage_system: Some("vast".into()), status: Some(Status::Active), ..Filter::default() };
    snapshot.page(&Filter::default(), RESOURCES / 2, 100).total + index.select(&filter).items.len()
}

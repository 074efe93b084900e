//! Duration of the proxy's own parts of a refresh, and of selecting a page, with 10,000 resources.
//!
//! `cargo bench --package hpc-storage-proxy --bench catalogue`

mod world;

use catalog::{Filter, Status};
use divan::Bencher;
use divan::counter::ItemsCount;
use proxy::snapshot::Snapshot;

use world::{parse, records, world};

const RESOURCES: usize = 10_000;

fn main() {
    divan::main();
}

#[divan::bench(name = "1 parse the records")]
fn parsing(bencher: Bencher<'_, '_>) {
    let records = records(RESOURCES);
    bencher.counter(ItemsCount::new(RESOURCES)).bench_local(|| parse(&records));
}

#[divan::bench(name = "2 build the catalogue")]
fn building(bencher: Bencher<'_, '_>) {
    let world = world(RESOURCES);
    bencher.counter(ItemsCount::new(RESOURCES)).bench_local(|| world.build(None));
}

#[divan::bench(name = "3 render the snapshot")]
fn rendering(bencher: Bencher<'_, '_>) {
    let catalogue = world(RESOURCES).build(None);
    bencher.counter(ItemsCount::new(RESOURCES)).bench_local(|| Snapshot::render(&catalogue, Vec::new(), None));
}

#[divan::bench(name = "4 a page of all items")]
fn page(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    bencher.bench_local(|| snapshot.page(&Filter::default(), RESOURCES / 2, 100).items);
}

#[divan::bench(name = "5 a page of a cached filter")]
fn filtered_page(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    let filter = filter();
    bencher.bench_local(|| snapshot.page(&filter, 100, 100).items);
}

#[divan::bench(name = "6 a new filter")]
fn selecting(bencher: Bencher<'_, '_>) {
    let index = world(RESOURCES).build(None).index;
    let filter = filter();
    bencher.counter(ItemsCount::new(RESOURCES)).bench_local(|| index.select(&filter));
}

fn filter() -> Filter {
    Filter { storage_system: Some("vast".into()), status: Some(Status::Active), ..Filter::default() }
}

#[expect(clippy::expect_used, reason = "an item is always valid JSON")]
fn snapshot() -> Snapshot {
    Snapshot::render(&world(RESOURCES).build(None), Vec::new(), None).expect("a catalogue can be rendered")
}

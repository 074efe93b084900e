//! Full readings beside refreshes.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Filter, Resource};
use serde_json::json;
use simulator::{Fault, Simulator, World, world};
use tokio::time::{advance, sleep};

use super::Source;
use crate::testing::{metronome, settings};

const RESOURCES: &str = "/api/marketplace-provider-resources/";
const INTERVAL: Duration = Duration::from_mins(10);

/// A source that has read everything.
async fn source() -> (Simulator, Arc<Source>) {
    source_with(&[]).await
}

async fn source_with(more: &[(&str, &str)]) -> (Simulator, Arc<Source>) {
    metronome();
    let mut world = World::demo();
    // The last changes are old, so that refreshes do not read them again.
    world.now = world.now.plus_micros(3_600_000_000);
    let simulator = Simulator::start(world).await;
    let source = Arc::new(Source::new(&settings(&simulator, more)).unwrap());
    source.read(None).await.unwrap();
    simulator.clear_requests();
    (simulator, source)
}

fn full_readings(simulator: &Simulator) -> usize {
    let is_full = |request: &simulator::Received| request.path == RESOURCES && request.query_all("modified").is_empty();
    simulator.requests().iter().filter(|request| is_full(request)).count()
}

/// The fault of requests for all resources, but not of those for changed ones.
fn fail_full_readings(simulator: &Simulator, fault: Fault) {
    simulator.set_fault(&format!("GET {RESOURCES}?*"), fault);
    simulator.set_fault(&format!("GET {RESOURCES}?*modified=*"), Fault::Delay { millis: 0 });
}

/// A change that a refresh sees.
fn change(simulator: &Simulator, storage: u32) {
    simulator.world(|world| {
        let is_third =
            |row: &&world::Resource| row.text("slug").starts_with("capstor-") && row.text("slug").ends_with("-2");
        let id = world.resources.values().find(is_third).unwrap().uuid;
        world.change(id, "limits", json!({"storage": storage}));
    });
}

/// A change that only a full reading sees: the project of another resource gets this slug.
fn rename(simulator: &Simulator, slug: &str) {
    simulator.world(|world| {
        let project = world.resource_by_slug("capstor-store-1").unwrap().project;
        world.projects[&project].slug = slug.to_owned();
        world.hpc.add_project(slug, Some(4711));
    });
}

async fn read(source: &Arc<Source>) -> String {
    let snapshot = source.read(None).await.unwrap();
    let page = snapshot.page(&Filter::default(), 0, snapshot.len());
    page.items.iter().map(|items| String::from_utf8_lossy(items)).collect()
}

/// Refreshes until one shows this.
async fn read_until(source: &Arc<Source>, text: &str) {
    for _ in 0..200 {
        if read(source).await.contains(text) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("no refresh shows {text}");
}

#[tokio::test(start_paused = true)]
async fn refreshes_go_on_during_a_full_reading() {
    let (simulator, source) = source().await;
    fail_full_readings(&simulator, Fault::Hold);
    rename(&simulator, "renamed");
    advance(INTERVAL).await;
    for storage in [4321, 4322] {
        change(&simulator, storage);
        let text = read(&source).await;
        assert!(text.contains(&storage.to_string()), "{storage}: {text}");
        assert!(!text.contains("renamed"), "{text}");
    }
    change(&simulator, 4323);
    simulator.clear_faults();
    read_until(&source, "renamed").await;
    assert!(read(&source).await.contains("4323"));
    assert_eq!(full_readings(&simulator), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_reading_shares_unchanged_resources_while_it_reads() {
    let (simulator, source) = source().await;
    change(&simulator, 4321);
    let held = source.held.lock().await;
    let known = held.as_ref().unwrap().inputs.inventory.listed();
    let listed = source.list_all(known.clone(), false).await.unwrap();
    let is_shared = |resource: &&Arc<Resource>| Arc::ptr_eq(resource, &known[&resource.uuid]);
    assert_eq!(listed.resources().filter(is_shared).count(), known.len() - 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_after_a_long_time_shows_everything_as_it_is() {
    let (simulator, source) = source().await;
    rename(&simulator, "renamed");
    advance(2 * INTERVAL).await;
    assert!(read(&source).await.contains("renamed"));
    // A full reading that ended long ago is not used.
    advance(INTERVAL).await;
    read(&source).await;
    while !source.held.lock().await.as_ref().unwrap().renewal.as_ref().unwrap().is_finished() {
        sleep(Duration::from_millis(50)).await;
    }
    rename(&simulator, "renamed-again");
    advance(2 * INTERVAL).await;
    assert!(read(&source).await.contains("renamed-again"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_full_reading_is_retried_and_an_error_when_it_is_late() {
    let (simulator, source) = source().await;
    fail_full_readings(&simulator, Fault::status(500));
    advance(INTERVAL).await;
    // More than the attempts of one reading.
    while full_readings(&simulator) < 4 {
        read(&source).await;
        sleep(Duration::from_millis(50)).await;
    }
    advance(INTERVAL / 2).await;
    assert!(source.read(None).await.is_err());
    simulator.clear_faults();
    rename(&simulator, "renamed");
    assert!(read(&source).await.contains("renamed"));
}

#[tokio::test(start_paused = true)]
async fn a_full_reading_that_takes_longer_than_its_interval_is_used() {
    let (simulator, source) = source_with(&[("CACHE_FULL_INTERVAL", "1")]).await;
    // In real time; here about ten seconds pass.
    fail_full_readings(&simulator, Fault::Delay { millis: 1000 });
    rename(&simulator, "renamed");
    advance(Duration::from_secs(10)).await;
    assert!(read(&source).await.contains("renamed"));
    assert_eq!(full_readings(&simulator), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_filter_is_tried_again_with_the_next_full_reading() {
    let (simulator, source) = source().await;
    simulator.set_fault_times(&format!("GET {RESOURCES}?*modified=*"), Fault::status(400), 1);
    read(&source).await;
    assert!(!source.reads_changes());
    read(&source).await;
    assert!(source.reads_changes());
}

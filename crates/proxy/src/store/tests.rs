use std::sync::Arc;
use std::time::Duration;

use program::Clock;
use simulator::{Fault, Simulator, World};
use tokio::time::{advance, sleep};

use super::{polite_pause, waiting_interval};
use crate::api::Service;
use crate::testing::{metronome, settings};

#[tokio::test]
async fn a_start_does_not_repeat_the_reading_of_a_request() {
    let simulator = Simulator::start(World::demo()).await;
    let service = Service::new(&settings(&simulator, &[("CACHE_MAX_AGE", "3600")]), &Clock::system()).unwrap();
    service.store.get(false).await.unwrap();
    let before = simulator.requests().len();
    // It never ends, and reads at once or not at all.
    let _ = tokio::time::timeout(Duration::from_millis(300), service.store.clone().keep_fresh()).await;
    assert_eq!(simulator.requests().len(), before);
}

#[test]
fn refreshes_for_waiting_clients_are_rarer_while_changes_are_announced() {
    let seconds = |max_age, reads_changes, announced| {
        waiting_interval(Duration::from_secs(max_age), reads_changes, announced).as_secs()
    };
    assert_eq!([0, 2, 5, 60].map(|max_age| seconds(max_age, true, false)), [1, 2, 4, 4]);
    assert_eq!([0, 5, 60].map(|max_age| seconds(max_age, true, true)), [15, 15, 15]);
    // Each of them reads everything.
    assert_eq!([0, 5, 60].map(|max_age| seconds(max_age, false, true)), [1, 5, 60]);
}

#[test]
fn slow_refreshes_leave_waldur_alone_most_of_the_time() {
    let seconds = |interval, took| polite_pause(Duration::from_secs(interval), Duration::from_millis(took)).as_secs();
    assert_eq!(seconds(4, 100), 4);
    assert_eq!(seconds(1, 100), 1);
    assert_eq!(seconds(1, 500), 5);
    assert_eq!(seconds(4, 1600), 16);
    assert_eq!(seconds(4, 60_000), 30);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_store_ends_its_full_reading() {
    metronome();
    let simulator = Simulator::start(World::demo()).await;
    let store = Service::new(&settings(&simulator, &[]), &Clock::system()).unwrap().store;
    store.source.read(None).await.unwrap();
    simulator.set_fault("GET /api/marketplace-provider-resources/?*", Fault::Hold);
    simulator.set_fault("GET /api/marketplace-provider-resources/?*modified=*", Fault::Delay { millis: 0 });
    advance(Duration::from_mins(10)).await;
    store.source.read(None).await.unwrap();
    let source = Arc::downgrade(&store.source);
    drop(store);
    // Less than the timeout of the request that is held.
    sleep(Duration::from_secs(5)).await;
    assert!(source.upgrade().is_none());
}

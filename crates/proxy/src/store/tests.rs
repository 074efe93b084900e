use std::time::Duration;

use program::Clock;
use simulator::{Simulator, World};
use tempfile::TempDir;

use crate::api::Service;
use crate::config::{Environment, Overrides, load};

#[tokio::test]
async fn a_start_does_not_repeat_the_reading_of_a_request() {
    let simulator = Simulator::start(World::demo()).await;
    let directory = TempDir::new().unwrap();
    let more = [("STORAGE_SYSTEMS", r#"{"capstor": "capstor"}"#), ("CACHE_MAX_AGE", "3600")];
    let variables = simulator.proxy_variables().into_iter().chain(more.map(|(key, value)| (key, value.to_owned())));
    let environment = Environment::new(directory.path(), variables);
    let service = Service::new(&load(&environment, &Overrides::default()).unwrap().settings, &Clock::system()).unwrap();
    service.store.get(false).await.unwrap();
    let before = simulator.requests().len();
    // It never ends, and reads at once or not at all.
    let _ = tokio::time::timeout(Duration::from_millis(300), service.store.clone().keep_fresh()).await;
    assert_eq!(simulator.requests().len(), before);
}

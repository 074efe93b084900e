//! For unit tests: servers on loopback, time that depends on the tests' progress instead of the machine's speed, a policy.

use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use catalog::{InodeRule, Policy, System};
use simulator::Simulator;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use url::Url;

use crate::config::{Environment, Overrides, Settings, load};
use crate::transport::Transport;

/// Lets paused time pass slowly while this thread makes progress, so that timers expire although sockets are in use, and no
/// timeout expires because the machine is slow. For tests with `start_paused`.
pub(crate) fn metronome() {
    tokio::spawn(async {
        loop {
            // While a blocking task runs, paused time does not advance by itself.
            let _ = spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await;
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    });
}

/// Serves `router` on a free port of loopback until the test's runtime ends, and starts the [`metronome`].
pub(crate) async fn serve(router: Router) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    metronome();
    url.parse().expect("a URL")
}

/// A transport without a proxy.
pub(crate) fn direct() -> Transport {
    Transport::new(true, None, Duration::from_secs(30))
}

/// A body that ends in an error after its beginning.
pub(crate) fn broken_body(beginning: &'static str) -> Response {
    let pieces = [Ok(beginning), Err(std::io::Error::other("the server dies"))];
    axum::body::Body::from_stream(futures::stream::iter(pieces)).into_response()
}

/// A policy with the storage system `capstor`.
pub(crate) fn policy() -> Policy {
    let system = System { name: "capstor".into(), identifier: "capstor".into(), offering_slug: "capstor".into() };
    Policy {
        systems: vec![system],
        file_system: "lustre".into(),
        inodes: InodeRule { base_multiplier: 1.0, soft_coefficient: 1.0, hard_coefficient: 1.0 },
        ignore_metadata_targets: false,
        development_mode: false,
        relay: None,
        waldur: "https://waldur.example.org/api".into(),
    }
}

/// Settings of a proxy for this simulator, with the storage system `capstor`.
pub(crate) fn settings(simulator: &Simulator, more: &[(&str, &str)]) -> Settings {
    let directory = TempDir::new().expect("a temporary directory");
    let system = ("STORAGE_SYSTEMS", String::from(r#"{"capstor": "capstor"}"#));
    let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
    let variables = simulator.proxy_variables().into_iter().chain([system]).chain(more);
    load(&Environment::new(directory.path(), variables), &Overrides::default()).expect("valid settings").settings
}

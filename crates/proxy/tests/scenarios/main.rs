//! Runs the program against the simulator.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

mod caching;
mod callers;
mod changes;
mod contract;
#[path = "../faults/gate.rs"]
mod gate;
mod golden;
mod health;
mod identities;
mod items;
mod list_watch;
mod metrics;
mod orders;
mod push;
mod reading;
mod relay;
mod replicas;
mod reports;
mod shared_reports;
mod sign_in;
mod support;
mod transport;
mod upstream_faults;
mod waiting;

//! The log, Sentry, traces, connections and shutdown of the program, which runs against the simulator, a fake Sentry
//! endpoint, and a trace collector.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

mod collector;
mod connections;
mod log;
mod panics;
mod program;
mod reports;
mod sink;
mod stopping;
mod traces;

//! The log, Sentry, traces, the connections and the end of the process, as one sees them from outside: the real program
//! against the simulator, an endpoint of the shape of Sentry's, and a collector of traces.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod collector;
mod connections;
mod log;
mod panics;
mod program;
mod reports;
mod sink;
mod stopping;
mod traces;

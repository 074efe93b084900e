//! The log, Sentry, the connections and the end of the process, as one sees them from outside: the real program against
//! the simulator and an endpoint of the shape of Sentry's.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod connections;
mod log;
mod panics;
mod program;
mod reports;
mod sink;
mod stopping;

//! Every fault of every upstream: what callers get, what the log says, and that it passes without a restart. The real
//! binary, over TLS, against the simulator.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod bench;
mod document;
mod gate;
mod limits;
mod matrix;
#[expect(dead_code, reason = "the scenarios use more of it")]
#[path = "../scenarios/support.rs"]
mod support;
mod table;

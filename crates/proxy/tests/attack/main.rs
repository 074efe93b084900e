//! Attacks without a token, over raw sockets, against the real program.
//!
//! After each attack other clients must still be served, and the program's memory must not have grown. Slow clients are
//! covered by the unit tests of the server's limits, which control the time.

#![expect(clippy::unwrap_used, reason = "a test fails at unexpected errors")]

mod http2;
#[path = "../telemetry/program.rs"]
#[expect(dead_code, reason = "the tests of telemetry need more of it")]
mod program;
mod requests;
mod smuggling;
mod target;

//! What somebody without a token can try at the port, over raw sockets, against the real program.
//!
//! After each attack others are still served, and the program has not grown. That slow clients are cut off is tested
//! beside the server's limits, where time can be moved.

#![expect(clippy::unwrap_used, reason = "an attack that meets the unexpected fails")]

mod http2;
#[path = "../telemetry/program.rs"]
#[expect(dead_code, reason = "the tests of telemetry need more of it")]
mod program;
mod requests;
mod smuggling;
mod target;

//! The program as those who run it meet it: certificates, settings and secrets that change, sockets, and systemd.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

#[expect(dead_code, reason = "the tests of telemetry use the rest")]
#[path = "../telemetry/program.rs"]
mod program;

mod certificates;
mod settings;
mod sockets;
mod systemd;

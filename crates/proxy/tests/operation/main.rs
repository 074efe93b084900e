//! Operating the program: changes of certificates, settings and secrets, Unix sockets, and systemd.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

#[expect(dead_code, reason = "the telemetry tests use the rest")]
#[path = "../telemetry/program.rs"]
mod program;

mod certificates;
mod settings;
mod sockets;
mod systemd;

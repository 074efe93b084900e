//! The real binary between a simulated Waldur, a real proxy, and directories.

#![expect(clippy::unwrap_used, reason = "a scenario that meets the unexpected fails")]

mod kills;
mod leases;
mod looping;
mod orders;
mod plans;
mod recall;
mod relay;
mod support;

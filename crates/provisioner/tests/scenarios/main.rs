//! The real binary between a simulated Waldur, a real proxy, and directories.

#![expect(clippy::unwrap_used, reason = "a scenario that meets the unexpected fails")]

mod answers;
mod broken;
mod enforced;
mod hands;
mod kills;
mod leases;
mod looking;
mod looping;
mod orders;
mod people;
mod plans;
mod purging;
mod recall;
mod relay;
mod reloading;
mod stuck;
mod support;
mod withdrawn;

//! The real binary against simulated upstreams: what an operator types, and what comes back.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod catalogue;
mod check;
mod compare;
mod settings;
mod site;

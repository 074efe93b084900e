//! Runs the commands of the program against simulated upstreams.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

mod catalogue;
mod check;
mod compare;
mod settings;
mod site;

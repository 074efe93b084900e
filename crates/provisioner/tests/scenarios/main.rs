//! Scenarios: the real binary with a simulated Waldur, a real proxy, and directories.

#![expect(clippy::unwrap_used, reason = "a scenario panics on unexpected results")]

mod adopt_restore;
mod api_server;
mod callbacks;
mod cancelled_orders;
mod cancelled_terminations;
mod credentials;
mod exec;
mod failures;
mod kernel_quotas;
mod kills;
mod kubernetes_leases;
mod leases;
mod orders;
mod plan_output;
mod plans;
mod purge;
mod read_only;
mod refused_orders;
mod reload;
mod reports;
mod run;
mod support;

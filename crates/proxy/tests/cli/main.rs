//! The real binary against simulated upstreams: what an operator types, and what comes back.

mod catalogue;
mod check;
mod settings;
mod site;

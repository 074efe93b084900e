//! `hpc-storage-proxy`: reads storage resources from Waldur, adds Unix identities and publishes the document that
//! storage provisioners follow.

pub mod api;
pub mod auth;
pub mod cli;
pub mod compare;
pub mod compression;
pub mod config;
pub mod dashboard;
#[cfg(test)]
mod documents;
mod file_watch;
pub mod hpc_user;
pub mod metrics;
pub mod oauth;
pub mod openapi;
pub mod peer;
pub mod push;
pub mod reading;
pub mod reports;
mod seal;
pub mod server;
pub mod shared_cache;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod upstream;
pub mod waldur;

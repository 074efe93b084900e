//! Waldur, the HPC User API and a Keycloak realm, in memory, over real HTTP, with faults.
//!
//! A [`World`] is plain data: offerings, customers, projects, resources and orders with Waldur's state machine, and
//! the GIDs that the HPC User API knows. [`Simulator::start`] serves it on one port of the loopback interface:
//!
//! | what | where |
//! |---|---|
//! | Waldur | `{base}/api/…` |
//! | HPC User API | `{base}/hpc/api/v1/export/…` |
//! | Keycloak realm `cscs` | `{base}/auth/realms/cscs/…` |
//! | faults, the request log, orders and keys, for a shell | `{base}/_simulator/…` |
//!
//! A test changes the world with [`Simulator::world`], spoils answers with [`Simulator::set_fault`], and asserts on the
//! world and on [`Simulator::requests`].
//!
//! What is simulated of Waldur is what storage services use, after exchanges recorded with release 7.0.7 and the
//! sources of newer releases ([`world::Release`]). The simulator shares no type with those who use it: shared types
//! would hide shared mistakes.

mod admin;
mod faults;
mod hpc;
mod http;
mod keycloak;
mod latency;
mod requests;
mod server;
mod waldur;
pub mod world;

pub use faults::{Fault, FaultRule};
pub use jsonwebtoken::Algorithm;
pub use keycloak::{Client, Kid, PROXY_AUDIENCE, REALM, Realm, Signing, TokenSpec};
pub use latency::Latency;
pub use requests::Received;
pub use server::Simulator;
pub use world::{PROVIDER_TOKEN, World};

//! Simulates Waldur, the HPC User API and a Keycloak realm in memory, over real HTTP, with fault injection.
//!
//! A [`World`] is plain data: offerings, customers, projects, resources and orders with Waldur's state machine, and
//! the GIDs in the HPC User API. [`Simulator::start`] serves it on one port of the loopback interface:
//!
//! | what | where |
//! |---|---|
//! | Waldur | `{base}/api/…` |
//! | Waldur's events: STOMP over a WebSocket | `{base}/rmqws-stomp` |
//! | HPC User API | `{base}/hpc/api/v1/export/…` |
//! | Keycloak realm `cscs` | `{base}/auth/realms/cscs/…` |
//! | faults, the request log, costs, orders, changes, the world and keys, for use from a shell | `{base}/_simulator/…` |
//!
//! A test changes the world with [`Simulator::world`], injects faults with [`Simulator::set_fault`], and asserts on the
//! world and on [`Simulator::requests`].
//!
//! The simulator covers the part of Waldur that storage services use. It is based on exchanges recorded with release
//! 7.0.7 and on the sources of newer releases ([`world::Release`]). It shares no type with the programs under test,
//! because shared types would hide shared mistakes.

mod admin;
mod broker;
mod costs;
mod faults;
mod hpc;
mod http;
mod keycloak;
mod latency;
mod requests;
mod server;
mod state;
mod waldur;
pub mod world;

pub use broker::BrokerMode;
pub use faults::{Fault, FaultRule};
pub use jsonwebtoken::Algorithm;
pub use keycloak::{Client, Kid, PROXY_AUDIENCE, REALM, Realm, Signing, TokenSpec, User};
pub use latency::Latency;
pub use requests::Received;
pub use server::Simulator;
pub use world::{PROVIDER_TOKEN, World};

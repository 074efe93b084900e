//! The decisions of the storage provisioner, without I/O. [`document`] parses the document that the proxy publishes, [`preflight`]
//! computes the desired state of each directory, and [`plan`] compares it with the observed state.

use std::sync::Arc;

use storage_driver::{DriverError, Observed};

pub mod document;
pub mod last_order;
pub mod plan;
pub mod preflight;

pub use provisioner_report::Turn;

/// The observed state of a resource's directory, or why it could not be read. Resources of one system can share an error.
pub type Observation = Result<Observed, Arc<DriverError>>;

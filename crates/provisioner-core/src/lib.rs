//! What the storage provisioner decides, without I/O: [`document`] parses what the proxy publishes, [`preflight`] computes the
//! desired state of each directory, and [`plan`] compares it with the observed state.

use std::sync::Arc;

use storage_driver::{DriverError, Observed};

pub mod document;
pub mod last_order;
pub mod plan;
pub mod preflight;

/// What was observed for a resource, or why that failed. Resources of one system can share an error.
pub type Observation = Result<Observed, Arc<DriverError>>;

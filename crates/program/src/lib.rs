//! What `hpc-storage-proxy` and `hpc-storage-provisioner` do alike, apart from their domains.

mod clock;
mod error_chain;

pub use clock::Clock;
pub use error_chain::error_chain;

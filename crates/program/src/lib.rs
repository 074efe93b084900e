//! What `hpc-storage-proxy` and `hpc-storage-provisioner` do alike, apart from their domains.

mod clock;
pub mod command_line;
pub mod documents;
mod error_chain;
pub mod man;
pub mod terminal;
pub mod unix_socket;

pub use clock::Clock;
pub use error_chain::error_chain;

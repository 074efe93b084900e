//! Code that `hpc-storage-proxy` and `hpc-storage-provisioner` share, independent of what each of them does.

mod clock;
pub mod command_line;
pub mod documents;
mod error_chain;
pub mod journal;
mod lock;
pub mod man;
pub mod terminal;
pub mod unix_socket;

pub use clock::Clock;
pub use error_chain::error_chain;
pub use lock::lock;

//! Interprets answers of Waldur: why it refuses a request, and what the user of a token may do.

mod reason;
mod rights;

pub use reason::reason;
pub use rights::{Callbacks, OWNER_NEEDED, TEST_APPROVAL, TokenUser};

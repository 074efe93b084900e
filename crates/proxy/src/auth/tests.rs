//! Tokens against a realm that answers over HTTP on loopback.

mod changes;
mod http;
mod introspection;
mod realm;
mod table;

use super::{GrantError, Refusal};

#[test]
fn a_new_token_that_has_expired_points_to_the_clocks() {
    let expired = GrantError::Token(Refusal::Expired { at: 1, seconds_ago: 3300 }).to_string();
    assert!(expired.contains("the clocks of the realm and of this host differ"), "{expired}");
    let other = GrantError::Token(Refusal::NotYet { claim: "iat", seconds: 3600 }).to_string();
    assert!(!other.contains("clocks"), "{other}");
}

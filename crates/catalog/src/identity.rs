//! Unix identities: those that were looked up, and those that development mode invents.

use std::collections::HashMap;

use crate::policy::Policy;
use crate::resource::Resource;
use crate::target::TargetType;

/// What the HPC User API said.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// For a project slug: its Unix GID, or why it has none.
    pub gids: HashMap<String, Result<u32, String>>,
    /// For a resource slug: the user behind it.
    pub users: HashMap<String, UserIdentity>,
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserIdentity {
    /// Unix UID.
    pub uid: Option<u32>,
    /// E-mail address.
    pub email: Option<String>,
}

/// Slug of the project whose GID the item of this resource needs, if it has to be looked up.
pub fn wanted_project<'a>(resource: &'a Resource, policy: &Policy) -> Option<&'a str> {
    let wanted = needs_lookup(resource, policy) && !resource.project_slug.is_empty();
    wanted.then_some(resource.project_slug.as_str())
}

/// Slug of the resource by which the user that its item shows is looked up, if it shows one that has to be.
pub fn wanted_user<'a>(resource: &'a Resource, policy: &Policy) -> Option<&'a str> {
    let is_user = resource.target_type() == TargetType::User;
    let wanted = needs_lookup(resource, policy) && is_user && !resource.slug.is_empty();
    wanted.then_some(resource.slug.as_str())
}

fn needs_lookup(resource: &Resource, policy: &Policy) -> bool {
    policy.ignore_metadata_targets || resource.metadata_target.is_none()
}

/// Development mode's GID of a project: 30000 to 39999, the same on every machine (decision D6).
pub fn mock_gid(project_slug: &str) -> u32 {
    30_000 + spread(project_slug)
}

/// Development mode's UID of a user: 20000 to 29999, the same on every machine (decision D6).
pub fn mock_uid(resource_slug: &str) -> u32 {
    20_000 + spread(resource_slug)
}

/// Development mode's e-mail address of a user, in a domain that nobody has.
pub fn mock_email(resource_slug: &str) -> String {
    format!("user-{resource_slug}@example.com")
}

/// FNV-1a, 64 bits, of the UTF-8 text, modulo 10,000.
fn spread(text: &str) -> u32 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    u32::try_from(hash % 10_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mock_identities_never_change() {
        // FNV-1a of "" and "a" are published test vectors: 0xcbf29ce484222325 and 0xaf63dc4c8601ec8c.
        assert_eq!(mock_gid(""), 30_000 + u32::try_from(0xcbf2_9ce4_8422_2325_u64 % 10_000).unwrap());
        assert_eq!(mock_gid("a"), 30_000 + u32::try_from(0xaf63_dc4c_8601_ec8c_u64 % 10_000).unwrap());
        assert_eq!(mock_uid("a"), mock_gid("a") - 10_000);
    }
}

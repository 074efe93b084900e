//! Unix identities: looked up, or generated in development mode.

use std::collections::HashMap;

use crate::policy::Policy;
use crate::resource::Resource;
use crate::target::TargetType;

/// Identities from the HPC User API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identities {
    /// Unix GID by project slug, or why the project has none.
    pub gids: HashMap<String, Result<u32, String>>,
    /// Users by resource slug.
    pub users: HashMap<String, UserIdentity>,
}

/// Unix UID and e-mail address of a user; `None` if unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserIdentity {
    pub uid: Option<u32>,
    pub email: Option<String>,
}

/// Slug of the project whose GID must be looked up for this resource; `None` if no lookup is needed.
pub fn project_to_resolve<'a>(resource: &'a Resource, policy: &Policy) -> Option<&'a str> {
    let needed = needs_lookup(resource, policy) && !resource.project_slug.is_empty();
    needed.then_some(resource.project_slug.as_str())
}

/// Slug of the resource whose user must be looked up for its item; `None` if no lookup is needed.
pub fn user_to_resolve<'a>(resource: &'a Resource, policy: &Policy) -> Option<&'a str> {
    let is_user = resource.target_type() == TargetType::User;
    let needed = needs_lookup(resource, policy) && is_user && !resource.slug.is_empty();
    needed.then_some(resource.slug.as_str())
}

fn needs_lookup(resource: &Resource, policy: &Policy) -> bool {
    policy.ignore_metadata_targets || resource.metadata_target.is_none()
}

/// GID of a project in development mode: 30000 to 39999, the same on every machine (decision D6).
pub fn mock_gid(project_slug: &str) -> u32 {
    30_000 + hash_10_000(project_slug)
}

/// UID of a user in development mode: 20000 to 29999, the same on every machine (decision D6).
pub fn mock_uid(resource_slug: &str) -> u32 {
    20_000 + hash_10_000(resource_slug)
}

/// E-mail address of a user in development mode, in a domain that does not exist.
pub fn mock_email(resource_slug: &str) -> String {
    format!("user-{resource_slug}@example.com")
}

/// 64-bit FNV-1a hash of the UTF-8 text, modulo 10,000.
fn hash_10_000(text: &str) -> u32 {
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

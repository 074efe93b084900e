//! Whether the token's user may call what callbacks call. Waldur grants `approve_by_provider`, `reject_by_provider`,
//! `set_state_done` and `set_state_erred` to staff, and to roles in the organization that provides the offering.

use serde::Deserialize;
use uuid::Uuid;

/// The role that Waldur's own configuration grants the approval of orders.
const OWNER: &str = "CUSTOMER.OWNER";
/// The roles of those who see the resources and orders of an offering, but may not approve these. Waldur grants the second, in the
/// organization that provides the offering, to everybody who gets the first.
const MANAGERS: [&str; 2] = ["OFFERING.MANAGER", "CUSTOMER.MANAGER"];

/// The user that a token belongs to, as `/api/users/me/` describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenUser {
    /// Name of the user.
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    is_staff: bool,
    permissions: Vec<Role>,
}

#[derive(Debug, Clone, Deserialize)]
struct Role {
    #[serde(rename = "role_name")]
    name: String,
    scope_type: Option<String>,
    scope_uuid: Option<Uuid>,
}

/// Whether a user may approve the orders of an offering, as far as reading can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MayApprove {
    /// By this right.
    Yes(&'static str),
    /// The user has only this role, whose permissions are the site's own choice.
    Unknown(String),
    /// Waldur answers 403.
    No,
}

impl TokenUser {
    /// The parameters of the request that this is read from. The token itself is not among the fields.
    pub(super) const FIELDS: [&'static str; 4] = ["username", "is_staff", "is_support", "permissions"];

    /// Whether the user may approve orders of the offering `offering`, which the organization `provider` provides.
    pub fn may_approve(&self, offering: Uuid, provider: Uuid) -> MayApprove {
        if self.is_staff {
            return MayApprove::Yes("staff");
        }
        let has = |scope_type: &'static str, scope: Uuid| {
            let of_scope =
                move |role: &&Role| role.scope_type.as_deref() == Some(scope_type) && role.scope_uuid == Some(scope);
            self.permissions.iter().filter(of_scope).map(|role| role.name.as_str())
        };
        if has("customer", provider).any(|name| name == OWNER) {
            return MayApprove::Yes("owner of the provider's organization");
        }
        let other = has("customer", provider).chain(has("offering", offering)).find(|name| !MANAGERS.contains(name));
        other.map_or(MayApprove::No, |name| MayApprove::Unknown(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn staff_and_owners_of_the_provider_may_approve() {
        let [offering, provider, another] = [1, 2, 3].map(Uuid::from_u128);
        let role = |name: &str, scope_type: &str, scope: Uuid| json!({"role_name": name, "scope_type": scope_type, "scope_uuid": scope.simple().to_string()});
        let unknown = |name: &str| MayApprove::Unknown(name.to_owned());
        for (user, expected) in [
            (json!({"is_staff": true, "permissions": []}), MayApprove::Yes("staff")),
            (json!({"is_support": true, "permissions": []}), MayApprove::No),
            (
                json!({"permissions": [role("CUSTOMER.OWNER", "customer", provider)]}),
                MayApprove::Yes("owner of the provider's organization"),
            ),
            (json!({"permissions": [role("CUSTOMER.OWNER", "customer", another)]}), MayApprove::No),
            (
                json!({"permissions": [
                    role("OFFERING.MANAGER", "offering", offering), role("CUSTOMER.MANAGER", "customer", provider),
                ]}),
                MayApprove::No,
            ),
            (json!({"permissions": [role("CUSTOMER.AGENT", "customer", provider)]}), unknown("CUSTOMER.AGENT")),
            (json!({"permissions": [role("OFFERING.AGENT", "offering", offering)]}), unknown("OFFERING.AGENT")),
            (json!({"permissions": [role("OFFERING.AGENT", "offering", another)]}), MayApprove::No),
            (json!({"permissions": [{"role_name": "SYSTEM", "scope_type": null, "scope_uuid": null}]}), MayApprove::No),
        ] {
            let parsed: TokenUser = serde_json::from_value(user.clone()).unwrap();
            assert_eq!(parsed.may_approve(offering, provider), expected, "{user}");
        }
    }
}

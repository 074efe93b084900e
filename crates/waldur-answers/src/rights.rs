//! Whether the user of a token may call the actions that callbacks need. Waldur grants `approve_by_provider`, `reject_by_provider`,
//! `set_state_done` and `set_state_erred` to staff, and to roles in the organization that provides the offering.

use std::collections::BTreeSet;

use serde::Deserialize;
use uuid::Uuid;

/// The remedy for refused callbacks.
pub const OWNER_NEEDED: &str =
    "use the token of an owner (CUSTOMER.OWNER) of the organization that provides the offering";
/// How to test permissions that read requests do not show.
pub const TEST_APPROVAL: &str = "test it: order something of a test project and let `approve_by_provider` be called; \
                                 403 means that the token may not";

/// The role that may approve orders in Waldur's default configuration.
const OWNER: &str = "CUSTOMER.OWNER";
/// Roles that can see the resources and orders of an offering, but may not approve orders. Waldur grants the second one, in the
/// organization that provides the offering, to every user who gets the first one.
const MANAGERS: [&str; 2] = ["OFFERING.MANAGER", "CUSTOMER.MANAGER"];

/// The user that a token belongs to, as `/api/users/me/` describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenUser {
    #[serde(default)]
    username: String,
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

/// Whether callbacks with a token can succeed, as far as read requests show; each with a sentence about the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callbacks {
    /// Allowed for all offerings.
    Allowed(String),
    /// Unknown for some of the offerings; see [`TEST_APPROVAL`].
    Unknown(String),
    /// Waldur returns 403 for at least one of the offerings; see [`OWNER_NEEDED`].
    Refused(String),
}

/// Whether a user may approve the orders of an offering, as far as read requests show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum MayApprove {
    /// Because of this role.
    Yes(&'static str),
    /// The user has only this role, whose permissions depend on Waldur's configuration.
    Unknown(String),
    /// Waldur returns 403.
    No,
}

impl TokenUser {
    /// The fields to request. They do not include the token.
    pub const FIELDS: [&'static str; 4] = ["username", "is_staff", "is_support", "permissions"];

    /// Whether callbacks for these offerings can succeed. Each offering has a display name, and the UUIDs of the offering and of
    /// the organization that provides it, or why they are unknown.
    pub fn callbacks<'a>(
        &self,
        offerings: impl IntoIterator<Item = (&'a str, Result<(Uuid, Uuid), String>)>,
    ) -> Callbacks {
        let name = &self.username;
        let (mut rights, mut unknown, mut refused) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (offering, known) in offerings {
            match known.map(|(uuid, provider)| self.may_approve(uuid, provider)) {
                Ok(MayApprove::Yes(right)) => _ = rights.insert(right),
                Ok(MayApprove::Unknown(role)) => _ = unknown.insert(format!("role {role}")),
                Ok(MayApprove::No) => refused.push(offering),
                Err(why) => _ = unknown.insert(why),
            }
        }
        if !refused.is_empty() {
            return Callbacks::Refused(format!(
                "the token's user {name} sees the orders of {} but may not approve, reject or end them: Waldur answers \
                 403 to `approve_by_provider`, `reject_by_provider`, `set_state_done` and `set_state_erred`",
                refused.join(", ")
            ));
        }
        if rights.is_empty() || !unknown.is_empty() {
            let why = if unknown.is_empty() { "no offering".to_owned() } else { Vec::from_iter(unknown).join(", ") };
            return Callbacks::Unknown(format!(
                "whether the token's user {name} may approve orders is unknown ({why})"
            ));
        }
        let rights = Vec::from_iter(rights).join(", ");
        Callbacks::Allowed(format!("the token's user {name} may approve orders ({rights})"))
    }

    /// Whether the user may approve orders of `offering`, which the organization `provider` provides.
    fn may_approve(&self, offering: Uuid, provider: Uuid) -> MayApprove {
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

    #[test]
    fn one_refused_or_unknown_offering_determines_the_result() {
        let [offering, provider] = [1, 2].map(Uuid::from_u128);
        let role = json!({"role_name": "CUSTOMER.OWNER", "scope_type": "customer", "scope_uuid": provider});
        let owner: TokenUser = serde_json::from_value(json!({"username": "ann", "permissions": [role]})).unwrap();
        let (own, other) = (("own", Ok((offering, provider))), ("other", Ok((offering, offering))));
        let unread = ("unread", Err("unread has no provider".to_owned()));
        let Callbacks::Allowed(text) = owner.callbacks([own.clone()]) else { panic!("refused") };
        assert!(text.contains("ann may approve orders"), "{text}");
        let Callbacks::Unknown(text) = owner.callbacks([own.clone(), unread.clone()]) else { panic!("known") };
        assert!(text.contains("(unread has no provider)"), "{text}");
        let Callbacks::Refused(text) = owner.callbacks([own, unread, other]) else { panic!("allowed") };
        assert!(text.contains("sees the orders of other but may not approve"), "{text}");
        assert!(matches!(owner.callbacks([]), Callbacks::Unknown(_)));
    }
}

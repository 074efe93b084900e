//! Quotas that cannot be trusted, because the document shows a number that was not ordered.
//!
//! The mapping rules turn absent values into 0 and prefer an override to the limit. A provisioner must not apply such a
//! number, and must not reject an order because of it (decision D20), so the listing reports each case and its cause.

use serde::{Deserialize, Serialize};

use crate::order::{Order, OrderState, OrderType};
use crate::quota::{self, InodeRule, Options, ResourceLimits};
use crate::resource::Resource;
use crate::status::Status;

/// Why the quotas of an item cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QuotaProblem {
    /// The kind of problem.
    pub code: QuotaProblemCode,
    /// The cause as readable text: the limit or option, and its value.
    pub detail: String,
}

/// Kinds of quota problems. `missing_component`: the limits have no component `storage`. `pinned_by_option`: an option
/// overrides the limit, so that a quota is 0 or a soft quota exceeds its hard quota. `unreadable_order`: the order changes
/// limits or options, but they cannot be read. `zero_limit`: the limit is 0, or too small for an inode quota.
/// `zero_ordered`: the order itself requests a limit of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum QuotaProblemCode {
    MissingComponent,
    PinnedByOption,
    UnreadableOrder,
    ZeroLimit,
    ZeroOrdered,
}

impl QuotaProblemCode {
    /// All codes, in the documented order.
    pub const ALL: [Self; 5] =
        [Self::MissingComponent, Self::PinnedByOption, Self::UnreadableOrder, Self::ZeroLimit, Self::ZeroOrdered];

    /// The code as published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingComponent => "missing_component",
            Self::PinnedByOption => "pinned_by_option",
            Self::UnreadableOrder => "unreadable_order",
            Self::ZeroLimit => "zero_limit",
            Self::ZeroOrdered => "zero_ordered",
        }
    }
}

/// Maximum number of component names in a message; the rest are counted.
const MAX_NAMED_COMPONENTS: usize = 5;

impl QuotaProblem {
    /// The problem with the quotas of a resource, or with those that its order in progress requests. `None` if there is no
    /// problem, and if quotas no longer matter because the resource is terminated or about to be.
    pub fn of(resource: &Resource, rule: InodeRule) -> Option<Self> {
        // An order that the customer has not approved may never be carried out.
        let order = resource.order.as_deref().filter(|order| order.state != OrderState::PendingConsumer);
        let is_ending = matches!(resource.status(), Status::Removed | Status::Removing);
        if is_ending || order.is_some_and(|order| order.kind == OrderType::Terminate) {
            return None;
        }
        let problem = |code, detail| Some(Self { code, detail });
        if let Some(detail) = order.and_then(|order| unreadable(order, resource)) {
            return problem(QuotaProblemCode::UnreadableOrder, detail);
        }
        let update = order.and_then(|order| order.update.as_ref());
        // If the old quotas cannot be calculated, the document has no new ones either.
        if update
            .and_then(|update| update.old_limits.as_ref())
            .is_some_and(|old| quota::calculate(old, &resource.options, rule).is_err())
        {
            let detail = "the order's old_limits.storage is too large for an inode quota".to_owned();
            return problem(QuotaProblemCode::UnreadableOrder, detail);
        }
        let limits = update.and_then(|update| update.new_limits.as_ref()).unwrap_or(&resource.limits);
        let options = update.and_then(|update| update.new_options.as_ref()).unwrap_or(&resource.options);
        let Some(storage) = limits.storage else {
            return problem(QuotaProblemCode::MissingComponent, missing_component(limits));
        };
        if storage <= 0.0 {
            let ordered = order.is_some_and(|order| order.storage == Some(0.0)) && options.hard_quota_space.is_none();
            let code = if ordered { QuotaProblemCode::ZeroOrdered } else { QuotaProblemCode::ZeroLimit };
            return problem(code, "the storage limit is 0".to_owned());
        }
        let owner = if update.is_some_and(|update| update.new_options.is_some()) { "order's new" } else { "resource" };
        let limit = if update.is_some_and(|update| update.new_limits.is_some()) { "new limit" } else { "limit" };
        if let Some(detail) = pinned_space(storage, options, owner, limit) {
            return problem(QuotaProblemCode::PinnedByOption, detail);
        }
        inode_problem(limits, options, rule, owner).and_then(|(code, detail)| problem(code, detail))
    }
}

/// Why the quotas that an order requests are unknown.
fn unreadable(order: &Order, resource: &Resource) -> Option<String> {
    if let Some(detail) = &order.unreadable {
        return Some(detail.clone());
    }
    // An order that does not change quotas repeats the limits of its resource.
    let (ordered, current) = (order.storage?, resource.limits.storage);
    if order.kind != OrderType::Update || order.update.is_some() || current == Some(ordered) {
        return None;
    }
    let current = current.map_or_else(|| "none".to_owned(), |current| format!("{current} TB"));
    Some(format!(
        "the order's storage limit is {ordered} TB and the resource's is {current}, but the order has no old_limits: it is \
         not clear which one applies"
    ))
}

fn missing_component(limits: &ResourceLimits) -> String {
    let mut names: Vec<_> = limits.other_components.iter().take(MAX_NAMED_COMPONENTS).cloned().collect();
    if limits.other_components.len() > MAX_NAMED_COMPONENTS {
        names.push(format!("and {} more", limits.other_components.len() - MAX_NAMED_COMPONENTS));
    }
    let present = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!("the limits have no component storage (present: {present})")
}

/// Describes how an override of the hard space quota contradicts the limit of `storage` TB.
fn pinned_space(storage: f64, options: &Options, owner: &str, limit: &str) -> Option<String> {
    let hard = options.hard_quota_space.filter(|hard| *hard < storage)?;
    Some(format!("{owner} option hard_quota_space ({hard} TB) pins the hard quota below the {limit} ({storage} TB)"))
}

/// The problem if an inode quota is 0, or if the soft inode quota exceeds the hard one.
fn inode_problem(
    limits: &ResourceLimits,
    options: &Options,
    rule: InodeRule,
    owner: &str,
) -> Option<(QuotaProblemCode, String)> {
    let Ok(quotas) = quota::calculate(limits, options, rule) else {
        return Some((
            QuotaProblemCode::UnreadableOrder,
            "the storage limit is too large for an inode quota".to_owned(),
        ));
    };
    let [_, _, soft, hard] = quotas?.map(|quota| quota.quota);
    let overrides =
        [("soft_quota_inodes", options.soft_quota_inodes), ("hard_quota_inodes", options.hard_quota_inodes)];
    if let Some((name, _)) = overrides.iter().find(|(_, value)| *value == Some(0.0)) {
        return Some((QuotaProblemCode::PinnedByOption, format!("{owner} option {name} pins an inode quota to 0")));
    }
    if soft <= 0.0 || hard <= 0.0 {
        let storage = limits.storage_or_zero();
        return Some((
            QuotaProblemCode::ZeroLimit,
            format!("the storage limit ({storage} TB) is too small: its inode quota would be 0 inodes"),
        ));
    }
    if soft <= hard {
        return None;
    }
    let set: Vec<_> = overrides.iter().filter_map(|(name, value)| Some(format!("{name} ({})", (*value)?))).collect();
    Some((
        QuotaProblemCode::PinnedByOption,
        format!("{owner} option {} puts the soft inode quota ({soft}) above the hard one ({hard})", set.join(" with ")),
    ))
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON literals are easier to read by value")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::resource;

    const RULE: InodeRule = InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 };

    fn of(changes: Value) -> Option<(&'static str, String)> {
        QuotaProblem::of(&resource(changes), RULE).map(|problem| (problem.code.as_str(), problem.detail))
    }

    fn with_order(kind: &str, attributes: Value, limits: Value) -> Value {
        json!({"url": "https://w.example/api/marketplace-orders/1/", "type": kind, "state": "pending-provider",
            "attributes": attributes, "limits": limits})
    }

    fn update(attributes: Value, limits: Value) -> Option<(&'static str, String)> {
        of(json!({"state": "Updating", "order_in_progress": with_order("Update", attributes, limits)}))
    }

    #[test]
    fn orders_that_change_no_quotas_have_no_problem() {
        assert_eq!(of(json!({})), None);
        // A plan switch and a renewal.
        assert_eq!(update(json!({}), json!({"storage": 10})), None);
        assert_eq!(update(json!(null), json!({})), None);
        assert_eq!(update(json!({"action": "renew", "old_limits": {"storage": 10}}), json!({"storage": 10})), None);
        assert_eq!(update(json!({"old_limits": {"storage": 10}}), json!({"storage": 20})), None);
        assert_eq!(update(json!({"old_options": {}, "new_options": {"hard_quota_space": null}}), json!({})), None);
    }

    #[test]
    fn each_problem_names_its_cause() {
        let problem = |changes: Value, code: &str, words: &str| {
            let (found, detail) = of(changes.clone()).unwrap_or_else(|| panic!("{changes} has no problem"));
            assert_eq!(found, code, "{changes}: {detail}");
            assert!(detail.contains(words), "{changes}: {detail}");
        };
        problem(json!({"limits": {}}), "missing_component", "present: nothing");
        problem(json!({"limits": {"storage_tb": 10}}), "missing_component", "storage (present: storage_tb)");
        problem(json!({"limits": {"storage": null, "ram": 1}}), "missing_component", "(present: ram)");
        problem(json!({"limits": {}, "options": {"hard_quota_space": 5}}), "missing_component", "nothing");
        problem(json!({"limits": {"storage": 0}}), "zero_limit", "storage limit is 0");
        problem(json!({"limits": {"storage": 1e-9}}), "zero_limit", "0 inodes");
        problem(
            json!({"limits": {"storage": 0}, "options": {"hard_quota_space": 20}}),
            "zero_limit",
            "storage limit is 0",
        );
        let pinned = "resource option hard_quota_space (5 TB) pins the hard quota below the limit (10 TB)";
        problem(json!({"options": {"hard_quota_space": 5}}), "pinned_by_option", pinned);
        problem(json!({"options": {"hard_quota_inodes": 0}}), "pinned_by_option", "hard_quota_inodes pins");
        problem(json!({"options": {"hard_quota_inodes": 5}}), "pinned_by_option", "(13300000) above the hard one (5)");
    }

    #[test]
    fn an_order_requesting_zero_differs_from_an_order_without_limits() {
        let problem = |found: Option<(&str, String)>, code: &str, words: &str| {
            let (found, detail) = found.unwrap();
            assert!(found == code && detail.contains(words), "{found}: {detail}");
        };
        let old = |value: Value| json!({"old_limits": value});
        problem(
            update(old(json!({"storage": -1})), json!({"storage": 2})),
            "unreadable_order",
            "old_limits.storage is neg",
        );
        problem(
            update(old(json!({"storage": 1})), json!({"storage": "much"})),
            "unreadable_order",
            "limits.storage is not",
        );
        problem(update(old(json!({"storage": 1})), json!("much")), "unreadable_order", "limits are not a map");
        problem(update(old(json!({"storage": 1})), json!({})), "unreadable_order", "its limits are empty");
        let huge = old(json!({"storage": 1e308}));
        problem(update(huge, json!({"storage": 2})), "unreadable_order", "old_limits.storage is too large");
        problem(update(old(json!({"tb": 1})), json!({"tb": 2})), "missing_component", "(present: tb)");
        problem(update(json!({}), json!({"storage": 20})), "unreadable_order", "no old_limits");
        problem(update(json!("old_limits"), json!({})), "unreadable_order", "attributes are not a map");
        problem(update(json!({"new_limits": {"storage": 1}}), json!({})), "unreadable_order", "contain new_limits");
        let cleared = json!({"old_options": {"hard_quota_space": 20}, "new_options": {"hard_quota_space": ""}});
        problem(update(cleared, json!({})), "unreadable_order", "new_options.hard_quota_space is not a number");
        let emptied = json!({"old_options": {"hard_quota_space": 20}, "new_options": {}});
        problem(update(emptied, json!({})), "unreadable_order", "new_options are empty");
        let options = json!({"new_options": {"hard_quota_space": 3}});
        problem(update(options, json!({})), "pinned_by_option", "order's new option hard_quota_space (3 TB)");
        problem(update(old(json!({"storage": 10})), json!({"storage": 0})), "zero_ordered", "storage limit is 0");
        let created = with_order("Create", json!({}), json!({"storage": 0}));
        let changes = json!({"state": "Creating", "limits": {"storage": 0}, "order_in_progress": created});
        problem(of(changes), "zero_ordered", "storage limit is 0");
        // The resource's limit is 0, but the order does not request 0.
        let created = with_order("Create", json!({}), json!({}));
        let changes = json!({"state": "Creating", "limits": {"storage": 0}, "order_in_progress": created});
        problem(of(changes), "zero_limit", "storage limit is 0");
    }

    #[test]
    fn a_pinning_option_is_reported_with_both_values() {
        let order = with_order("Update", json!({"old_limits": {"storage": 10}}), json!({"storage": 20}));
        let changes = json!({"state": "Updating", "options": {"hard_quota_space": 10}, "order_in_progress": order});
        let detail = "resource option hard_quota_space (10 TB) pins the hard quota below the new limit (20 TB)";
        assert_eq!(of(changes), Some(("pinned_by_option", detail.to_owned())));
    }

    #[test]
    fn terminated_resources_have_no_quota_problem() {
        assert_eq!(of(json!({"state": "Terminated", "limits": {}})), None);
        let order = with_order("Terminate", json!({}), json!({}));
        assert_eq!(of(json!({"limits": {}, "order_in_progress": order})), None);
    }

    /// Until the customer approves the termination, the document shows the resource as active.
    #[test]
    fn quotas_matter_until_the_customer_approves_the_termination() {
        let mut order = with_order("Terminate", json!({}), json!({}));
        order["state"] = json!("pending-consumer");
        let found = of(json!({"state": "Terminating", "limits": {}, "order_in_progress": order}));
        assert_eq!(found.map(|(code, _)| code), Some("missing_component"));
    }
}

//! Quotas of a directory, including the change that an order requests.

use storage_driver::limits::{Bytes, Inodes, InvalidLimits, QuotaLimits, Terabyte, round_up};

use super::{Obstacle, due_order};
use crate::document::{OrderKind, Quotas, Resource};

/// The desired quotas. A number that nobody requested is an obstacle, never a quota of 0.
pub(super) fn limits(resource: &Resource, terabyte: Terabyte) -> Result<QuotaLimits, Obstacle> {
    let (sets_quotas, ordered) = ordered(resource);
    if let Some(problem) = &resource.quota_problem {
        let detail = &problem.detail;
        return Err(if !(problem.zero_ordered && sets_quotas) {
            Obstacle::needs_operator(detail)
        } else if ordered.is_some_and(|quotas| quotas.space.iter().all(|space| *space > 0.0)) {
            Obstacle::needs_operator(format!(
                "the proxy reports that the order asks for a quota of 0 ({detail}), but publishes other quotas for it: check \
                 the order in Waldur"
            ))
        } else {
            Obstacle::impossible(format!("the order asks for a quota of 0: {detail}"))
        });
    }
    let quotas = ordered.or(resource.quotas).ok_or_else(|| {
        Obstacle::needs_operator("the document has no quotas for the resource: check its limits in Waldur")
    })?;
    let limits = || {
        let [space_soft, space_hard] = quotas.space.map(|value| round_up(value, terabyte.bytes(), "bytes").map(Bytes));
        let [inodes_soft, inodes_hard] = quotas.inodes.map(|value| round_up(value, 1, "inodes").map(Inodes));
        QuotaLimits::new([space_soft?, space_hard?], [inodes_soft?, inodes_hard?])
    };
    limits().map_err(|error: InvalidLimits| {
        Obstacle::needs_operator(format!("{error}: check its limits and options in Waldur"))
    })
}

/// Whether a due order sets quotas, and the quotas that it requests.
fn ordered(resource: &Resource) -> (bool, Option<Quotas>) {
    match due_order(resource).map(|order| order.kind) {
        Some(OrderKind::Update) => (true, resource.new_quotas),
        Some(OrderKind::Create) => (true, resource.quotas),
        _ => (false, None),
    }
}

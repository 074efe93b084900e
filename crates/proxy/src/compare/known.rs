//! Intended differences, each with the decision and an explanation.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::naming::Renamed;
use super::pairs::with_our_name;
use super::{Context, Difference};

/// A known reason for differences. `docs/migration.md` lists all of them.
#[derive(Debug, Serialize)]
pub struct Known {
    /// The decision, see `docs/decisions.md`.
    pub decision: &'static str,
    /// The explanation.
    pub reason: &'static str,
    #[serde(skip)]
    explains: fn(&Difference<'_>, &Context) -> bool,
}

impl Known {
    /// Whether this is the reason for the difference.
    pub fn explains(&self, difference: &Difference<'_>, context: &Context) -> bool {
        (self.explains)(difference, context)
    }
}

/// All known reasons; the first that applies is reported.
pub static KNOWN: &[Known] = &[
    Known {
        decision: "D2",
        reason: "one listing uses the name of the storage system, the other the slug of its offering \
                 (SYSTEM_IDENTIFIER)",
        explains: |difference, context| {
            let Some((ours, theirs)) = texts(difference) else { return false };
            let any = |same: fn(&Renamed, &str, &str) -> bool| {
                context.renamed.iter().any(|system| same(system, ours, theirs))
            };
            match difference.path.as_str() {
                "storageSystem.key" => any(|Renamed { here, there }, ours, theirs| {
                    here.to_lowercase() == ours && there.to_lowercase() == theirs
                }),
                "storageSystem.name" => any(|Renamed { here, there }, ours, theirs| {
                    here.to_uppercase() == ours && there.to_uppercase() == theirs
                }),
                "storageSystem.itemId" => any(|Renamed { here, there }, ours, theirs| {
                    let is = |text: &str, name: &str| text.parse() == Ok(system_id(name));
                    is(ours, here) && is(theirs, there)
                }),
                "mountPoint.default" => with_our_name(theirs, &context.renamed) == ours,
                _ => false,
            }
        },
    },
    Known {
        decision: "D5",
        reason: "the Python proxy invents UID and e-mail address of users, with a new UID at each start; here they are \
                 null unless they are known",
        explains: |difference, _| match difference.path.as_str() {
            "target.targetItem.unixUid" => difference.theirs.is_some_and(|uid| is_within(uid, 20_000)),
            "target.targetItem.email" => difference
                .theirs
                .and_then(Value::as_str)
                .is_some_and(|email| email.starts_with("user-") && email.ends_with("@example.com")),
            _ => false,
        },
    },
    Known {
        decision: "D6",
        reason: "in development mode the Python proxy invents new GIDs at each start; here they stay the same",
        explains: |difference, context| {
            let gid = ["target.targetItem.unixGid", "target.targetItem.primaryProject.unixGid"];
            let invented = |gid: Option<&Value>| gid.is_some_and(|gid| is_within(gid, 30_000));
            context.development_mode
                && gid.contains(&difference.path.as_str())
                && invented(difference.ours)
                && invented(difference.theirs)
        },
    },
    Known {
        decision: "D7",
        reason: "skipped here because of a missing GID, and listed in `skipped`; the Python proxy keeps GIDs until it is \
                 restarted",
        explains: |difference, context| skipped(difference, context) == Some("MissingIdentityError"),
    },
    Known {
        decision: "D8",
        reason: "skipped here because Waldur's record is malformed, and listed in `skipped`",
        explains: |difference, context| skipped(difference, context).is_some(),
    },
    Known {
        decision: "D14",
        reason: "our links lead to this proxy, which relays callbacks to Waldur (callbacks.relay); theirs lead to Waldur",
        explains: |difference, _| {
            let Some((ours, theirs)) = texts(difference) else { return false };
            let action = |link: &'_ str| link.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
            let relayed = ours.contains("/api/callbacks/") && theirs.contains("/api/marketplace-");
            difference.path.ends_with("_url") && relayed && action(ours) == action(theirs)
        },
    },
    Known {
        decision: "contract",
        reason: "the same quota except for rounding of the last digits",
        explains: |difference, _| {
            let (Some(ours), Some(theirs)) =
                (difference.ours.and_then(Value::as_f64), difference.theirs.and_then(Value::as_f64))
            else {
                return false;
            };
            let is_quota = ["quotas[", "oldQuotas[", "newQuotas["].iter().any(|list| difference.path.starts_with(list));
            let near = (ours - theirs).abs() <= 1e-12 * ours.abs().max(theirs.abs());
            is_quota && difference.path.ends_with("].quota") && near
        },
    },
];

/// Both values, if they are texts.
fn texts<'a>(difference: &Difference<'a>) -> Option<(&'a str, &'a str)> {
    Some((difference.ours?.as_str()?, difference.theirs?.as_str()?))
}

/// Whether an identity is one of the ten thousand from `first`, the range of invented ones.
fn is_within(identity: &Value, first: u64) -> bool {
    identity.as_u64().is_some_and(|number| (first..first + 10_000).contains(&number))
}

/// The error for which an item that only they have is skipped here.
fn skipped<'a>(difference: &Difference<'_>, context: &'a Context) -> Option<&'a str> {
    let only_theirs = difference.path.is_empty() && difference.ours.is_none();
    only_theirs.then(|| context.skipped(difference.item_id)).flatten()
}

/// The ID of a storage system in items: a UUIDv5 in the OID namespace.
fn system_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("storage_system:{name}").as_bytes())
}

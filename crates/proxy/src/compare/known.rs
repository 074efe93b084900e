//! Differences that are meant: each with the decision behind it and a sentence for the reader.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::naming::Renamed;
use super::pairs::as_here;
use super::{Context, Difference};

/// A reason for differences. `docs/migration.md` lists them all.
#[derive(Debug, Serialize)]
pub struct Known {
    /// The decision on the contract.
    pub decision: &'static str,
    /// Why it is so.
    pub reason: &'static str,
    #[serde(skip)]
    explains: fn(&Difference<'_>, &Context) -> bool,
}

impl Known {
    /// Whether this is the reason for a difference.
    pub fn explains(&self, difference: &Difference<'_>, context: &Context) -> bool {
        (self.explains)(difference, context)
    }
}

/// Every known reason; the first that holds is told.
pub static KNOWN: &[Known] = &[
    Known {
        decision: "D2",
        reason: "one of the two calls the storage system by its name, the other by its offering's slug \
                 (SYSTEM_IDENTIFIER decides)",
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
                "mountPoint.default" => as_here(theirs, &context.renamed) == ours,
                _ => false,
            }
        },
    },
    Known {
        decision: "D5",
        reason: "the Python proxy invents UID and e-mail address of users, another UID at each start; here they are \
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
        reason: "in development mode the Python proxy invents another GID at each start; here it is the same at each",
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
        reason: "left out here for want of a GID, and named in `skipped`; the Python proxy keeps a GID until it is \
                 started anew",
        explains: |difference, context| left_out(difference, context) == Some("MissingIdentityError"),
    },
    Known {
        decision: "D8",
        reason: "left out here since Waldur's record is malformed, and named in `skipped`",
        explains: |difference, context| left_out(difference, context).is_some(),
    },
    Known {
        decision: "D14",
        reason: "links lead to this proxy here, which relays them to Waldur (callbacks.relay), and to Waldur there",
        explains: |difference, _| {
            let Some((ours, theirs)) = texts(difference) else { return false };
            let action = |link: &'_ str| link.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
            let relayed = ours.contains("/api/callbacks/") && theirs.contains("/api/marketplace-");
            difference.path.ends_with("_url") && relayed && action(ours) == action(theirs)
        },
    },
    Known {
        decision: "contract",
        reason: "the same quota but for the rounding of its last digits",
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

/// Both values where they are texts.
fn texts<'a>(difference: &Difference<'a>) -> Option<(&'a str, &'a str)> {
    Some((difference.ours?.as_str()?, difference.theirs?.as_str()?))
}

/// Whether an identity is one of the ten thousand from `first` on, as invented ones are.
fn is_within(identity: &Value, first: u64) -> bool {
    identity.as_u64().is_some_and(|number| (first..first + 10_000).contains(&number))
}

/// The error for which an item that only they have is left out here.
fn left_out<'a>(difference: &Difference<'_>, context: &'a Context) -> Option<&'a str> {
    let only_theirs = difference.path.is_empty() && difference.ours.is_none();
    only_theirs.then(|| context.skipped(difference.item_id)).flatten()
}

/// The id that a storage system has in items: UUIDv5 of the OID namespace.
fn system_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("storage_system:{name}").as_bytes())
}

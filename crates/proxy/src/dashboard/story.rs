//! Joins what Waldur and the document say with what provisioners report: one row for each resource, with the conclusion whose turn it is.
//! Pure: the time is an argument.

mod conclusion;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use catalog::{Details, Indexed, Policy, Stamp, State, Status};
use provisioner_report as report;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

pub(super) use conclusion::{Conclusion, Turn};

use crate::reports::Received;
use crate::snapshot::{Described, Snapshot};

/// Everything that the pages show, except the health of upstreams.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// In the order of the document; malformed records, and resources that only a provisioner knows, are last.
    pub(super) rows: Vec<Row>,
    by_id: HashMap<Uuid, usize>,
    /// Those of the settings, then others that a provisioner reports.
    pub(super) systems: Vec<System>,
    pub(super) provisioners: Vec<Provisioner>,
    pub(super) trash: Vec<Trashed>,
}

/// A resource.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// `None` if the record has no readable UUID.
    pub(super) id: Option<Uuid>,
    /// Empty if it is unknown.
    pub(super) path: String,
    /// The key in the document; empty if it is unknown.
    pub(super) system: String,
    /// Empty if it is unknown.
    pub(super) data_type: String,
    /// Name of the customer, or its slug.
    pub(super) customer: String,
    /// Slug of the project.
    pub(super) project: String,
    /// Slug of the resource.
    pub(super) slug: String,
    /// `None` if the document does not contain it and would not.
    pub(super) status: Option<Status>,
    /// State in Waldur.
    pub(super) state: Option<State>,
    pub(super) order: Option<Order>,
    /// What the document says.
    pub(super) published: Option<Published>,
    /// Why the document does not contain it.
    pub(super) skipped: Option<Skip>,
    pub(super) quota_problem: Option<String>,
    /// Whether it is in transition in Waldur without an order.
    pub(super) transition: Option<Transition>,
    /// Why a provisioner rejects its item.
    pub(super) rejected: Option<String>,
    reported: Option<(Arc<Received>, usize)>,
    pub(super) conclusion: Conclusion,
    /// Lower-case text that is searched.
    pub(super) search: String,
}

/// An order in progress.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) uuid: Option<Uuid>,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) created: Option<OffsetDateTime>,
}

/// The item of a resource in the document.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) mode: String,
    pub(super) gid: Option<i64>,
    /// Of a user's directory.
    pub(super) uid: Option<i64>,
    pub(super) quotas: Option<Quotas>,
    /// Before and after the order in progress.
    pub(super) update: Option<[Option<Quotas>; 2]>,
}

/// Space in TB, and inodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quotas {
    pub(super) soft_space: f64,
    pub(super) hard_space: f64,
    pub(super) soft_inodes: f64,
    pub(super) hard_inodes: f64,
}

/// Why the document does not contain a resource.
#[derive(Debug)]
pub(super) enum Skip {
    /// Its project has no GID.
    Identity(String),
    /// Its record breaks the mapping rules.
    Malformed(String),
    /// Only a provisioner knows it.
    Absent,
}

impl Skip {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Identity(reason) | Self::Malformed(reason) => reason,
            Self::Absent => "Waldur does not list it",
        }
    }
}

#[derive(Debug)]
pub(super) struct Transition {
    pub(super) set_state_ok_url: String,
    pub(super) has_backend_id: bool,
}

/// A storage system, and who reports about it.
#[derive(Debug, Default)]
pub(super) struct System {
    pub(super) name: String,
    /// Whether the settings of the proxy list it.
    pub(super) is_configured: bool,
    /// Positions of the provisioners that report about it: silent ones last, the newest report first.
    pub(super) reporters: Vec<usize>,
    /// The unit of its quotas, if a provisioner reports it.
    pub(super) terabyte: Option<report::Terabyte>,
    /// Why a provisioner cannot read it.
    pub(super) error: Option<String>,
}

/// A provisioner that has sent a report.
#[derive(Debug)]
pub(super) struct Provisioner {
    pub(super) received: Arc<Received>,
    /// Whether its next report is overdue.
    pub(super) is_silent: bool,
}

/// A directory in the trash.
#[derive(Debug)]
pub(super) struct Trashed {
    /// Position of its resource among the rows.
    pub(super) row: Option<usize>,
    pub(super) id: Uuid,
    pub(super) system: String,
    pub(super) since: OffsetDateTime,
    pub(super) expires: Option<OffsetDateTime>,
    pub(super) usage: Option<report::Amount>,
}

impl Row {
    /// What its provisioner reports about it.
    pub(super) fn reported(&self) -> Option<&report::Resource> {
        self.reported.as_ref().and_then(|(received, position)| received.report.resources.get(*position))
    }

    /// The report that contains it.
    pub(super) fn received(&self) -> Option<&Received> {
        self.reported.as_ref().map(|(received, _)| &**received)
    }

    pub(super) fn hold(&self) -> Option<&report::Hold> {
        self.reported()?.hold.as_ref()
    }

    pub(super) fn task(&self) -> Option<&report::Task> {
        self.reported()?.task.as_ref()
    }

    pub(super) fn usage(&self) -> Option<report::Amount> {
        self.reported()?.usage
    }

    /// The quotas on the storage; `None` if there are none, or if they are unknown.
    pub(super) fn quota(&self) -> Option<report::Amount> {
        self.reported()?.quota
    }

    /// The larger part of space and inodes that is in use; `None` without quotas.
    pub(super) fn fullness(&self) -> Option<f64> {
        let (usage, quota) = (self.usage()?, self.quota()?);
        let part = |used, limit| if limit == 0 { None } else { Some(ratio(used, limit)) };
        let parts = [part(usage.bytes, quota.bytes), part(usage.inodes, quota.inodes)];
        parts.into_iter().flatten().reduce(f64::max)
    }

    /// When its space or its inodes will be used up, if they grow as they did over the reports that are kept.
    pub(super) fn full_at(&self) -> Option<OffsetDateTime> {
        let received = self.received()?;
        let (usage, quota, id) = (self.usage()?, self.quota()?, self.id?);
        let oldest = received.samples.iter().filter(|sample| sample.usage.contains_key(&id)).min_by_key(|it| it.at)?;
        let before = oldest.usage.get(&id)?;
        let now = received.report.pass.ended_at;
        let elapsed = (now - oldest.at).as_seconds_f64();
        if elapsed < MIN_TREND.as_seconds_f64() {
            return None;
        }
        let seconds = |before: u64, used: u64, limit: u64| {
            let growth = used.checked_sub(before).filter(|growth| *growth > 0 && limit > 0)?;
            Some(ratio(limit.saturating_sub(used), growth) * elapsed)
        };
        let space = seconds(before.bytes, usage.bytes, quota.bytes);
        let inodes = seconds(before.inodes, usage.inodes, quota.inodes);
        let soonest = [space, inodes].into_iter().flatten().reduce(f64::min)?;
        now.checked_add(Duration::checked_seconds_f64(soonest)?)
    }
}

/// Shorter histories of usage say little about the future.
const MIN_TREND: Duration = Duration::hours(1);

#[expect(clippy::cast_precision_loss, reason = "for display")]
pub(super) fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

impl System {
    /// Positions of the provisioners that report about it and are not silent.
    pub(super) fn alive<'a>(&'a self, story: &'a Story) -> impl Iterator<Item = usize> + 'a {
        self.reporters.iter().copied().filter(|position| !story.provisioners[*position].is_silent)
    }
}

impl Provisioner {
    pub(super) fn name(&self) -> &str {
        &self.received.name
    }
}

/// The parts of an item that are shown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(rename = "itemId")]
    id: Uuid,
    #[serde(borrow)]
    mount_point: MountPoint<'a>,
    #[serde(borrow)]
    permission: Permission<'a>,
    #[serde(borrow)]
    target: Target<'a>,
    quotas: Option<[Quota; 4]>,
    old_quotas: Option<[Quota; 4]>,
    new_quotas: Option<[Quota; 4]>,
}

#[derive(Deserialize)]
struct MountPoint<'a> {
    #[serde(borrow)]
    default: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Permission<'a> {
    #[serde(borrow)]
    value: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Target<'a> {
    #[serde(borrow, rename = "targetItem")]
    item: TargetItem<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetItem<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    unix_gid: Option<i64>,
    unix_uid: Option<i64>,
    primary_project: Option<PrimaryProject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrimaryProject {
    unix_gid: i64,
}

#[derive(Deserialize)]
struct Quota {
    quota: f64,
}

#[derive(Deserialize)]
struct Links {
    set_state_ok_url: String,
    backend_id: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl From<[Quota; 4]> for Quotas {
    fn from([soft_space, hard_space, soft_inodes, hard_inodes]: [Quota; 4]) -> Self {
        Self {
            soft_space: soft_space.quota,
            hard_space: hard_space.quota,
            soft_inodes: soft_inodes.quota,
            hard_inodes: hard_inodes.quota,
        }
    }
}

/// Joins the newest snapshot with the newest reports.
pub(super) fn join(
    snapshot: Option<&Snapshot>,
    policy: &Policy,
    reports: &[Arc<Received>],
    now: OffsetDateTime,
) -> Story {
    let each =
        |received: &Arc<Received>| Provisioner { received: Arc::clone(received), is_silent: received.is_silent(now) };
    let provisioners: Vec<_> = reports.iter().map(each).collect();
    let mut story = Story { systems: systems(policy, &provisioners), provisioners, ..Story::default() };
    if let Some(snapshot) = snapshot {
        story.rows = rows(snapshot, policy);
    }
    story.by_id = (0..).zip(&story.rows).filter_map(|(position, row)| Some((row.id?, position))).collect();
    add_reports(&mut story);
    add_trash(&mut story);
    for position in 0..story.rows.len() {
        let conclusion = conclusion::conclude(&story, &story.rows[position]);
        let row = &mut story.rows[position];
        row.conclusion = conclusion;
        row.search = searched(row);
    }
    story
}

impl Story {
    /// The row of the resource with this UUID.
    pub(super) fn find(&self, id: Uuid) -> Option<&Row> {
        self.by_id.get(&id).map(|position| &self.rows[*position])
    }

    pub(super) fn system(&self, name: &str) -> Option<&System> {
        self.systems.iter().find(|system| system.name == name)
    }

    /// The unit of quotas on this system.
    pub(super) fn terabyte(&self, system: &str) -> report::Terabyte {
        self.system(system).and_then(|system| system.terabyte).unwrap_or(report::Terabyte::Decimal)
    }
}

fn systems(policy: &Policy, provisioners: &[Provisioner]) -> Vec<System> {
    let mut systems: Vec<System> = Vec::new();
    for system in &policy.systems {
        let name = system.identifier.to_lowercase();
        if systems.iter().all(|known| known.name != name) {
            systems.push(System { name, is_configured: true, ..System::default() });
        }
    }
    let mut newest_first: Vec<_> = (0..).zip(provisioners).collect();
    newest_first.sort_by_key(|(_, it)| (it.is_silent, std::cmp::Reverse(it.received.received_at)));
    for (position, provisioner) in newest_first {
        for reported in &provisioner.received.report.systems {
            let number = systems.iter().position(|known| known.name == reported.name).unwrap_or_else(|| {
                systems.push(System { name: reported.name.clone(), ..System::default() });
                systems.len() - 1
            });
            let system = &mut systems[number];
            if system.reporters.is_empty() {
                system.terabyte = Some(reported.terabyte);
                system.error.clone_from(&reported.error);
            }
            if !system.reporters.contains(&position) {
                system.reporters.push(position);
            }
        }
    }
    systems
}

fn rows(snapshot: &Snapshot, policy: &Policy) -> Vec<Row> {
    let customers: Vec<_> = snapshot.nodes().map(|node| name_of(node).unwrap_or_default()).collect();
    let everything = snapshot.page(&catalog::Filter::default(), 0, usize::MAX);
    let mut problems: HashMap<Uuid, Problem> = entries(&everything.quota_problems);
    let mut links: HashMap<Uuid, Links> = entries(&everything.resource_links);
    let resources = snapshot.resources().map(|Described { indexed, item, details }| {
        let mut row = match item {
            Ok(item) => of_item(item),
            Err(skipped) => of_skipped(skipped, details),
        };
        let Indexed { system, data_type, state, status, customer, .. } = indexed;
        let system = policy.systems.iter().find(|known| known.name == system);
        row.system = system.map(|system| system.identifier.to_lowercase()).unwrap_or_default();
        data_type.clone_into(&mut row.data_type);
        (row.state, row.status) = (Some(state), Some(status));
        row.customer = customer.and_then(|position| customers.get(position as usize).cloned()).unwrap_or_default();
        row.slug.clone_from(&details.slug);
        row.project.clone_from(&details.project);
        row.order = details.order.as_deref().map(|order| Order {
            uuid: order.uuid,
            kind: order.kind.clone().unwrap_or_default(),
            state: order.state.clone().unwrap_or_default(),
            created: order.created.and_then(time_of),
        });
        if let Some(id) = row.id {
            row.quota_problem = problems.remove(&id).map(|problem| problem.detail);
            row.transition = links.remove(&id).map(|links| Transition {
                set_state_ok_url: links.set_state_ok_url,
                has_backend_id: links.backend_id.is_some(),
            });
        }
        row
    });
    let mut rows: Vec<_> = resources.collect();
    rows.extend(snapshot.malformed().iter().map(|skipped| Row {
        id: skipped.item_id,
        skipped: Some(Skip::Malformed(skipped.detail.clone())),
        ..Row::default()
    }));
    rows
}

fn of_item(item: &[u8]) -> Row {
    // An item that this program rendered is always readable.
    let Ok(item) = serde_json::from_slice::<Item<'_>>(item) else { return Row::default() };
    let TargetItem { unix_gid, unix_uid, primary_project, .. } = item.target.item;
    let update = match (item.old_quotas, item.new_quotas) {
        (None, None) => None,
        (old, new) => Some([old.map(Quotas::from), new.map(Quotas::from)]),
    };
    Row {
        id: Some(item.id),
        path: item.mount_point.default.into_owned(),
        published: Some(Published {
            mode: item.permission.value.into_owned(),
            gid: unix_gid.or(primary_project.map(|project| project.unix_gid)),
            uid: unix_uid,
            quotas: item.quotas.map(Quotas::from),
            update,
        }),
        ..Row::default()
    }
}

fn of_skipped(skipped: &catalog::Skipped, details: &Details) -> Row {
    // The rest of the text repeats what the row shows.
    let full = &skipped.detail;
    let end = format!(" (resource '{}', offering '", details.slug);
    let start = format!("Could not resolve identity 'gid for {}' for resource ", details.project);
    let reason = full.strip_prefix(&start).and_then(|rest| rest.split_once(": ")).map_or(full.as_str(), |(_, it)| it);
    let reason = reason.rsplit_once(&end).map_or(reason, |(reason, _)| reason);
    Row { id: skipped.item_id, skipped: Some(Skip::Identity(reason.to_owned())), ..Row::default() }
}

/// Name or key of a tenant or customer.
fn name_of(node: &[u8]) -> Option<String> {
    let TargetItem { key, name, .. } = serde_json::from_slice::<Item<'_>>(node).ok()?.target.item;
    name.filter(|name| !name.trim().is_empty()).or(key).map(Cow::into_owned)
}

/// Reads slices of a JSON map.
fn entries<T: for<'a> Deserialize<'a>>(slices: &[bytes::Bytes]) -> HashMap<Uuid, T> {
    let each = slices.iter().map(|slice| serde_json::from_slice([b"{", &slice[..], b"}"].concat().as_slice()));
    each.filter_map(|map: Result<HashMap<Uuid, T>, _>| map.ok()).flatten().collect()
}

fn time_of(stamp: Stamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(stamp.0) * 1000).ok()
}

/// Adds what the newest report about each system says. Adds rows for resources that only a report contains. A hold in another report is
/// shown if the newest one has none: a provisioner must not hide what another one holds.
fn add_reports(story: &mut Story) {
    let Story { rows, by_id, systems, provisioners, .. } = story;
    let reporters: HashMap<&str, &[usize]> =
        systems.iter().map(|system| (system.name.as_str(), system.reporters.as_slice())).collect();
    let is_first = |system: &str, number| reporters.get(system).and_then(|them| them.first()) == Some(&number);
    for (number, provisioner) in provisioners.iter().enumerate() {
        let received = &provisioner.received;
        for (position, resource) in received.report.resources.iter().enumerate() {
            let is_newest = is_first(&resource.system, number);
            let is_other = || reporters.get(resource.system.as_str()).is_some_and(|them| them.contains(&number));
            if !is_newest && (resource.hold.is_none() || provisioner.is_silent || !is_other()) {
                continue;
            }
            let row = *by_id.entry(resource.id).or_insert_with(|| {
                rows.push(Row { id: Some(resource.id), skipped: Some(Skip::Absent), ..Row::default() });
                rows.len() - 1
            });
            let row = &mut rows[row];
            if row.path.is_empty() {
                row.path.clone_from(&resource.path);
            }
            if row.system.is_empty() {
                row.system.clone_from(&resource.system);
            }
            if row.system == resource.system && (row.hold().is_none() || (is_newest && resource.hold.is_some())) {
                row.reported = Some((Arc::clone(received), position));
            }
        }
        for rejected in &received.report.rejected {
            let row = rejected.id.and_then(|id| by_id.get(&id)).map(|position| &mut rows[*position]);
            if let Some(row) = row
                && (is_first(&row.system, number) || reporters.get(&*row.system).is_none_or(|them| them.is_empty()))
            {
                row.rejected = Some(rejected.reason.clone());
            }
        }
    }
}

fn add_trash(story: &mut Story) {
    let Story { provisioners, systems, by_id, trash, .. } = story;
    for (number, provisioner) in provisioners.iter().enumerate() {
        let is_newest = |name: &str| {
            let system = systems.iter().find(|system| system.name == name);
            system.is_none_or(|system| system.reporters.first().is_none_or(|first| *first == number))
        };
        let trashed = provisioner.received.report.trash.iter().filter(|trashed| is_newest(&trashed.system));
        trash.extend(trashed.map(|trashed| Trashed {
            row: by_id.get(&trashed.id).copied(),
            id: trashed.id,
            system: trashed.system.clone(),
            since: trashed.since,
            expires: trashed.expires,
            usage: trashed.usage,
        }));
    }
    // The one that expires first is first; those that nothing purges are last.
    trash.sort_by_key(|trashed| (trashed.expires.is_none(), trashed.expires, trashed.since, trashed.id));
}

fn searched(row: &Row) -> String {
    let id = row.id.map(|id| id.to_string()).unwrap_or_default();
    let order = row.order.as_ref().and_then(|order| order.uuid).map(|id| id.to_string()).unwrap_or_default();
    let reason = row.skipped.as_ref().map_or("", Skip::reason);
    let texts = [&row.path, &row.customer, &row.project, &row.slug, &id, &order, reason, &*row.conclusion.why];
    texts.join("\n").to_lowercase()
}

//! Worlds for tests.

use std::sync::Arc;

use catalog::{Customer, Customers, Identities, Resource, Skipped};
use provisioner_report::{self as report, Amount, Hold, HoldKind, Observed, Pass, Report, Task, TaskState, Terabyte};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Story, join};
use crate::reports::Received;
use crate::snapshot::Snapshot;
use crate::testing::policy;

pub(in super::super) const GIB: u64 = 1 << 30;

/// The time of all tests.
pub(in super::super) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

pub(in super::super) fn ago(hours: i64) -> OffsetDateTime {
    now() - Duration::hours(hours)
}

pub(in super::super) fn id(number: usize) -> Uuid {
    Uuid::from_u128(0x1000 + number as u128)
}

/// A record of Waldur in use; `changes` replaces keys.
pub(in super::super) fn record(number: usize, changes: Value) -> Value {
    let mut record = json!({
        "uuid": id(number), "slug": format!("resource-{number}"), "state": "OK", "offering_uuid": Uuid::from_u128(1),
        "offering_slug": "capstor", "provider_slug": "provider", "customer_slug": "uni", "project_slug": format!("p{number}"),
        "limits": {"storage": 10}, "attributes": {"storage_data_type": "store"},
    });
    if let (Value::Object(record), Value::Object(changes)) = (&mut record, changes) {
        record.extend(changes);
    }
    record
}

/// An order of a resource, as nested in its record.
pub(in super::super) fn order(kind: &str, state: &str) -> Value {
    json!({
        "uuid": Uuid::from_u128(7), "type": kind, "state": state, "created": "2027-01-15T06:00:00Z",
        "url": "https://waldur.example.org/api/marketplace-orders/7/",
    })
}

pub(in super::super) fn snapshot(records: &[Value]) -> Snapshot {
    snapshot_of(records, "University of Zürich")
}

/// Projects called `unknown` have no GID.
pub(in super::super) fn snapshot_of(records: &[Value], customer: &str) -> Snapshot {
    let parsed = records.iter().map(|record| Resource::parse(&to_raw_value(record).unwrap()));
    let (mut resources, mut malformed) = (Vec::new(), Vec::new());
    for resource in parsed {
        match resource {
            Ok(resource) => resources.push(Arc::new(resource)),
            Err(rejected) => malformed.push(Skipped::malformed(&rejected)),
        }
    }
    let slugs: std::collections::HashSet<_> = resources.iter().map(|resource| resource.project_slug.clone()).collect();
    let gids = slugs.into_iter().map(|slug| {
        let gid = if slug == "unknown" { Err("the HPC User API does not know it".to_owned()) } else { Ok(30_000) };
        (slug, gid)
    });
    let identities = Identities { gids: gids.collect(), ..Identities::default() };
    let customer = Customer { uuid: Uuid::from_u128(2), name: Some(customer.to_owned()) };
    let customers: Customers = [("uni".to_owned(), customer)].into();
    let catalogue = catalog::build(&resources, customers.into(), identities.into(), policy().into(), None);
    Snapshot::render(&catalogue, malformed, None).unwrap()
}

/// A resource as reported: its directory is there.
pub(in super::super) fn reported(number: usize) -> report::Resource {
    report::Resource {
        id: id(number),
        system: "capstor".into(),
        path: format!("/capstor/store/provider/uni/p{number}"),
        observed: Observed::Present,
        detail: "owner 0:30000, mode 775".into(),
        usage: Some(Amount { bytes: 5 * GIB, inodes: 1_000 }),
        quota: Some(Amount { bytes: 10 * GIB, inodes: 10_000 }),
        task: None,
        hold: None,
        history: Vec::new(),
    }
}

pub(in super::super) fn hold(kind: HoldKind, turn: report::Turn) -> Hold {
    Hold {
        kind,
        turn,
        reason: "the reason".into(),
        changes: Vec::new(),
        since: Some(ago(3)),
        commands: vec!["hpc-storage-provisioner adopt x".into()],
    }
}

pub(in super::super) fn task(state: TaskState) -> Task {
    Task {
        action: "create".into(),
        why: "Create order executing".into(),
        state,
        steps: vec!["create".into(), "set_state_done".into()],
        changes: Vec::new(),
        since: Some(ago(1)),
        error: None,
    }
}

/// A report that arrived five minutes ago.
pub(in super::super) fn received(name: &str, resources: Vec<report::Resource>) -> Received {
    let received_at = now() - Duration::minutes(5);
    Received {
        name: name.into(),
        received_at,
        report: Report {
            program: "hpc-storage-provisioner 1.0.0".into(),
            reported_at: received_at,
            next_within_seconds: 600,
            pass: Pass { ended_at: received_at, duration_seconds: 1.5, error: None },
            systems: vec![report::System { name: "capstor".into(), terabyte: Terabyte::Decimal, error: None }],
            resources,
            trash: Vec::new(),
            rejected: Vec::new(),
        },
        samples: Vec::new(),
    }
}

pub(in super::super) fn story(records: &[Value], reports: Vec<Received>) -> Story {
    let reports: Vec<_> = reports.into_iter().map(Arc::new).collect();
    join(Some(&snapshot(records)), &policy(), &reports, now())
}

//! Rows of Waldur's lists.

use catalog::{Customer, Rejected, Resource};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::page::{Rows, fingerprint};
use super::{CustomerRow, Offering};

/// Resources: a malformed one is a value, it never breaks the page.
#[expect(clippy::unnecessary_wraps, reason = "the readers of all lists have one signature")]
pub(super) fn resources(records: &[&RawValue]) -> Result<Rows<Result<Resource, Rejected>>, String> {
    let read = |record: &&RawValue| match Resource::parse(record) {
        Ok(resource) => (Some(fingerprint(resource.uuid)), Ok(resource)),
        Err(rejected) => (rejected.uuid.map(fingerprint), Err(rejected)),
    };
    Ok(records.iter().map(read).collect())
}

/// Customers: without one of them its projects would lose their place, so one whose UUID cannot be read is an error.
pub(super) fn customers(records: &[&RawValue]) -> Result<Rows<CustomerRow>, String> {
    #[derive(Deserialize)]
    struct Record {
        uuid: Uuid,
        slug: Option<String>,
        name: Option<String>,
    }
    let read = |record: &&RawValue| {
        let Record { uuid, slug, name } = serde_json::from_str(record.get())
            .map_err(|_| String::from("a customer's uuid, slug or name cannot be read"))?;
        Ok((Some(fingerprint(uuid)), CustomerRow { slug, customer: Customer { uuid, name } }))
    };
    records.iter().map(read).collect()
}

/// Offerings.
pub(super) fn offerings(records: &[&RawValue]) -> Result<Rows<Offering>, String> {
    let read = |record: &&RawValue| {
        let offering: Offering =
            serde_json::from_str(record.get()).map_err(|_| String::from("an offering lacks its slug"))?;
        Ok((Some(fingerprint(record.get())), offering))
    };
    records.iter().map(read).collect()
}

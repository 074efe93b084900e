//! Parses the rows of Waldur's lists.

use catalog::{Customer, OpenOrder, Row};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::page::{Rows, fingerprint};
use super::{CustomerRow, Offering};

/// A malformed record is a value (decision D8); a row that is not a record fails the page (decision D19).
pub(super) fn resources(records: &[&RawValue]) -> Result<Rows<Row>, String> {
    let read = |(number, record): (usize, &&RawValue)| match Row::parse(record) {
        Ok(row) => Ok((Some(fingerprint(row.uuid)), row)),
        Err(rejected) => Err(format!("row {} is not a record: {}", number + 1, rejected.error)),
    };
    records.iter().enumerate().map(read).collect()
}

/// `None` for an order that is not open.
pub(super) fn orders(records: &[&RawValue]) -> Result<Rows<Option<OpenOrder>>, String> {
    let read = |(number, record): (usize, &&RawValue)| match OpenOrder::parse(record) {
        Ok(order) => Ok((order.as_ref().map(|order| fingerprint(order.uuid)), order)),
        Err(error) => Err(format!("row {} is not an order: {error}", number + 1)),
    };
    records.iter().enumerate().map(read).collect()
}

/// An invalid customer is an error: without it, its projects would lose their place in the catalogue.
pub(super) fn customers(records: &[&RawValue]) -> Result<Rows<CustomerRow>, String> {
    #[derive(Deserialize)]
    struct Record {
        uuid: Uuid,
        slug: Option<String>,
        name: Option<String>,
    }
    let read = |record: &&RawValue| {
        let Record { uuid, slug, name } =
            object(record).ok_or_else(|| String::from("a customer's uuid, slug or name cannot be read"))?;
        Ok((Some(fingerprint(uuid)), CustomerRow { slug, customer: Customer { uuid, name } }))
    };
    records.iter().map(read).collect()
}

pub(super) fn offerings(records: &[&RawValue]) -> Result<Rows<Offering>, String> {
    let read = |record: &&RawValue| {
        let offering: Offering = object(record).ok_or_else(|| String::from("an offering's slug cannot be read"))?;
        Ok((Some(fingerprint(record.get())), offering))
    };
    records.iter().map(read).collect()
}

/// Parses a JSON object. Serde would also accept a list for a struct.
fn object<T: DeserializeOwned>(record: &RawValue) -> Option<T> {
    if record.get().starts_with('{') { serde_json::from_str(record.get()).ok() } else { None }
}

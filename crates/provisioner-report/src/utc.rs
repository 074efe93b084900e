//! Times in RFC 3339, converted to UTC. One that UTC cannot express, such as the last hour of 9999 west of Greenwich, is rejected:
//! a later conversion would panic.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use time::{OffsetDateTime, UtcOffset};

pub(super) use time::serde::rfc3339::serialize;

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let time = time::serde::rfc3339::deserialize(deserializer)?;
    time.checked_to_offset(UtcOffset::UTC).ok_or_else(|| D::Error::custom("a time is out of range in UTC"))
}

/// The same for a time that can be absent.
pub(super) mod option {
    use super::{Deserialize, Deserializer, OffsetDateTime};

    pub(in super::super) use time::serde::rfc3339::option::serialize;

    #[derive(Deserialize)]
    struct Time(#[serde(with = "super")] OffsetDateTime);

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

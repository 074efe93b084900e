//! Fuzz targets, one module each. `check` panics if an input violates a rule.

pub mod answers;
pub mod query;
pub mod records;
pub mod settings;
pub mod token;

use catalog::{InodeRule, Policy, System};
use serde_json::Value;

/// Three systems; one has a name that differs from its slug.
pub fn policy(development_mode: bool) -> Policy {
    let system =
        |name: &str, slug: &str| System { name: name.into(), identifier: slug.into(), offering_slug: slug.into() };
    Policy {
        systems: vec![system("capstor", "capstor"), system("fast", "vast"), system("iopsstor", "iopsstor")],
        file_system: "lustre".into(),
        inodes: InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 },
        ignore_metadata_targets: false,
        development_mode,
        relay: None,
        waldur: "https://waldur.example.org/api".into(),
    }
}

/// Parses JSON that the proxy wrote.
pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
}

/// Splits off the first line.
pub fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

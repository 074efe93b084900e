//! Quotas from limits and administrative overrides (specification 5.3).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::{self, Malformed, malformed};

/// The limits of a resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Storage in TB; finite, at least 0; `None` where the component `storage` is absent or null. The document shows that
    /// as 0, so [`QuotaProblem`](crate::QuotaProblem) tells the two apart.
    pub storage: Option<f64>,
    /// Names of the other components; only where `storage` is `None`.
    pub others: Box<[String]>,
}

impl Limits {
    /// Reads the map `limits` of a record. `names` lists its keys and runs only where `storage` is absent.
    pub(crate) fn read(
        record: &LimitsRecord,
        names: impl FnOnce() -> Result<Vec<String>, Malformed>,
    ) -> Result<Self, Malformed> {
        let storage = field::amount("limits.storage", &record.storage)?;
        let others = if storage.is_some() { Vec::new() } else { names()? };
        Ok(Self { storage, others: others.into_iter().filter(|name| name != "storage").collect() })
    }

    /// Storage in TB as the document shows it: 0 where there is none.
    pub(crate) fn shown(&self) -> f64 {
        self.storage.unwrap_or(0.0)
    }
}

/// What an administrator set in the resource's options.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Hard space quota in TB; at least 0.
    pub hard_quota_space: Option<f64>,
    /// Soft inode quota; a whole number, at least 0.
    pub soft_quota_inodes: Option<f64>,
    /// Hard inode quota; a whole number, at least 0.
    pub hard_quota_inodes: Option<f64>,
    /// Mode of the directory.
    pub permissions: Option<Mode>,
}

/// Mode of a directory: three or four octal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    digits: [u8; 4],
    length: u8,
}

impl Mode {
    /// What a directory has unless something else is said.
    pub const DEFAULT: Self = Self { digits: *b"775\0", length: 3 };

    /// The mode spelled so; `None` for anything but three or four octal digits.
    pub fn of(text: &str) -> Option<Self> {
        let mut digits = [0; 4];
        let is_octal = text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let length = match text.len() {
            3 if is_octal => 3,
            4 if is_octal => 4,
            _ => return None,
        };
        digits[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { digits, length })
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        // Digits are always text.
        str::from_utf8(&self.digits[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({})", self.as_str())
    }
}

/// How inode limits follow from the storage limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InodeRule {
    /// Inodes per TB.
    pub base_multiplier: f64,
    /// Factor for the soft limit.
    pub soft_coefficient: f64,
    /// Factor for the hard limit.
    pub hard_coefficient: f64,
}

/// One limit as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Quota {
    /// What is limited.
    #[serde(rename = "type")]
    pub kind: QuotaType,
    /// How much of it, in `unit`; a whole number for inodes.
    #[cfg_attr(feature = "schema", schema(minimum = 0))]
    pub quota: f64,
    /// Unit of `quota`.
    pub unit: Unit,
    /// Whether the limit may be exceeded for a while.
    #[serde(rename = "enforcementType")]
    pub enforcement: Enforcement,
}

/// What a quota limits: `space`, or `inodes`, the number of files and directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum QuotaType {
    /// Bytes.
    Space,
    /// Files and directories.
    Inodes,
}

/// Unit of a quota: `tera` for terabytes of space, `none` for a number of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Terabytes.
    Tera,
    /// A count.
    None,
}

/// Whether a quota may be exceeded for a grace time (`soft`) or never (`hard`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// For a grace time.
    Soft,
    /// Never.
    Hard,
}

/// The keys of `limits` that count, as they stand in the record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LimitsRecord {
    storage: Value,
}

/// The keys of `options` that count, as they stand in the record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OptionsRecord {
    hard_quota_space: Value,
    soft_quota_inodes: Value,
    hard_quota_inodes: Value,
    permissions: Value,
}

impl TryFrom<OptionsRecord> for Options {
    type Error = Malformed;

    fn try_from(record: OptionsRecord) -> Result<Self, Malformed> {
        Ok(Self {
            hard_quota_space: field::amount("options.hard_quota_space", &record.hard_quota_space)?,
            soft_quota_inodes: field::whole_amount("options.soft_quota_inodes", &record.soft_quota_inodes)?,
            hard_quota_inodes: field::whole_amount("options.hard_quota_inodes", &record.hard_quota_inodes)?,
            permissions: mode("options.permissions", &record.permissions)?,
        })
    }
}

/// A directory's mode; `None` for null.
pub(crate) fn mode(field: &'static str, value: &Value) -> Result<Option<Mode>, Malformed> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if let Some(mode) = Mode::of(text) => Ok(Some(mode)),
        _ => malformed(field, "is not three or four octal digits"),
    }
}

/// The four quotas of a resource; `Ok(None)` when both space quotas are 0.
///
/// # Errors
///
/// An inode limit that is no finite number: the storage limit is absurdly large.
pub fn calculate(limits: &Limits, options: &Options, rule: InodeRule) -> Result<Option<[Quota; 4]>, Malformed> {
    let storage = limits.shown();
    let base = storage * rule.base_multiplier;
    let [soft, hard] = [base * rule.soft_coefficient, base * rule.hard_coefficient].map(f64::trunc);
    if !soft.is_finite() || !hard.is_finite() {
        return malformed("limits.storage", "is too large for an inode limit");
    }
    let space_soft = storage;
    let space_hard = options.hard_quota_space.unwrap_or(storage);
    if space_soft <= 0.0 && space_hard <= 0.0 {
        return Ok(None);
    }
    let space = |quota, enforcement| Quota { kind: QuotaType::Space, quota, unit: Unit::Tera, enforcement };
    let inodes = |quota, enforcement| Quota { kind: QuotaType::Inodes, quota, unit: Unit::None, enforcement };
    Ok(Some([
        space(space_soft, Enforcement::Soft),
        space(space_hard, Enforcement::Hard),
        inodes(options.soft_quota_inodes.unwrap_or(soft), Enforcement::Soft),
        inodes(options.hard_quota_inodes.unwrap_or(hard), Enforcement::Hard),
    ]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: InodeRule = InodeRule { base_multiplier: 1_000_000.0, soft_coefficient: 1.33, hard_coefficient: 2.0 };

    fn limits(storage: f64) -> Limits {
        Limits { storage: Some(storage), ..Limits::default() }
    }

    fn amounts(storage: f64, options: &Options) -> Option<[f64; 4]> {
        calculate(&limits(storage), options, RULE).unwrap().map(|quotas| quotas.map(|quota| quota.quota))
    }

    #[test]
    fn ten_terabytes() {
        let quotas = amounts(10.0, &Options::default());
        assert_eq!(quotas, Some([10.0, 10.0, 13_300_000.0, 20_000_000.0]));
    }

    #[test]
    fn overrides_take_precedence() {
        let options = Options {
            hard_quota_space: Some(12.0),
            soft_quota_inodes: Some(1000.0),
            hard_quota_inodes: Some(6000.0),
            permissions: None,
        };
        assert_eq!(amounts(1234.0, &options), Some([1234.0, 12.0, 1000.0, 6000.0]));
    }

    #[test]
    fn nothing_bought_and_nothing_granted_is_no_quota() {
        assert_eq!(amounts(0.0, &Options::default()), None);
        let granted = Options { hard_quota_space: Some(20.5), ..Options::default() };
        assert_eq!(amounts(0.0, &granted), Some([0.0, 20.5, 0.0, 0.0]));
    }

    #[test]
    fn an_absurd_limit_is_malformed_whatever_the_overrides() {
        let options = Options { soft_quota_inodes: Some(1.0), hard_quota_inodes: Some(1.0), ..Options::default() };
        assert!(calculate(&limits(1e308), &options, RULE).is_err());
    }

    proptest! {
        #[test]
        fn inode_limits_are_whole_and_ordered(storage in 0.0..1e9_f64) {
            if let Some([_, _, soft, hard]) = amounts(storage, &Options::default()) {
                prop_assert!(soft <= hard);
                prop_assert!(soft.fract().abs() < f64::EPSILON);
                prop_assert!(hard.fract().abs() < f64::EPSILON);
            }
        }
    }
}

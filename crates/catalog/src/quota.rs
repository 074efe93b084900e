//! Calculates quotas from limits and administrative overrides (specification 5.3).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::{self, Malformed, malformed};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResourceLimits {
    /// Storage in TB, finite and at least 0; `None` when the component `storage` is absent or null. The document shows
    /// `None` as 0, so [`QuotaProblem`](crate::QuotaProblem) distinguishes them.
    pub storage: Option<f64>,
    /// Names of the other components; filled only when `storage` is `None`.
    pub other_components: Box<[String]>,
}

impl ResourceLimits {
    /// Reads the map `limits` of a record. `names` lists its keys; called only when `storage` is absent.
    pub(crate) fn read(
        record: &LimitsRecord,
        names: impl FnOnce() -> Result<Vec<String>, Malformed>,
    ) -> Result<Self, Malformed> {
        let storage = field::amount("limits.storage", &record.storage)?;
        let names = if storage.is_some() { Vec::new() } else { names()? };
        let other_components = names.into_iter().filter(|name| name != "storage").collect();
        Ok(Self { storage, other_components })
    }

    /// Storage in TB as the document shows it: 0 when absent.
    pub(crate) fn storage_or_zero(&self) -> f64 {
        self.storage.unwrap_or(0.0)
    }
}

/// Administrative overrides from the resource's options.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Hard space quota in TB; at least 0.
    pub hard_quota_space: Option<f64>,
    /// Soft inode quota; a whole number, at least 0.
    pub soft_quota_inodes: Option<f64>,
    /// Hard inode quota; a whole number, at least 0.
    pub hard_quota_inodes: Option<f64>,
    pub permissions: Option<Mode>,
}

/// Mode of a directory: three or four octal digits, kept as they were written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    digits: [u8; 4],
    length: u8,
}

impl Mode {
    /// The mode of a directory for which none is given.
    pub const DEFAULT: Self = Self { digits: *b"775\0", length: 3 };

    /// Parses three or four octal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
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

    pub fn as_str(&self) -> &str {
        // Octal digits are always valid UTF-8.
        str::from_utf8(&self.digits[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({})", self.as_str())
    }
}

/// How inode limits are calculated from the storage limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InodeRule {
    /// Inodes per TB.
    pub base_multiplier: f64,
    /// Factor for the soft limit.
    pub soft_coefficient: f64,
    /// Factor for the hard limit.
    pub hard_coefficient: f64,
}

/// One published limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Quota {
    /// The limited resource.
    #[serde(rename = "type")]
    pub kind: QuotaType,
    /// Amount in `unit`; an integer for inodes.
    #[cfg_attr(feature = "schema", schema(minimum = 0))]
    pub quota: f64,
    /// Unit of `quota`.
    pub unit: Unit,
    /// Whether the limit may be exceeded for a grace time.
    #[serde(rename = "enforcementType")]
    pub enforcement: Enforcement,
}

/// What a quota limits: `space`, or `inodes`, the number of files and directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum QuotaType {
    Space,
    Inodes,
}

/// Unit of a quota: `tera` for terabytes of space, `none` for a number of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Tera,
    None,
}

/// Whether a quota may be exceeded for a grace time (`soft`) or never (`hard`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// The quota may be exceeded for a grace time.
    Soft,
    /// The quota may never be exceeded.
    Hard,
}

/// The keys of `limits` that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LimitsRecord {
    storage: Value,
}

/// The keys of `options` that are read.
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

/// Reads the mode of a directory; `None` for null.
pub(crate) fn mode(field: &'static str, value: &Value) -> Result<Option<Mode>, Malformed> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if let Some(mode) = Mode::parse(text) => Ok(Some(mode)),
        _ => malformed(field, "is not three or four octal digits"),
    }
}

/// Calculates the four quotas of a resource; `Ok(None)` when both space quotas are 0.
///
/// # Errors
///
/// An inode limit is not finite, because the storage limit is too large.
pub fn calculate(limits: &ResourceLimits, options: &Options, rule: InodeRule) -> Result<Option<[Quota; 4]>, Malformed> {
    let storage = limits.storage_or_zero();
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

    fn limits(storage: f64) -> ResourceLimits {
        ResourceLimits { storage: Some(storage), ..ResourceLimits::default() }
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
    fn no_storage_and_no_override_give_no_quota() {
        assert_eq!(amounts(0.0, &Options::default()), None);
        let granted = Options { hard_quota_space: Some(20.5), ..Options::default() };
        assert_eq!(amounts(0.0, &granted), Some([0.0, 20.5, 0.0, 0.0]));
    }

    #[test]
    fn a_limit_out_of_range_is_malformed_despite_overrides() {
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

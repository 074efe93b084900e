//! Quotas in the units of storage systems: bytes and inodes, never zero.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a "TB" in Waldur means on a storage system. Has no default, because sites differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terabyte {
    /// 10^12 bytes.
    #[serde(rename = "TB")]
    Decimal,
    /// 2^40 bytes.
    #[serde(rename = "TiB")]
    Binary,
}

impl Terabyte {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Decimal => 1_000_000_000_000,
            Self::Binary => 1 << 40,
        }
    }

    /// Its name: `TB` or `TiB`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decimal => "TB",
            Self::Binary => "TiB",
        }
    }

    /// Formats a number of bytes in this unit with up to three decimals, or in bytes if it is less than a thousandth.
    pub fn amount(self, bytes: Bytes) -> String {
        let thousandths = (u128::from(bytes.0) * 1000 + u128::from(self.bytes() / 2)) / u128::from(self.bytes());
        if thousandths == 0 {
            return format!("{} bytes", bytes.0);
        }
        let number = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        format!("{} {}", number.trim_end_matches('0').trim_end_matches('.'), self.name())
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A number of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inodes(pub u64);

/// What the files of a directory use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Disk space.
    pub space: Bytes,
    /// Files and directories, including the top directory if the system counts it.
    pub inodes: Inodes,
}

/// Quotas of a directory. All values are positive, because zero means *unlimited* on most systems. A soft limit never
/// exceeds its hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct QuotaLimits {
    space: [Bytes; 2],
    inodes: [Inodes; 2],
}

/// The serialized form, not validated.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Unchecked {
    space_soft: Bytes,
    space_hard: Bytes,
    inodes_soft: Inodes,
    inodes_hard: Inodes,
}

/// Why numbers are invalid as limits. Never a reason to reject an order, because the numbers can come from an option or from a
/// missing limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidLimits {
    /// Zero, which would mean *unlimited*.
    #[error("the quota for {0} is 0, which storage systems treat as unlimited")]
    Zero(&'static str),
    /// A soft limit above the hard limit.
    #[error("the soft quota for {0} is above the hard one")]
    SoftAboveHard(&'static str),
    /// Negative, or out of range.
    #[error("the quota for {what} ({value}) is not between 0 and 2^63 {what}")]
    OutOfRange {
        /// `bytes` or `inodes`.
        what: &'static str,
        /// The number as published.
        value: String,
    },
}

impl QuotaLimits {
    /// Validates the soft and hard limits of space and inodes.
    pub fn new(space: [Bytes; 2], inodes: [Inodes; 2]) -> Result<Self, InvalidLimits> {
        for (what, [soft, hard]) in [("space", space.map(|n| n.0)), ("inodes", inodes.map(|n| n.0))] {
            if soft == 0 || hard == 0 {
                return Err(InvalidLimits::Zero(what));
            }
            if soft > hard {
                return Err(InvalidLimits::SoftAboveHard(what));
            }
        }
        Ok(Self { space, inodes })
    }

    /// The smallest limits: one byte, one inode.
    pub const fn minimum() -> Self {
        Self { space: [Bytes(1); 2], inodes: [Inodes(1); 2] }
    }

    /// Soft limit of space.
    pub const fn space_soft(&self) -> Bytes {
        self.space[0]
    }

    /// Hard limit of space.
    pub const fn space_hard(&self) -> Bytes {
        self.space[1]
    }

    /// Soft limit of inodes.
    pub const fn inodes_soft(&self) -> Inodes {
        self.inodes[0]
    }

    /// Hard limit of inodes.
    pub const fn inodes_hard(&self) -> Inodes {
        self.inodes[1]
    }

    /// The limits with space rounded up to blocks of `block` bytes.
    #[must_use]
    pub fn in_blocks_of(&self, block: u64) -> Self {
        Self { space: self.space.map(|bytes| Bytes(bytes.0.div_ceil(block).saturating_mul(block))), ..*self }
    }

    /// The limits on a system without soft limits: the hard limits for both.
    #[must_use]
    pub const fn only_hard(&self) -> Self {
        Self { space: [self.space[1]; 2], inodes: [self.inodes[1]; 2] }
    }

    /// Limits that prevent growth: the present usage, at least one block of `block` bytes and one inode.
    pub fn frozen_at(usage: Usage, block: u64) -> Self {
        let space = Bytes(usage.space.0.max(1).div_ceil(block).saturating_mul(block));
        let inodes = Inodes(usage.inodes.0.max(1));
        Self { space: [space; 2], inodes: [inodes; 2] }
    }

    /// Whether the usage exceeds a hard limit.
    pub fn are_below(&self, usage: Usage) -> bool {
        self.space_hard() < usage.space || self.inodes_hard() < usage.inodes
    }

    /// All limits as text, with space in units of `terabyte`.
    pub fn describe(&self, terabyte: Terabyte) -> String {
        let space = pair(self.space.map(|bytes| terabyte.amount(bytes)));
        format!("space {space}, inodes {}", pair(self.inodes.map(|inodes| inodes.0.to_string())))
    }

    /// Whether any limit is lower than in `before`.
    pub fn shrink(&self, before: &Self) -> bool {
        self.space.iter().zip(&before.space).any(|(now, before)| now < before)
            || self.inodes.iter().zip(&before.inodes).any(|(now, before)| now < before)
    }
}

fn pair([soft, hard]: [String; 2]) -> String {
    if soft == hard { hard } else { format!("{soft}/{hard}") }
}

/// The changed quotas as text: `space 10 TB → 20 TB, inodes 5 → 6`. Different soft and hard limits are shown as
/// `8 TB/10 TB`.
pub fn change(old: Option<&QuotaLimits>, new: &QuotaLimits, terabyte: Terabyte) -> String {
    let space = |limits: &QuotaLimits| pair(limits.space.map(|bytes| terabyte.amount(bytes)));
    let exact = |limits: &QuotaLimits| pair(limits.space.map(|bytes| format!("{} bytes", bytes.0)));
    let inodes = |limits: &QuotaLimits| pair(limits.inodes.map(|inodes| inodes.0.to_string()));
    let Some(old) = old else { return format!("space none → {}, inodes none → {}", space(new), inodes(new)) };
    let mut changes = Vec::new();
    if old.space != new.space {
        // Different amounts can be equal after rounding.
        let show: &dyn Fn(&QuotaLimits) -> String = if space(old) == space(new) { &exact } else { &space };
        changes.push(format!("space {} → {}", show(old), show(new)));
    }
    if old.inodes != new.inodes {
        changes.push(format!("inodes {} → {}", inodes(old), inodes(new)));
    }
    changes.join(", ")
}

impl TryFrom<Unchecked> for QuotaLimits {
    type Error = InvalidLimits;

    fn try_from(raw: Unchecked) -> Result<Self, InvalidLimits> {
        Self::new([raw.space_soft, raw.space_hard], [raw.inodes_soft, raw.inodes_hard])
    }
}

impl From<QuotaLimits> for Unchecked {
    fn from(limits: QuotaLimits) -> Self {
        let ([space_soft, space_hard], [inodes_soft, inodes_hard]) = (limits.space, limits.inodes);
        Self { space_soft, space_hard, inodes_soft, inodes_hard }
    }
}

impl fmt::Display for QuotaLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [space, inodes] = [self.space.map(|n| n.0), self.inodes.map(|n| n.0)];
        write!(f, "{}/{} bytes, {}/{} inodes", space[0], space[1], inodes[0], inodes[1])
    }
}

/// `value` times `unit`, rounded up to an integer (decision D27). Computed from the decimal text of the value and not from
/// its binary fraction: 0.3 TB is 300 GB, not one byte more.
pub fn round_up(value: f64, unit: u64, what: &'static str) -> Result<u64, InvalidLimits> {
    let out_of_range = || InvalidLimits::OutOfRange { what, value: value.to_string() };
    if !value.is_finite() || value < 0.0 {
        return Err(out_of_range());
    }
    // The shortest decimal number that parses to this value; never with an exponent.
    let text = value.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole: u128 = whole.parse().map_err(|_| out_of_range())?;
    let whole = whole.checked_mul(unit.into()).ok_or_else(out_of_range)?;
    // Digit by digit from the last one, with a carry, so that a fraction of any length works.
    let (mut carried, mut rest) = (0_u128, false);
    for digit in fraction.bytes().rev() {
        let tenths = u128::from(digit - b'0') * u128::from(unit) + carried;
        rest |= !tenths.is_multiple_of(10);
        carried = tenths / 10;
    }
    let rounded = whole + carried + u128::from(rest);
    u64::try_from(rounded).ok().filter(|rounded| *rounded < 1 << 63).ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(space: u64, inodes: u64) -> Result<QuotaLimits, InvalidLimits> {
        QuotaLimits::new([Bytes(space); 2], [Inodes(inodes); 2])
    }

    #[test]
    fn zero_is_an_error() {
        assert_eq!(limits(0, 1), Err(InvalidLimits::Zero("space")));
        assert_eq!(limits(1, 0), Err(InvalidLimits::Zero("inodes")));
        assert_eq!(QuotaLimits::new([Bytes(2), Bytes(1)], [Inodes(1); 2]), Err(InvalidLimits::SoftAboveHard("space")));
    }

    #[test]
    fn decimals_are_exact_and_rounded_up() {
        let (tb, tib) = (Terabyte::Decimal.bytes(), Terabyte::Binary.bytes());
        for (value, unit, bytes) in [
            (10.0, tb, 10_000_000_000_000),
            (0.3, tb, 300_000_000_000),
            (0.3, tib, 329_853_488_333),
            (0.5, tib, 1 << 39),
            (1.0 / 3.0, tb, 333_333_333_334),
            (0.000_000_000_001, tb, 1),
            (0.000_000_000_000_1, tb, 1),
            (f64::MIN_POSITIVE, tb, 1),
            (0.0, tb, 0),
        ] {
            assert_eq!(round_up(value, unit, "bytes"), Ok(bytes), "{value} × {unit}");
        }
        assert_eq!(round_up(1.5, 1, "inodes"), Ok(2));
        for odd in [f64::NAN, f64::INFINITY, -1.0, 1e300, 9_223_372.036_854_776] {
            assert!(round_up(odd, tb, "bytes").is_err(), "{odd}");
        }
    }

    #[test]
    fn a_change_shows_old_and_new_limits_in_the_unit_of_the_system() {
        let tb = Terabyte::Decimal;
        let of = |space: [u64; 2], inodes: [u64; 2]| QuotaLimits::new(space.map(Bytes), inodes.map(Inodes)).unwrap();
        let [ten, twenty] = [10, 20].map(|n| n * tb.bytes());
        let change = |old: QuotaLimits, new: QuotaLimits| super::change(Some(&old), &new, tb);
        assert_eq!(change(of([ten; 2], [5; 2]), of([twenty; 2], [5; 2])), "space 10 TB → 20 TB");
        assert_eq!(
            change(of([ten, twenty], [5; 2]), of([twenty; 2], [4, 6])),
            "space 10 TB/20 TB → 20 TB, inodes 5 → 4/6"
        );
        assert_eq!(
            change(of([ten; 2], [5; 2]), of([ten + 1; 2], [5; 2])),
            "space 10000000000000 bytes → 10000000000001 bytes"
        );
        assert_eq!(
            super::change(None, &of([1 << 40; 2], [5; 2]), Terabyte::Binary),
            "space none → 1 TiB, inodes none → 5"
        );
        assert_eq!([Bytes(300_000_002_048), Bytes(12)].map(|bytes| tb.amount(bytes)), ["0.3 TB", "12 bytes"]);
    }

    proptest! {
        #[test]
        fn whole_numbers_of_inodes_do_not_change(n in 0_u32..) {
            prop_assert_eq!(round_up(f64::from(n), 1, "inodes"), Ok(u64::from(n)));
        }

        #[test]
        fn rounding_adds_less_than_one(value in 0.0..1e6_f64) {
            let (bytes, tb) = (round_up(value, Terabyte::Decimal.bytes(), "bytes").unwrap(), 1e12);
            #[expect(clippy::cast_precision_loss, reason = "the tolerance is wider")]
            let difference = bytes as f64 - value * tb;
            let noise = value * tb * f64::EPSILON * 2.0;
            prop_assert!((-noise..=1.0 + noise).contains(&difference), "{}", difference);
        }

        #[test]
        fn rounding_to_blocks_never_lowers_a_limit(space in 1_u64..1 << 60, block in 1_u64..1 << 20) {
            let rounded = limits(space, 1).unwrap().in_blocks_of(block);
            prop_assert!(rounded.space_hard().0 >= space && rounded.space_hard().0 < space + block);
            prop_assert_eq!(rounded.in_blocks_of(block), rounded);
        }
    }
}

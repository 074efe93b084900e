//! POSIX ACLs that a site adds to the mode of each directory, in the syntax of `setfacl` and the binary format of the kernel.
//!
//! The mode in the document defines the permissions of owner, group and others; entries for users and groups by number are
//! added to it. The mask that limits them equals the group bits of the mode, like after `chmod`: so the mode reads back as it
//! was set, and mode 0 denies all access. The existing crates for ACLs need the C library libacl; this is all that the
//! kernel needs.

use std::fmt::{self, Display};

use thiserror::Error;

use storage_driver::Mode;

pub(super) mod attributes;

/// The syntax of an entry, for error messages.
pub const FORM: &str = "write `u:900:r-x` for a user, `g:901:rwx` for a group, by numbers and with all of `rwx` or a `-` in \
                        its place, and `default:` before it for what is made in the directory";
/// Version of the binary format.
const VERSION: u32 = 2;
/// The ID in entries without one.
const NOBODY: u32 = u32::MAX;

/// The subject of an entry, in the kernel's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Others,
}

/// An entry with its permissions: three bits, as in a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    who: Who,
    bits: u16,
}

/// Sorted entries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Acl(Vec<Entry>);

/// The two ACLs of a directory: its own, and the default for new files in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acls {
    /// `None` if the mode is sufficient.
    access: Option<Acl>,
    default: Option<Acl>,
}

/// The entries that a site adds to the mode of each directory. An empty list removes other entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclEntries {
    access: Vec<Entry>,
    default: Vec<Entry>,
}

/// An invalid entry.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum InvalidEntry {
    /// Wrong syntax, or an entry that the mode defines.
    #[error("the ACL entry {0:?} is not for a user or group by number")]
    Form(String),
    /// A second entry for the same user or group.
    #[error("the ACL entry {0:?} is the second one for this user or group")]
    Twice(String),
}

impl AclEntries {
    /// Parses entries in the syntax of `setfacl`.
    pub fn parse(texts: &[String]) -> Result<Self, InvalidEntry> {
        let mut named = Self { access: Vec::new(), default: Vec::new() };
        for text in texts {
            let (entries, rest) = match text.strip_prefix("default:").or_else(|| text.strip_prefix("d:")) {
                Some(rest) => (&mut named.default, rest),
                None => (&mut named.access, text.as_str()),
            };
            let entry = entry(rest).ok_or_else(|| InvalidEntry::Form(text.clone()))?;
            if entries.iter().any(|other| other.who == entry.who) {
                return Err(InvalidEntry::Twice(text.clone()));
            }
            entries.push(entry);
        }
        Ok(named)
    }

    /// The ACLs of a directory with this mode.
    pub(super) fn with(&self, mode: Mode) -> Acls {
        Acls { access: acl(&self.access, mode), default: acl(&self.default, mode) }
    }
}

/// Parses an entry for a user or a group.
fn entry(text: &str) -> Option<Entry> {
    let parts: Vec<_> = text.split(':').collect();
    let [kind, number, may] = parts[..] else { return None };
    let number = Some(number).filter(|number| number.bytes().all(|digit| digit.is_ascii_digit()));
    let number = number?.parse().ok().filter(|number| *number != NOBODY)?;
    let who = match kind {
        "u" | "user" => Who::User(number),
        "g" | "group" => Who::Group(number),
        _ => return None,
    };
    let bits = (0..8).find(|bits| rwx(*bits) == may)?;
    Some(Entry { who, bits })
}

/// The ACL with these entries and the mode; `None` without entries.
fn acl(named: &[Entry], mode: Mode) -> Option<Acl> {
    if named.is_empty() {
        return None;
    }
    let of_mode = [(Who::Owner, 6), (Who::OwningGroup, 3), (Who::Mask, 3), (Who::Others, 0)];
    let of_mode =
        of_mode.map(|(who, shift)| Entry { who, bits: u16::try_from(mode.0 >> shift & 7).unwrap_or_default() });
    Some(Acl::of(named.iter().copied().chain(of_mode)))
}

impl Acl {
    fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_unstable();
        Self(entries)
    }

    /// The binary format.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            let (tag, number) = match entry.who {
                Who::Owner => (0x01_u16, NOBODY),
                Who::User(number) => (0x02, number),
                Who::OwningGroup => (0x04, NOBODY),
                Who::Group(number) => (0x08, number),
                Who::Mask => (0x10, NOBODY),
                Who::Others => (0x20, NOBODY),
            };
            bytes.extend(tag.to_le_bytes());
            bytes.extend(entry.bits.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    /// Parses and sorts the binary format; `None` for another version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (entries, []) = rest.as_chunks::<8>() else { return None };
        let entry = |entry: &[u8; 8]| {
            let (tag, rest) = entry.split_first_chunk()?;
            let (bits, number) = rest.split_first_chunk()?;
            let number = u32::from_le_bytes(*number.first_chunk()?);
            let who = match u16::from_le_bytes(*tag) {
                0x01 => Who::Owner,
                0x02 => Who::User(number),
                0x04 => Who::OwningGroup,
                0x08 => Who::Group(number),
                0x10 => Who::Mask,
                0x20 => Who::Others,
                _ => return None,
            };
            Some(Entry { who, bits: u16::from_le_bytes(*bits) })
        };
        let entries = entries.iter().map(entry).collect::<Option<Vec<_>>>()?;
        (u32::from_le_bytes(*version) == VERSION).then(|| Self::of(entries))
    }
}

/// The entries beyond the mode, in the syntax of `setfacl`; empty if the mode is sufficient. Without owner, mask and others of
/// the directory's own ACL, which equal the bits of the mode.
impl Display for Acls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = |acl: &Option<Acl>| acl.iter().flat_map(|acl| acl.0.clone()).collect::<Vec<_>>();
        let beyond = |entry: &Entry| !matches!(entry.who, Who::Owner | Who::Mask | Who::Others);
        let own = entries(&self.access).into_iter().filter(beyond).map(|entry| ("", entry));
        let inherited = entries(&self.default).into_iter().map(|entry| ("default:", entry));
        for (number, (before, entry)) in own.chain(inherited).enumerate() {
            write!(f, "{}{before}{entry}", if number == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = rwx(self.bits);
        match self.who {
            Who::Owner => write!(f, "u::{may}"),
            Who::User(number) => write!(f, "u:{number}:{may}"),
            Who::OwningGroup => write!(f, "g::{may}"),
            Who::Group(number) => write!(f, "g:{number}:{may}"),
            Who::Mask => write!(f, "m::{may}"),
            Who::Others => write!(f, "o::{may}"),
        }
    }
}

/// Formats three permission bits.
fn rwx(bits: u16) -> String {
    [(4, 'r'), (2, 'w'), (1, 'x')].map(|(bit, letter)| if bits & bit == 0 { '-' } else { letter }).into_iter().collect()
}

#[cfg(test)]
mod tests;

//! Validated paths below the root of a storage system.

use std::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The longest name of a directory in bytes, on all supported systems.
const LONGEST_NAME: usize = 255;
/// The longest path in bytes that Waldur accepts as `backend_id`.
const LONGEST: usize = 255;

/// A path below a system's root: one or more names without `.`, `..` or special characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Vec<String>);

/// Why a published path is invalid. It stays invalid until slugs or the `backend_id` in Waldur change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPlace {
    /// The path is not below the root of the system.
    #[error("the path {path} is not below {root}, the root of this storage system")]
    Outside {
        /// The published path.
        path: String,
        /// The published root of the system.
        root: String,
    },
    /// A name with characters that shells, tools or people could misread.
    #[error(
        "the path {path} contains the name {name:?}; names consist of ASCII letters, digits, '.', '_' and '-', do not begin \
         with '.' or '-', and have at most 255 bytes"
    )]
    Name {
        /// The published path.
        path: String,
        /// The invalid name.
        name: String,
    },
    /// The path is too long for Waldur.
    #[error("the path is longer than {LONGEST} bytes, the longest `backend_id` that Waldur accepts")]
    Long,
}

impl Place {
    /// Parses the published `path` of a system with the published `root`.
    pub fn parse(path: &str, root: &str) -> Result<Self, InvalidPlace> {
        if path.len() > LONGEST {
            return Err(InvalidPlace::Long);
        }
        let outside = || InvalidPlace::Outside { path: path.to_owned(), root: root.to_owned() };
        let below = path.strip_prefix(root.trim_end_matches('/')).and_then(|below| below.strip_prefix('/'));
        let below = below.filter(|below| !below.is_empty()).ok_or_else(outside)?;
        let name = |name: &str| {
            if is_plain(name) {
                Ok(name.to_owned())
            } else {
                Err(InvalidPlace::Name { path: path.to_owned(), name: name.to_owned() })
            }
        };
        below.split('/').map(name).collect::<Result<_, _>>().map(Self)
    }

    /// The last name.
    pub fn name(&self) -> &str {
        // Never empty: neither `parse` nor `parent` returns an empty place.
        self.0.last().map_or("", String::as_str)
    }

    /// All names but the last, from the root down.
    pub fn parents(&self) -> &[String] {
        &self.0[..self.0.len() - 1]
    }

    /// The parent; `None` at the top level.
    pub fn parent(&self) -> Option<Self> {
        let parents = self.parents();
        (!parents.is_empty()).then(|| Self(parents.to_vec()))
    }

    /// Whether `other` is below this place, at any depth.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.len() > self.0.len() && other.0.starts_with(&self.0)
    }
}

/// Whether a name has only unambiguous characters.
pub fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with(['.', '-']) && name.bytes().all(allowed)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_place_is_the_path_below_the_root() {
        let place = Place::parse("/capstor/store/cscs/customer/project", "/capstor").unwrap();
        assert_eq!(place.to_string(), "store/cscs/customer/project");
        assert_eq!((place.name(), place.parents().len()), ("project", 3));
        assert!(place.parent().unwrap().holds(&place) && !place.holds(&place));
    }

    #[test]
    fn paths_with_dangerous_names_are_rejected() {
        let root = "/capstor";
        for path in [
            "/capstor",
            "/capstor/",
            "/capstorage/a",
            "/vast/a",
            "capstor/a",
            "",
            "/",
            "/capstor//a",
            "/capstor/a/",
            "/capstor/../etc",
            "/capstor/a/../../etc",
            "/capstor/./a",
            "/capstor/.trash",
            "/capstor/a/.new-1",
            "/capstor/-rf",
            "/capstor/a b",
            "/capstor/a\nb",
            "/capstor/a\0b",
            "/capstor/$(id)",
            "/capstor/a;b",
            "/capstor/ä",
            "/capstor/a\u{202e}b",
            "/capstor/a:b",
            "/capstor/a%2fb",
            "/capstor/*",
        ] {
            assert!(Place::parse(path, root).is_err(), "{path:?}");
        }
        assert!(Place::parse(&format!("/capstor/{}", "x".repeat(256)), root).is_err());
        assert!(Place::parse(&format!("/capstor{}", "/x".repeat(2000)), root).is_err());
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_below_the_root(path in "/r(/[ -~]{0,6}){0,5}") {
            if let Ok(place) = Place::parse(&path, "/r") {
                prop_assert_eq!(format!("/r/{place}"), path);
                prop_assert!(!place.to_string().split('/').any(|name| name.is_empty() || name.starts_with('.')));
            }
        }
    }
}

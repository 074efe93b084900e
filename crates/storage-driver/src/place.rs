//! Where a directory is: names below the root of a storage system, never a path that leads elsewhere.

use std::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The longest name of a directory in bytes, on every system that is driven here.
const LONGEST_NAME: usize = 255;
/// The longest path in bytes: what Waldur takes for a back-end's id.
const LONGEST: usize = 255;

/// A place below a system's root: one or more names, none of which can lead anywhere but down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Vec<String>);

/// Why a published path is no place. It lasts until slugs or the back-end's id in Waldur change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPlace {
    /// Another system's, or nobody's.
    #[error("the path {path} is not below {root}, the root of this storage system")]
    Outside {
        /// As published.
        path: String,
        /// The system's root as published.
        root: String,
    },
    /// A name that could mean something else to a shell, a tool or a person.
    #[error(
        "the path {path} holds the name {name:?}; names have letters, digits, '.', '_' and '-' of ASCII, do not begin \
         with '.' or '-', and have at most 255 bytes"
    )]
    Name {
        /// As published.
        path: String,
        /// The name.
        name: String,
    },
    /// Longer than Waldur takes.
    #[error("the path is longer than {LONGEST} bytes, the most that Waldur takes for a back-end's id")]
    Long,
}

impl Place {
    /// The place that the published `path` names below the published `root`.
    pub fn parse(path: &str, root: &str) -> Result<Self, NoPlace> {
        if path.len() > LONGEST {
            return Err(NoPlace::Long);
        }
        let outside = || NoPlace::Outside { path: path.to_owned(), root: root.to_owned() };
        let below = path.strip_prefix(root.trim_end_matches('/')).and_then(|below| below.strip_prefix('/'));
        let below = below.filter(|below| !below.is_empty()).ok_or_else(outside)?;
        let name = |name: &str| {
            if is_plain(name) {
                Ok(name.to_owned())
            } else {
                Err(NoPlace::Name { path: path.to_owned(), name: name.to_owned() })
            }
        };
        below.split('/').map(name).collect::<Result<_, _>>().map(Self)
    }

    /// The last name.
    pub fn name(&self) -> &str {
        // Never empty: `parse` makes no place without a name, `parent` gives none.
        self.0.last().map_or("", String::as_str)
    }

    /// All names but the last, from the root down.
    pub fn parents(&self) -> &[String] {
        &self.0[..self.0.len() - 1]
    }

    /// The place above; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let parents = self.parents();
        (!parents.is_empty()).then(|| Self(parents.to_vec()))
    }

    /// Whether `other` lies somewhere below this place.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.len() > self.0.len() && other.0.starts_with(&self.0)
    }
}

/// Whether a name says the same to everyone who reads it.
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
    fn a_place_is_what_lies_below_the_root() {
        let place = Place::parse("/capstor/store/cscs/customer/project", "/capstor").unwrap();
        assert_eq!(place.to_string(), "store/cscs/customer/project");
        assert_eq!((place.name(), place.parents().len()), ("project", 3));
        assert!(place.parent().unwrap().holds(&place) && !place.holds(&place));
    }

    #[test]
    fn hostile_slugs_are_refused() {
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
        fn whatever_is_accepted_stays_below(path in "/r(/[ -~]{0,6}){0,5}") {
            if let Ok(place) = Place::parse(&path, "/r") {
                prop_assert_eq!(format!("/r/{place}"), path);
                prop_assert!(!place.to_string().split('/').any(|name| name.is_empty() || name.starts_with('.')));
            }
        }
    }
}

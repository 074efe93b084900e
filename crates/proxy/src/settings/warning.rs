//! What is odd about the settings, but no fault.

use std::fmt;

use url::Url;

use super::source::Source;

/// Something to tell the operator at start. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A key, or a variable that looks like one of ours, that means nothing.
    UnknownKey {
        /// The key as it stands there.
        key: String,
        /// Where it stands.
        source: Source,
        /// The known key that is nearest, if any is near.
        nearest: Option<&'static str>,
    },
    /// A line of `.env` that does not parse and is skipped.
    SkippedLine(usize),
    /// A storage system whose name differs from its slug, while nothing says which of them names it (decision D2).
    NamedByName {
        /// Its name, in use.
        name: String,
        /// Its offering's slug, which the Python proxy uses.
        slug: String,
    },
    /// Callers are judged, and nothing says by which Keycloak: it is the one of this default.
    KeycloakByDefault(Url),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, source, nearest } => {
                write!(f, "unknown setting `{}` ({source}) is ignored", key.escape_debug())?;
                nearest.map_or(Ok(()), |nearest| write!(f, "; did you mean `{nearest}`?"))
            }
            Self::SkippedLine(line) => write!(f, ".env line {line} is not NAME=value and is skipped"),
            Self::NamedByName { name, slug } => write!(
                f,
                "paths and `storageSystem` hold the name of the storage system, as in /{name}/…; to have its offering's \
                 slug there, as in /{slug}/…, set backend_settings.system_identifier (SYSTEM_IDENTIFIER) to \
                 offering_slug; to keep the name and silence this, set it to storage_system"
            ),
            Self::KeycloakByDefault(url) => write!(
                f,
                "auth.keycloak_url is not given: tokens of {url} are accepted; set CSCS_KEYCLOAK_URL to your Keycloak"
            ),
        }
    }
}

/// The known name that is nearest to `name`, if it is near enough to be meant.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

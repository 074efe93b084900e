//! States of resources in Waldur, and the published status of items.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// State of a resource in Waldur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    Creating,
    Erred,
    #[serde(rename = "OK")]
    Ok,
    Terminated,
    Terminating,
    Updating,
    /// A state that this version does not know.
    Other,
}

/// Status of an item: `pending` to be created, `active` in use, `updating` to be changed, `removing` to be terminated,
/// `removed` terminated, `error` failed. `unknown` is accepted as a filter; no item from Waldur has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Active,
    Removing,
    Removed,
    Error,
    Updating,
    Unknown,
}

impl State {
    /// The states that Waldur documents, in alphabetical order.
    pub const KNOWN: [Self; 6] =
        [Self::Creating, Self::Erred, Self::Ok, Self::Terminated, Self::Terminating, Self::Updating];

    /// The state as Waldur spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Erred => "Erred",
            Self::Ok => "OK",
            Self::Terminated => "Terminated",
            Self::Terminating => "Terminating",
            Self::Updating => "Updating",
            Self::Other => "another state",
        }
    }

    /// Parses the exact spelling of a known state.
    pub fn known(text: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|state| state.as_str() == text)
    }
}

impl Status {
    /// All statuses, in the documented order.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Active, Self::Removing, Self::Removed, Self::Error, Self::Updating, Self::Unknown];

    /// The status as published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Removing => "removing",
            Self::Removed => "removed",
            Self::Error => "error",
            Self::Updating => "updating",
            Self::Unknown => "unknown",
        }
    }

    /// The status of an item whose resource is in this effective state.
    pub fn of(state: State) -> Self {
        match state {
            State::Creating | State::Other => Self::Pending,
            State::Ok => Self::Active,
            State::Erred => Self::Error,
            State::Updating => Self::Updating,
            State::Terminating => Self::Removing,
            State::Terminated => Self::Removed,
        }
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

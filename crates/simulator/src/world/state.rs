//! States, types and releases as Waldur spells them.

/// The simulated release of Waldur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// 2025 and later, as in production. Follows the sources.
    #[default]
    Newer,
    /// 7.0.7 of October 2024. Follows recordings.
    V7_0,
}

impl Release {
    /// The version in `/api/version/`: recorded for 7.0.x, invented for newer releases.
    pub fn version(self) -> &'static str {
        match self {
            Self::Newer => "7.9.0",
            Self::V7_0 => "7.0.7+2.g1ea6cb820",
        }
    }
}

/// State of a marketplace resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceState {
    Creating,
    Ok,
    Erred,
    Updating,
    Terminating,
    Terminated,
}

impl ResourceState {
    pub const ALL: [Self; 6] =
        [Self::Creating, Self::Ok, Self::Erred, Self::Updating, Self::Terminating, Self::Terminated];

    /// The name in Waldur.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Ok => "OK",
            Self::Erred => "Erred",
            Self::Updating => "Updating",
            Self::Terminating => "Terminating",
            Self::Terminated => "Terminated",
        }
    }

    /// Parses the exact name in Waldur.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// State of a marketplace order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    PendingConsumer,
    PendingProvider,
    PendingProject,
    PendingStartDate,
    Executing,
    Done,
    Erred,
    Canceled,
    Rejected,
}

impl OrderState {
    pub const ALL: [Self; 9] = [
        Self::PendingConsumer,
        Self::PendingProvider,
        Self::PendingProject,
        Self::PendingStartDate,
        Self::Executing,
        Self::Done,
        Self::Erred,
        Self::Canceled,
        Self::Rejected,
    ];

    /// The name in Waldur.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PendingConsumer => "pending-consumer",
            Self::PendingProvider => "pending-provider",
            Self::PendingProject => "pending-project",
            Self::PendingStartDate => "pending-start-date",
            Self::Executing => "executing",
            Self::Done => "done",
            Self::Erred => "erred",
            Self::Canceled => "canceled",
            Self::Rejected => "rejected",
        }
    }

    /// Parses the exact name in Waldur.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether an order in this state counts as `order_in_progress`.
    pub fn in_progress(self) -> bool {
        matches!(
            self,
            Self::PendingConsumer
                | Self::PendingProvider
                | Self::PendingProject
                | Self::PendingStartDate
                | Self::Executing
        )
    }
}

/// Type of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderType {
    Create,
    Update,
    Terminate,
    /// Restores a terminated resource.
    Restore,
}

impl OrderType {
    /// The name in Waldur.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Update => "Update",
            Self::Terminate => "Terminate",
            Self::Restore => "Restore",
        }
    }

    /// The state of a resource while such an order is in progress.
    pub fn in_progress(self) -> ResourceState {
        match self {
            Self::Create | Self::Restore => ResourceState::Creating,
            Self::Update => ResourceState::Updating,
            Self::Terminate => ResourceState::Terminating,
        }
    }

    /// Parses the exact name in Waldur.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Terminate, Self::Restore].into_iter().find(|kind| kind.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::OrderState;

    #[test]
    fn five_states_are_in_progress() {
        let open: Vec<&str> =
            OrderState::ALL.into_iter().filter(|state| state.in_progress()).map(OrderState::as_str).collect();
        let expected = ["pending-consumer", "pending-provider", "pending-project", "pending-start-date", "executing"];
        assert_eq!(open, expected);
    }
}

//! The work for one resource, step by step.

use serde::Serialize;
use storage_driver::{Desired, Difference};
use strum::{IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::Case;
use crate::last_order::SET_STATE_OK;

/// Everything to do for one resource, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// UUID of the resource.
    pub id: Uuid,
    /// Key of its storage system.
    pub system: String,
    /// Its path as published.
    pub path: String,
    /// The reason.
    pub why: String,
    /// UUID of the order that it carries out.
    pub order: Option<Uuid>,
    pub action: TaskAction,
    /// The fields of an existing directory that change.
    pub changes: Vec<Difference>,
    pub steps: Vec<Step>,
}

impl Task {
    pub(super) fn new(case: &Case, steps: Vec<Step>, why: String) -> Self {
        let ensures = steps.iter().any(|step| matches!(step, Step::Ensure(_)));
        let changes = if ensures { case.differences() } else { Vec::new() };
        let resource = &case.resource;
        Self {
            id: resource.id,
            system: resource.system.clone(),
            path: resource.path.clone(),
            why,
            order: resource.order.as_ref().map(|order| order.id),
            action: TaskAction::of(&steps, &changes),
            changes,
            steps,
        }
    }

    /// The task of an operator's command: one step, without an order.
    pub fn manual(case: &Case, step: Step) -> Self {
        let task = Self::new(case, vec![step], "a person's decision".to_owned());
        let action = TaskAction::of(&task.steps, &[]);
        Self { order: None, action, changes: Vec::new(), ..task }
    }

    /// Whether a directory is removed, or reported as removed.
    pub fn removes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Retire(_) | Step::Gone(_)))
    }

    /// Whether the steps after the first one wait for Waldur to show the order as executing.
    pub fn approves_first(&self) -> bool {
        self.steps.len() > 1 && self.steps[0] == Step::Approve
    }
}

/// What a task does, for display and for filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum TaskAction {
    /// Creates a directory.
    Create,
    /// Changes only quotas.
    Resize,
    /// Changes fields other than quotas.
    Change,
    /// Restores a directory from the trash.
    Restore,
    /// Moves a directory to the trash.
    Trash,
    /// Completes the termination of a missing directory.
    Gone,
    /// Changes nothing on the storage and reports to Waldur.
    Report,
    /// Rejects the order.
    Reject,
    /// Sets the order erred.
    Fail,
}

impl TaskAction {
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The value of `--action`.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Past tense, for messages.
    pub fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Resize => "resized",
            Self::Change => "changed",
            Self::Restore => "restored from trash",
            Self::Trash => "moved to trash",
            Self::Gone => "confirmed as gone",
            Self::Report => "reported to Waldur",
            Self::Reject => "rejected",
            Self::Fail => "set erred",
        }
    }

    fn of(steps: &[Step], changes: &[Difference]) -> Self {
        let action = |step: &Step| match step {
            Step::Ensure(_) if changes.is_empty() => Some(Self::Create),
            Step::Ensure(_) if changes.iter().all(|it| matches!(it, Difference::Quota { .. })) => Some(Self::Resize),
            Step::Ensure(_) | Step::Adopt(_) => Some(Self::Change),
            Step::Restore(_) => Some(Self::Restore),
            Step::Retire(_) => Some(Self::Trash),
            Step::Gone(_) => Some(Self::Gone),
            Step::Reject(_) => Some(Self::Reject),
            Step::Erred(_) => Some(Self::Fail),
            Step::Approve | Step::SetBackendId | Step::Done | Step::SetStateOk => None,
        };
        steps.iter().find_map(action).unwrap_or(Self::Report)
    }
}

/// One step of a task.
#[derive(Debug, Clone, PartialEq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Step {
    /// Approve the order. If it is executing afterwards, the following steps wait until the document says so.
    Approve,
    /// Reject the order, for this reason.
    Reject(String),
    /// Move the directory back from the trash and bring it to the desired state.
    Restore(Desired),
    /// Mark the directory as the resource's, and change nothing else.
    Adopt(Desired),
    /// Create the directory, or bring it to the desired state.
    Ensure(Desired),
    /// Freeze the directory and move it to the trash.
    Retire(Desired),
    /// Check that there is no directory (`policy.absent_is_gone`).
    Gone(Desired),
    /// Report the path to Waldur.
    SetBackendId,
    /// Report that the order is carried out.
    Done,
    /// Report that the order failed permanently, for this reason.
    Erred(String),
    /// Report that the resource is in use, if Waldur shows it as changing without an order.
    SetStateOk,
}

impl Step {
    /// Name in messages and metrics.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// Names of all calls to Waldur.
    pub const CALLS: [&'static str; 6] = [
        "approve_by_provider",
        "reject_by_provider",
        "set_backend_id",
        "set_state_done",
        "set_state_erred",
        SET_STATE_OK,
    ];

    /// Name of the call to Waldur, if the step is one.
    pub fn call(&self) -> Option<&'static str> {
        let [approve, reject, set_backend_id, done, erred, ok] = Self::CALLS;
        match self {
            Self::Approve => Some(approve),
            Self::Reject(_) => Some(reject),
            Self::SetBackendId => Some(set_backend_id),
            Self::Done => Some(done),
            Self::Erred(_) => Some(erred),
            Self::SetStateOk => Some(ok),
            Self::Restore(_) | Self::Adopt(_) | Self::Ensure(_) | Self::Retire(_) | Self::Gone(_) => None,
        }
    }
}

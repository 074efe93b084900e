//! The storage catalogue: Waldur's resources in, the published document out.
//!
//! Everything here is a pure function of its arguments. [`Resource::parse`] parses one record of Waldur into a
//! [`Resource`], or returns why the record is rejected; [`build()`] turns resources, customers and identities into the [`Catalogue`];
//! [`Index::select`] selects the items that match a filter. There is no clock, no network and no log, so a test of a
//! rule is a function call.

mod build;
mod count;
mod details;
mod document;
mod field;
mod identity;
mod inventory;
mod mount;
mod order;
mod policy;
mod quota;
mod quota_problem;
mod resource;
mod row;
mod select;
mod stamp;
mod status;
mod target;
#[cfg(test)]
mod testing;
mod watermark;

pub use build::{Catalogue, Customer, Customers, Run, Skipped, build, customers_of_resources};
pub use count::Count;
pub use details::{Details, OrderDetails};
pub use document::{Item, MountPoint, Named, NodeTarget, OrderInProgress, Permission, Target, TargetOf};
pub use field::Malformed;
pub use identity::{Identities, UserIdentity, mock_email, mock_gid, mock_uid, project_to_resolve, user_to_resolve};
pub use inventory::{Inventory, Missed};
pub use order::{Callbacks, ORDER_ACTIONS, Order, OrderState, OrderType, RESOURCE_ACTIONS, ResourceLinks};
pub use policy::{Policy, System};
pub use quota::{Enforcement, InodeRule, Mode, Options, Quota, QuotaType, ResourceLimits, Unit, calculate};
pub use quota_problem::{QuotaProblem, QuotaProblemCode};
pub use resource::{FIELDS, Rejected, Resource};
pub use row::{OPEN_STATES, ORDER_FIELDS, OpenOrder, Parsed, Row};
pub use select::{Filter, Index, Indexed, Outcome, Selection};
pub use stamp::Stamp;
pub use status::{State, Status};
pub use target::{PrimaryProject, ProjectTarget, TargetItem, TargetType, UserTarget};
pub use watermark::{Depth, Watermark};

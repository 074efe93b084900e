//! What the document does not show of a resource, for people who look for the reason of its state.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::resource::Resource;
use crate::stamp::Stamp;

/// Names of a resource in Waldur, and its order in progress.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Details {
    /// Slug of the resource; may be empty.
    pub slug: String,
    /// Slug of its project; may be empty.
    pub project: String,
    pub order: Option<Box<OrderDetails>>,
}

/// An order in progress, as Waldur spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDetails {
    pub uuid: Option<Uuid>,
    pub kind: Option<String>,
    pub state: Option<String>,
    pub created: Option<Stamp>,
}

impl Details {
    pub(crate) fn of(resource: &Resource) -> Self {
        let order = resource.order.as_deref().map(|order| {
            let (kind, state) = (order.kind_name.clone(), order.state_name.clone());
            Box::new(OrderDetails { uuid: order.uuid, kind, state, created: order.created })
        });
        Self { slug: resource.slug.clone(), project: resource.project_slug.clone(), order }
    }
}

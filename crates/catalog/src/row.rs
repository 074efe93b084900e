//! Rows of Waldur's lists: a resource, and an open order.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::field::{self, Malformed, Raw};
use crate::order::{Order, OrderState, OrderType};
use crate::resource::{Rejected, Resource};
use crate::stamp::Stamp;
use crate::status::State;

/// A row of Waldur's list of resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub uuid: Uuid,
    pub created: Option<Stamp>,
    /// When the resource was changed, by the clock of the host that did it. Not every change sets it.
    pub modified: Option<Stamp>,
    pub resource: Parsed,
}

/// A resource, or why its record breaks the mapping rules (decision D8).
pub type Parsed = Result<Arc<Resource>, Arc<Rejected>>;

impl Row {
    /// Parses a row.
    ///
    /// # Errors
    ///
    /// The row has no readable UUID (decision D19).
    pub fn parse(raw: &RawValue) -> Result<Self, Rejected> {
        let (resource, [created, modified]) = Resource::parse_with_times(raw);
        let uuid = match &resource {
            Ok(resource) => resource.uuid,
            Err(Rejected { uuid: Some(uuid), .. }) => *uuid,
            Err(rejected) => return Err(rejected.clone()),
        };
        Ok(Self { uuid, created, modified, resource: resource.map(Arc::new).map_err(Arc::new) })
    }

    /// Slug of the resource's offering, if readable.
    pub fn offering_slug(&self) -> Option<&str> {
        match &self.resource {
            Ok(resource) => Some(&resource.offering_slug),
            Err(rejected) => rejected.offering_slug.as_deref(),
        }
    }
}

/// States of orders that count as in progress, as Waldur spells them.
pub const OPEN_STATES: [&str; 5] =
    ["pending-consumer", "pending-provider", "pending-project", "pending-start-date", "executing"];

/// The fields of an order that [`OpenOrder::parse`] reads, as names for Waldur's `field` parameter.
pub const ORDER_FIELDS: [&str; 8] =
    ["uuid", "type", "state", "attributes", "limits", "offering", "marketplace_resource_uuid", "created"];

/// A row of Waldur's list of orders.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOrder {
    pub uuid: Uuid,
    /// UUID of the resource.
    pub resource: Uuid,
    pub(crate) created: Option<Stamp>,
    /// As it would be in the resource's record.
    pub(crate) order: Result<Order, Malformed>,
}

#[derive(Deserialize)]
struct OrderRow<'a> {
    #[serde(borrow, default)]
    uuid: Raw<'a>,
    #[serde(borrow, default)]
    state: Raw<'a>,
    #[serde(borrow, default)]
    offering: Raw<'a>,
    #[serde(borrow, default)]
    marketplace_resource_uuid: Raw<'a>,
    #[serde(borrow, default)]
    created: Raw<'a>,
}

impl OpenOrder {
    /// Parses a row; `None` if the order is not open.
    ///
    /// # Errors
    ///
    /// The row is not a record, or its UUID or that of its resource cannot be read: a resource would lose its order.
    pub fn parse(raw: &RawValue) -> Result<Option<Self>, Malformed> {
        if !raw.get().starts_with('{') {
            return field::malformed("the record", "is not a map");
        }
        let Ok(row) = serde_json::from_str::<OrderRow<'_>>(raw.get()) else {
            return field::malformed("the record", "has a duplicate key or cannot be parsed");
        };
        if !OPEN_STATES.contains(&field::text("state", row.state)?.as_str()) {
            return Ok(None);
        }
        let uuid = field::uuid("uuid", row.uuid)?;
        let resource = field::uuid("marketplace_resource_uuid", row.marketplace_resource_uuid)?;
        // Only a nested order has its own URL. The host is the one that Waldur uses for itself.
        let offering = field::optional_text("offering", row.offering).ok().flatten();
        let root = offering.as_deref().and_then(|url| Some(url.split_once("/marketplace-")?.0.to_owned()));
        let order = Order::parse(raw).map(|order| Order {
            url: root.map(|root| format!("{root}/marketplace-orders/{}/", uuid.simple())),
            ..order
        });
        Ok(Some(Self { uuid, resource, created: field::stamp(row.created), order }))
    }

    /// Whether Waldur hides the resource of this order from providers: a new one that is not approved on the customer's side.
    pub(crate) fn hides_resource(&self) -> bool {
        self.order.as_ref().is_ok_and(|order| {
            order.kind == OrderType::Create && matches!(order.state, OrderState::PendingConsumer | OrderState::Other)
        })
    }

    /// The resource with this order, if its state is the one that such an order brings about.
    pub(crate) fn joined_to(&self, resource: &Resource) -> Option<Resource> {
        let order =
            self.order.as_ref().ok().filter(|order| order.url.is_some() && fits(resource.state, Some(order)))?;
        Some(Resource { order: Some(Box::new(order.clone())), ..resource.clone() })
    }

    /// Whether this is the nested order, in the same state.
    pub(crate) fn is_same_as(&self, nested: Option<&Order>) -> bool {
        let listed = self.order.as_ref().ok();
        listed.zip(nested).is_some_and(|(a, b)| (a.uuid, &a.state_name) == (b.uuid, &b.state_name))
    }

    /// Waldur's order in progress is the oldest one.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        (self.created, self.uuid) < (other.created, other.uuid)
    }
}

/// Whether a resource in this state normally has this order, or none.
pub(crate) fn fits(state: State, order: Option<&Order>) -> bool {
    match order.map(|order| order.kind) {
        None => !matches!(state, State::Creating | State::Updating | State::Terminating),
        Some(OrderType::Create) => state == State::Creating,
        Some(OrderType::Update) => state == State::Updating,
        Some(OrderType::Terminate) => state == State::Terminating,
        Some(OrderType::Other) => false,
    }
}

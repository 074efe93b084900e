//! The rows of a world.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{OrderState, OrderType, ResourceState, Stamp};

/// An organization that owns offerings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub uuid: Uuid,
    pub slug: String,
    pub name: String,
}

/// The offering types that are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferingType {
    /// `Marketplace.Slurm`: provisioned by an external agent. Approval starts execution; the agent then reports done or erred.
    Slurm,
    /// `Marketplace.Basic`: approval completes an order.
    Basic,
}

impl OfferingType {
    /// The name in Waldur.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slurm => "Marketplace.Slurm",
            Self::Basic => "Marketplace.Basic",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Offering {
    pub uuid: Uuid,
    /// The provider.
    pub provider: Uuid,
    pub slug: String,
    pub name: String,
    pub kind: OfferingType,
    pub created: Stamp,
    /// Types of its components; usage of other types is rejected.
    pub components: Vec<String>,
    /// The rows of its `customers/`, replacing the customers that have or had a resource of it.
    pub customers: Option<Vec<Value>>,
}

impl Offering {
    /// An offering with one component, `storage`.
    pub fn new(uuid: Uuid, provider: Uuid, slug: &str, name: &str, kind: OfferingType, created: Stamp) -> Self {
        Self {
            uuid,
            provider,
            slug: slug.to_owned(),
            name: name.to_owned(),
            kind,
            created,
            components: vec!["storage".to_owned()],
            customers: None,
        }
    }
}

/// An organization that buys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    pub uuid: Uuid,
    pub slug: String,
    pub name: String,
    /// Often empty.
    pub abbreviation: String,
    /// Often empty.
    pub email: String,
    pub created: Stamp,
    /// If true, orders of the customer cannot be approved.
    pub blocked: bool,
}

impl Customer {
    /// A customer with identifier, slug and name only.
    pub fn new(uuid: Uuid, slug: &str, name: &str, created: Stamp) -> Self {
        Self {
            uuid,
            slug: slug.to_owned(),
            name: name.to_owned(),
            abbreviation: String::new(),
            email: String::new(),
            created,
            blocked: false,
        }
    }
}

/// A project of a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub uuid: Uuid,
    pub customer: Uuid,
    pub slug: String,
    pub name: String,
    /// If true, orders of the project cannot be approved.
    pub expired: bool,
    /// `YYYY-MM-DD`.
    pub end_date: Option<String>,
}

/// A user's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owner of a provider: can see and change everything of its offerings.
    ProviderOwner(Uuid),
    /// Manager of one offering: can see it, set backend IDs and report usage.
    OfferingManager(Uuid),
    /// Owner of a customer.
    CustomerOwner(Uuid),
    /// Member of a project.
    ProjectMember(Uuid),
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent columns of Waldur's user table")]
pub struct User {
    pub uuid: Uuid,
    pub username: String,
    /// The token for authentication.
    pub token: String,
    /// Whether the token has expired.
    pub token_expired: bool,
    /// If false, requests return 401.
    pub is_active: bool,
    /// Staff can see and do everything.
    pub is_staff: bool,
    /// Support can see everything.
    pub is_support: bool,
    pub roles: Vec<Role>,
}

impl User {
    pub(crate) fn new(uuid: Uuid, username: &str) -> Self {
        let half = Uuid::new_v5(&Uuid::NAMESPACE_DNS, username.as_bytes()).simple().to_string();
        Self {
            uuid,
            username: username.to_owned(),
            token: format!("{half}{}", &half[..8]),
            token_expired: false,
            is_active: true,
            is_staff: false,
            is_support: false,
            roles: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Resource {
    pub uuid: Uuid,
    pub offering: Uuid,
    pub project: Uuid,
    /// Orders of the resource, oldest first.
    pub orders: Vec<Uuid>,
    /// Whether `record` is the whole row and no values are joined (rows of recorded cases).
    pub verbatim: bool,
    /// Fields of the row. They take precedence over joined values, so a test can set any field to an unusual value.
    pub record: Map<String, Value>,
}

impl Resource {
    /// A resource as Waldur creates it: empty `backend_id`, `attributes`, `limits` and `backend_metadata`, null `options`.
    pub fn new(uuid: Uuid, offering: Uuid, project: Uuid, slug: &str, state: ResourceState, created: Stamp) -> Self {
        let mut record = Map::new();
        record.insert("name".into(), slug.into());
        record.insert("slug".into(), slug.into());
        record.insert("state".into(), state.as_str().into());
        record.insert("created".into(), created.text().into());
        record.insert("modified".into(), created.text().into());
        record.insert("backend_id".into(), "".into());
        record.insert("attributes".into(), json!({}));
        record.insert("limits".into(), json!({}));
        record.insert("options".into(), Value::Null);
        record.insert("backend_metadata".into(), json!({}));
        Self { uuid, offering, project, orders: Vec::new(), verbatim: false, record }
    }

    /// The text of a field; empty if absent or not text.
    pub fn text(&self, key: &str) -> &str {
        self.record.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The state; `None` if the record has an invalid one.
    pub fn state(&self) -> Option<ResourceState> {
        ResourceState::parse(self.text("state"))
    }

    /// Sets the state, but not `modified`.
    pub fn set_state(&mut self, state: ResourceState) {
        self.set("state", state.as_str());
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.record.insert(key.to_owned(), value.into());
    }
}

#[derive(Debug, Clone)]
pub struct Order {
    pub uuid: Uuid,
    pub resource: Uuid,
    /// Whether `record` is the whole row.
    pub verbatim: bool,
    /// Fields of the row, as in [`Resource::record`].
    pub record: Map<String, Value>,
}

impl Order {
    /// The text of a field; empty if absent or not text.
    pub fn text(&self, key: &str) -> &str {
        self.record.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The state; `None` if the record has an invalid one.
    pub fn state(&self) -> Option<OrderState> {
        OrderState::parse(self.text("state"))
    }

    /// The type; `None` if the record has an invalid one.
    pub fn kind(&self) -> Option<OrderType> {
        OrderType::parse(self.text("type"))
    }

    /// Whether the order changes options instead of limits.
    pub fn is_options_order(&self) -> bool {
        self.record.get("attributes").is_some_and(|attributes| attributes.get("new_options").is_some())
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.record.insert(key.to_owned(), value.into());
    }
}

/// Usage of one component in one month.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    pub uuid: Uuid,
    pub resource: Uuid,
    /// Type of the component.
    pub component: String,
    /// First day of the month, `YYYY-MM-DD`.
    pub billing_period: String,
    /// The last reported amount; Waldur also accepts negative amounts.
    pub amount: f64,
    /// Time of the first report.
    pub created: Stamp,
    pub description: String,
}

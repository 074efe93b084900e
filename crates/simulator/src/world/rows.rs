//! The rows of a world.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{OrderState, OrderType, ResourceState, Stamp};

/// An organisation that owns offerings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub uuid: Uuid,
    pub slug: String,
    pub name: String,
}

/// The types of offerings that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferingType {
    /// `Marketplace.Slurm`: served by an outside agent. Approved means executing; done and erred are called later.
    Slurm,
    /// `Marketplace.Basic`: approved means done.
    Basic,
}

impl OfferingType {
    /// As Waldur writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slurm => "Marketplace.Slurm",
            Self::Basic => "Marketplace.Basic",
        }
    }
}

/// What is sold.
#[derive(Debug, Clone)]
pub struct Offering {
    /// Identifier.
    pub uuid: Uuid,
    /// The organisation that owns it.
    pub provider: Uuid,
    /// Slug.
    pub slug: String,
    /// Name.
    pub name: String,
    /// Type.
    pub kind: OfferingType,
    /// When it was made.
    pub created: Stamp,
    /// Types of its components; usage of others is refused.
    pub components: Vec<String>,
    /// The rows of its `customers/`, instead of the customers that have or had a resource of it.
    pub customers: Option<Vec<Value>>,
}

impl Offering {
    /// With one component, `storage`.
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

/// An organisation that buys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// Identifier.
    pub uuid: Uuid,
    /// Slug.
    pub slug: String,
    /// Name.
    pub name: String,
    /// Abbreviation, often blank.
    pub abbreviation: String,
    /// Electronic mail address, often blank.
    pub email: String,
    /// When it was made.
    pub created: Stamp,
    /// Orders of a blocked customer cannot be approved.
    pub blocked: bool,
}

impl Customer {
    /// With nothing but identifier, slug and name.
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
    /// Identifier.
    pub uuid: Uuid,
    /// The customer it belongs to.
    pub customer: Uuid,
    /// Slug.
    pub slug: String,
    /// Name.
    pub name: String,
    /// Orders of an expired project cannot be approved.
    pub expired: bool,
    /// `YYYY-MM-DD`.
    pub end_date: Option<String>,
}

/// What a user may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owner of a provider: sees and serves what concerns its offerings.
    ProviderOwner(Uuid),
    /// Manager of one offering: sees, may set backend ids and usage, nothing else.
    OfferingManager(Uuid),
    /// Owner of a customer.
    CustomerOwner(Uuid),
    /// Member of a project.
    ProjectMember(Uuid),
}

/// A user of Waldur.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent columns of Waldur's user table")]
pub struct User {
    /// Identifier.
    pub uuid: Uuid,
    /// Name.
    pub username: String,
    /// The token that authenticates it.
    pub token: String,
    /// Whether the token is past its lifetime.
    pub token_expired: bool,
    /// A deactivated user is answered with 401.
    pub is_active: bool,
    /// Staff sees and may do everything.
    pub is_staff: bool,
    /// Support sees everything.
    pub is_support: bool,
    /// Roles.
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

/// A marketplace resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Identifier.
    pub uuid: Uuid,
    /// The offering it was ordered from.
    pub offering: Uuid,
    /// The project it belongs to.
    pub project: Uuid,
    /// Its orders, oldest first.
    pub orders: Vec<Uuid>,
    /// Whether `record` is the whole row, so that nothing is joined to it (rows of recorded cases).
    pub verbatim: bool,
    /// What the row says. A key that is here wins over what would be joined, so any field can be made odd.
    pub record: Map<String, Value>,
}

impl Resource {
    /// As Waldur makes one: blank `backend_id`, empty `attributes`, `limits` and `backend_metadata`, null `options`.
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

    /// A field's text; blank when it is absent or no text.
    pub fn text(&self, key: &str) -> &str {
        self.record.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The state, unless the record says something that is none.
    pub fn state(&self) -> Option<ResourceState> {
        ResourceState::parse(self.text("state"))
    }

    /// Puts it into this state; `modified` is the caller's concern.
    pub fn set_state(&mut self, state: ResourceState) {
        self.set("state", state.as_str());
    }

    /// Sets a field of the row.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.record.insert(key.to_owned(), value.into());
    }
}

/// A marketplace order.
#[derive(Debug, Clone)]
pub struct Order {
    /// Identifier.
    pub uuid: Uuid,
    /// The resource it is for.
    pub resource: Uuid,
    /// Whether `record` is the whole row.
    pub verbatim: bool,
    /// What the row says; as in [`Resource::record`].
    pub record: Map<String, Value>,
}

impl Order {
    /// A field's text; blank when it is absent or no text.
    pub fn text(&self, key: &str) -> &str {
        self.record.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The state, unless the record says something that is none.
    pub fn state(&self) -> Option<OrderState> {
        OrderState::parse(self.text("state"))
    }

    /// What it asks for, unless the record says something that is none.
    pub fn kind(&self) -> Option<OrderType> {
        OrderType::parse(self.text("type"))
    }

    /// Whether it changes options instead of limits.
    pub fn is_options_order(&self) -> bool {
        self.record.get("attributes").is_some_and(|attributes| attributes.get("new_options").is_some())
    }

    /// Sets a field of the row.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.record.insert(key.to_owned(), value.into());
    }
}

/// Usage of one component in one month.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Identifier.
    pub uuid: Uuid,
    /// The resource.
    pub resource: Uuid,
    /// Type of the component.
    pub component: String,
    /// First day of the month, `YYYY-MM-DD`.
    pub billing_period: String,
    /// What was reported last; Waldur accepts negative amounts too.
    pub amount: f64,
    /// When it was first reported.
    pub created: Stamp,
    /// Free text.
    pub description: String,
}

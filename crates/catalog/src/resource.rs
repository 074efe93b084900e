//! A resource of Waldur, read once and valid afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::field::{self, Malformed, Raw, malformed};
use crate::order::{Order, OrderState};
use crate::quota::{self, Limits, LimitsRecord, Mode, Options, OptionsRecord};
use crate::target::{self, TargetItem, TargetType};

/// A resource, as far as the catalogue needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// UUID of the resource and of its item.
    pub uuid: Uuid,
    /// Slug; perhaps empty.
    pub slug: String,
    /// State as Waldur says it.
    pub state: State,
    /// Path in the storage system, once there is one; not empty.
    pub backend_id: Option<String>,
    /// UUID of the offering.
    pub offering_uuid: Uuid,
    /// Slug of the offering.
    pub offering_slug: String,
    /// Type of the offering as Waldur spells it, for example `Marketplace.Slurm`; `None` where the record does not tell.
    pub offering_type: Option<String>,
    /// Slug of the project; perhaps empty.
    pub project_slug: String,
    /// Slug of the customer; perhaps empty.
    pub customer_slug: String,
    /// UUID of the customer, when the record tells it.
    pub customer_uuid: Option<Uuid>,
    /// Name of the customer, when the record tells it.
    pub customer_name: Option<String>,
    /// Slug of the provider; perhaps empty.
    pub provider_slug: String,
    /// Name of the provider; perhaps empty.
    pub provider_name: String,
    /// Data type in lower case; not empty.
    pub data_type: String,
    /// Mode of the directory.
    pub permission: Mode,
    /// The limits.
    pub limits: Limits,
    /// Administrative overrides.
    pub options: Options,
    /// Target item that the back-end left in `backend_metadata`.
    pub metadata_target: Option<Box<TargetItem>>,
    /// The order in progress.
    pub order: Option<Box<Order>>,
}

/// State of a resource in Waldur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Being made.
    Creating,
    /// Failed.
    Erred,
    /// In use.
    #[serde(rename = "OK")]
    Ok,
    /// Ended.
    Terminated,
    /// Being ended.
    Terminating,
    /// Being changed.
    Updating,
    /// A state that this version does not know.
    Other,
}

/// Status of an item: `pending` to be made, `active` in use, `updating` to be changed, `removing` to be ended, `removed`
/// ended, `error` failed. `unknown` is accepted as a filter; no item of Waldur has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// To be made.
    Pending,
    /// In use.
    Active,
    /// To be ended.
    Removing,
    /// Ended.
    Removed,
    /// Failed.
    Error,
    /// To be changed.
    Updating,
    /// Accepted as a filter; no item has it.
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

    /// The known state spelled exactly so.
    pub fn known(text: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|state| state.as_str() == text)
    }
}

impl Status {
    /// All statuses, in the order in which they are documented.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Active, Self::Removing, Self::Removed, Self::Error, Self::Updating, Self::Unknown];

    /// The status as it is published.
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

/// A record that does not follow the mapping rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// UUID of the resource; `None` when the row is not a record at all (decision D19).
    pub uuid: Option<Uuid>,
    /// Slug of the offering, where that can be read.
    pub offering_slug: Option<String>,
    /// What is wrong.
    pub fault: Malformed,
    /// Slugs of the resource, its project and its offering, as far as they can be read.
    whose: String,
}

impl Rejected {
    /// `slugs` are those of the resource, its project and its offering.
    fn new(uuid: Option<Uuid>, slugs: [Option<&str>; 3], fault: Malformed) -> Self {
        let kinds = ["resource", "project", "offering"];
        let named = kinds.into_iter().zip(slugs).filter_map(|(kind, slug)| Some(format!("{kind} '{}'", slug?)));
        let whose = named.collect::<Vec<_>>().join(", ");
        Self { uuid, offering_slug: slugs[2].map(String::from), fault, whose }
    }

    pub(crate) fn of(resource: &Resource, fault: Malformed) -> Self {
        let Resource { uuid, slug, project_slug, offering_slug, .. } = resource;
        Self::new(Some(*uuid), [slug, project_slug, offering_slug].map(|slug| Some(slug.as_str())), fault)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, whose, .. } = self;
        if whose.is_empty() { write!(f, "{fault}") } else { write!(f, "{fault} ({whose})") }
    }
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    uuid: Raw<'a>,
    #[serde(borrow, default)]
    slug: Raw<'a>,
    #[serde(borrow, default)]
    state: Raw<'a>,
    #[serde(borrow, default)]
    backend_id: Raw<'a>,
    #[serde(borrow, default)]
    offering_uuid: Raw<'a>,
    #[serde(borrow, default)]
    offering_slug: Raw<'a>,
    #[serde(borrow, default)]
    offering_type: Raw<'a>,
    #[serde(borrow, default)]
    project_slug: Raw<'a>,
    #[serde(borrow, default)]
    customer_slug: Raw<'a>,
    #[serde(borrow, default)]
    customer_uuid: Raw<'a>,
    #[serde(borrow, default)]
    customer_name: Raw<'a>,
    #[serde(borrow, default)]
    provider_slug: Raw<'a>,
    #[serde(borrow, default)]
    provider_name: Raw<'a>,
    #[serde(borrow, default)]
    attributes: Raw<'a>,
    #[serde(borrow, default)]
    limits: Raw<'a>,
    #[serde(borrow, default)]
    options: Raw<'a>,
    #[serde(borrow, default)]
    backend_metadata: Raw<'a>,
    #[serde(borrow, default)]
    order_in_progress: Raw<'a>,
}

/// The UUID of a record whose other fields cannot be read.
#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow, default)]
    uuid: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AttributesRecord {
    storage_data_type: Value,
    permissions: Value,
}

/// The fields of a resource that [`Resource::parse`] reads, by the names that Waldur's `field` parameter takes.
///
/// Waldur trims a nested order by the same names, so `type` and `url`, which a resource does not have, stand here for
/// its order.
pub const FIELDS: [&str; 20] = [
    "uuid",
    "slug",
    "state",
    "backend_id",
    "offering_uuid",
    "offering_slug",
    "offering_type",
    "project_slug",
    "customer_slug",
    "customer_uuid",
    "customer_name",
    "provider_slug",
    "provider_name",
    "attributes",
    "limits",
    "options",
    "backend_metadata",
    "order_in_progress",
    "type",
    "url",
];

impl Resource {
    /// Reads one record of Waldur's resource list.
    ///
    /// # Errors
    ///
    /// The first field that does not follow the mapping rules, and whose record it is, as far as that can be read.
    pub fn parse(raw: &RawValue) -> Result<Self, Rejected> {
        let unreadable = |uuid, problem| Rejected::new(uuid, [None; 3], Malformed { field: "the record", problem });
        if !raw.get().starts_with('{') {
            return Err(unreadable(None, "is not a map"));
        }
        let Ok(record) = serde_json::from_str::<Record<'_>>(raw.get()) else {
            let key = serde_json::from_str::<Key<'_>>(raw.get()).ok();
            let uuid = key.and_then(|key| field::uuid("uuid", key.uuid).ok());
            return Err(unreadable(uuid, "holds a key twice or is not readable"));
        };
        let uuid = field::uuid("uuid", record.uuid);
        uuid.clone().and_then(|uuid| Self::read(uuid, &record)).map_err(|fault| {
            let text = |raw| field::text("", raw).ok();
            let (resource, project, offering) =
                (text(record.slug), text(record.project_slug), text(record.offering_slug));
            Rejected::new(uuid.ok(), [resource.as_deref(), project.as_deref(), offering.as_deref()], fault)
        })
    }

    fn read(uuid: Uuid, record: &Record<'_>) -> Result<Self, Malformed> {
        let attributes: AttributesRecord = field::map("attributes", record.attributes)?;
        let limits: LimitsRecord = field::map("limits", record.limits)?;
        let limits = Limits::read(&limits, || {
            let components: Map<String, Value> = field::map("limits", record.limits)?;
            Ok(components.into_iter().map(|(name, _)| name).collect())
        })?;
        let options: OptionsRecord = field::map("options", record.options)?;
        let options = Options::try_from(options)?;
        let attribute_mode = quota::mode("attributes.permissions", &attributes.permissions)?;
        let data_type = data_type(&attributes.storage_data_type)?;
        let metadata = record.backend_metadata.map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get()));
        let Ok(metadata) = metadata else { return malformed("backend_metadata", "is not readable") };
        Ok(Self {
            uuid,
            slug: field::text("slug", record.slug)?,
            state: State::known(&field::text("state", record.state)?).unwrap_or(State::Other),
            // Anything but text says that the storage system has not been told yet.
            backend_id: record
                .backend_id
                .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
                .filter(|path| !path.is_empty()),
            offering_uuid: field::uuid("offering_uuid", record.offering_uuid)?,
            offering_slug: field::text("offering_slug", record.offering_slug)?,
            // Nothing of the item depends on it.
            offering_type: field::optional_text("offering_type", record.offering_type).unwrap_or_default(),
            project_slug: slug("project_slug", record.project_slug)?,
            customer_slug: slug("customer_slug", record.customer_slug)?,
            customer_uuid: record.customer_uuid.map(|raw| field::uuid("customer_uuid", Some(raw))).transpose()?,
            customer_name: field::optional_text("customer_name", record.customer_name)?,
            provider_slug: match record.provider_slug {
                None => String::new(),
                present => slug("provider_slug", present)?,
            },
            provider_name: field::optional_text("provider_name", record.provider_name)?.unwrap_or_default(),
            permission: options.permissions.or(attribute_mode).unwrap_or(Mode::DEFAULT),
            metadata_target: target::from_metadata(TargetType::of_data_type(&data_type), &metadata)?.map(Box::new),
            data_type,
            limits,
            options,
            order: record.order_in_progress.map(Order::parse).transpose()?.map(Box::new),
        })
    }

    /// The state that the document goes by: a change that the customer has not approved yet has not begun.
    pub fn effective_state(&self) -> State {
        match (self.state, &self.order) {
            (State::Updating | State::Terminating, Some(order)) if order.state == OrderState::PendingConsumer => {
                State::Ok
            }
            (state, _) => state,
        }
    }

    /// Status of the item.
    pub fn status(&self) -> Status {
        Status::of(self.effective_state())
    }

    /// Whether the item is for a project or for a user.
    pub fn target_type(&self) -> TargetType {
        TargetType::of_data_type(&self.data_type)
    }
}

/// A slug that becomes a path segment.
fn slug(field: &'static str, raw: Raw<'_>) -> Result<String, Malformed> {
    path_segment(field, field::text(field, raw)?)
}

/// A text that becomes a path segment: never one that would lead out of its place.
fn path_segment(field: &'static str, text: String) -> Result<String, Malformed> {
    if text == "." || text == ".." || text.contains(['/', '\0']) {
        return malformed(field, "is no name of a directory");
    }
    Ok(text)
}

/// The data type of a resource: any text, trimmed and in lower case; `store` for what is blank or no text.
fn data_type(value: &Value) -> Result<String, Malformed> {
    let data_type = value.as_str().and_then(normal_data_type).unwrap_or_else(|| String::from("store"));
    path_segment("attributes.storage_data_type", data_type)
}

/// A data type as it is compared and shown; `None` for blank.
pub(crate) fn normal_data_type(text: &str) -> Option<String> {
    // Python's `strip` also takes the four separators U+001C to U+001F for white space.
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    (!trimmed.is_empty()).then(|| trimmed.to_lowercase())
}

#[cfg(test)]
mod tests;

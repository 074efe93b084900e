//! A resource of Waldur, validated when it is parsed.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::field::{self, Malformed, Raw, malformed};
use crate::order::{Order, OrderState};
use crate::quota::{self, LimitsRecord, Mode, Options, OptionsRecord, ResourceLimits};
use crate::stamp::Stamp;
use crate::status::{State, Status};
use crate::target::{self, TargetItem, TargetType};

/// The fields of a Waldur resource that the catalogue needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// UUID of the resource, and `itemId` of its item.
    pub uuid: Uuid,
    /// May be empty.
    pub slug: String,
    /// State in Waldur.
    pub state: State,
    /// Path in the storage system, once it is set; not empty.
    pub backend_id: Option<String>,
    pub offering_uuid: Uuid,
    pub offering_slug: String,
    /// Type of the offering as Waldur spells it, for example `Marketplace.Slurm`; `None` if the record has none.
    pub offering_type: Option<String>,
    /// May be empty.
    pub project_slug: String,
    /// May be empty.
    pub customer_slug: String,
    pub customer_uuid: Option<Uuid>,
    pub customer_name: Option<String>,
    /// May be empty.
    pub provider_slug: String,
    /// May be empty.
    pub provider_name: String,
    /// Data type in lower case; not empty.
    pub data_type: String,
    pub permission: Mode,
    pub limits: ResourceLimits,
    /// Administrative overrides.
    pub options: Options,
    /// Target item from `backend_metadata`.
    pub metadata_target: Option<Box<TargetItem>>,
    pub order: Option<Box<Order>>,
}

/// A record that breaks the mapping rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// UUID of the resource; `None` if the row is not a record (decision D19).
    pub uuid: Option<Uuid>,
    /// Slug of the offering, if readable.
    pub offering_slug: Option<String>,
    pub error: Malformed,
    /// The readable slugs of the resource, its project and its offering, for messages.
    slugs: String,
}

impl Rejected {
    /// `slugs` are those of the resource, its project and its offering.
    fn new(uuid: Option<Uuid>, slugs: [Option<&str>; 3], error: Malformed) -> Self {
        let kinds = ["resource", "project", "offering"];
        let named = kinds.into_iter().zip(slugs).filter_map(|(kind, slug)| Some(format!("{kind} '{}'", slug?)));
        let offering_slug = slugs[2].map(String::from);
        Self { uuid, offering_slug, error, slugs: named.collect::<Vec<_>>().join(", ") }
    }

    pub(crate) fn of(resource: &Resource, error: Malformed) -> Self {
        let Resource { uuid, slug, project_slug, offering_slug, .. } = resource;
        Self::new(Some(*uuid), [slug, project_slug, offering_slug].map(|slug| Some(slug.as_str())), error)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, slugs, .. } = self;
        if slugs.is_empty() { write!(f, "{error}") } else { write!(f, "{error} ({slugs})") }
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
    #[serde(borrow, default)]
    created: Raw<'a>,
    #[serde(borrow, default)]
    modified: Raw<'a>,
}

/// Reads the UUID of a record whose other fields are not readable.
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

/// The fields of a resource that [`Resource::parse`] reads, as names for Waldur's `field` parameter.
///
/// Waldur filters a nested order by the same names, so the list includes `type` and `url`, which only the order has.
pub const FIELDS: [&str; 22] = [
    "created",
    "modified",
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
    /// Parses one record of Waldur's resource list.
    ///
    /// # Errors
    ///
    /// The first field that breaks the mapping rules, and as much of the resource's identity as is readable.
    pub fn parse(raw: &RawValue) -> Result<Self, Rejected> {
        Self::parse_with_times(raw).0
    }

    /// Parses a record, and when it was created and modified.
    pub(crate) fn parse_with_times(raw: &RawValue) -> (Result<Self, Rejected>, [Option<Stamp>; 2]) {
        let unreadable = |uuid, problem| {
            (Err(Rejected::new(uuid, [None; 3], Malformed { field: "the record", problem })), [None; 2])
        };
        if !raw.get().starts_with('{') {
            return unreadable(None, "is not a map");
        }
        let Ok(record) = serde_json::from_str::<Record<'_>>(raw.get()) else {
            let key = serde_json::from_str::<Key<'_>>(raw.get()).ok();
            let uuid = key.and_then(|key| field::uuid("uuid", key.uuid).ok());
            return unreadable(uuid, "has a duplicate key or cannot be parsed");
        };
        let uuid = field::uuid("uuid", record.uuid);
        let resource = uuid.clone().and_then(|uuid| Self::read(uuid, &record)).map_err(|error| {
            let text = |raw| field::text("", raw).ok();
            let (resource, project, offering) =
                (text(record.slug), text(record.project_slug), text(record.offering_slug));
            Rejected::new(uuid.ok(), [resource.as_deref(), project.as_deref(), offering.as_deref()], error)
        });
        (resource, [record.created, record.modified].map(field::stamp))
    }

    fn read(uuid: Uuid, record: &Record<'_>) -> Result<Self, Malformed> {
        let attributes: AttributesRecord = field::map("attributes", record.attributes)?;
        let limits: LimitsRecord = field::map("limits", record.limits)?;
        let limits = ResourceLimits::read(&limits, || {
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
            // Any value other than text means that the path is not set yet.
            backend_id: record
                .backend_id
                .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
                .filter(|path| !path.is_empty()),
            offering_uuid: field::uuid("offering_uuid", record.offering_uuid)?,
            offering_slug: field::text("offering_slug", record.offering_slug)?,
            // The item does not depend on the type, so an unreadable one is ignored.
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

    /// The state that the document is based on: a change that the customer has not approved has not started.
    pub fn effective_state(&self) -> State {
        match (self.state, &self.order) {
            (State::Updating | State::Terminating, Some(order)) if order.state == OrderState::PendingConsumer => {
                State::Ok
            }
            (state, _) => state,
        }
    }

    pub fn status(&self) -> Status {
        Status::of(self.effective_state())
    }

    /// Whether the item is for a project or for a user.
    pub fn target_type(&self) -> TargetType {
        TargetType::of_data_type(&self.data_type)
    }
}

fn slug(field: &'static str, raw: Raw<'_>) -> Result<String, Malformed> {
    path_segment(field, field::text(field, raw)?)
}

/// Checks that a path segment does not lead out of its directory.
fn path_segment(field: &'static str, text: String) -> Result<String, Malformed> {
    if text == "." || text == ".." || text.contains(['/', '\0']) {
        return malformed(field, "is not a valid directory name");
    }
    Ok(text)
}

/// The data type of a resource: trimmed and in lower case; `store` if blank or not text.
fn data_type(value: &Value) -> Result<String, Malformed> {
    let data_type = value.as_str().and_then(normalize_data_type).unwrap_or_else(|| String::from("store"));
    path_segment("attributes.storage_data_type", data_type)
}

/// Trims a data type and converts it to lower case; `None` if blank.
pub(crate) fn normalize_data_type(text: &str) -> Option<String> {
    // Python's `strip` also removes the four separators U+001C to U+001F.
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    (!trimmed.is_empty()).then(|| trimmed.to_lowercase())
}

#[cfg(test)]
mod tests;

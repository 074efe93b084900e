//! The order in progress of a resource: what it changes, and where a provisioner reports the result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::field::{self, Malformed, Raw};
use crate::quota::{LimitsRecord, Options, OptionsRecord, ResourceLimits};
use crate::stamp::Stamp;
use crate::status::State;

#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// UUID of the order, if the record has one.
    pub uuid: Option<Uuid>,
    /// URL of the order in Waldur's API; callback links are built from it.
    pub url: Option<String>,
    pub state: OrderState,
    /// The state as Waldur spells it.
    pub state_name: Option<String>,
    pub kind: OrderType,
    /// The type as Waldur spells it.
    pub kind_name: Option<String>,
    /// What an order of type Update changes; `None` if it changes no quotas or cannot be read.
    pub update: Option<Update>,
    /// Why the quotas that an order of type Update requests cannot be trusted, with the name of the field.
    pub(crate) unreadable: Option<String>,
    /// The number `storage` in the order's own limits, in TB; `None` if absent or not readable.
    pub(crate) storage: Option<f64>,
    /// The options that an order of type Update requests, as Waldur returns them; `None` if it requests none.
    pub new_options: Option<Map<String, Value>>,
    /// When it was created; `None` if Waldur does not return it.
    pub created: Option<Stamp>,
}

/// State of an order, as far as the catalogue distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Waiting for the customer's approval.
    PendingConsumer,
    /// Waiting for the provider's approval.
    PendingProvider,
    Executing,
    /// Any other state.
    Other,
}

/// Type of an order, as far as the catalogue distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderType {
    /// Creates a resource.
    Create,
    /// Changes limits or options.
    Update,
    /// Terminates a resource.
    Terminate,
    /// Any other type.
    Other,
}

/// What an order of type Update changes. A field that is `None` keeps the resource's value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    pub(crate) old_limits: Option<ResourceLimits>,
    pub(crate) new_limits: Option<ResourceLimits>,
    pub(crate) old_options: Option<Options>,
    pub(crate) new_options: Option<Options>,
}

/// URLs to which a provisioner reports: those that the order's state allows (specification 8.2, decision D14).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_field_names, reason = "the document's keys")]
pub(crate) struct CallbackLinks {
    pub(crate) approve_by_provider_url: Option<String>,
    pub(crate) reject_by_provider_url: Option<String>,
    pub(crate) set_state_done_url: Option<String>,
    pub(crate) set_state_erred_url: Option<String>,
    pub(crate) set_backend_id_url: Option<String>,
    pub(crate) update_resource_options_url: Option<String>,
    pub(crate) set_state_ok_url: Option<String>,
}

/// Links of a resource in transition (Creating, Updating, Terminating, Erred) without an order in progress (decision D25).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResourceLinks<'a> {
    /// POST to this URL sets the resource's state to OK. Older releases of Waldur answer 404.
    #[cfg_attr(feature = "schema", schema(format = "uri"))]
    pub set_state_ok_url: String,
    /// The resource's `backend_id` in Waldur; null if it has none. A resource in the state Creating without an order and
    /// without a `backend_id` was never created: its order was deleted.
    pub backend_id: Option<&'a str>,
}

/// Whether Waldur can change a resource from this state to OK.
fn can_be_set_ok(state: State) -> bool {
    matches!(state, State::Erred | State::Creating | State::Updating | State::Terminating)
}

/// URL in Waldur that sets the state of a resource without an order in progress to OK; `None` if the current state does not
/// allow it.
pub(crate) fn set_state_ok_url(waldur: &str, resource: Uuid, effective: State) -> Option<String> {
    can_be_set_ok(effective).then(|| format!("{waldur}/marketplace-provider-resources/{resource}/{SET_STATE_OK}/"))
}

/// Relayed form of [`set_state_ok_url`], below the proxy's public URL `relay`.
pub(crate) fn relayed_set_state_ok_url(relay: &str, resource: Uuid) -> String {
    format!("{relay}/api/callbacks/resources/{resource}/{SET_STATE_OK}/")
}

/// The action that sets a resource's state to OK, as spelled in URL paths.
const SET_STATE_OK: &str = "set_state_ok";
/// Actions on an order, as spelled in URL paths.
pub const ORDER_ACTIONS: [&str; 4] = ["approve_by_provider", "reject_by_provider", "set_state_done", "set_state_erred"];
/// Actions on a resource with an order in progress, as spelled in URL paths; the last one also works without an order.
pub const RESOURCE_ACTIONS: [&str; 3] = ["set_backend_id", "update_options_direct", SET_STATE_OK];

/// The callbacks to relay for an item with an order in progress, or in transition without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Callbacks {
    /// UUID of the resource, and `itemId` of its item.
    pub resource: Uuid,
    /// UUID of the order; `None` if Waldur does not return it, or if there is no order.
    pub order: Option<Uuid>,
    /// State of the order as Waldur spells it; `None` if there is no order.
    pub state: Option<String>,
    /// Waldur URLs by action, for the actions that the order's state allows.
    pub links: BTreeMap<String, String>,
}

impl CallbackLinks {
    /// All links with their actions: [`ORDER_ACTIONS`], then [`RESOURCE_ACTIONS`].
    fn by_action(&mut self) -> impl Iterator<Item = (&'static str, &mut Option<String>)> {
        let links = [
            &mut self.approve_by_provider_url,
            &mut self.reject_by_provider_url,
            &mut self.set_state_done_url,
            &mut self.set_state_erred_url,
            &mut self.set_backend_id_url,
            &mut self.update_resource_options_url,
            &mut self.set_state_ok_url,
        ];
        ORDER_ACTIONS.into_iter().chain(RESOURCE_ACTIONS).zip(links)
    }

    /// Rewrites the links to the proxy, whose public URL is `relay`. Removes the order's links if the order has no UUID,
    /// which the proxy needs to address it.
    pub(crate) fn relayed(mut self, relay: &str, order: Option<Uuid>, resource: Uuid) -> Self {
        for (action, link) in self.by_action() {
            let path = if RESOURCE_ACTIONS.contains(&action) {
                Some(format!("resources/{resource}"))
            } else {
                order.map(|order| format!("orders/{order}"))
            };
            *link = link.take().and(path).map(|path| format!("{relay}/api/callbacks/{path}/{action}/"));
        }
        self
    }
}

impl Callbacks {
    /// Callbacks of a resource in transition without an order.
    pub(crate) fn without_order(waldur: &str, resource: Uuid, effective: State) -> Option<Self> {
        let link = set_state_ok_url(waldur, resource, effective)?;
        let links = BTreeMap::from([(SET_STATE_OK.to_owned(), link)]);
        Some(Self { resource, order: None, state: None, links })
    }
}

#[derive(Deserialize)]
struct OrderRecord<'a> {
    #[serde(borrow, default)]
    uuid: Raw<'a>,
    #[serde(borrow, default)]
    url: Raw<'a>,
    #[serde(borrow, default)]
    state: Raw<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Raw<'a>,
    #[serde(default)]
    attributes: Value,
    #[serde(default)]
    limits: Value,
    #[serde(borrow, default)]
    created: Raw<'a>,
}

impl Order {
    pub(crate) fn parse(raw: &RawValue) -> Result<Self, Malformed> {
        if !raw.get().starts_with('{') {
            return field::malformed("order_in_progress", "is not a map");
        }
        let Ok(record) = serde_json::from_str::<OrderRecord<'_>>(raw.get()) else {
            return field::malformed("order_in_progress", "has a duplicate key or cannot be parsed");
        };
        let state_name = field::optional_text("order_in_progress.state", record.state)?;
        let state = match state_name.as_deref() {
            Some("pending-consumer") => OrderState::PendingConsumer,
            Some("pending-provider") => OrderState::PendingProvider,
            Some("executing") => OrderState::Executing,
            _ => OrderState::Other,
        };
        let kind_name = field::optional_text("order_in_progress.type", record.kind)?;
        let kind = match kind_name.as_deref() {
            Some("Create") => OrderType::Create,
            Some("Update") => OrderType::Update,
            Some("Terminate") => OrderType::Terminate,
            _ => OrderType::Other,
        };
        let (update, unreadable) = match kind {
            OrderType::Update => parse_update(&record.attributes, &record.limits),
            _ => (None, None),
        };
        let storage = record.limits.get("storage").and_then(|storage| field::amount("", storage).ok().flatten());
        let new_options = match record.attributes {
            Value::Object(mut attributes) if kind == OrderType::Update => match attributes.remove("new_options") {
                Some(Value::Object(options)) if !options.is_empty() => Some(options),
                _ => None,
            },
            _ => None,
        };
        let url = field::optional_text("order_in_progress.url", record.url)?.filter(|url| !url.is_empty());
        // The item does not depend on the UUID, so an unreadable one is ignored.
        let uuid = field::uuid("order_in_progress.uuid", record.uuid).ok();
        let created = field::stamp(record.created);
        Ok(Self { uuid, url, state, state_name, kind, kind_name, update, unreadable, storage, new_options, created })
    }

    /// The links that the order's state and the resource's effective state allow.
    pub(crate) fn callback_links(&self, resource: Uuid, effective: State) -> CallbackLinks {
        let mut links = CallbackLinks::default();
        let Some(url) = self.url.as_deref() else { return links };
        let base = url.trim_end_matches('/');
        let order = |action: &str| Some(format!("{base}/{action}/"));
        match self.state {
            OrderState::PendingProvider => {
                links.approve_by_provider_url = order("approve_by_provider");
                links.reject_by_provider_url = order("reject_by_provider");
                links.set_state_done_url = order("set_state_done");
            }
            OrderState::Executing => {
                links.set_state_done_url = order("set_state_done");
                links.set_state_erred_url = order("set_state_erred");
            }
            OrderState::PendingConsumer | OrderState::Other => {}
        }
        if let Some((root, _)) = url.split_once("/marketplace-orders/") {
            let resource = |action: &str| Some(format!("{root}/marketplace-provider-resources/{resource}/{action}/"));
            links.set_backend_id_url = resource("set_backend_id");
            if self.state == OrderState::PendingProvider {
                links.update_resource_options_url = resource("update_options_direct");
            }
            if can_be_set_ok(effective) {
                links.set_state_ok_url = resource(SET_STATE_OK);
            }
        }
        links
    }

    /// The callbacks to relay for a resource.
    pub(crate) fn callbacks(&self, resource: Uuid, effective: State) -> Callbacks {
        let mut links = self.callback_links(resource, effective);
        let links = links.by_action().filter_map(|(action, link)| Some((action.to_owned(), link.take()?))).collect();
        Callbacks { resource, order: self.uuid, state: self.state_name.clone(), links }
    }
}

/// Reads what an Update order changes, and why its quotas cannot be trusted. Both are `None` for an order that changes no
/// quotas, such as a plan switch or a renewal (decision D26).
fn parse_update(attributes: &Value, order_limits: &Value) -> (Option<Update>, Option<String>) {
    let attributes = match attributes {
        Value::Null => return (None, None),
        Value::Object(attributes) => attributes,
        _ => return (None, Some("the order's attributes are not a map".to_owned())),
    };
    let mut update = Update::default();
    let mut unreadable = None;
    if let Some(old) = attributes.get("old_limits") {
        match (parse_limits("old_limits", old), parse_limits("limits", order_limits)) {
            (Ok(old), Ok(new)) => {
                if new.is_none() {
                    unreadable = Some("the order has old_limits, but its limits are empty".to_owned());
                }
                (update.old_limits, update.new_limits) = (old, new);
            }
            (Err(error), _) | (_, Err(error)) => return (None, Some(error)),
        }
    }
    if attributes.contains_key("old_options") || attributes.contains_key("new_options") {
        let read = |name| parse_options(name, attributes.get(name));
        match (read("old_options"), read("new_options")) {
            (Ok(old), Ok(new)) => {
                if new.is_none() {
                    unreadable = Some("the order has old_options, but its new_options are empty".to_owned());
                }
                (update.old_options, update.new_options) = (old, new);
            }
            (Err(error), _) | (_, Err(error)) => return (None, Some(error)),
        }
    }
    if let Some(name) = ["limits", "new_limits", "options"].into_iter().find(|name| attributes.contains_key(*name)) {
        unreadable = Some(format!("the order's attributes contain {name}, which is not supported"));
    }
    ((update != Update::default()).then_some(update), unreadable)
}

/// Reads the limits of an order; `name` is their key in messages.
fn parse_limits(name: &str, value: &Value) -> Result<Option<ResourceLimits>, String> {
    let record: Option<LimitsRecord> = non_empty_map(name, value)?;
    let names = || Ok(value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect());
    record.map(|record| ResourceLimits::read(&record, names)).transpose().map_err(|error| describe_error(name, &error))
}

/// Reads the options of an order; `name` is their key in messages.
fn parse_options(name: &str, value: Option<&Value>) -> Result<Option<Options>, String> {
    let record: Option<OptionsRecord> = non_empty_map(name, value.unwrap_or(&Value::Null))?;
    record.map(Options::try_from).transpose().map_err(|error| describe_error(name, &error))
}

/// Describes an invalid value under the order's key `name`.
fn describe_error(name: &str, Malformed { field, problem }: &Malformed) -> String {
    let key = field.split_once('.').map_or(*field, |(_, key)| key);
    format!("the order's {name}.{key} {problem}")
}

/// Reads a non-empty map; `None` for every value that Python treats as false.
fn non_empty_map<T: for<'de> Deserialize<'de>>(name: &str, value: &Value) -> Result<Option<T>, String> {
    match value {
        Value::Null | Value::Bool(false) => Ok(None),
        Value::Object(map) if map.is_empty() => Ok(None),
        Value::Array(list) if list.is_empty() => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::Number(number) if number.as_f64() == Some(0.0) => Ok(None),
        Value::Object(_) => T::deserialize(value).map(Some).map_err(|_| format!("the order's {name} cannot be read")),
        _ => Err(format!("the order's {name} are not a map")),
    }
}

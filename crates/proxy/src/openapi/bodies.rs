//! The bodies of answers around the catalogue's own types, for the description alone: answers are put together from
//! rendered slices elsewhere, and tests hold real ones against these.

#![expect(dead_code, reason = "these types are read by the derived schemas, never made")]

use std::collections::BTreeMap;

use catalog::{Item, OrderInProgress, QuotaProblem, ResourceLinks, Skipped, Status};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

/// One page of the storage resources.
#[derive(ToSchema)]
pub(super) struct Listing<'a> {
    /// Version of this proxy.
    version: String,
    /// Always `success`.
    status: ListingStatus,
    /// The items of this page: tenants and customers first, then projects and users in Waldur's order.
    resources: Vec<Item<'a>>,
    /// Where this page stands among all items that the filters select.
    pagination: Pagination,
    /// The filters in force.
    filters_applied: FiltersApplied,
    /// The resources, on all pages, that the filters select and that cannot be processed. One that cannot even be read
    /// is named whatever the filters. Empty when all is well.
    skipped: Vec<Skipped>,
    /// The orders in progress of the items on this page, by `itemId`. An item without one has no entry.
    orders: BTreeMap<Uuid, OrderInProgress<'a>>,
    /// The items on this page whose quotas cannot be trusted, by `itemId`, with the reason: a limit that is absent counts
    /// as 0 in `quotas`, and an override can contradict a new limit. Do not act on these quotas, and do not reject an order
    /// because of them; ask a person.
    #[schema(rename = "quotaProblems")]
    quota_problems: BTreeMap<Uuid, QuotaProblem>,
    /// The items on this page whose resource is in transition (Creating, Updating, Terminating, Erred) without an order in
    /// progress, by `itemId`: nobody will change that by himself.
    #[schema(rename = "resourceLinks")]
    resource_links: BTreeMap<Uuid, ResourceLinks<'a>>,
    /// True where GIDs may be invented, by a proxy in development mode; absent elsewhere.
    #[schema(nullable = false)]
    mock_identities: Option<bool>,
}

/// How a listing went.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum ListingStatus {
    Success,
}

/// Where a page stands among all items that the filters select.
#[derive(ToSchema)]
struct Pagination {
    /// Number of this page, from 1.
    #[schema(value_type = u64, minimum = 1)]
    current: u128,
    /// Most items on a page.
    #[schema(minimum = 1, maximum = 500)]
    limit: u16,
    /// Items before this page.
    #[schema(value_type = u64)]
    offset: u128,
    /// Number of pages; 0 when there is no item.
    pages: u64,
    /// Number of items on all pages.
    total: u64,
    /// Whether a page follows.
    has_next: bool,
}

/// The filters in force. A filter that is not given is absent.
#[derive(ToSchema)]
struct FiltersApplied {
    /// The storage system asked for.
    #[schema(nullable = false)]
    storage_system: Option<String>,
    /// The data type asked for, trimmed and in lower case.
    #[schema(nullable = false)]
    data_type: Option<String>,
    /// The status asked for.
    #[schema(nullable = false)]
    status: Option<Status>,
    /// The state asked for.
    #[schema(nullable = false)]
    state: Option<super::schemas::StateName>,
    /// The page asked for.
    #[schema(value_type = u64, minimum = 1)]
    page: u128,
    /// The page size asked for.
    #[schema(minimum = 1, maximum = 500)]
    page_size: u16,
    /// Slugs of the offerings in Waldur that were looked at, in the order of the settings.
    offering_slugs: Vec<String>,
}

/// The version of this proxy.
#[derive(ToSchema)]
pub(super) struct Version {
    /// Semantic version of this proxy.
    version: String,
}

/// The caller is not admitted.
#[derive(ToSchema)]
pub(super) struct NotAdmitted {
    /// Which rule the token broke, or which roles are missing.
    detail: String,
    /// `AuthenticationError`: the token is missing or bad. `AuthorizationError`: the token is good, roles are missing.
    error: AdmissionError,
    /// What to do about it.
    help: String,
}

/// Why a caller is not admitted.
#[derive(ToSchema)]
enum AdmissionError {
    AuthenticationError,
    AuthorizationError,
}

/// There is nothing at this address, or not for this method.
#[derive(ToSchema)]
pub(super) struct NothingHere {
    /// The reason phrase of the status.
    detail: String,
}

/// What became of a callback.
#[derive(ToSchema)]
pub(super) struct CallbackEnded {
    /// What Waldur says about it, where that is a short sentence; else what is known of it here.
    detail: String,
}

/// The request has faults.
#[derive(ToSchema)]
pub(super) struct BadRequest {
    /// Every fault, in the order in which parameters are judged.
    #[schema(min_items = 1)]
    detail: Vec<ValidationError>,
}

/// One fault of a request.
#[derive(ToSchema)]
struct ValidationError {
    /// Kind of fault.
    #[schema(rename = "type")]
    kind: ValidationErrorType,
    /// Where the fault is: `query` or `path`, then the name of the parameter.
    #[schema(min_items = 2, max_items = 2)]
    loc: Vec<String>,
    /// What is wrong, for people.
    msg: String,
    /// The value that was sent.
    input: String,
    /// The limit or the values that `msg` names, by name; only where there are such.
    #[schema(nullable = false)]
    ctx: Option<Map<String, Value>>,
}

/// Kind of a request's fault.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum ValidationErrorType {
    Enum,
    GreaterThanEqual,
    IntParsing,
    IntParsingSize,
    LessThanEqual,
    StringTooShort,
    UuidParsing,
}

/// The answer failed here.
#[derive(ToSchema)]
pub(super) struct Failed {
    /// What failed.
    detail: String,
    /// `ResourceProcessingError`: a resource of Waldur cannot be processed. `InternalServerError`: a fault of this proxy.
    error: FailureError,
    /// The same in general terms; absent for `InternalServerError`.
    #[schema(nullable = false)]
    message: Option<String>,
}

/// What failed here.
#[derive(ToSchema)]
enum FailureError {
    ResourceProcessingError,
    InternalServerError,
}

/// A service that this proxy depends on gives no usable answer.
#[derive(ToSchema)]
pub(super) struct UpstreamFailed {
    /// Which service, and what is wrong with its answer; never what it said.
    detail: String,
    /// Always `UpstreamServiceError`.
    error: UpstreamError,
    /// The same in general terms.
    message: String,
}

/// What failed elsewhere.
#[derive(ToSchema)]
enum UpstreamError {
    UpstreamServiceError,
}

/// There are too many requests at one time.
#[derive(ToSchema)]
pub(super) struct Overloaded {
    /// The same in words.
    detail: String,
    /// Always `ServiceOverloaded`.
    error: OverloadedError,
}

/// What is too much.
#[derive(ToSchema)]
enum OverloadedError {
    ServiceOverloaded,
}

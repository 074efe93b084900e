//! The bodies of responses around the catalogue's types, only for the description: responses are assembled from rendered
//! slices, and tests compare real ones with these types.

#![expect(dead_code, reason = "these types are only used for their schemas")]

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
    /// Position of this page among all selected items.
    pagination: Pagination,
    /// The filters in force.
    filters_applied: FiltersApplied,
    /// The selected resources, of all pages, that cannot be processed. Those that cannot be parsed are listed whatever the
    /// filters. Usually empty.
    skipped: Vec<Skipped>,
    /// The orders in progress of the items on this page, by `itemId`. An item without one has no entry.
    orders: BTreeMap<Uuid, OrderInProgress<'a>>,
    /// The items on this page whose quotas cannot be trusted, by `itemId`, with the reason: a missing limit is shown as 0 in
    /// `quotas`, and an override can contradict a new limit. Do not act on these quotas, and do not reject an order because
    /// of them: a person must decide.
    #[schema(rename = "quotaProblems")]
    quota_problems: BTreeMap<Uuid, QuotaProblem>,
    /// The items on this page whose resource is in transition (Creating, Updating, Terminating, Erred) without an order in
    /// progress, by `itemId`: this state does not end by itself.
    #[schema(rename = "resourceLinks")]
    resource_links: BTreeMap<Uuid, ResourceLinks<'a>>,
    /// True if GIDs may be invented, by a proxy in development mode; otherwise absent.
    #[schema(nullable = false)]
    mock_identities: Option<bool>,
}

/// Status of a listing.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum ListingStatus {
    Success,
}

/// Position of a page among all selected items.
#[derive(ToSchema)]
struct Pagination {
    /// Page number, from 1.
    #[schema(value_type = u64, minimum = 1)]
    current: u128,
    /// Maximum number of items on a page.
    #[schema(minimum = 1, maximum = 500)]
    limit: u16,
    /// Number of items before this page.
    #[schema(value_type = u64)]
    offset: u128,
    /// Number of pages; 0 if there are no items.
    pages: u64,
    /// Number of items on all pages.
    total: u64,
    /// Whether there is a next page.
    has_next: bool,
}

/// The filters in force. Filters that were not given are absent.
#[derive(ToSchema)]
struct FiltersApplied {
    /// The requested storage system.
    #[schema(nullable = false)]
    storage_system: Option<String>,
    /// The requested data type, trimmed and in lower case.
    #[schema(nullable = false)]
    data_type: Option<String>,
    /// The requested status.
    #[schema(nullable = false)]
    status: Option<Status>,
    /// The requested state.
    #[schema(nullable = false)]
    state: Option<super::schemas::StateName>,
    /// The requested page.
    #[schema(value_type = u64, minimum = 1)]
    page: u128,
    /// The requested page size.
    #[schema(minimum = 1, maximum = 500)]
    page_size: u16,
    /// Slugs of the selected offerings in Waldur, in the order of the settings.
    offering_slugs: Vec<String>,
}

/// The version of this proxy.
#[derive(ToSchema)]
pub(super) struct Version {
    /// Semantic version of this proxy.
    version: String,
}

/// The caller is not authorized.
#[derive(ToSchema)]
pub(super) struct NotAdmitted {
    /// Why the token is invalid, or which roles are missing.
    detail: String,
    /// `AuthenticationError`: the token is missing or invalid. `AuthorizationError`: the token is valid, roles are missing.
    error: AdmissionError,
    /// What to do about it.
    help: String,
}

/// Why a caller is not authorized.
#[derive(ToSchema)]
enum AdmissionError {
    AuthenticationError,
    AuthorizationError,
}

/// The path does not exist, or does not support this method.
#[derive(ToSchema)]
pub(super) struct NothingHere {
    /// The reason phrase of the status.
    detail: String,
}

/// The result of a callback.
#[derive(ToSchema)]
pub(super) struct CallbackEnded {
    /// Waldur's message, if it is short; otherwise what the proxy knows about the result.
    detail: String,
}

/// The report is not kept.
#[derive(ToSchema)]
pub(super) struct ReportRejected {
    /// The reason, and what to do.
    detail: String,
}

/// The request is invalid.
#[derive(ToSchema)]
pub(super) struct BadRequest {
    /// All errors, in the order in which parameters are validated.
    #[schema(min_items = 1)]
    detail: Vec<ValidationError>,
}

/// An invalid parameter.
#[derive(ToSchema)]
struct ValidationError {
    /// Type of error.
    #[schema(rename = "type")]
    kind: ValidationErrorType,
    /// Location: `query` or `path`, then the name of the parameter.
    #[schema(min_items = 2, max_items = 2)]
    loc: Vec<String>,
    /// The error message, for people.
    msg: String,
    /// The value that was sent.
    input: String,
    /// The limit or the valid values in `msg`, by name; absent if there are none.
    #[schema(nullable = false)]
    ctx: Option<Map<String, Value>>,
}

/// Type of an error in a parameter.
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

/// Processing failed in this proxy.
#[derive(ToSchema)]
pub(super) struct Failed {
    /// What failed.
    detail: String,
    /// `ResourceProcessingError`: a resource of Waldur cannot be processed. `InternalServerError`: an internal error.
    error: FailureError,
    /// A general message; absent for `InternalServerError`.
    #[schema(nullable = false)]
    message: Option<String>,
}

/// The error in this proxy.
#[derive(ToSchema)]
enum FailureError {
    ResourceProcessingError,
    InternalServerError,
}

/// An upstream service returned no usable response.
#[derive(ToSchema)]
pub(super) struct UpstreamFailed {
    /// The service, and the problem with its response; never the response itself.
    detail: String,
    /// Always `UpstreamServiceError`.
    error: UpstreamError,
    /// A general message.
    message: String,
}

/// The error of an upstream service.
#[derive(ToSchema)]
enum UpstreamError {
    UpstreamServiceError,
}

/// Too many concurrent requests.
#[derive(ToSchema)]
pub(super) struct Overloaded {
    /// The error message.
    detail: String,
    /// Always `ServiceOverloaded`.
    error: OverloadedError,
}

/// The error of an overloaded proxy.
#[derive(ToSchema)]
enum OverloadedError {
    ServiceOverloaded,
}

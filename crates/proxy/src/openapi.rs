//! The OpenAPI 3.1 description of the HTTP API.
//!
//! Items are described by the documentation of the catalogue's types, everything around them by [`bodies`]. The document is
//! committed as `docs/openapi.json`; `/openapi.json`, the pages `/docs` and `/redoc`, and the command line provide the same
//! text.
//!
//! Health and metrics are omitted on purpose: they are for operators, may have another address than the API, and are
//! described in `docs/metrics.md`.

mod bodies;
mod callbacks;
mod schemas;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::LazyLock;

use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, Content, HeaderBuilder, InfoBuilder, KnownFormat, LicenseBuilder, ObjectBuilder,
    OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
    SchemaFormat, Type,
};

/// The document as pretty-printed JSON, with a final line break.
pub fn json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        let json = document().to_pretty_json().expect("all keys of the document are text and all numbers finite");
        json + "\n"
    });
    &JSON
}

pub fn document() -> OpenApi {
    let license = env!("CARGO_PKG_LICENSE");
    let license = LicenseBuilder::new().name(license).identifier(Some(license)).build();
    let info = InfoBuilder::new()
        .title("HPC storage proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION))
        .license(Some(license));
    let paths = PathsBuilder::new()
        .path("/api/storage-resources/", PathItem::new(HttpMethod::Get, listing()))
        .path("/api/storage-resources/{itemId}/", PathItem::new(HttpMethod::Get, item()))
        .path("/api/callbacks/orders/{order}/{action}/", PathItem::new(HttpMethod::Post, callbacks::of_order()))
        .path(
            "/api/callbacks/resources/{resource}/{action}/",
            PathItem::new(HttpMethod::Post, callbacks::of_resource()),
        )
        .path("/api/version", PathItem::new(HttpMethod::Get, version()));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components())).build()
}

const INTRODUCTION: &str = "\
Publishes the storage resources of a Waldur marketplace, with their Unix identities, as the document that storage \
provisioners follow.

Every path works with and without a trailing slash. HEAD is supported like GET, without the body. Other methods return \
405, other paths 404, both with `detail` as the only key.

New keys may be added at the top level of a response and in `pagination`, but nowhere else.";

const BEARER: &str = "bearer";

fn listing() -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some("list_storage_resources"))
        .tag("Resources")
        .summary(Some("All storage resources"))
        .description(Some(
            "The items that the filters select, page by page. The order is stable as long as Waldur's is. A filter selects \
             projects and users; the tenants and customers above them are included, unless `status` excludes them. A \
             filter never changes the content of an item. A page past the end is empty.",
        ))
        .parameters(Some(query()))
        .response("200", answer::<bodies::Listing<'_>>("One page of the storage resources."));
    guarded(operation).build()
}

fn item() -> Operation {
    let id = ParameterBuilder::new()
        .name("itemId")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(
            "UUID of the item, with or without dashes. The items of a tenant or customer share one UUID; the first one is \
             returned.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))));
    let operation = OperationBuilder::new()
        .operation_id(Some("get_storage_resource"))
        .tag("Resources")
        .summary(Some("One storage resource"))
        .description(Some("The item with this `itemId`, exactly as in the listing."))
        .parameter(id)
        .response("200", answer::<catalog::Item<'_>>("The item."))
        .response("404", Ref::from_response_name("NotFound"));
    guarded(operation).build()
}

fn version() -> Operation {
    OperationBuilder::new()
        .operation_id(Some("get_version"))
        .tag("Proxy")
        .summary(Some("Version"))
        .description(Some("The version of this proxy. No token is needed."))
        .response("200", answer::<bodies::Version>("The version."))
        .build()
}

/// Adds the token and the errors of reading the catalogue.
fn guarded(operation: OperationBuilder) -> OperationBuilder {
    let errors = [
        ("401", "Unauthorized"),
        ("403", "Forbidden"),
        ("422", "UnprocessableContent"),
        ("500", "InternalServerError"),
        ("502", "BadGateway"),
        ("503", "ServiceUnavailable"),
        ("504", "GatewayTimeout"),
    ];
    errors
        .into_iter()
        .fold(operation, |operation, (status, name)| operation.response(status, Ref::from_response_name(name)))
        .security(SecurityRequirement::new(BEARER, [] as [&str; 0]))
}

/// The parameters of a listing.
fn query() -> [Parameter; 6] {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let number =
        |default: u16| ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).default(Some(default.into()));
    let parameter = |name: &str, description: &str, schema: RefOr<Schema>| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(schema))
            .build()
    };
    [
        parameter(
            "storage_system",
            "Only this storage system: one of the names in the proxy's settings, for example `capstor`. For any other name \
             the response is 422 and lists the names.",
            text().min_length(Some(1)).into(),
        ),
        parameter(
            "data_type",
            "Only this data type, for example `scratch`. Surrounding white space and case are ignored; a blank value is no \
             filter.",
            text().into(),
        ),
        parameter("status", "Only items with this status.", Ref::from_schema_name("Status").into()),
        parameter(
            "state",
            "Only resources with this state in Waldur, with their tenants and customers.",
            Ref::from_schema_name("StateName").into(),
        ),
        parameter("page", "Page number, from 1.", number(1).into()),
        parameter("page_size", "Maximum number of items on a page.", number(100).maximum(Some(500)).into()),
    ]
}

fn components() -> Components {
    let challenge = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some("`Bearer` with `realm`, and the error if a token was sent (RFC 6750)."))
        .build();
    let refused = |description: &str| {
        ResponseBuilder::from(answer::<bodies::NotAdmitted>(description))
            .header("WWW-Authenticate", challenge.clone())
            .build()
    };
    let responses = [
        ("Unauthorized", refused("The access token is missing or invalid.")),
        ("Forbidden", refused("The access token is valid, but the caller lacks a required role.")),
        ("NotFound", answer::<bodies::NothingHere>("The item or path does not exist.")),
        (
            "MethodNotAllowed",
            answer::<bodies::NothingHere>("The path does not support this method; `Allow` lists the supported ones."),
        ),
        ("UnprocessableContent", answer::<bodies::BadRequest>("A parameter is invalid.")),
        (
            "InternalServerError",
            answer::<bodies::Failed>(
                "A resource cannot be processed (for a listing, only if the proxy is configured to fail in this case), or an \
                 internal error.",
            ),
        ),
        (
            "BadGateway",
            answer::<bodies::UpstreamFailed>(
                "Waldur, the HPC User API or the realm that issues tokens returned no usable response. A listing is never \
                 partial.",
            ),
        ),
    ];
    let wait = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::Integer)))
        .description(Some("Seconds to wait before a retry."))
        .build();
    let overloaded =
        ResponseBuilder::from(answer::<bodies::Overloaded>("The limit of concurrent requests is reached."))
            .header("Retry-After", wait)
            .build();
    let slow = "Waldur, the HPC User API or the realm did not respond within the timeout of a request.";
    let responses = responses
        .into_iter()
        .chain([("ServiceUnavailable", overloaded), ("GatewayTimeout", answer::<bodies::UpstreamFailed>(slow))]);
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "An access token of the Keycloak realm in the proxy's settings, with the claim `preferred_username`.",
        ))
        .build();
    ComponentsBuilder::new()
        .schemas_from_iter(schemas::all())
        .responses_from_iter(responses)
        .security_scheme(BEARER, SecurityScheme::Http(token))
        .build()
}

/// A response with a JSON body of type `T`.
fn answer<T: utoipa::ToSchema>(description: &str) -> Response {
    let schema = Ref::from_schema_name(T::name());
    ResponseBuilder::new().description(description).content("application/json", Content::new(Some(schema))).build()
}

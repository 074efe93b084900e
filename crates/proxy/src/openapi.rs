//! The OpenAPI 3.1 description of the HTTP API.
//!
//! Items are described by the documentation of the catalogue's types, everything around them by [`bodies`]. The document is
//! committed as `docs/openapi.json`, and the command line prints the same text. `/openapi.json`, and with it the pages `/docs` and
//! `/redoc`, also list the proxy's storage systems.
//!
//! Health and metrics are omitted on purpose: they are for operators, may have another address than the API, and are
//! described in `docs/metrics.md`.

mod bodies;
mod callbacks;
mod document_schema;
mod headers;
mod provisioners;
mod schemas;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use catalog::{State, Status};
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, Content, InfoBuilder, KnownFormat, LicenseBuilder, ObjectBuilder, OpenApi,
    OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema, SchemaFormat,
    Type,
};

pub use document_schema::{json_schema, report_schema};

/// The document as pretty-printed JSON, with a final line break. `systems` are the names of the storage systems; without any, the
/// document is for all proxies.
#[expect(clippy::missing_panics_doc, reason = "the document is always JSON")]
pub fn json(systems: &[&str]) -> String {
    let document = document(schemas::published(), systems);
    document.to_pretty_json().expect("all keys of the document are text and all numbers finite") + "\n"
}

fn document(schemas: BTreeMap<String, RefOr<Schema>>, systems: &[&str]) -> OpenApi {
    let license = env!("CARGO_PKG_LICENSE");
    let license = LicenseBuilder::new().name(license).identifier(Some(license)).build();
    let info = InfoBuilder::new()
        .title("HPC storage proxy")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION))
        .license(Some(license));
    let paths = PathsBuilder::new()
        .path("/api/storage-resources/", PathItem::new(HttpMethod::Get, listing(systems)))
        .path("/api/storage-resources/{itemId}/", PathItem::new(HttpMethod::Get, item()))
        .path("/api/callbacks/orders/{order}/{action}/", PathItem::new(HttpMethod::Post, callbacks::of_order()))
        .path(
            "/api/callbacks/resources/{resource}/{action}/",
            PathItem::new(HttpMethod::Post, callbacks::of_resource()),
        )
        .path("/api/provisioners/{name}/status/", PathItem::new(HttpMethod::Put, provisioners::report()))
        .path("/api/version", PathItem::new(HttpMethod::Get, version()));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components(schemas))).build()
}

const INTRODUCTION: &str = "\
Publishes the storage resources of a Waldur marketplace, with their Unix identities, as the document that storage \
provisioners follow.

Every path works with and without a trailing slash. HEAD is supported like GET, without the body. Other methods return \
405, other paths 404, both with `detail` as the only key.

New keys may be added at the top level of a response and in `pagination`, but nowhere else. Values such as a status or the \
name of an error may be added everywhere, but no kinds of targets: do not act on an item with a value that you do not know.";

const BEARER: &str = "bearer";

fn listing(systems: &[&str]) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some("list_storage_resources"))
        .tag("Resources")
        .summary(Some("All storage resources"))
        .description(Some(
            "The items that the filters select, page by page. The order is stable as long as Waldur's is. A filter selects \
             projects and users; the tenants and customers above them are included, unless `status` excludes them. A \
             filter never changes the content of an item. A page past the end is empty. With `If-None-Match` and `Prefer: \
             wait=N`, the response comes when the selection changes.",
        ))
        .parameters(Some(query(systems)))
        .parameters(Some(headers::conditions()))
        .parameter(headers::prefer());
    let names = [&headers::CACHING[..], &[headers::PREFERENCE_APPLIED]].concat();
    let page = answer::<bodies::Listing<'_>>("One page of the storage resources.");
    read(operation, page, &names).build()
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
        .parameters(Some(headers::conditions()));
    read(operation, answer::<catalog::Item<'_>>("The item."), &headers::CACHING)
        .response("404", Ref::from_response_name("NotFound"))
        .build()
}

fn version() -> Operation {
    OperationBuilder::new()
        .operation_id(Some("get_version"))
        .tag("Proxy")
        .summary(Some("Version"))
        .description(Some("The version of this proxy. No token is needed."))
        .response("200", answer::<bodies::Version>("The version."))
        .response("503", Ref::from_response_name("ServiceUnavailable"))
        .build()
}

/// Adds the token, a response with these headers, and the other ones of reading the catalogue.
fn read(operation: OperationBuilder, response: Response, names: &[&str]) -> OperationBuilder {
    let unchanged = ResponseBuilder::new()
        .description("Nothing has changed: a tag in `If-None-Match` is current. There is no body.")
        .build();
    let operation =
        operation.response("200", headers::add(response, names)).response("304", headers::add(unchanged, names));
    let others = [
        ("401", "Unauthorized"),
        ("403", "Forbidden"),
        ("422", "UnprocessableContent"),
        ("500", "InternalServerError"),
        ("502", "BadGateway"),
        ("503", "ServiceUnavailable"),
        ("504", "GatewayTimeout"),
    ];
    others
        .into_iter()
        .fold(operation, |operation, (status, name)| operation.response(status, Ref::from_response_name(name)))
        .security(SecurityRequirement::new(BEARER, [] as [&str; 0]))
}

/// The parameters in the query of a listing.
fn query(systems: &[&str]) -> [Parameter; 6] {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let number =
        |default: u16| ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).default(Some(default.into()));
    let one_of =
        |values: &[&str]| ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values.iter().copied()));
    let storage_system = if systems.is_empty() { text().min_length(Some(1)) } else { one_of(systems) };
    let parameter = |name: &str, description: &str, schema: ObjectBuilder| {
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
            storage_system,
        ),
        parameter(
            "data_type",
            "Only this data type, for example `scratch`. Surrounding white space and case are ignored; a blank value is no \
             filter.",
            text(),
        ),
        parameter("status", "Only items with this status.", one_of(&Status::ALL.map(Status::as_str))),
        parameter(
            "state",
            "Only resources with this state in Waldur, with their tenants and customers.",
            one_of(&State::KNOWN.map(State::as_str)),
        ),
        parameter("page", "Page number, from 1.", number(1)),
        parameter("page_size", "Maximum number of items on a page.", number(100).maximum(Some(500))),
    ]
}

fn components(schemas: BTreeMap<String, RefOr<Schema>>) -> Components {
    let refused =
        |description: &str| headers::add(answer::<bodies::NotAdmitted>(description), &[headers::WWW_AUTHENTICATE]);
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
    let overloaded = headers::add(
        answer::<bodies::Overloaded>("The limit of concurrent requests, or of those that wait, is reached."),
        &[headers::RETRY_AFTER],
    );
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
    let mut components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .responses_from_iter(responses)
        .security_scheme(BEARER, SecurityScheme::Http(token))
        .build();
    components.headers = BTreeMap::from(headers::all());
    components
}

/// A response with a JSON body of type `T`.
fn answer<T: utoipa::ToSchema>(description: &str) -> Response {
    let schema = Ref::from_schema_name(T::name());
    let content = Content::new(Some(schema));
    headers::add(ResponseBuilder::new().description(description).content("application/json", content).build(), &[])
}

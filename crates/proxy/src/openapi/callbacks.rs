//! The description of relayed callbacks.

use catalog::{ORDER_ACTIONS, RESOURCE_ACTIONS};
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, KnownFormat, ObjectBuilder, Ref, RefOr, Required, Schema, SchemaFormat, Type};

use super::{BEARER, answer, bodies};

/// Acting on an order.
pub(super) fn of_order() -> Operation {
    let order = id("order", "UUID of an order in progress, with or without dashes.");
    operation("relay_order_callback", "Act on an order", [order, action(&ORDER_ACTIONS)])
}

/// Acting on a resource.
pub(super) fn of_resource() -> Operation {
    let resource = id("resource", "UUID of a resource with an order in progress, with or without dashes.");
    operation("relay_resource_callback", "Act on the resource of an order", [resource, action(&RESOURCE_ACTIONS)])
}

fn operation(name: &str, summary: &str, parameters: [Parameter; 2]) -> Operation {
    let object = ObjectBuilder::new().schema_type(Type::Object).description(Some("What Waldur takes for this action."));
    let body = RequestBodyBuilder::new()
        .description(Some(
            "What Waldur takes for this action, passed on as it is: a JSON object of at most 64 KiB, or nothing.",
        ))
        .content("application/json", Content::new(Some(RefOr::T(Schema::from(object.build())))))
        .build();
    let answers = [
        ("200", "Waldur has done it."),
        ("400", "The body is no JSON object, or Waldur refuses it."),
        ("404", "No order in progress has this UUID, or there is no such action, or Waldur does not find it."),
        ("405", "Waldur has no such action for this type of offering, or the method is not POST."),
        ("408", "The body did not arrive in time; nothing was done."),
        ("409", "The order is in a state that does not allow the action."),
        ("413", "The body is larger than 64 KiB."),
        (
            "502",
            "Waldur gives no usable answer, or the order's link leads elsewhere, or the realm that issues tokens gives no \
             usable answer.",
        ),
        (
            "504",
            "There is no answer in time. Where `detail` says that the effect is unknown, Waldur may have done it: read the \
             listing again before the next attempt.",
        ),
    ];
    let refusals =
        [("401", "Unauthorized"), ("403", "Forbidden"), ("500", "InternalServerError"), ("503", "ServiceUnavailable")];
    let operation = OperationBuilder::new()
        .operation_id(Some(name))
        .tag("Callbacks")
        .summary(Some(summary))
        .description(Some(
            "Only where the proxy is set up to relay callbacks (`callbacks.relay`); the links of items lead here then. The \
             proxy calls Waldur with its own token, once, and passes on what Waldur answers. The next listing is read \
             afresh.",
        ))
        .parameters(Some(parameters))
        .request_body(Some(body));
    let operation = answers.into_iter().fold(operation, |operation, (status, description)| {
        operation.response(status, answer::<bodies::CallbackEnded>(description))
    });
    refusals
        .into_iter()
        .fold(operation, |operation, (status, name)| operation.response(status, Ref::from_response_name(name)))
        .security(SecurityRequirement::new(BEARER, [] as [&str; 0]))
        .build()
}

fn id(name: &str, description: &str) -> Parameter {
    let uuid = Some(SchemaFormat::KnownFormat(KnownFormat::Uuid));
    parameter(name, description, ObjectBuilder::new().schema_type(Type::String).format(uuid))
}

fn action(actions: &[&'static str]) -> Parameter {
    let names = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(actions.iter().copied()));
    parameter("action", "What is to be done; the order's state decides what may be.", names)
}

fn parameter(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

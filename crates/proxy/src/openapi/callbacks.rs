//! The description of relayed callbacks.

use catalog::{ORDER_ACTIONS, RESOURCE_ACTIONS};
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, KnownFormat, ObjectBuilder, Ref, RefOr, Required, Schema, SchemaFormat, Type};

use super::{BEARER, answer, bodies};

/// The callback for an order.
pub(super) fn of_order() -> Operation {
    let order = id("order", "UUID of an order in progress, with or without dashes.");
    let body = [
        (
            "attributes",
            Type::Object,
            "For `approve_by_provider`: with `new_options`, the options that the order requests.",
        ),
        ("provider_rejection_comment", Type::String, "For `reject_by_provider`: the reason, for the customer."),
        ("error_message", Type::String, "For `set_state_erred`, required: what failed."),
        ("error_traceback", Type::String, "For `set_state_erred`, required: details."),
    ];
    operation("relay_order_callback", "Act on an order", [order, action(&ORDER_ACTIONS)], &body)
}

/// The callback for a resource.
pub(super) fn of_resource() -> Operation {
    let resource = id("resource", "UUID of a resource with an order in progress, with or without dashes.");
    let body = [
        (
            "backend_id",
            Type::String,
            "For `set_backend_id`, required: the path of the directory, at most 255 characters.",
        ),
        ("options", Type::Object, "For `update_options_direct`, required: the new options."),
    ];
    operation(
        "relay_resource_callback",
        "Act on the resource of an order",
        [resource, action(&RESOURCE_ACTIONS)],
        &body,
    )
}

/// `body` holds name, type and description of each parameter in Waldur.
fn operation(name: &str, summary: &str, parameters: [Parameter; 2], body: &[(&str, Type, &str)]) -> Operation {
    let object =
        ObjectBuilder::new().schema_type(Type::Object).description(Some("The parameters of this action in Waldur."));
    let object = body.iter().fold(object, |object, (name, schema_type, description)| {
        object.property(*name, ObjectBuilder::new().schema_type(schema_type.clone()).description(Some(*description)))
    });
    let body = RequestBodyBuilder::new()
        .description(Some(
            "The parameters of this action in Waldur, passed on unchanged: a JSON object of at most 64 KiB, or nothing.",
        ))
        .content("application/json", Content::new(Some(RefOr::T(Schema::from(object.build())))))
        .build();
    let answers = [
        ("200", "Waldur accepted the callback."),
        ("400", "The body is not a JSON object, or Waldur rejected it."),
        ("404", "No order in progress has this UUID, the action does not exist, or Waldur does not find the order."),
        ("405", "Waldur does not support the action for this type of offering, or the method is not POST."),
        ("408", "The body did not arrive in time; nothing was sent to Waldur."),
        ("409", "The state of the order does not allow the action."),
        ("413", "The body is larger than 64 KiB."),
        (
            "502",
            "Waldur returned no usable response, the order's link leads to another host, or the realm that issues tokens \
             returned no usable response.",
        ),
        (
            "504",
            "No response in time. If `detail` says that it is unknown whether the callback took effect, read the listing \
             again before a retry.",
        ),
    ];
    let refusals =
        [("401", "Unauthorized"), ("403", "Forbidden"), ("500", "InternalServerError"), ("503", "ServiceUnavailable")];
    let operation = OperationBuilder::new()
        .operation_id(Some(name))
        .tag("Callbacks")
        .summary(Some(summary))
        .description(Some(
            "Only if the proxy is configured to relay callbacks (`callbacks.relay`); then the links of items lead here. The \
             proxy calls Waldur once, with its own token, and passes on Waldur's response. The next listing triggers a \
             refresh.",
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
    parameter("action", "The action; the state of the order determines which are allowed.", names)
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

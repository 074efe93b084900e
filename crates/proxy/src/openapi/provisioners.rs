//! The description of the reports of provisioners.

use provisioner_report::Report;
use utoipa::ToSchema;
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, ObjectBuilder, Ref, Required, ResponseBuilder, Type};

use super::{BEARER, answer, bodies, headers};

/// The report of a provisioner.
pub(super) fn report() -> Operation {
    let name = ParameterBuilder::new()
        .name("name")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Name of the provisioner, its own and always the same."))
        .schema(Some(
            ObjectBuilder::new().schema_type(Type::String).max_length(Some(63)).pattern(Some("^[a-z0-9][a-z0-9._-]*$")),
        ));
    let body = RequestBodyBuilder::new()
        .description(Some("The report, at most 32 MiB."))
        .required(Some(Required::True))
        .content("application/json", Content::new(Some(Ref::from_schema_name(Report::name()))))
        .build();
    let kept = ResponseBuilder::new().description("The report is kept. There is no body.").build();
    let rejections = [
        ("400", "The body is not JSON."),
        ("408", "The body did not arrive in time."),
        ("409", "A report of this provisioner with a later `reportedAt` is known; it stays."),
        ("413", "The report is larger than 32 MiB, or those of all provisioners together are too large."),
        ("422", "The report or the name is not valid, or `reportedAt` is in the future."),
        ("429", "There are too many provisioners, and each has sent a report within the last day."),
    ];
    let refusals = [
        ("401", "Unauthorized"),
        ("403", "Forbidden"),
        ("500", "InternalServerError"),
        ("502", "BadGateway"),
        ("503", "ServiceUnavailable"),
        ("504", "GatewayTimeout"),
    ];
    let operation = OperationBuilder::new()
        .operation_id(Some("put_provisioner_status"))
        .tag("Provisioners")
        .summary(Some("Report of a provisioner"))
        .description(Some(
            "Replaces the report of this provisioner, which operators see. The proxy never acts on it. It is optional, and \
             a provisioner sends it after each pass. The caller needs the roles of `provisioners.required_roles` too.",
        ))
        .parameter(name)
        .request_body(Some(body))
        .response("204", headers::add(kept, &[]));
    let operation = rejections.into_iter().fold(operation, |operation, (status, description)| {
        operation.response(status, answer::<bodies::ReportRejected>(description))
    });
    refusals
        .into_iter()
        .fold(operation, |operation, (status, name)| operation.response(status, Ref::from_response_name(name)))
        .security(SecurityRequirement::new(BEARER, [] as [&str; 0]))
        .build()
}

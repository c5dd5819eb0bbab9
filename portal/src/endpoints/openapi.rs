//! The description of the API, as OpenAPI 3.1: a function of the table of endpoints and of the types that they answer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemas::error_class::Classified as _;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    Components, ComponentsBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required};

use super::operation::{Answered, Named, Operation, schemas_of};
use super::parameters::{names_in, parameter};
use super::{Access, ENDPOINTS, Endpoint, Tenants};
use crate::admission::RETRY_AFTER_S;
use crate::auth::Role;
use crate::error::{Failure, Problem};

/// The scheme of a session's cookie.
const SESSION: &str = "session";
/// The scheme of API tokens.
const TOKEN: &str = "token";
const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

const ABOUT: &str = "What the portal shows, for programs.\n\n\
    * Amounts are integers in minor units beside their currency; decimals are text; times are UTC milliseconds, in names that \
    end in `_ms`.\n\
    * Errors are `application/problem+json` (RFC 9457). Programs compare `code`, which never changes; what a code means is in \
    the table on the page `/api`. A fault on our side has a `fault` id, under which it was logged.\n\
    * Send an API token as `Authorization: Bearer ezs_…`. It is made on the page `/account/tokens` and \
    reads what its user can read. Every address only reads.\n\
    * A parameter that an address does not know, or that cannot be read, is refused and never ignored.\n\
    * Fields and codes may be added; none is taken away or changes its meaning within a version.";

/// The document, made once.
pub(crate) static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(document);

fn document() -> OpenApi {
    let mut schemas = BTreeMap::new();
    collect(&mut schemas, schemas_of::<Problem>());
    let mut paths = PathsBuilder::new();
    for (endpoint, operation) in documented() {
        collect(&mut schemas, (operation.schemas)());
        for name in names_in(endpoint.path) {
            collect(&mut schemas, parameter(name).and_then(|parameter| parameter.schema()));
        }
        paths = paths.path(endpoint.path, path_item(endpoint, operation));
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("EZSCALE")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .license(Some(
                    LicenseBuilder::new()
                        .name("Apache-2.0")
                        .identifier(Some("Apache-2.0"))
                        .build(),
                ))
                .build(),
        )
        .paths(paths)
        .components(Some(components(schemas)))
        .tags(Some(super::Area::ALL.map(|area| {
            TagBuilder::new()
                .name(area.name())
                .description(Some(area.description()))
                .build()
        })))
        .build()
}

/// Every endpoint of the API.
fn documented() -> impl Iterator<Item = (&'static Endpoint, &'static Operation)> {
    ENDPOINTS
        .iter()
        .filter_map(|endpoint| Some((endpoint, endpoint.operation.as_ref()?)))
}

/// Types by their names. Two types of one name would hide each other: the tests compare them.
fn collect(schemas: &mut BTreeMap<String, RefOr<Schema>>, found: impl IntoIterator<Item = Named>) {
    for (name, schema) in found {
        let known = schemas.entry(name.clone()).or_insert_with(|| schema.clone());
        debug_assert!(
            *known == schema,
            "two types of the API are called {name}: give one #[schema(as = …)]"
        );
    }
}

fn components(schemas: BTreeMap<String, RefOr<Schema>>) -> Components {
    let cookie = ApiKeyValue::with_description(
        "__Host-ezscale_session",
        "The cookie of who signed in; ezscale_session where the portal is not reached by HTTPS.",
    );
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("ezs_…")
        .description(Some(
            "An API token, from the page /account/tokens or `ezscale user token add`. It reads what its user can read; on the \
             command line it shows which admin decides on an approval.",
        ))
        .build();
    ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(SESSION, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
        .security_scheme(TOKEN, SecurityScheme::Http(token))
        .build()
}

/// `get_invoices_invoice_lines_line_explain`: stable, for generators of clients.
pub(super) fn operation_id(endpoint: &Endpoint) -> String {
    let path = endpoint.path.trim_start_matches("/api/v1/");
    let words = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let mut id = endpoint.method.to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}

/// Who may and whose things, in a sentence.
fn required_access(access: Access) -> String {
    let Some(roles) = access.roles() else {
        return "For anybody.".to_owned();
    };
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let whose = match access.tenants() {
        Tenants::Own => ", each their own: what belongs to another customer is not found",
        Tenants::All => ", for the things of every customer",
        Tenants::Nobodys => "",
    };
    format!("For the roles {}{whose}.", names.join(", "))
}

fn path_item(endpoint: &Endpoint, operation: &Operation) -> PathItem {
    let method = match endpoint.method {
        "GET" => HttpMethod::Get,
        _ => HttpMethod::Post,
    };
    let roles = endpoint.access.roles().unwrap_or_default();
    let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let mut described = OperationBuilder::new()
        .operation_id(Some(operation_id(endpoint)))
        .tag(operation.area.name())
        .summary(Some(operation.summary))
        .description(Some(required_access(endpoint.access)))
        .extensions(Some(ExtensionsBuilder::new().add("x-roles", roles).build()))
        .response("200", answered(operation.answer));
    for name in names_in(endpoint.path) {
        described = described.parameter(path_parameter(name));
    }
    for parameter in (operation.query)() {
        described = described.parameter(parameter);
    }
    for (status, codes) in refusals(endpoint) {
        described = described.response(status.to_string(), refused(&codes));
    }
    if endpoint.access.roles().is_some() {
        described = described
            .security(SecurityRequirement::new(TOKEN, [""; 0]))
            .security(SecurityRequirement::new(SESSION, [""; 0]));
    } else {
        described = described.security(SecurityRequirement::default());
    }
    PathItem::new(method, described)
}

fn path_parameter(name: &'static str) -> Parameter {
    let described = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True);
    match parameter(name) {
        Some(known) => described
            .description(Some(match known.is_a_customers {
                true => format!("{}, of one customer.", known.description),
                false => format!("{}.", known.description),
            }))
            .schema(Some(known.reference()))
            .build(),
        // The tests say which one is missing in `parameters.rs`.
        None => described.build(),
    }
}

fn answered(answer: Answered) -> Response {
    let (content_type, schema): (&str, RefOr<Schema>) = match answer {
        Answered::Json(name) => (JSON, Ref::from_schema_name(name()).into()),
        Answered::File(content_type) => (content_type, file().into()),
    };
    ResponseBuilder::new()
        .description("As asked.")
        .content(content_type, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

/// Bytes, as makers of clients know them.
fn file() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
}

/// Codes with which an endpoint can refuse, by status: they follow from its row.
pub(super) fn refusals(endpoint: &Endpoint) -> BTreeMap<u16, Vec<&'static str>> {
    let mut refusals = vec![
        // A query that is not understood, or that an address does not take.
        Failure::BadRequest(String::new()),
        Failure::Busy {
            retry_after_s: RETRY_AFTER_S,
        },
        Failure::internal("")("".into()),
    ];
    if let Some(roles) = endpoint.access.roles() {
        refusals.push(Failure::Unauthenticated { next: String::new() });
        refusals.push(Failure::BadToken);
        if roles.len() < Role::ALL.len() {
            refusals.push(Failure::Forbidden(""));
        }
    }
    if endpoint.path.contains('{') {
        refusals.push(Failure::NotFound);
    }
    let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for refusal in refusals {
        by_status
            .entry(refusal.status().as_u16())
            .or_default()
            .push(refusal.code());
    }
    by_status
}

fn refused(codes: &[&str]) -> Response {
    let names: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(format!("Code {}.", names.join(", ")))
        .content(PROBLEM_JSON, content)
        .build()
}

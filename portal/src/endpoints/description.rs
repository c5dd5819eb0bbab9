//! `/api/v1/openapi.json`: the description of the API, for programs that make clients and tests of it.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::openapi::DOCUMENT;
use crate::error::{ApiError, Failure};

/// What the address answers: a document of another standard.
#[derive(Debug)]
pub(crate) struct Description;

impl PartialSchema for Description {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("A document of OpenAPI 3.1."))
            .property("openapi", String::schema())
            .required("openapi")
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
            .into()
    }
}

impl ToSchema for Description {}

static TEXT: LazyLock<Result<String, String>> = LazyLock::new(|| DOCUMENT.to_json().map_err(|error| error.to_string()));

pub(crate) async fn show() -> Result<Response, ApiError> {
    match &*TEXT {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()),
        Err(error) => Err(Failure::internal("write the description of the API")(error.as_str().into()).into()),
    }
}

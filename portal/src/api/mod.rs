//! The JSON API, under `/api/v1`: what each address answers, as the types themselves describe it for the OpenAPI document
//! ([`crate::endpoints`]). Errors are `application/problem+json` (RFC 9457).

pub(crate) mod credit;
pub(crate) mod finance;
pub(crate) mod invoices;
pub(crate) mod network;
pub(crate) mod subscriptions;
pub(crate) mod usage;

pub(crate) use crate::query::ApiQuery;

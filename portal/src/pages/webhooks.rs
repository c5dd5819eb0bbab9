//! A customer's endpoints: programs and Discord channels that hear of events, what was sent there, and sending it again.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use activity::channel::endpoint::{
    self, Added, Endpoint, EndpointError, EndpointKind, MAX_ENDPOINTS, NewEndpoint, Owner,
};
use activity::channel::{self, Replay, ReplayError};
use activity::event::{self, Delivery, EventType};
use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;
use schemas::ids::{EndpointId, EventId};
use schemas::inventory;

use crate::action;
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::once::{self, form_token};
use crate::path::Path;
use crate::shell::Shell;
use crate::state::AppState;

const PATH: &str = "/webhooks";
/// Deliveries on the page of an endpoint.
const MAX_DELIVERIES: i64 = 50;
/// Prefix of the checkboxes' names, so that no event type can be taken for another field.
const TYPE_FIELD: &str = "type:";

fn href(id: EndpointId) -> String {
    format!("{PATH}/{id}")
}

fn kind_label(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Webhook => "Webhook",
        EndpointKind::Discord => "Discord channel",
    }
}

struct EndpointRow {
    id: String,
    kind: &'static str,
    /// It has a secret, which can be replaced.
    has_secret: bool,
    url: String,
    hears: String,
    is_disabled: bool,
    failures: i64,
    since: String,
}

impl EndpointRow {
    fn new(endpoint: &Endpoint, zone: &TimeZone) -> EndpointRow {
        EndpointRow {
            id: endpoint.id.to_string(),
            kind: kind_label(endpoint.kind),
            has_secret: endpoint.kind == EndpointKind::Webhook,
            url: endpoint.url.clone(),
            hears: match endpoint.event_types.as_slice() {
                [] => "all events".to_owned(),
                [one] => one.name().to_owned(),
                [one, rest @ ..] => format!("{} and {} more", one.name(), rest.len()),
            },
            is_disabled: endpoint.disabled_at_ms.is_some(),
            failures: endpoint.failures,
            since: format::date(endpoint.created_at_ms, zone),
        }
    }
}

struct TypeChoice {
    field: String,
    name: &'static str,
    checked: bool,
}

struct TypeGroup {
    name: String,
    types: Vec<TypeChoice>,
}

struct KindChoice {
    name: &'static str,
    label: &'static str,
    is_chosen: bool,
}

/// What the form's kind means; a form without one is of before there were others.
fn kind_of(fields: &Fields) -> Option<EndpointKind> {
    match fields.get("kind") {
        None => Some(EndpointKind::Webhook),
        Some(name) => EndpointKind::ALL.into_iter().find(|kind| kind.name() == name),
    }
}

/// A secret as it is shown, once.
struct SecretView {
    url: String,
    secret: String,
    is_rotated: bool,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct ListPage {
    shell: Shell,
    endpoints: Vec<EndpointRow>,
    max_endpoints: i64,
    can_add: bool,
    kinds: Vec<KindChoice>,
    groups: Vec<TypeGroup>,
    any_checked: bool,
    url: String,
    problem: Option<String>,
    /// A Discord channel that was just added.
    added: Option<String>,
    secret: Option<SecretView>,
    form_token: String,
}

/// What the page says of what was just done.
#[derive(Default)]
struct Outcome {
    problem: Option<String>,
    added: Option<String>,
    secret: Option<SecretView>,
}

/// What the form for a new endpoint holds; the boxes that are ticked are fields of their own.
pub(crate) type Fields = HashMap<String, String>;

/// `credit_note` → `Credit note`.
fn subject_words(subject: &str) -> String {
    if subject == "top_up" {
        return "Top-up".to_owned();
    }
    let words = subject.replace('_', " ");
    let mut chars = words.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn groups(fields: &Fields) -> Vec<TypeGroup> {
    let mut by_subject: BTreeMap<String, Vec<TypeChoice>> = BTreeMap::new();
    for kind in EventType::ALL.iter().filter(|kind| kind.is_for_customers()) {
        let subject = subject_words(kind.name().split('.').next().unwrap_or_default());
        let field = format!("{TYPE_FIELD}{}", kind.name());
        by_subject.entry(subject).or_default().push(TypeChoice {
            checked: fields.contains_key(&field),
            field,
            name: kind.name(),
        });
    }
    by_subject
        .into_iter()
        .map(|(name, types)| TypeGroup { name, types })
        .collect()
}

async fn list_page(
    state: &AppState,
    customer: &Customer,
    fields: &Fields,
    outcome: Outcome,
) -> Result<Response, PageError> {
    let zone = inventory::customer(state.db().pool(), customer.id).await?.time_zone;
    let endpoints = endpoint::endpoints(state.db().pool(), Owner::Customer(customer.id)).await?;
    let have = i64::try_from(endpoints.len()).unwrap_or(i64::MAX);
    let groups = groups(fields);
    let mut response = page(&ListPage {
        shell: Shell::new(&customer.who, "Webhooks", PATH),
        endpoints: endpoints.iter().map(|one| EndpointRow::new(one, &zone)).collect(),
        max_endpoints: MAX_ENDPOINTS,
        can_add: have < MAX_ENDPOINTS,
        any_checked: groups.iter().flat_map(|group| &group.types).any(|one| one.checked),
        groups,
        kinds: EndpointKind::ALL
            .into_iter()
            .map(|kind| KindChoice {
                name: kind.name(),
                label: kind_label(kind),
                is_chosen: kind_of(fields) == Some(kind),
            })
            .collect(),
        url: fields.get("url").cloned().unwrap_or_default(),
        problem: outcome.problem,
        added: outcome.added,
        secret: outcome.secret,
        form_token: form_token(),
    })?;
    // It may hold a secret.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(crate) async fn list(State(state): State<AppState>, customer: Customer) -> Result<Response, PageError> {
    list_page(&state, &customer, &Fields::new(), Outcome::default()).await
}

/// What is wrong with an address, in words for who typed it; `Err` where it is not their doing.
fn url_problem(error: EndpointError) -> Result<String, Failure> {
    match error {
        // What an operator could set is not for customers.
        EndpointError::Url { url, why } => Ok(format!(
            "Not added: {url:?} cannot be an endpoint: {}.",
            why.split("; an operator").next().unwrap_or(why)
        )),
        EndpointError::TooMany => Ok(format!("Not added: {error}.")),
        EndpointError::NotPublic { host } => Ok(format!(
            "Not added: {host} does not lead to a public address. Use an address that we can reach."
        )),
        error => Err(error.into()),
    }
}

pub(crate) async fn add(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let Some(kind) = kind_of(&fields) else {
        return Err(Failure::BadRequest("kind is webhook or discord".to_owned()).into());
    };
    let url = fields.get("url").map_or("", |url| url.trim());
    let token = fields.get("form_token").map_or("", String::as_str);
    let chosen: Vec<EventType> = EventType::ALL
        .iter()
        .copied()
        .filter(|kind| kind.is_for_customers() && fields.contains_key(&format!("{TYPE_FIELD}{}", kind.name())))
        .collect();
    let refused = async |error: EndpointError| {
        let outcome = Outcome {
            problem: Some(url_problem(error)?),
            ..Outcome::default()
        };
        let body = list_page(&state, &customer, &fields, outcome).await?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
    };
    // Names are looked up before the database is written to.
    let vetted = match state.webhooks().vet(kind, url).await {
        Ok(vetted) => vetted,
        Err(error) => return refused(error).await,
    };
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    if !once::take(act.connection(), token, now_ms).await? {
        return Ok(Redirect::to(PATH).into_response());
    }
    let new = NewEndpoint {
        customer: Some(customer.id),
        url: &vetted,
        event_types: &chosen,
    };
    let vault = state.db().vault();
    let (Added { endpoint, secret }, note) = match endpoint::add(act.connection(), vault, new, now_ms).await {
        Ok(added) => added,
        Err(error) => {
            drop(act);
            return refused(error).await;
        }
    };
    act.commit(note).await?;
    let outcome = match secret {
        None => Outcome {
            added: Some(endpoint.url),
            ..Outcome::default()
        },
        Some(secret) => Outcome {
            secret: Some(SecretView {
                url: endpoint.url,
                secret,
                is_rotated: false,
            }),
            ..Outcome::default()
        },
    };
    list_page(&state, &customer, &Fields::new(), outcome).await
}

struct DeliveryRow {
    event: String,
    kind: String,
    at: String,
    status: String,
    class: &'static str,
    attempts: i64,
    note: String,
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct EndpointPage {
    shell: Shell,
    endpoint: EndpointRow,
    types: Vec<&'static str>,
    deliveries: Vec<DeliveryRow>,
    notice: Option<String>,
    problem: Option<String>,
    form_token: String,
}

fn delivery_row(delivery: &Delivery, kind: String, zone: &TimeZone) -> DeliveryRow {
    let note = match (delivery.delivered_at_ms, delivery.next_at_ms) {
        (Some(at_ms), _) => format!("taken {}", format::minute_and_zone(at_ms, zone)),
        (None, Some(at_ms)) if !delivery.error.is_empty() => {
            format!("{}; again {}", delivery.error, format::minute_and_zone(at_ms, zone))
        }
        (None, _) => delivery.error.clone(),
    };
    DeliveryRow {
        event: delivery.event.to_string(),
        kind,
        at: format::minute_and_zone(delivery.created_at_ms, zone),
        class: match delivery.status.as_str() {
            "delivered" => "ok",
            "failed" => "warn",
            _ => "info",
        },
        status: delivery.status.clone(),
        attempts: delivery.attempts,
        note,
    }
}

fn endpoint_id(text: &str) -> Result<EndpointId, Failure> {
    text.parse().map_err(|_| Failure::NotFound)
}

async fn endpoint_page(
    state: &AppState,
    customer: &Customer,
    id: &str,
    notice: Option<String>,
    problem: Option<String>,
) -> Result<Response, PageError> {
    let owner = Owner::Customer(customer.id);
    let zone = inventory::customer(state.db().pool(), customer.id).await?.time_zone;
    let endpoint = endpoint::endpoint(state.db().pool(), endpoint_id(id)?, owner).await?;
    let found = event::deliveries_to(state.db().pool(), endpoint.id, MAX_DELIVERIES).await?;
    let mut deliveries = Vec::with_capacity(found.len());
    for delivery in &found {
        let of = event::event(state.db().pool(), delivery.event).await?;
        deliveries.push(delivery_row(delivery, of.event_type.name().to_owned(), &zone));
    }
    page(&EndpointPage {
        shell: Shell::new(&customer.who, "Endpoint", PATH),
        types: endpoint.event_types.iter().map(|kind| kind.name()).collect(),
        endpoint: EndpointRow::new(&endpoint, &zone),
        deliveries,
        notice,
        problem,
        form_token: form_token(),
    })
}

pub(crate) async fn one(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    endpoint_page(&state, &customer, &id, None, None).await
}

#[derive(serde::Deserialize)]
pub(crate) struct EndpointActionForm {
    #[serde(default)]
    form_token: String,
    #[serde(default)]
    event: String,
}

pub(crate) async fn rotate(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, sent): CsrfForm<EndpointActionForm>,
) -> Result<Response, PageError> {
    let owner = Owner::Customer(customer.id);
    let id = endpoint_id(&id)?;
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    let endpoint = endpoint::endpoint(act.connection(), id, owner).await?;
    if !once::take(act.connection(), &sent.form_token, now_ms).await? {
        return Ok(Redirect::to(&href(id)).into_response());
    }
    let secret = match endpoint::rotate(act.connection(), state.db().vault(), id, owner, now_ms).await {
        Ok((secret, note)) => {
            act.commit(note).await?;
            secret
        }
        Err(error @ EndpointError::NoSecret(_)) => {
            drop(act);
            let body = endpoint_page(
                &state,
                &customer,
                &id.to_string(),
                None,
                Some(format!("Not rotated: {error}.")),
            )
            .await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response());
        }
        Err(error) => return Err(error.into()),
    };
    let outcome = Outcome {
        secret: Some(SecretView {
            url: endpoint.url,
            secret,
            is_rotated: true,
        }),
        ..Outcome::default()
    };
    list_page(&state, &customer, &Fields::new(), outcome).await
}

pub(crate) async fn enable(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, _): CsrfForm<EndpointActionForm>,
) -> Result<Response, PageError> {
    let id = endpoint_id(&id)?;
    let mut act = action::begin(&state, &who, ip).await?;
    let note = endpoint::enable(act.connection(), id, Owner::Customer(customer.id)).await?;
    act.commit(note).await?;
    Ok(Redirect::to(&href(id)).into_response())
}

pub(crate) async fn remove(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, _): CsrfForm<EndpointActionForm>,
) -> Result<Response, PageError> {
    let id = endpoint_id(&id)?;
    let mut act = action::begin(&state, &who, ip).await?;
    let note = endpoint::remove(act.connection(), id, Owner::Customer(customer.id)).await?;
    act.commit(note).await?;
    Ok(Redirect::to(PATH).into_response())
}

/// Sends an event again.
pub(crate) async fn replay(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, sent): CsrfForm<EndpointActionForm>,
) -> Result<Response, PageError> {
    let owner = Owner::Customer(customer.id);
    let endpoint = endpoint_id(&id)?;
    let event: EventId = sent.event.parse().map_err(|_| Failure::NotFound)?;
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    endpoint::endpoint(act.connection(), endpoint, owner).await?;
    if !once::take(act.connection(), &sent.form_token, now_ms).await? {
        return Ok(Redirect::to(&href(endpoint)).into_response());
    }
    let range = Replay {
        first: event,
        last: event,
        event_type: None,
    };
    match channel::replay(act.connection(), range, endpoint, owner, now_ms).await {
        Ok((0, _)) => Err(Failure::NotFound.into()),
        Ok((_, note)) => {
            act.commit(note).await?;
            Ok(Redirect::to(&href(endpoint)).into_response())
        }
        Err(ReplayError::Disabled(_)) => {
            drop(act);
            let problem = "Nothing is sent to this endpoint at present: switch it on first.".to_owned();
            let body = endpoint_page(&state, &customer, &id, None, Some(problem)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
        }
        Err(error @ (ReplayError::TooManyPending { .. } | ReplayError::TooOften)) => {
            drop(act);
            let body = endpoint_page(&state, &customer, &id, None, Some(format!("Not replayed: {error}."))).await?;
            Ok((StatusCode::TOO_MANY_REQUESTS, body).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

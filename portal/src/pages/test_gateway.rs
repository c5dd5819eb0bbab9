//! The pages of the test gateway: where a customer chooses a test card, and where the test bank asks to confirm a payment.
//!
//! They answer only where the test gateway is configured, and only to the customer who was sent there (S1). Both say at the
//! top that no money moves.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::payment::GatewayName;
use billing::payment::trial::{self, Card, TestCharge, TestSetup};

use crate::auth::{CsrfForm, Customer};
use crate::error::{Failure, PageError, page};
use crate::path::Path;
use crate::state::AppState;

struct CardChoice {
    name: &'static str,
    label: &'static str,
    words: &'static str,
}

#[derive(Template)]
#[template(path = "test_gateway_setup.html")]
struct SetupPage {
    csrf_token: String,
    cards: Vec<CardChoice>,
    cancel_url: String,
}

#[derive(Template)]
#[template(path = "test_gateway_charge.html")]
struct ChargePage {
    csrf_token: String,
    amount: String,
    card: &'static str,
    waits: bool,
    back: String,
}

/// A setup of this customer's; whatever else is named is not found (S1).
async fn setup_of(state: &AppState, customer: &Customer, reference: &str) -> Result<TestSetup, Failure> {
    state.gateways().get(GatewayName::Test)?;
    let setup = trial::setup(state.db().pool(), reference).await?;
    setup
        .filter(|setup| setup.customer == customer.id)
        .ok_or(Failure::NotFound)
}

async fn charge_of(state: &AppState, customer: &Customer, reference: &str) -> Result<TestCharge, Failure> {
    state.gateways().get(GatewayName::Test)?;
    let charge = trial::charge(state.db().pool(), reference).await?;
    charge
        .filter(|(payer, _)| *payer == customer.id)
        .map(|(_, charge)| charge)
        .ok_or(Failure::NotFound)
}

/// An address that the customer goes back to, as a path where it is the portal's own: whatever name they reach it by.
fn back(state: &AppState, url: &str, name: &str, reference: &str) -> String {
    let path = url.strip_prefix(state.portal_url()).unwrap_or(url);
    if name.is_empty() {
        return path.to_owned();
    }
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{name}={reference}")
}

pub(crate) async fn show_setup(
    State(state): State<AppState>,
    customer: Customer,
    Path(reference): Path<String>,
) -> Result<Response, PageError> {
    let setup = setup_of(&state, &customer, &reference).await?;
    let cards = Card::ALL.into_iter().map(|card| CardChoice {
        name: card.name(),
        label: card.label(),
        words: card.words(),
    });
    page(&SetupPage {
        csrf_token: customer.who.csrf_token.clone(),
        cards: cards.collect(),
        cancel_url: back(&state, &setup.cancel_url, "", ""),
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct CardForm {
    card: String,
}

pub(crate) async fn choose(
    State(state): State<AppState>,
    customer: Customer,
    Path(reference): Path<String>,
    CsrfForm(_, form): CsrfForm<CardForm>,
) -> Result<Response, PageError> {
    let setup = setup_of(&state, &customer, &reference).await?;
    let card: Card = form
        .card
        .parse()
        .map_err(|_| Failure::BadRequest("There is no such test card.".to_owned()))?;
    trial::choose(state.db().pool(), &setup.reference, card).await?;
    Ok(Redirect::to(&back(&state, &setup.return_url, "reference", &setup.reference)).into_response())
}

pub(crate) async fn show_charge(
    State(state): State<AppState>,
    customer: Customer,
    Path(reference): Path<String>,
) -> Result<Response, PageError> {
    let charge = charge_of(&state, &customer, &reference).await?;
    page(&ChargePage {
        csrf_token: customer.who.csrf_token.clone(),
        amount: charge.amount.to_string(),
        card: charge.card.label(),
        waits: charge.state == "requires_action",
        back: back(&state, &charge.return_url, "payment_intent", &charge.reference),
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct Answer {
    answer: String,
}

pub(crate) async fn answer(
    State(state): State<AppState>,
    customer: Customer,
    Path(reference): Path<String>,
    CsrfForm(_, form): CsrfForm<Answer>,
) -> Result<Response, PageError> {
    let charge = charge_of(&state, &customer, &reference).await?;
    trial::confirm(state.db().pool(), &charge.reference, form.answer == "confirm").await?;
    let back = back(&state, &charge.return_url, "payment_intent", &charge.reference);
    Ok(Redirect::to(&back).into_response())
}

#[cfg(test)]
mod tests;

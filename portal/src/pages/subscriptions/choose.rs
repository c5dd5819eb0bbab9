//! The page on which a customer changes a subscription: first the plan, then the billing cycle, each with what is charged today
//! and on the next date, by the quote that the order is made by.

use askama::Template;
use axum::response::Response;
use billing::catalog::{Price, Spec};
use billing::quote::{Quote, Request};
use billing::subscription::change::Change;
use billing::subscription::{Contract, MAX_QUANTITY};
use schemas::money::Money;

use super::PATH;
use super::terms::{ChosenTerms, TermsForm};
use crate::auth::Customer;
use crate::error::{Failure, PageError, page};
use crate::offers::{Offer, cycle_name, price_text};
use crate::once::form_token;
use crate::pages::quotes::{self, QuoteView};
use crate::shell::Shell;
use crate::state::AppState;

/// Options that are quoted at most: a quote does the change and takes it back. Of the others the price is shown, and the
/// amounts once they are chosen.
const MAX_QUOTED: usize = 16;

/// What an option charges.
struct Amounts {
    /// All documents of today; below zero it is given back.
    today: Money,
    gives_back: bool,
    has_tax: bool,
    /// When the service is charged next, how much, and what that leaves out.
    next: Option<(String, Money, &'static str)>,
}

struct ChoiceRow {
    name: String,
    detail: String,
    price: String,
    saving: Option<i64>,
    href: String,
    is_chosen: bool,
    is_present: bool,
    amounts: Option<Amounts>,
    /// Its amounts are shown when it is chosen: there are more options than are quoted.
    is_unquoted: bool,
    /// Why it cannot be had.
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "subscription_change.html")]
struct ChangePage {
    shell: Shell,
    id: String,
    service: String,
    current: String,
    /// A free plan stays what it is (F-26).
    is_free: bool,
    plans: Vec<ChoiceRow>,
    cycles: Vec<ChoiceRow>,
    /// The plan whose cycles are listed.
    plan: String,
    price: String,
    asked: TermsForm,
    quantity: i64,
    max_quantity: i64,
    time_zone: String,
    earliest: String,
    chosen: Option<ChosenTerms>,
    quote: Option<QuoteView>,
    problem: Option<String>,
    form_token: String,
}

/// What the page was asked for, understood.
pub(super) struct ChooseView<'a> {
    pub(super) contract: &'a Contract,
    pub(super) choices: &'a [Offer],
    pub(super) asked: TermsForm,
    pub(super) chosen: Option<ChosenTerms>,
    pub(super) quote: Option<QuoteView>,
    pub(super) problem: Option<String>,
    pub(super) earliest: String,
}

fn amounts(quote: &Quote, contract: &Contract) -> Result<Amounts, Failure> {
    let mut today = Money::zero(quote.credit.currency);
    for draft in &quote.now {
        today = today.checked_add(draft.total).map_err(billing::BillingError::from)?;
    }
    let zone = &contract.subscription.time_zone;
    Ok(Amounts {
        gives_back: today.minor < 0,
        today: Money::new(today.minor.abs(), today.currency),
        has_tax: quote.now.iter().any(|draft| draft.tax.minor != 0),
        next: quote.next_of_service.map(|own| {
            (
                crate::format::date(own.at_ms, zone),
                own.charge.total,
                quotes::tax_note(own.charge),
            )
        }),
    })
}

/// Quotes options until enough were.
struct Quoting<'a> {
    state: &'a AppState,
    customer: &'a Customer,
    contract: &'a Contract,
    quantity: i64,
    left: usize,
    /// Amounts are shown at all: a change at a time ahead charges then what holds then.
    is_now: bool,
}

impl Quoting<'_> {
    async fn row(&mut self, offer: &Offer, price: &Price) -> Result<ChoiceRow, Failure> {
        let phase = self.contract.last_phase();
        let subscription = self.contract.subscription.id;
        let is_present = price.id == phase.price.id;
        let (mut amounts_of, mut problem) = (None, None);
        let changes = !(is_present && self.quantity == phase.quantity);
        let is_unquoted = changes && self.is_now && self.left == 0;
        if changes && self.is_now && self.left > 0 {
            self.left -= 1;
            let change = Change {
                price: price.id,
                quantity: self.quantity,
            };
            match quotes::quote(self.state, self.customer.id, Request::Change { subscription, change }).await? {
                Ok(quote) => amounts_of = Some(amounts(&quote, self.contract)?),
                Err(why) => problem = Some(why),
            }
        }
        Ok(ChoiceRow {
            name: offer.plan.label(),
            detail: String::new(),
            price: price_text(price),
            saving: offer.saving_percent(price),
            href: String::new(),
            is_chosen: false,
            is_present,
            amounts: amounts_of,
            is_unquoted,
            problem,
        })
    }
}

/// Rows of the two choices: plans in the cycle that was chosen, and the cycles of the plan that was chosen.
async fn rows(
    state: &AppState,
    customer: &Customer,
    view: &ChooseView<'_>,
    quantity: i64,
    (plan, price): (&Offer, &Price),
) -> Result<(Vec<ChoiceRow>, Vec<ChoiceRow>), Failure> {
    let contract = view.contract;
    let address = format!("/subscriptions/{}/change", contract.subscription.id);
    let rest = format!(
        "&quantity={quantity}&when={}&at={}",
        view.asked.when_name(),
        view.asked.at_encoded()
    );
    let mut quoting = Quoting {
        state,
        customer,
        contract,
        quantity,
        left: MAX_QUOTED,
        is_now: view.asked.when_name() == "now",
    };
    // The cycles of the chosen plan first: those are closest to what is wanted.
    let mut cycles = Vec::with_capacity(plan.prices.len());
    for one in &plan.prices {
        let row = quoting.row(plan, one).await?;
        cycles.push(ChoiceRow {
            name: cycle_name(one.cycle_months),
            detail: if one.id != contract.last_phase().price.id
                && one.cycle_months == contract.last_phase().price.cycle_months
                && plan.plan.id == contract.last_phase().plan.id
            {
                "as sold now".to_owned()
            } else {
                String::new()
            },
            href: format!("{address}?price={}{rest}", one.id),
            is_chosen: one.id == price.id,
            ..row
        });
    }
    let mut plans = Vec::with_capacity(view.choices.len());
    for offer in view.choices {
        let Some(one) = offer.of_cycle(price.cycle_months).or(offer.prices.first()) else {
            continue;
        };
        let specs: Vec<String> = offer.plan.specs().iter().map(Spec::words).collect();
        let is_chosen = offer.plan.id == plan.plan.id;
        let row = quoting.row(offer, one).await?;
        plans.push(ChoiceRow {
            detail: specs.join(", "),
            href: format!("{address}?price={}{rest}", one.id),
            is_chosen,
            saving: None,
            is_present: offer.plan.id == contract.last_phase().plan.id,
            ..row
        });
    }
    Ok((plans, cycles))
}

/// The page.
pub(super) async fn render(state: &AppState, customer: &Customer, view: ChooseView<'_>) -> Result<Response, PageError> {
    let contract = view.contract;
    let phase = contract.last_phase();
    let quantity = view.asked.quantity_or(phase.quantity);
    let present = (phase.plan.id, phase.price.id);
    let wanted = super::terms::chosen(view.choices, &view.asked.price).or_else(|| {
        let offer = view.choices.iter().find(|offer| offer.plan.id == present.0)?;
        offer.price(present.1).map(|price| (offer, price))
    });
    let is_free = phase.plan.is_free;
    let (plans, cycles) = match wanted {
        Some(wanted) if !is_free => rows(state, customer, &view, quantity, wanted).await?,
        _ => (Vec::new(), Vec::new()),
    };
    page(&ChangePage {
        shell: Shell::new(&customer.who, format!("Change {}", contract.service.name), PATH),
        id: contract.subscription.id.to_string(),
        service: contract.service.name.clone(),
        current: format!("{}, {}", phase.plan.label(), price_text(&phase.price)),
        is_free,
        plans,
        cycles,
        plan: wanted.map(|(offer, _)| offer.plan.name.clone()).unwrap_or_default(),
        price: wanted.map(|(_, price)| price.id.to_string()).unwrap_or_default(),
        asked: view.asked,
        quantity,
        max_quantity: MAX_QUANTITY,
        time_zone: contract.subscription.time_zone_name().to_owned(),
        earliest: view.earliest,
        chosen: view.chosen,
        quote: view.quote,
        problem: view.problem,
        form_token: form_token(),
    })
}

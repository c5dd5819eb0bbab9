//! Other terms for a subscription, and add-ons beside it: now, with what is given back and charged to the cent, or at a date
//! and time (F-25).

use activity::act::{Act, By, Note};
use activity::audit::Actor;
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::catalog::{PlanKind, Price};
use billing::quote::Request;
use billing::subscription::change::Change;
use billing::subscription::schedule::{self, ScheduledAction};
use billing::subscription::{Contract, MAX_QUANTITY};
use jiff::civil::DateTime;
use schemas::ids::PriceId;
use serde_json::json;

use super::{PATH, choose, done};
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::contract_of;
use crate::error::{Failure, PageError, page};
use crate::offers::{Offer, cycle_name, offers, price_text, usage_text};
use crate::once::{self, form_token};
use crate::pages::quotes::{self, Outcome, QuoteView};
use crate::path::Path;
use crate::query::{PageQuery, filter, wrong};
use crate::refusal::refusal;
use crate::shell::Shell;
use crate::state::AppState;

/// Which of the two is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeKind {
    Change,
    Addon,
}

/// What the form holds; the amounts are absent until they were shown.
#[derive(Default, serde::Deserialize)]
pub(crate) struct TermsForm {
    #[serde(default)]
    pub(super) price: String,
    #[serde(default)]
    pub(super) quantity: String,
    #[serde(default)]
    pub(super) when: String,
    /// Local date and time: `2026-12-25T00:00`.
    #[serde(default)]
    pub(super) at: String,
    #[serde(default)]
    pub(super) shown: String,
    #[serde(default)]
    pub(super) form_token: String,
}

impl TermsForm {
    pub(super) fn when_name(&self) -> &'static str {
        match self.when.as_str() {
            "at" => "at",
            _ => "now",
        }
    }

    /// The date and time as a part of an address: what is none is left out.
    pub(super) fn at_encoded(&self) -> String {
        let at: Option<DateTime> = self.at.trim().parse().ok();
        at.map_or(String::new(), |at| at.strftime("%Y-%m-%dT%H:%M").to_string())
    }

    pub(super) fn quantity_or(&self, present: i64) -> i64 {
        self.quantity.trim().parse().unwrap_or(present)
    }
}

struct PriceChoice {
    id: String,
    label: String,
    selected: bool,
}

struct Group {
    plan: String,
    prices: Vec<PriceChoice>,
}

/// What was chosen, in words.
pub(super) struct ChosenTerms {
    pub(super) plan: String,
    pub(super) price: String,
    pub(super) usage: String,
    /// Where it is for a time ahead.
    pub(super) at: Option<String>,
}

#[derive(Template)]
#[template(path = "subscription_terms.html")]
struct TermsPage {
    shell: Shell,
    id: String,
    service: String,
    current: String,
    groups: Vec<Group>,
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

/// What somebody asked for, understood.
#[derive(Clone, Copy)]
struct Terms {
    change: Change,
    /// `None`: now.
    at_ms: Option<i64>,
}

/// The prices that this subscription can be changed to, or that an add-on beside it can have.
async fn choices(state: &AppState, contract: &Contract, what: ChangeKind) -> Result<Vec<Offer>, Failure> {
    let now_ms = state.now_ms();
    let phase = contract.last_phase();
    let kind = match what {
        ChangeKind::Addon => PlanKind::Addon,
        ChangeKind::Change => phase.plan.kind,
    };
    let mut connection = state.db().pool().acquire().await?;
    let mut found = offers(&mut connection, contract.customer.currency, kind, now_ms).await?;
    // A private plan is nobody else's (S1), and free ones are not changed into or out of.
    found.retain(|offer| {
        let is_own = offer.plan.id == phase.plan.id;
        let is_open = offer.plan.kind != PlanKind::Private && !offer.plan.is_free;
        offer.plan.service_type == phase.plan.service_type && (is_own || is_open)
    });
    if what == ChangeKind::Change {
        // The present price, which may be an older version: for another quantity.
        match found.iter_mut().find(|offer| offer.plan.id == phase.plan.id) {
            Some(own) if own.price(phase.price.id).is_some() => {}
            Some(own) => own.prices.insert(0, Price::clone(&phase.price)),
            None => found.insert(
                0,
                Offer {
                    plan: billing::catalog::Plan::clone(&phase.plan),
                    prices: vec![Price::clone(&phase.price)],
                },
            ),
        }
    }
    Ok(found)
}

impl TermsForm {
    /// What the address or a form says that no form of ours does: it must not count as “now”, or as the plan there is.
    fn check(&self) -> Result<(), Failure> {
        if !["", "now", "at"].contains(&self.when.as_str()) {
            return Err(wrong("when", &self.when, "now or at"));
        }
        filter::<PriceId>("price", &self.price, "an id such as prc_7")?;
        Ok(())
    }
}

/// The price that was chosen, if it is offered.
pub(super) fn chosen<'a>(choices: &'a [Offer], price: &str) -> Option<(&'a Offer, &'a Price)> {
    let id: PriceId = price.parse().ok()?;
    choices
        .iter()
        .find_map(|offer| offer.price(id).map(|price| (offer, price)))
}

fn understand(asked: &TermsForm, choices: &[Offer], contract: &Contract, now_ms: i64) -> Result<Terms, String> {
    let (_, price) = chosen(choices, &asked.price).ok_or("Choose one of the plans.")?;
    let quantity: i64 = asked
        .quantity
        .trim()
        .parse()
        .ok()
        .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
        .ok_or_else(|| format!("A quantity is a number between 1 and {MAX_QUANTITY}."))?;
    let at_ms = match asked.when.as_str() {
        "at" => {
            let at: DateTime = asked
                .at
                .trim()
                .parse()
                .map_err(|_| "Choose a date and a time.".to_owned())?;
            let zoned = at
                .to_zoned(contract.subscription.time_zone.clone())
                .map_err(|_| "Choose another date.".to_owned())?;
            let at_ms = zoned.timestamp().as_millisecond();
            if at_ms <= now_ms {
                return Err("Choose a time that lies ahead, or “now”.".to_owned());
            }
            Some(at_ms)
        }
        _ => None,
    };
    Ok(Terms {
        change: Change {
            price: price.id,
            quantity,
        },
        at_ms,
    })
}

fn request(contract: &Contract, what: ChangeKind, change: Change) -> Request<'static> {
    let subscription = contract.subscription.id;
    match what {
        ChangeKind::Change => Request::Change { subscription, change },
        ChangeKind::Addon => Request::Addon {
            parent: subscription,
            service: contract.service.id,
            price: change.price,
            quantity: change.quantity,
        },
    }
}

async fn terms_page(
    state: &AppState,
    customer: &Customer,
    contract: &Contract,
    what: ChangeKind,
    asked: TermsForm,
    problem: Option<String>,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let choices = choices(state, contract, what).await?;
    let zone = &contract.subscription.time_zone;
    let phase = contract.last_phase();
    // Nothing was chosen yet: there is nothing to show or to refuse.
    let (mut told, mut shown, mut refused) = (None, None, None);
    if !asked.price.is_empty() {
        match understand(&asked, &choices, contract, now_ms) {
            Err(problem) => refused = Some(problem),
            Ok(terms) => {
                let request = request(contract, what, terms.change);
                let quoted = match terms.at_ms {
                    None => quotes::quote(state, customer.id, request).await?,
                    Some(at_ms) => quotes::quote_at(state, customer.id, request, at_ms).await?,
                };
                match quoted {
                    Ok(quote) => shown = Some(QuoteView::new(&quote, zone)),
                    Err(problem) => refused = Some(problem),
                }
                if let Some((offer, price)) = chosen(&choices, &asked.price).filter(|_| refused.is_none()) {
                    told = Some(ChosenTerms {
                        plan: offer.plan.name.clone(),
                        price: price_text(price),
                        usage: usage_text(&offer.plan, price),
                        at: terms.at_ms.map(|at_ms| crate::format::minute(at_ms, zone)),
                    });
                }
            }
        }
    }
    let problem = problem.or(refused);
    let earliest = local_minute(now_ms, contract);
    if what == ChangeKind::Change {
        let view = choose::ChooseView {
            contract,
            choices: &choices,
            asked,
            chosen: told,
            quote: shown,
            problem,
            earliest,
        };
        return choose::render(state, customer, view).await;
    }
    let groups = choices.iter().map(|offer| Group {
        plan: offer.plan.name.clone(),
        prices: offer
            .prices
            .iter()
            .map(|price| PriceChoice {
                id: price.id.to_string(),
                label: format!(
                    "{}, {}, {}",
                    offer.plan.name,
                    cycle_name(price.cycle_months).to_lowercase(),
                    price_text(price)
                ),
                selected: price.id.to_string() == asked.price,
            })
            .collect(),
    });
    let groups: Vec<Group> = groups.collect();
    let quantity = asked.quantity_or(1);
    let title = format!("Add to {}", contract.service.name);
    page(&TermsPage {
        shell: Shell::new(&customer.who, title, PATH),
        id: contract.subscription.id.to_string(),
        service: contract.service.name.clone(),
        current: format!("{}, {}", phase.plan.name, price_text(&phase.price)),
        groups,
        asked,
        quantity,
        max_quantity: MAX_QUANTITY,
        time_zone: contract.subscription.time_zone_name().to_owned(),
        earliest,
        chosen: told,
        quote: shown,
        problem,
        form_token: form_token(),
    })
}

/// As a field for date and time takes it.
fn local_minute(at_ms: i64, contract: &Contract) -> String {
    crate::format::minute_field(at_ms, &contract.subscription.time_zone)
}

async fn show(
    state: &AppState,
    customer: &Customer,
    id: &str,
    what: ChangeKind,
    asked: TermsForm,
) -> Result<Response, PageError> {
    asked.check()?;
    let mut connection = state.db().pool().acquire().await?;
    let contract = contract_of(&mut connection, customer.id, id).await?;
    drop(connection);
    let is_refused = !asked.price.is_empty() && {
        let choices = choices(state, &contract, what).await?;
        understand(&asked, &choices, &contract, state.now_ms()).is_err()
    };
    let mut response = terms_page(state, customer, &contract, what, asked, None).await?;
    if is_refused {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

async fn make(
    state: &AppState,
    customer: &Customer,
    by: Actor<'_>,
    id: &str,
    what: ChangeKind,
    asked: TermsForm,
) -> Result<Response, PageError> {
    asked.check()?;
    let now_ms = state.now_ms();
    let mut connection = state.db().pool().acquire().await?;
    let contract = contract_of(&mut connection, customer.id, id).await?;
    drop(connection);
    let subscription = contract.subscription.id;
    if once::was_taken(state.db().pool(), &asked.form_token).await? {
        return Ok(done(subscription, "again"));
    }
    let offered = choices(state, &contract, what).await?;
    let terms = match understand(&asked, &offered, &contract, now_ms) {
        Ok(terms) => terms,
        Err(problem) => return again(state, customer, &contract, what, asked, problem).await,
    };
    if let Some(at_ms) = terms.at_ms {
        return set(state, customer, by, &contract, what, asked, (terms.change, at_ms)).await;
    }
    let request = request(&contract, what, terms.change);
    match quotes::quote(state, customer.id, request).await? {
        Ok(quote) if quotes::shown(&quote) != asked.shown => {
            let problem = "The amounts changed since this page was loaded: look at them again.".to_owned();
            return again(state, customer, &contract, what, asked, problem).await;
        }
        Ok(_) => {}
        Err(problem) => return again(state, customer, &contract, what, asked, problem).await,
    }
    match quotes::carry_out(state, customer.id, request, by, &asked.form_token).await? {
        Outcome::Done {
            invoice: Some(invoice), ..
        } => Ok(Redirect::to(&format!("/invoices/{invoice}?done=changed")).into_response()),
        Outcome::Done { invoice: None, .. } if what == ChangeKind::Addon => Ok(done(subscription, "added")),
        Outcome::Done { invoice: None, .. } => Ok(done(subscription, "changed")),
        Outcome::Again => Ok(done(subscription, "again")),
        Outcome::Refused(problem) => again(state, customer, &contract, what, asked, problem).await,
    }
}

/// Sets it for a time.
async fn set(
    state: &AppState,
    customer: &Customer,
    by: Actor<'_>,
    contract: &Contract,
    what: ChangeKind,
    asked: TermsForm,
    (change, at_ms): (Change, i64),
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let subscription = contract.subscription.id;
    let planned = match what {
        ChangeKind::Change => ScheduledAction::Change(change),
        ChangeKind::Addon => ScheduledAction::Addon(change),
    };
    let mut act = Act::begin(state.db(), By::from(by), now_ms).await?;
    if !once::take(act.connection(), &asked.form_token, now_ms).await? {
        return Ok(done(subscription, "again"));
    }
    let reason = "requested in the portal";
    match schedule::schedule(act.connection(), subscription, planned, at_ms, reason, by.name, now_ms).await {
        Ok(id) => {
            let entry = json!({"after": {
                "change": id, "at_ms": at_ms, "price": change.price, "quantity": change.quantity,
                "addon": what == ChangeKind::Addon,
            }});
            act.commit(Note::new("subscription.schedule", subscription).change(entry))
                .await?;
        }
        Err(error) => {
            drop(act);
            let problem = refusal(error)?;
            return again(state, customer, contract, what, asked, problem).await;
        }
    }
    Ok(done(subscription, "scheduled"))
}

async fn again(
    state: &AppState,
    customer: &Customer,
    contract: &Contract,
    what: ChangeKind,
    asked: TermsForm,
    problem: String,
) -> Result<Response, PageError> {
    let body = terms_page(state, customer, contract, what, asked, Some(problem)).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
}

pub(crate) async fn show_change(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    PageQuery(asked): PageQuery<TermsForm>,
) -> Result<Response, PageError> {
    show(&state, &customer, &id, ChangeKind::Change, asked).await
}

pub(crate) async fn show_addon(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    PageQuery(asked): PageQuery<TermsForm>,
) -> Result<Response, PageError> {
    show(&state, &customer, &id, ChangeKind::Addon, asked).await
}

pub(crate) async fn make_change(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, asked): CsrfForm<TermsForm>,
) -> Result<Response, PageError> {
    let ip = ip.to_string();
    make(&state, &customer, who.actor(&ip), &id, ChangeKind::Change, asked).await
}

pub(crate) async fn make_addon(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, asked): CsrfForm<TermsForm>,
) -> Result<Response, PageError> {
    let ip = ip.to_string();
    make(&state, &customer, who.actor(&ip), &id, ChangeKind::Addon, asked).await
}

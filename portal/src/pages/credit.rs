//! A customer's credit: what there is, where it came from and went, more of it by a payment, and how it is topped up by itself
//! (F-23).

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::payment::{Payment, PaymentError, PaymentState};
use billing::settlement;
use billing::top_up::{self, AUTOMATIC_NOTE, BOUGHT_NOTE, Cause, Limits, Movement, Purchase, TopUp, TopUpError};
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, TransactionId};
use schemas::inventory;
use schemas::money::{Currency, Money};
use serde_json::json;

use crate::action::{self, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Customer, SignedIn};
use crate::customer::top_ups;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::once::{self, form_token};
use crate::pages::paying::{self, MethodChoice, PendingPayment};
use crate::pages::payment_methods::{gateway_words, method_of};
use crate::query::{self, PageQuery};
use crate::shell::Shell;
use crate::state::AppState;

const PATH: &str = "/credit";
/// Movements on a page.
const PAGE_MOVEMENTS: i64 = 25;
/// The choice beside those that are offered.
const OWN: &str = "own";

/// An amount that is offered, in major units as the form sends it.
struct Choice {
    value: String,
    label: String,
    selected: bool,
}

/// Offered amounts, one of them chosen, and the field for another.
struct Amounts {
    choices: Vec<Choice>,
    /// What stands in the field for another amount; it is chosen where this is not empty.
    own: String,
    is_own: bool,
}

/// As a form takes it: `50.00`.
fn major(money: Money) -> String {
    money.to_major().to_string()
}

impl Amounts {
    /// `current` is chosen, offered or not; what was refused is shown as it was typed.
    fn new(offered: [Money; 3], current: Money, draft: &Draft, form: &str, name: &str) -> Amounts {
        let is_offered = offered.contains(&current);
        let stored = if is_offered { major(current) } else { OWN.to_owned() };
        let chosen = draft.value(form, name, &stored).to_owned();
        let stored_own = if is_offered { String::new() } else { major(current) };
        let own = draft.value(form, &format!("{name}_own"), &stored_own).to_owned();
        let choices = offered.map(|money| Choice {
            value: major(money),
            label: money.to_string(),
            selected: chosen == major(money),
        });
        Amounts {
            choices: choices.into(),
            own,
            is_own: chosen == OWN,
        }
    }
}

/// The amount that a form names: one that is offered, or another.
fn chosen(fields: &Fields, name: &str, currency: Currency) -> Result<Money, ActionFailure> {
    let own = format!("{name}_own");
    if fields.text(name) == OWN {
        return fields.money(&own, currency);
    }
    if !fields.text(&own).is_empty() {
        return Err(said(
            "You chose an amount and typed another. Choose “Other amount”, or leave its field empty.",
        ));
    }
    fields.money(name, currency)
}

/// How credit is topped up by itself.
struct TopUpView {
    is_set: bool,
    is_on: bool,
    words: String,
    class: &'static str,
    terms: String,
    /// What keeps it from charging, and what to do.
    trouble: Option<String>,
}

impl TopUpView {
    fn new(top_up: Option<&TopUp>, has_method: bool, now_ms: i64, zone: &TimeZone) -> TopUpView {
        let Some(top_up) = top_up else {
            return TopUpView {
                is_set: false,
                is_on: false,
                words: "off".to_owned(),
                class: "",
                terms: String::new(),
                trouble: None,
            };
        };
        let declines = match top_up.declines {
            1 => "declined once".to_owned(),
            declines => format!("declined {declines} times in a row"),
        };
        let is_exhausted = top_up.declines >= top_up::MAX_DECLINES;
        let (words, class, trouble) = match (top_up.is_enabled, top_up.declines) {
            (true, _) if !has_method => (
                "cannot charge".to_owned(),
                "warn",
                Some("There is nothing to charge: save a payment method.".to_owned()),
            ),
            (true, 0) => ("on".to_owned(), "ok", None),
            (true, _) => {
                let until = if top_up.not_before_ms > now_ms {
                    format!("not before {}", format::minute(top_up.not_before_ms, zone))
                } else {
                    "soon".to_owned()
                };
                let trouble = format!("The charge was {declines}. The next attempt is made {until}.");
                (declines, "warn", Some(trouble))
            }
            (false, _) if is_exhausted => {
                let trouble = format!(
                    "The charge was {declines}, so automatic top-up is off. Switch it on again once the payment method works."
                );
                ("switched off".to_owned(), "warn", Some(trouble))
            }
            (false, _) => ("off".to_owned(), "", None),
        };
        TopUpView {
            is_set: true,
            is_on: top_up.is_enabled,
            words,
            class,
            terms: format!("{} below {}", top_up.amount, top_up.threshold),
            trouble,
        }
    }
}

struct AttemptRow {
    at: String,
    what: &'static str,
    amount: Money,
    method: String,
    words: &'static str,
    class: &'static str,
    error: String,
}

fn attempt_row(payment: &Payment, methods: &[MethodChoice], zone: &TimeZone) -> AttemptRow {
    let (words, class) = match payment.state {
        PaymentState::Succeeded => ("paid", "ok"),
        PaymentState::Failed => ("declined", "warn"),
        PaymentState::Cancelled => ("given up", ""),
        PaymentState::RequiresAction => ("to be confirmed", "info"),
        PaymentState::Intent | PaymentState::Unknown | PaymentState::Processing => ("under way", "info"),
    };
    let id = payment.method.map(|method| method.to_string());
    let method = methods.iter().find(|method| Some(&method.id) == id.as_ref());
    AttemptRow {
        at: format::minute(payment.created_at_ms, zone),
        what: match payment.note.as_str() {
            AUTOMATIC_NOTE => "Automatic top-up",
            BOUGHT_NOTE => "Added by you",
            _ => "Added by us",
        },
        amount: payment.amount,
        method: method.map_or_else(
            || gateway_words(payment.gateway).to_owned(),
            |method| method.label.clone(),
        ),
        words,
        class,
        error: match payment.state {
            PaymentState::Failed => paying::error_words(&payment.error),
            _ => String::new(),
        },
    }
}

struct MovementRow {
    at: String,
    what: String,
    href: Option<String>,
    note: String,
    amount: Money,
    is_more: bool,
    balance: Money,
}

fn movement_row(movement: Movement, zone: &TimeZone) -> MovementRow {
    let number = movement.invoice_number.unwrap_or_default();
    let what = match movement.cause {
        Cause::TopUp => "Automatic top-up".to_owned(),
        Cause::Bought => "Credit added".to_owned(),
        Cause::PaidIn => "Paid in".to_owned(),
        Cause::Overpaid => format!("Paid more than {number} asked"),
        Cause::Invoice => format!("Paid for {number}"),
        Cause::InvoiceReopened => format!("{number} is to be paid again"),
        Cause::CreditNote => format!("Credit note {number}"),
        Cause::Granted => "Credit from us".to_owned(),
        Cause::Refunded => "Refunded to you".to_owned(),
        Cause::RefundReturned => "Refund that came back".to_owned(),
        Cause::TakenBack => "Payment reversed".to_owned(),
        Cause::Other => "Correction".to_owned(),
    };
    MovementRow {
        at: format::minute(movement.at_ms, zone),
        what,
        href: movement.invoice.map(|invoice| format!("/invoices/{invoice}")),
        note: match movement.cause {
            Cause::Granted => movement.reason,
            _ => movement.method.unwrap_or_default(),
        },
        amount: movement.amount,
        is_more: movement.amount.minor > 0,
        balance: movement.balance,
    }
}

#[derive(Template)]
#[template(path = "credit.html")]
struct CreditPage {
    shell: Shell,
    time_zone: String,
    balance: Money,
    is_below_zero: bool,
    /// By when a balance below zero is to be paid.
    owed_by: Option<String>,
    /// What can be spent, where that is less.
    available: Option<Money>,
    top_up: TopUpView,
    thresholds: Amounts,
    top_up_amounts: Amounts,
    limits: Limits,
    /// Charged by itself: the default.
    default_method: Option<String>,
    methods: Vec<MethodChoice>,
    /// A payment method is saved, or can be.
    takes_cards: bool,
    under_way: Option<PendingPayment>,
    amounts: Amounts,
    attempts: Vec<AttemptRow>,
    movements: Vec<MovementRow>,
    older_href: Option<String>,
    is_first_page: bool,
    draft: Draft,
    form_token: String,
    notice: Option<&'static str>,
    problem: Option<&'static str>,
}

#[derive(Default, serde::Deserialize)]
pub(crate) struct CreditQuery {
    #[serde(default)]
    done: String,
    /// The last movement of the page before.
    #[serde(default)]
    before: String,
    /// The payment that the customer comes back from confirming, as its gateway adds it to the address.
    #[serde(default)]
    payment_intent: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(shown): PageQuery<CreditQuery>,
) -> Result<Response, PageError> {
    if let Some(payment) = paying::returned(&state, customer.id, None, &shown.payment_intent).await? {
        let page = format!("{PATH}?done={}", paying::outcome_name(&payment));
        return Ok(Redirect::to(&page).into_response());
    }
    render(&state, &customer, &shown, Draft::default()).await
}

async fn render(
    state: &AppState,
    customer: &Customer,
    shown: &CreditQuery,
    draft: Draft,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let before: Option<TransactionId> = query::filter("before", &shown.before, "the id of a movement")?;
    let mut connection = state.db().pool().acquire().await?;
    let owner = inventory::customer(&mut *connection, customer.id).await?;
    let (zone, currency) = (owner.time_zone.clone(), owner.currency);
    let ask = |error: settlement::SettlementError| Failure::internal("ask for credit")(error.into());
    let balance = settlement::credit_balance(&mut *connection, customer.id, currency)
        .await
        .map_err(ask)?;
    let available = settlement::available_credit(&mut connection, customer.id, currency)
        .await
        .map_err(ask)?;
    let owed_by = settlement::credit_claim_due(&mut *connection, customer.id, currency)
        .await
        .map_err(ask)?;
    let top_up = top_up::settings(&mut *connection, customer.id).await?;
    let mut movements = top_up::movements(&mut connection, customer.id, before, PAGE_MOVEMENTS + 1).await?;
    drop(connection);
    let has_older = movements.len() > PAGE_MOVEMENTS as usize;
    movements.truncate(PAGE_MOVEMENTS as usize);
    let older_href = movements
        .last()
        .filter(|_| has_older)
        .map(|last| format!("{PATH}?before={}", last.transaction));
    let attempts = top_ups(state, customer.id).await?;
    let methods = paying::choices(state, customer.id).await?;
    let limits = top_up::limits(currency);
    let (notice, problem) = match shown.done.as_str() {
        "set" => (Some("Automatic top-up is on."), None),
        "off" => (Some("Automatic top-up is off."), None),
        "paid" => (Some("The payment went through, and your credit is there."), None),
        done => paying::outcome_words(done),
    };
    let threshold = top_up.map_or(limits.thresholds[0], |top_up| top_up.threshold);
    let amount = top_up.map_or(limits.amounts[0], |top_up| top_up.amount);
    let body = page(&CreditPage {
        shell: Shell::new(&customer.who, "Credit", PATH),
        time_zone: owner.time_zone_name().to_owned(),
        is_below_zero: balance.minor < 0,
        owed_by: owed_by.map(|at_ms| format::date(at_ms, &zone)),
        available: (available != balance && balance.minor > 0).then_some(available),
        balance,
        top_up: TopUpView::new(top_up.as_ref(), !methods.is_empty(), now_ms, &zone),
        thresholds: Amounts::new(limits.thresholds, threshold, &draft, "top-up", "threshold"),
        top_up_amounts: Amounts::new(limits.amounts, amount, &draft, "top-up", "amount"),
        limits,
        takes_cards: !methods.is_empty() || paying::saves_methods(state),
        default_method: methods.first().map(|method| method.label.clone()),
        under_way: attempts.first().and_then(|last| PendingPayment::of(last, &zone)),
        amounts: Amounts::new(limits.amounts, limits.amounts[0], &draft, "buy", "amount"),
        attempts: attempts
            .iter()
            .map(|payment| attempt_row(payment, &methods, &zone))
            .collect(),
        methods,
        movements: movements
            .into_iter()
            .map(|movement| movement_row(movement, &zone))
            .collect(),
        older_href,
        is_first_page: before.is_none(),
        draft: draft.clone(),
        form_token: form_token(),
        notice,
        problem,
    })?;
    Ok(draft.answer(body))
}

/// Buys credit of the amount that a form names; the form's token is the request, so that it is bought once.
pub(super) async fn bought(
    state: &AppState,
    (who, ip): (&SignedIn, IpAddr),
    customer: CustomerId,
    fields: &Fields,
    amount: Money,
    back: &str,
) -> Result<Payment, ActionFailure> {
    // S1: a method of another customer is not found.
    let method = method_of(state, customer, fields.text("method")).await?;
    let token = fields.text("form_token");
    if !once::is_token(token) {
        return Err(said("This form is too old. Look at it again, then send it."));
    }
    let return_url = format!("{}{back}", state.portal_url());
    let purchase = Purchase {
        customer,
        amount,
        method: method.id,
        request: token,
        return_url: Some(&return_url),
    };
    let begins = Note::new("payment.top_up", customer).change(json!({"after": {"amount": amount.to_string()}}));
    let buy = top_up::buy(state.db(), state.gateways(), &purchase, state.now_ms());
    match action::in_steps(state, (who, ip), begins, buy, paying::outcome_change).await? {
        Ok(payment) => {
            paying::after_payment(state, &payment).await;
            Ok(payment)
        }
        Err(TopUpError::Payment(PaymentError::UnderWay { .. })) => Err(said(
            "Another payment for credit is under way already: wait for it, or give it up first.",
        )),
        Err(TopUpError::Payment(error)) => Err(ActionFailure::Failed(error.into())),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn currency_of(state: &AppState, customer: CustomerId) -> Result<Currency, Failure> {
    Ok(inventory::customer(state.db().pool(), customer).await?.currency)
}

async fn answer(
    state: &AppState,
    customer: &Customer,
    form: &'static str,
    fields: Fields,
    done: Result<&'static str, ActionFailure>,
) -> Result<Response, PageError> {
    match done {
        Ok(done) => Ok(Redirect::to(&format!("{PATH}?done={done}")).into_response()),
        Err(refused) => {
            let draft = Draft::refused(form, refused, fields)?;
            render(state, customer, &CreditQuery::default(), draft).await
        }
    }
}

pub(crate) async fn buy(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done = async {
        let amount = chosen(&fields, "amount", currency_of(&state, customer.id).await?)?;
        let payment = bought(&state, (&who, ip), customer.id, &fields, amount, PATH).await?;
        Ok(paying::outcome_name(&payment))
    }
    .await;
    answer(&state, &customer, "buy", fields, done).await
}

pub(crate) async fn set(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done = async {
        let currency = currency_of(&state, customer.id).await?;
        let threshold = chosen(&fields, "threshold", currency)?;
        let amount = chosen(&fields, "amount", currency)?;
        let mut act = action::begin(&state, &who, ip).await?;
        let now_ms = act.now_ms();
        let note = top_up::set(act.connection(), customer.id, threshold, amount, now_ms).await?;
        act.commit(note).await?;
        Ok("set")
    }
    .await;
    answer(&state, &customer, "top-up", fields, done).await
}

pub(crate) async fn switch_off(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, _): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    match top_up::disable(act.connection(), customer.id, now_ms).await {
        Ok(note) => {
            act.commit(note).await?;
        }
        // There is nothing to switch off: as it was asked for.
        Err(TopUpError::NotSet(_)) => {}
        Err(error) => return Err(Failure::from(error).into()),
    }
    Ok(Redirect::to("/credit?done=off").into_response())
}

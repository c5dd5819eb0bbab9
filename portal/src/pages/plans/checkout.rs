//! An order: name the service, choose the cycle, see what is charged today and next, order.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::catalog::{PlanKind, Price, Spec};
use billing::quote::Request;
use billing::subscription::{FreePlanEligibility, MAX_QUANTITY, free_plan_eligibility, had_trial};
use schemas::ids::PlanId;
use schemas::inventory::{self, Customer as Account, MAX_NAME_CHARS};

use super::{PATH, trial_text};
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::error::{Failure, PageError, page};
use crate::offers::{Offer, cycle_name, offers, price_text, usage_text};
use crate::once::{self, form_token};
use crate::pages::paying;
use crate::pages::quotes::{self, Outcome, QuoteView};
use crate::path::Path;
use crate::query::{PageQuery, filter, wrong};
use crate::shell::Shell;
use crate::state::AppState;

/// Characters of a coupon's code that are looked at.
const MAX_COUPON_CHARS: usize = 40;

#[derive(serde::Deserialize)]
pub(crate) struct CheckoutQuery {
    #[serde(default)]
    cycle: String,
}

#[derive(serde::Deserialize)]
pub(crate) struct Form {
    #[serde(default)]
    cycle: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    quantity: String,
    #[serde(default)]
    coupon: String,
    #[serde(default)]
    shown: String,
    #[serde(default)]
    form_token: String,
    /// `look` to see the amounts, `order` to order.
    #[serde(default, rename = "do")]
    what: String,
}

struct CycleChoice {
    months: i64,
    label: String,
    saving: Option<i64>,
    selected: bool,
}

#[derive(Template)]
#[template(path = "checkout.html")]
struct CheckoutPage {
    shell: Shell,
    plan_id: PlanId,
    plan: String,
    description: String,
    service_type: String,
    usage: String,
    price: String,
    specs: Vec<Spec>,
    trial: Option<String>,
    is_free: bool,
    /// What a free plan takes and this account lacks.
    lacking: Vec<Prerequisite>,
    cycles: Vec<CycleChoice>,
    name: String,
    max_name_chars: usize,
    quantity: i64,
    max_quantity: i64,
    coupon: String,
    quote: Option<QuoteView>,
    /// The payment method that invoices are charged to automatically.
    charged_to: Option<String>,
    problem: Option<String>,
    form_token: String,
}

/// What is missing, and where that is put right.
struct Prerequisite {
    what: &'static str,
    label: &'static str,
    href: &'static str,
}

fn lacking(standing: FreePlanEligibility) -> Vec<Prerequisite> {
    let mut lacking = Vec::new();
    if !standing.email_verified {
        lacking.push(Prerequisite {
            what: "The email address of the account is not verified.",
            label: "Verify it",
            href: "/account#address",
        });
    }
    if !standing.has_second_factor {
        lacking.push(Prerequisite {
            what: "No user of this account has a second factor.",
            label: "Set one up",
            href: "/account/two-factor",
        });
    }
    lacking
}

/// The plan of the address, if it is sold to this customer now.
async fn offer_of(state: &AppState, customer: &Customer, plan: &str) -> Result<(Account, Offer), Failure> {
    let plan: PlanId = plan.parse().map_err(|_| Failure::NotFound)?;
    let mut connection = state.db().pool().acquire().await?;
    let account = inventory::customer(&mut *connection, customer.id).await?;
    let sold = offers(&mut connection, account.currency, PlanKind::Plan, state.now_ms()).await?;
    let offer = sold.into_iter().find(|offer| offer.plan.id == plan);
    Ok((account, offer.ok_or(Failure::NotFound)?))
}

fn price_of<'a>(offer: &'a Offer, cycle: &str) -> Result<&'a Price, Failure> {
    const EXPECTED: &str = "a number of months for which this plan is sold";
    match filter::<i64>("cycle", cycle, EXPECTED)? {
        None => offer.prices.first().ok_or(Failure::NotFound),
        // Never another price than the one that was asked for.
        Some(months) => offer.of_cycle(months).ok_or_else(|| wrong("cycle", cycle, EXPECTED)),
    }
}

async fn checkout_page(
    state: &AppState,
    customer: &Customer,
    (account, offer): (&Account, &Offer),
    form: &Form,
    problem: Option<String>,
) -> Result<Response, PageError> {
    let plan = &offer.plan;
    let price = price_of(offer, &form.cycle)?;
    let lacking = if plan.is_free {
        let mut connection = state.db().pool().acquire().await?;
        lacking(free_plan_eligibility(&mut connection, account).await?)
    } else {
        Vec::new()
    };
    let had_trial = {
        let mut connection = state.db().pool().acquire().await?;
        plan.trial_days > 0 && !plan.trial_repeats && had_trial(&mut connection, account.id, plan.id).await?
    };
    let (mut shown, mut refused) = (None, None);
    match quotes::quote(state, customer.id, request(offer, price, form)).await? {
        Ok(quote) => shown = Some(QuoteView::new(&quote, &account.time_zone)),
        // What is lacking is said at length.
        Err(_) if !lacking.is_empty() => {}
        Err(problem) => refused = Some(problem),
    }
    let methods = paying::choices(state, customer.id).await?;
    let cycles = offer.prices.iter().map(|one| CycleChoice {
        months: one.cycle_months,
        label: format!("{}, {}", cycle_name(one.cycle_months), price_text(one)),
        saving: offer.saving_percent(one),
        selected: one.id == price.id,
    });
    page(&CheckoutPage {
        shell: Shell::new(&customer.who, format!("Order {}", plan.name), PATH),
        plan_id: plan.id,
        plan: plan.name.clone(),
        description: plan.description.clone(),
        service_type: plan.service_type.clone(),
        usage: usage_text(plan, price),
        price: price_text(price),
        specs: plan.specs(),
        trial: if had_trial { None } else { trial_text(plan) },
        is_free: plan.is_free,
        lacking,
        cycles: cycles.collect(),
        name: form.name.clone(),
        max_name_chars: MAX_NAME_CHARS,
        quantity: quantity_of(form).unwrap_or(1),
        max_quantity: MAX_QUANTITY,
        coupon: form.coupon.clone(),
        quote: shown,
        charged_to: paying::default_of(&methods).map(|method| method.label.clone()),
        problem: problem.or(refused),
        form_token: form_token(),
    })
}

fn quantity_of(form: &Form) -> Option<i64> {
    let quantity = form.quantity.trim().parse().ok()?;
    (1..=MAX_QUANTITY).contains(&quantity).then_some(quantity)
}

fn request<'a>(offer: &'a Offer, price: &Price, form: &'a Form) -> Request<'a> {
    let coupon = form.coupon.trim();
    Request::Order {
        // What it is called changes no amount.
        name: if form.name.trim().is_empty() {
            &offer.plan.name
        } else {
            &form.name
        },
        service_type: &offer.plan.service_type,
        price: price.id,
        quantity: quantity_of(form).unwrap_or(1),
        coupon: (!coupon.is_empty()).then_some(coupon),
    }
}

pub(crate) async fn show(
    State(state): State<AppState>,
    customer: Customer,
    Path(plan): Path<String>,
    PageQuery(asked): PageQuery<CheckoutQuery>,
) -> Result<Response, PageError> {
    let (account, offer) = offer_of(&state, &customer, &plan).await?;
    let form = Form {
        cycle: asked.cycle,
        name: String::new(),
        quantity: "1".to_owned(),
        coupon: String::new(),
        shown: String::new(),
        form_token: String::new(),
        what: "look".to_owned(),
    };
    checkout_page(&state, &customer, (&account, &offer), &form, None).await
}

pub(crate) async fn order(
    State(state): State<AppState>,
    customer: Customer,
    Path(plan): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<Form>,
) -> Result<Response, PageError> {
    let (account, offer) = offer_of(&state, &customer, &plan).await?;
    if form.what != "order" {
        return checkout_page(&state, &customer, (&account, &offer), &form, None).await;
    }
    if once::was_taken(state.db().pool(), &form.form_token).await? {
        return Ok(Redirect::to("/subscriptions?done=again").into_response());
    }
    let again = async |problem: &str| {
        let body = checkout_page(&state, &customer, (&account, &offer), &form, Some(problem.to_owned())).await?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
    };
    if form.name.trim().is_empty() {
        return again("Give the service a name, such as web-1 or shop.example.net.").await;
    }
    if quantity_of(&form).is_none() {
        return again(&format!("A quantity is a number between 1 and {MAX_QUANTITY}.")).await;
    }
    if form.coupon.len() > MAX_COUPON_CHARS {
        return again("There is no such coupon. Correct it, or leave the field empty.").await;
    }
    let price = price_of(&offer, &form.cycle)?;
    let request = request(&offer, price, &form);
    match quotes::quote(&state, customer.id, request).await? {
        Ok(quote) if quotes::shown(&quote) != form.shown => {
            return again("These are the amounts for your new choice: check them, then order.").await;
        }
        Ok(_) => {}
        Err(problem) => return again(&problem).await,
    }
    let ip = ip.to_string();
    match quotes::carry_out(&state, customer.id, request, who.actor(&ip), &form.form_token).await? {
        Outcome::Done {
            invoice: Some(invoice), ..
        } => Ok(Redirect::to(&format!("/invoices/{invoice}?done=ordered")).into_response()),
        Outcome::Done { subscription, .. } => {
            Ok(Redirect::to(&format!("/subscriptions/{subscription}?done=ordered")).into_response())
        }
        Outcome::Again => Ok(Redirect::to("/subscriptions?done=again").into_response()),
        Outcome::Refused(problem) => again(&problem).await,
    }
}

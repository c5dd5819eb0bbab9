//! One customer as finance sees them: who they are on paper, what they are subscribed to, what they were charged and paid,
//! and what finance can do about it.

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::BillingError;
use billing::approval::{Gate, wanted};
use billing::invoice::{self, InvoiceFilter, list_all};
use billing::ledger::{self, Owed};
use billing::payment::{self, PaymentFilter, PaymentState};
use billing::refund::{self, RefundBalance};
use billing::subscription::contracts_of;
use billing::top_up;
use billing::vat;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId, SubscriptionId, TransactionId};
use schemas::inventory::{self, BillingProfile, Customer, Entity, InventoryError};
use schemas::money::Money;
use serde_json::json;

use super::attempts::{self, FailedRow};
use super::transactions::other_day;
use super::{InvoiceRow, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Finance, Role};
use crate::customer::metered_usage;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::pages::subscriptions::StateView;
use crate::path::Path;
use crate::query::{self, PageQuery};
use crate::shell::Shell;
use crate::state::AppState;

/// Lines of the statement on one page.
const PAGE_LINES: i64 = 50;
/// Invoices that are shown; the list has the rest.
const INVOICES_SHOWN: i64 = 12;
/// Payments that are shown; the list has the rest.
const PAYMENTS_SHOWN: i64 = 6;
/// Findings about VAT numbers that are shown.
const VAT_CHECKS_SHOWN: i64 = 12;

struct SubscriptionRow {
    id: SubscriptionId,
    service: String,
    plan: String,
    price: String,
    state: StateView,
    /// Where its traffic is shown, for who may see it.
    href: Option<String>,
    started: String,
}

struct StatementRow {
    at: String,
    /// Of a payment whose value date is another day.
    value_date: Option<String>,
    description: String,
    invoice: Option<InvoiceId>,
    owed: Money,
    credit: Money,
    balance: Money,
}

struct ItemRow {
    description: String,
    by: String,
    at: String,
    amount: Money,
}

/// What was found out about a VAT number.
struct VatRow {
    at: String,
    number: String,
    answer: &'static str,
    said: String,
    by: String,
}

#[derive(Template)]
#[template(path = "finance_customer.html")]
struct CustomerPage {
    shell: Shell,
    draft: Draft,
    notice: Option<&'static str>,
    id: CustomerId,
    customer: Customer,
    since: String,
    /// The day on which the account was deleted.
    deleted: Option<String>,
    owed: Vec<Owed>,
    entities: Vec<Entity>,
    entity: String,
    subscriptions: Vec<SubscriptionRow>,
    invoices: Vec<InvoiceRow>,
    payments: Vec<RefundBalance>,
    failed: Vec<FailedRow>,
    items: Vec<ItemRow>,
    vat_checks: Vec<VatRow>,
    statement: Vec<StatementRow>,
    older_href: Option<String>,
    /// May end all of it: `customer_end.rs`.
    is_admin: bool,
}

#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct CustomerPageQuery {
    #[serde(default)]
    done: String,
    /// The last transaction of the page of the statement before.
    #[serde(default)]
    before: String,
}

pub(super) async fn find(state: &AppState, id: &str) -> Result<Customer, Failure> {
    let id: CustomerId = id.parse().map_err(|_| Failure::NotFound)?;
    match inventory::customer(state.db().pool(), id).await {
        Err(InventoryError::NoCustomer(_)) => Err(Failure::NotFound),
        found => Ok(found?),
    }
}

pub(crate) async fn show(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    PageQuery(shown): PageQuery<CustomerPageQuery>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    render(&state, &finance, customer, Draft::default(), &shown).await
}

async fn render(
    state: &AppState,
    finance: &Finance,
    customer: Customer,
    draft: Draft,
    shown: &CustomerPageQuery,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let (id, now_ms, zone) = (customer.id, state.now_ms(), customer.time_zone.clone());
    let before: Option<TransactionId> = query::filter("before", &shown.before, "the id of a transaction")?;
    let mut lines = ledger::statement(pool, id, before, PAGE_LINES + 1)
        .await
        .map_err(BillingError::from)?;
    let most = usize::try_from(PAGE_LINES).unwrap_or(usize::MAX);
    let has_older = lines.len() > most;
    lines.truncate(most);
    let older_href = lines
        .last()
        .filter(|_| has_older)
        .map(|last| format!("{PATH}/customers/{id}?before={}#statement", last.transaction));
    let statement = lines.into_iter().map(|line| StatementRow {
        at: format::minute(line.posted_at_ms, &zone),
        value_date: other_day(line.value_at_ms, line.posted_at_ms),
        description: line.description,
        invoice: line.invoice,
        owed: line.owed,
        credit: line.credit,
        balance: line.balance,
    });
    let of_customer = PaymentFilter {
        customer: Some(id),
        ..PaymentFilter::default()
    };
    let failed = attempts::failed(state, of_customer).await?;
    let mut connection = pool.acquire().await?;
    let contracts = contracts_of(&mut connection, id).await?;
    // Pages of services are those of the network.
    let sees_traffic = finance.0.user.role == Role::Admin;
    let subscriptions = contracts.iter().map(|contract| {
        let phase = contract.last_phase();
        SubscriptionRow {
            id: contract.subscription.id,
            service: contract.service.name.clone(),
            plan: phase.plan.label(),
            price: format!(
                "{} × {} / {}",
                phase.quantity,
                phase.price.base,
                schemas::period::cycle_words(phase.price.cycle_months)
            ),
            state: StateView::new(contract),
            href: sees_traffic.then(|| format!("/ops/services/{}", contract.service.id)),
            started: format::date(contract.subscription.started_at_ms, &zone),
        }
    });
    let filter = InvoiceFilter {
        customer: Some(id),
        limit: Some(INVOICES_SHOWN),
        ..InvoiceFilter::default()
    };
    let invoices = list_all(&mut *connection, filter).await?;
    let filter = PaymentFilter {
        customer: Some(id),
        state: Some(PaymentState::Succeeded),
        ..PaymentFilter::default()
    };
    let mut payments = Vec::new();
    for payment in payment::list(&mut *connection, filter, PAYMENTS_SHOWN).await? {
        payments.push(refund::refund_balance(&mut connection, payment.id).await?);
    }
    let items = invoice::items_of(&mut *connection, id).await?;
    let checks = vat::checks_of(&mut *connection, id, VAT_CHECKS_SHOWN).await?;
    let vat_checks = checks.into_iter().map(|check| VatRow {
        at: format::minute(check.checked_at_ms, &zone),
        number: check.vat_id,
        answer: check.answer.name(),
        said: [check.name, check.address, check.consultation, check.detail]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(" · "),
        by: check.source,
    });
    let body = page(&CustomerPage {
        vat_checks: vat_checks.collect(),
        payments,
        failed,
        shell: Shell::new(&finance.0, customer.name.clone(), PATH),
        notice: notice(&shown.done),
        id,
        deleted: customer.deleted_at_ms.map(|at_ms| format::date(at_ms, &TimeZone::UTC)),
        since: format::date(customer.created_at_ms, &TimeZone::UTC),
        owed: ledger::owed(&mut *connection, Some(id))
            .await
            .map_err(BillingError::from)?,
        entities: inventory::entities(&mut *connection).await?,
        entity: customer.billing.entity.to_string(),
        subscriptions: subscriptions.collect(),
        invoices: invoices
            .into_iter()
            .map(|invoice| InvoiceRow::new(invoice, now_ms))
            .collect(),
        items: items
            .into_iter()
            .map(|item| ItemRow {
                description: item.description,
                by: item.created_by,
                at: format::date(item.created_at_ms, &zone),
                amount: item.amount,
            })
            .collect(),
        statement: statement.collect(),
        older_href,
        is_admin: finance.0.user.role == Role::Admin,
        customer,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

fn notice(done: &str) -> Option<&'static str> {
    match done {
        "profile" => Some("The profile was changed. It holds from the next invoice on."),
        "charge" => Some("The next invoice charges it."),
        "transfer" => Some("The transfer was recorded. What is open is paid from it within a minute."),
        "grant" => Some("The credit was granted."),
        "close" => Some("The due charges were invoiced."),
        "vat" => Some("VAT number accepted: invoices held for it are finalised by the next closing."),
        "nothing" => Some("Nothing is due to be charged yet."),
        "terminated" => Some("The subscriptions have ended; what was used until now is on the last invoice."),
        "asked" => Some("Requested. A second admin decides."),
        _ => None,
    }
}

pub(super) async fn answer(
    state: &AppState,
    finance: &Finance,
    customer: Customer,
    form: &'static str,
    fields: Fields,
    done: Result<&'static str, ActionFailure>,
) -> Result<Response, PageError> {
    match done {
        Ok(done) => Ok(Redirect::to(&format!("{PATH}/customers/{}?done={done}", customer.id)).into_response()),
        Err(refused) => {
            let draft = Draft::refused(form, refused, fields)?;
            render(state, finance, customer, draft, &CustomerPageQuery::default()).await
        }
    }
}

/// What invoices to the customer say and follow.
pub(crate) async fn profile(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let text = |name: &str| fields.text(name).to_owned();
        let new = BillingProfile {
            entity: fields.id("entity")?,
            street: text("street"),
            postal_code: text("postal_code"),
            city: text("city"),
            region: text("region"),
            vat_id: text("vat_id"),
            purchase_order: text("purchase_order"),
            tax_exempt_reason: text("tax_exempt_reason"),
            prices_include_tax: fields.is_ticked("prices_include_tax"),
            pools_usage: fields.is_ticked("pools_usage"),
        };
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok("profile");
        };
        inventory::change_billing_profile(action.connection(), customer.id, &new).await?;
        let change = json!({"before": customer.billing, "after": new});
        action
            .commit(Note::new("customer.billing_profile", customer.id).personal(change))
            .await?;
        Ok("profile")
    }
    .await;
    answer(&state, &finance, customer, "profile", fields, done).await
}

/// Takes the customer's VAT number although the register has not confirmed it.
pub(crate) async fn vat_accept(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok("vat");
        };
        let (actor, now_ms) = (action.actor.clone(), action.now_ms);
        let reason = fields.text("reason");
        let check = vat::accept(action.connection(), customer.id, reason, &actor, now_ms).await?;
        let change = json!({"after": {"vat_id": check.vat_id, "reason": check.detail}});
        action
            .commit(Note::new("customer.vat_accept", customer.id).change(change))
            .await?;
        Ok("vat")
    }
    .await;
    answer(&state, &finance, customer, "vat", fields, done).await
}

/// Something for the next invoice, by hand.
pub(crate) async fn charge(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let amount = fields.money("amount", customer.currency)?;
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok("charge");
        };
        let (actor, now_ms) = (action.actor.clone(), action.now_ms);
        let description = fields.text("description");
        if amount.minor < 0 {
            let wanted = wanted::credit_item(action.connection(), customer.id, description, amount, now_ms).await?;
            if let Gate::Waits(asked) = action.gate(&wanted).await? {
                action.commit_entered(asked.entered).await?;
                return Ok("asked");
            }
        }
        let item = invoice::add_item(
            action.connection(),
            customer.id,
            None,
            description,
            amount,
            &actor,
            now_ms,
        )
        .await?;
        let change = json!({"after": {"item": item.id, "description": description, "amount": amount.to_string()}});
        action
            .commit(Note::new("customer.charge", customer.id).change(change))
            .await?;
        Ok("charge")
    }
    .await;
    answer(&state, &finance, customer, "charge", fields, done).await
}

/// Credit that nobody paid for; it is granted once per cause.
pub(crate) async fn grant(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let amount = fields.money("amount", customer.currency)?;
        let reason = fields.text("reason");
        if reason.is_empty() {
            return Err(said("Say why the credit is granted."));
        }
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok("grant");
        };
        let now_ms = action.now_ms;
        // The form's token is the cause: one sending, one grant.
        let cause = format!("form:{}", fields.text("form_token"));
        let wanted = wanted::credit_grant(action.connection(), customer.id, amount, &cause, reason, now_ms).await?;
        if let Gate::Waits(asked) = action.gate(&wanted).await? {
            action.commit_entered(asked.entered).await?;
            return Ok("asked");
        }
        let (_, note) = top_up::grant(action.connection(), customer.id, amount, &cause, reason, now_ms).await?;
        if let Some(note) = note {
            action.commit(note).await?;
        }
        Ok("grant")
    }
    .await;
    answer(&state, &finance, customer, "grant", fields, done).await
}

/// Charges now what is due. Each charge is made once whoever asks and however often (B3), so it needs no token of its own;
/// an entry in the audit log comes first, and one with the result after it.
pub(crate) async fn close(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let Some(action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok("close");
        };
        let now_ms = action.now_ms;
        let change = json!({"after": {"charged_at": format::rfc3339(now_ms)}});
        let begins = Note::new("customer.close", customer.id).change(change);
        let steps = action.begin_steps(&state, begins).await?;
        let closing = invoice::close(state.db(), &metered_usage(&state), customer.id, now_ms).await;
        let outcome = match &closing {
            Ok(closing) => Ok(json!({"invoices": closing.invoices, "refused": closing.refused.len(),
                "failed": closing.failed.len()})),
            Err(error) => Err(error.to_string()),
        };
        steps.end(outcome).await?;
        let closing = closing?;
        if let Some((_, error)) = closing.failed.into_iter().next() {
            return Err(error.into());
        }
        Ok(if closing.invoices.is_empty() {
            "nothing"
        } else {
            "close"
        })
    }
    .await;
    answer(&state, &finance, customer, "close", fields, done).await
}

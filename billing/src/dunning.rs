//! Collection: what is done about an invoice until it is paid (F-21).
//!
//! ```text
//! finalised     charge                                   what is there as credit is used first
//! days before   reminded, where the terms say so             (`notices.rs`, of cards that expire too)
//! due, day 0    invoice.overdue, subscriptions past due, charge
//! day 3, 5, 7   charge                                   (the days of the `Schedule`)
//! day 14        subscriptions on the invoice held for `unpaid`
//! then          listed: to write off or to terminate is a person's decision; or ended on the day that the terms name
//!
//! at any time   credit that has come pays it, a new payment method is charged     (`anytime.rs`)
//! paid          past due → active, hold lifted, for each subscription with nothing else overdue
//! ```
//!
//! Promises:
//! * A step is done once, whoever runs and how many: its transaction moves `dunning.step` by compare-and-set. The charge
//!   comes after that commit, so a process that dies in between has missed an attempt and never makes one twice.
//! * After days off each step that was missed is made up for, but charged is once. What can be charged is charged before
//!   anything is suspended for it.
//! * While the outcome of a payment is awaited nothing else is done; the customer's confirmation is not waited for.
//! * Paid, void, written off or disputed invoices are left alone. What was paid and taken back (a chargeback, a refund by
//!   the gateway) starts anew on that day, and is not charged by itself any more. So does what credit paid that came from such
//!   a payment; what is owed on no invoice is collected like one (`claims.rs`). What a transfer that was reversed had settled
//!   starts anew too, and is charged.
//! * Who may go on follows from what is open, not from what was noted: [`recover`] can be run at any time.

mod anytime;
mod claims;
mod notices;
mod outlook;
mod recovery;
mod schedule;

pub use outlook::{Outlook, is_charged_next, outlook};
pub use recovery::{Recovered, recover, recover_customer};
pub use schedule::Progress;

use activity::event::{EventError, EventType};
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, SubscriptionId};
use schemas::money::{Currency, Money, MoneyError};
use schemas::window::HOUR_MS;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};
use tracing::{info, warn};

use self::schedule::Dates;
use crate::BillingError;
use crate::charger::{self, ChargeOrder, ChargeResult, Charger, Purpose};
use crate::collection_terms::{Schedule, TermsError, terms};
use crate::settlement::{self, SettlementError};
use crate::subscription::change::{self, CancellationTime};
use crate::subscription::state::HoldCause;
use crate::subscription::{ITSELF, holds};

/// Invoices that one call looks at; the next call takes the rest.
const AT_ONCE: i64 = 1_000;
/// A payment that is under way is waited for so long before the next look.
const WAIT_MS: i64 = HOUR_MS;
/// What its charges say in `payments.note`: nobody asked for them at that moment.
pub const COLLECTION_NOTE: &str = "collection";
/// Steps of one invoice in one call: a charge, a suspension that was due too, and an end.
const STEPS_AT_ONCE: usize = 3;
/// Invoices on a page at most.
pub const MAX_PAGE: i64 = 1_000;

/// Why collection could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DunningError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("use credit")]
    Settlement(#[from] SettlementError),
    #[error("change a subscription")]
    Billing(#[from] BillingError),
    #[error("publish the event")]
    Event(#[from] EventError),
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("charge the payment method")]
    Charge(#[from] charger::ChargerError),
    #[error("take over the terms of collection")]
    Terms(#[from] TermsError),
}

schemas::error_codes! {
    DunningError: "dunning";
    of [Database, Settlement, Billing, Event, Money, Charge, Terms]
    source []
}

/// What one call did.
#[derive(Debug, Default)]
pub struct Collected {
    /// Invoices that collection began with.
    pub begun: u64,
    /// Invoices that are not collected any more: paid, void, written off, disputed.
    pub left: u64,
    pub overdue: Vec<InvoiceId>,
    pub charged: Vec<(InvoiceId, ChargeResult)>,
    /// What credit has paid that came since the last call.
    pub from_credit: Vec<(InvoiceId, Money)>,
    pub suspended: Vec<InvoiceId>,
    /// Invoices whose subscriptions have ended for them.
    pub terminated: Vec<InvoiceId>,
    /// Reminders of invoices before they are due, and of cards before they expire.
    pub reminders: u64,
    pub recovered: Vec<SubscriptionId>,
    /// What could not be done, and why; the rest was.
    pub failed: Vec<(InvoiceId, DunningError)>,
    /// Customers whose negative credit could not be collected.
    pub claims_failed: Vec<(CustomerId, DunningError)>,
    /// Subscriptions whose state could not be put right.
    pub stuck: Vec<(SubscriptionId, DunningError)>,
}

/// Does what is due about unpaid invoices by the terms in force, and lets go on who has paid. Doing it again does nothing.
///
/// # Errors
/// When the database cannot be read at all; what fails for one invoice is in [`Collected::failed`].
pub async fn run(database: &Database, charger: &dyn Charger, now_ms: i64) -> Result<Collected, DunningError> {
    let terms = terms(database.pool()).await?;
    let schedule = &terms.schedule().map_err(TermsError::from)?;
    let mut collected = Collected {
        left: leave(database).await?,
        begun: begin(database, now_ms).await?,
        ..Collected::default()
    };
    anytime::use_credit(database, now_ms, &mut collected).await?;
    let rows = sqlx::query(
        "SELECT d.invoice_id FROM dunning d WHERE d.next_at_ms <= $1 ORDER BY d.next_at_ms, d.invoice_id LIMIT $2",
    )
    .bind(now_ms)
    .bind(AT_ONCE)
    .fetch_all(database.pool())
    .await?;
    for row in &rows {
        let invoice = InvoiceId(row.try_get(0)?);
        if let Err(error) = collect(database, charger, schedule, invoice, now_ms, &mut collected).await {
            collected.failed.push((invoice, error));
        }
    }
    anytime::charge_new_methods(database, charger, now_ms, &mut collected).await?;
    claims::run(database, schedule, now_ms, &mut collected).await?;
    collected.reminders = notices::run(database, &terms, now_ms).await?;
    // What was settled meanwhile, by these charges or by others.
    collected.left += leave(database).await?;
    let recovered = recover(database, now_ms).await?;
    collected.recovered = recovered.subscriptions;
    collected.stuck = recovered.failed;
    for (subscription, error) in recovery::note_late(database, now_ms).await? {
        collected.stuck.push((subscription, error));
    }
    Ok(collected)
}

/// What collection leaves alone.
const IS_LEFT_ALONE: &str = "(i.kind <> 'invoice' OR i.status NOT IN ('finalised', 'partially_paid') \
     OR EXISTS (SELECT 1 FROM payments p JOIN disputes x ON x.payment_id = p.id WHERE p.invoice_id = i.id AND x.status = 'open'))";

/// It was paid, and what it was paid with was taken back: a payment, or credit that came from one.
const WAS_REOPENED: &str = "EXISTS (SELECT 1 FROM allocations b WHERE b.invoice_id = i.id AND b.source IN ('payment', 'credit') \
     AND b.amount_minor < 0)";

/// Of allocations `a` of payments that were undone: somebody took money back, where a transfer that was reversed never came in.
const TOOK_IT_BACK: &str = "NOT EXISTS (SELECT 1 FROM payment_reversals v WHERE v.payment_id = a.payment_id)";

async fn leave(database: &Database) -> Result<u64, DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "DELETE FROM dunning WHERE invoice_id IN \
         (SELECT i.id FROM dunning d JOIN invoices i ON i.id = d.invoice_id WHERE {IS_LEFT_ALONE})"
    ));
    let mut transaction = database.begin_write().await?;
    let left = sqlx::query(sql).execute(&mut *transaction).await?.rows_affected();
    transaction.commit().await?;
    Ok(left)
}

/// Open invoices that are not collected yet. One that was paid before is past its first charge.
async fn begin(database: &Database, now_ms: i64) -> Result<u64, DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "INSERT INTO dunning (invoice_id, step, next_at_ms, updated_at_ms) \
         SELECT i.id, CASE WHEN EXISTS (SELECT 1 FROM allocations a WHERE a.invoice_id = i.id \
         AND a.source IN ('payment', 'credit') AND a.amount_minor < 0 AND {TOOK_IT_BACK}) THEN {} ELSE {} END, i.finalised_at_ms, $1 \
         FROM invoices i WHERE i.finalised_at_ms <= $1 AND i.status IN ('finalised', 'partially_paid') AND NOT {IS_LEFT_ALONE} \
         AND NOT EXISTS (SELECT 1 FROM dunning d WHERE d.invoice_id = i.id) ON CONFLICT (invoice_id) DO NOTHING",
        Progress::CHARGED_FIRST.0,
        Progress::NONE.0,
    ));
    let mut transaction = database.begin_write().await?;
    let begun = sqlx::query(sql)
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    transaction.commit().await?;
    Ok(begun)
}

async fn collect(
    database: &Database,
    charger: &dyn Charger,
    schedule: &Schedule,
    invoice: InvoiceId,
    now_ms: i64,
    collected: &mut Collected,
) -> Result<(), DunningError> {
    for _ in 0..STEPS_AT_ONCE {
        let Some(done) = step(database, schedule, invoice, now_ms).await? else {
            return Ok(());
        };
        if done.is_overdue {
            collected.overdue.push(invoice);
        }
        if done.is_suspended {
            info!(%invoice, "services suspended: not paid");
            collected.suspended.push(invoice);
        }
        if done.is_terminated {
            info!(%invoice, "subscriptions ended: not paid");
            collected.terminated.push(invoice);
        }
        if let Some(order) = done.order {
            let charge = charger.charge(order, now_ms).await?;
            if let ChargeResult::Declined { payment, reason } = &charge {
                warn!(%invoice, %payment, reason, "an invoice could not be collected");
            }
            collected.charged.push((invoice, charge));
        }
    }
    Ok(())
}

/// What a transaction did, and what to charge now that it is committed.
struct CollectionOutcome {
    is_overdue: bool,
    is_suspended: bool,
    is_terminated: bool,
    order: Option<ChargeOrder<'static>>,
}

/// An invoice on its way, as its transaction sees it.
struct Unpaid {
    invoice: InvoiceId,
    customer: CustomerId,
    number: String,
    progress: Progress,
    next_at_ms: Option<i64>,
    total: Money,
    dates: Dates,
    is_open: bool,
    /// It was paid, and the money was taken back.
    is_reopened: bool,
    is_awaited: bool,
}

/// Does the next step of one invoice; `None` when there is nothing to do, or somebody else does it.
async fn step(
    database: &Database,
    schedule: &Schedule,
    invoice: InvoiceId,
    now_ms: i64,
) -> Result<Option<CollectionOutcome>, DunningError> {
    let mut transaction = database.begin_write().await?;
    let Some(customer) = customer_of(&mut transaction, invoice).await? else {
        return Ok(None);
    };
    settlement::lock_customer(&mut transaction, customer).await?;
    let Some(unpaid) = read_unpaid(&mut transaction, invoice).await? else {
        return Ok(None);
    };
    if !unpaid.is_open || unpaid.next_at_ms.is_none_or(|next_ms| next_ms > now_ms) {
        return Ok(None);
    }
    let Some(due) = schedule.due(unpaid.progress, unpaid.dates, now_ms) else {
        // The schedule, or the day from which it counts, has changed.
        let next_ms = schedule.next_at_ms(unpaid.progress, unpaid.dates);
        move_to(&mut transaction, &unpaid, unpaid.progress, next_ms, now_ms).await?;
        transaction.commit().await?;
        return Ok(None);
    };
    if unpaid.is_awaited {
        move_to(
            &mut transaction,
            &unpaid,
            unpaid.progress,
            Some(now_ms + WAIT_MS),
            now_ms,
        )
        .await?;
        transaction.commit().await?;
        return Ok(None);
    }
    if due.terminates {
        let earliest_ms = held_for_it_since(&mut transaction, &unpaid)
            .await?
            .map(|ms| ms + schedule.grace_ms());
        if let Some(earliest_ms) = earliest_ms.filter(|earliest_ms| *earliest_ms > now_ms) {
            // It was suspended late, as after days off: its time to pay is not shorter for it.
            move_to(&mut transaction, &unpaid, unpaid.progress, Some(earliest_ms), now_ms).await?;
            transaction.commit().await?;
            return Ok(None);
        }
    }
    let next_ms = schedule.next_at_ms(due.to, unpaid.dates);
    if !move_to(&mut transaction, &unpaid, due.to, next_ms, now_ms).await? {
        return Ok(None);
    }
    // What is there as credit is the customer's way to pay before any other.
    let credit = settlement::apply_credit(&mut transaction, invoice, now_ms).await?;
    let open = settlement::outstanding(&mut *transaction, invoice).await?;
    if open.minor <= 0 {
        recover_customer(&mut transaction, customer, now_ms).await?;
        transaction.commit().await?;
        info!(%invoice, %credit, "paid from credit");
        return Ok(None);
    }
    if due.says_overdue {
        publish_overdue(&mut transaction, &unpaid, open, schedule, now_ms).await?;
        let reason = format!("invoice {} is overdue", unpaid.number);
        for subscription in subscriptions_on(&mut transaction, &unpaid).await? {
            change::payment_late(&mut transaction, subscription, &reason, now_ms).await?;
        }
    }
    if due.suspends {
        let reason = format!("invoice {} is not paid", unpaid.number);
        for subscription in subscriptions_on(&mut transaction, &unpaid).await? {
            change::hold(
                &mut transaction,
                subscription,
                HoldCause::Unpaid,
                &reason,
                ITSELF,
                now_ms,
            )
            .await?;
        }
    }
    if due.terminates {
        let reason = format!("invoice {} is not paid", unpaid.number);
        for subscription in subscriptions_on(&mut transaction, &unpaid).await? {
            // Whom a person has let go on is not ended.
            if holds(&mut transaction, subscription)
                .await?
                .contains(&HoldCause::Unpaid)
            {
                change::cancel(
                    &mut transaction,
                    subscription,
                    CancellationTime::Now,
                    &reason,
                    ITSELF,
                    now_ms,
                )
                .await?;
            }
        }
    }
    let mut order = None;
    if due.charges && !unpaid.is_reopened {
        let method = charger::default_method(&mut *transaction, customer).await?;
        order = method.map(|method| ChargeOrder {
            customer,
            method,
            purpose: Purpose::Invoice(invoice),
            note: COLLECTION_NOTE,
        });
    }
    transaction.commit().await?;
    Ok(Some(CollectionOutcome {
        is_overdue: due.says_overdue,
        is_suspended: due.suspends,
        is_terminated: due.terminates,
        order,
    }))
}

/// Moves an invoice on from where it was read; false when somebody else has.
async fn move_to(
    connection: &mut AnyConnection,
    unpaid: &Unpaid,
    to: Progress,
    next_at_ms: Option<i64>,
    now_ms: i64,
) -> Result<bool, DunningError> {
    let moved = sqlx::query(
        "UPDATE dunning SET step = $2, next_at_ms = $3, updated_at_ms = $4 WHERE invoice_id = $1 AND step = $5",
    )
    .bind(unpaid.invoice.0)
    .bind(to.0)
    .bind(next_at_ms)
    .bind(now_ms)
    .bind(unpaid.progress.0)
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

async fn publish_overdue(
    connection: &mut AnyConnection,
    unpaid: &Unpaid,
    open: Money,
    schedule: &Schedule,
    now_ms: i64,
) -> Result<(), DunningError> {
    let facts = serde_json::json!({
        "number": unpaid.number,
        "amount_minor": unpaid.total.minor,
        "total_minor": unpaid.total.minor,
        "open_minor": open.minor,
        "currency": open.currency.code(),
        "due_at_ms": unpaid.dates.due_at_ms,
        "suspends_at_ms": schedule.suspends_at_ms(unpaid.dates),
        "terminates_at_ms": schedule.terminates_at_ms(unpaid.dates),
    });
    let subject = unpaid.invoice.to_string();
    settlement::tell(
        connection,
        EventType::InvoiceOverdue,
        unpaid.customer,
        subject,
        facts,
        now_ms,
    )
    .await?;
    Ok(())
}

/// The subscriptions that an invoice charges for and that have not ended.
async fn subscriptions_on(
    connection: &mut AnyConnection,
    unpaid: &Unpaid,
) -> Result<Vec<SubscriptionId>, DunningError> {
    let rows = sqlx::query(
        "SELECT s.id FROM subscriptions s WHERE s.customer_id = $2 AND s.status <> 'ended' \
         AND s.id IN (SELECT l.subscription_id FROM invoice_lines l WHERE l.invoice_id = $1) ORDER BY s.id",
    )
    .bind(unpaid.invoice.0)
    .bind(unpaid.customer.0)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(SubscriptionId(row.try_get(0)?))).collect()
}

/// Since when the last of the subscriptions on an invoice is held for being unpaid.
async fn held_for_it_since(connection: &mut AnyConnection, unpaid: &Unpaid) -> Result<Option<i64>, DunningError> {
    let row = sqlx::query(
        "SELECT CAST(max(h.placed_at_ms) AS BIGINT) FROM holds h JOIN subscriptions s ON s.id = h.subscription_id \
         WHERE h.cause = 'unpaid' AND h.lifted_at_ms IS NULL AND s.customer_id = $2 AND s.status <> 'ended' \
         AND s.id IN (SELECT l.subscription_id FROM invoice_lines l WHERE l.invoice_id = $1)",
    )
    .bind(unpaid.invoice.0)
    .bind(unpaid.customer.0)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

async fn customer_of(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<Option<CustomerId>, DunningError> {
    let row = sqlx::query("SELECT customer_id FROM invoices WHERE id = $1")
        .bind(invoice.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(CustomerId))
}

async fn read_unpaid(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<Option<Unpaid>, DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT d.step, d.next_at_ms, i.customer_id, i.number, i.currency, i.total_minor, i.finalised_at_ms, i.due_at_ms, \
         CAST(CASE WHEN {IS_LEFT_ALONE} THEN 0 ELSE 1 END AS BIGINT) AS is_open, \
         (SELECT CAST(max(a.created_at_ms) AS BIGINT) FROM allocations a WHERE a.invoice_id = i.id \
          AND a.source IN ('payment', 'credit') AND a.amount_minor < 0) AS reopened_at_ms, \
         (SELECT count(*) FROM allocations a WHERE a.invoice_id = i.id AND a.source IN ('payment', 'credit') \
          AND a.amount_minor < 0 AND {TOOK_IT_BACK}) AS taken_back, \
         (SELECT count(*) FROM payments p WHERE p.invoice_id = i.id AND p.state IN ('intent', 'unknown', 'processing')) AS awaited \
         FROM dunning d JOIN invoices i ON i.id = d.invoice_id WHERE i.id = $1"
    ));
    let Some(row) = sqlx::query(sql).bind(invoice.0).fetch_optional(connection).await? else {
        return Ok(None);
    };
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let due_at_ms: i64 = row.try_get("due_at_ms")?;
    let reopened_at_ms: Option<i64> = row.try_get("reopened_at_ms")?;
    Ok(Some(Unpaid {
        invoice,
        customer: CustomerId(row.try_get("customer_id")?),
        number: row.try_get("number")?,
        progress: Progress(row.try_get("step")?),
        next_at_ms: row.try_get("next_at_ms")?,
        total: Money::new(row.try_get("total_minor")?, currency),
        dates: Dates {
            finalised_at_ms: row.try_get("finalised_at_ms")?,
            due_at_ms: reopened_at_ms.map_or(due_at_ms, |reopened_ms| reopened_ms.max(due_at_ms)),
        },
        is_open: row.try_get::<i64, _>("is_open")? == 1,
        is_reopened: row.try_get::<i64, _>("taken_back")? > 0,
        is_awaited: row.try_get::<i64, _>("awaited")? > 0,
    }))
}

/// An invoice that is collected.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = InvoiceInCollection)]
pub struct Collection {
    pub invoice: InvoiceId,
    pub number: String,
    pub customer: CustomerId,
    pub customer_name: String,
    pub open: Money,
    pub due_at_ms: i64,
    pub progress: Progress,
    /// When something is done next; `None`: all that is done by itself was done, and a person decides.
    pub next_at_ms: Option<i64>,
    /// Charges of it that did not go through.
    pub declines: i64,
}

impl Collection {
    /// Nothing more is done by itself: it is to be written off, or its services terminated, or waited for.
    pub fn is_exhausted(&self) -> bool {
        self.next_at_ms.is_none()
    }
}

/// Which invoices to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CollectionFilter {
    /// Of this customer only (S1).
    pub customer: Option<CustomerId>,
    /// Only those that wait for a person's decision.
    pub exhausted: bool,
    /// Past their due date by this instant.
    pub overdue_at_ms: Option<i64>,
}

/// Invoices that are collected, earliest due date first, [`MAX_PAGE`] at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list(db: impl AnyExecutor<'_>, filter: CollectionFilter) -> Result<Vec<Collection>, DunningError> {
    let rows = sqlx::query(
        "SELECT i.id, i.number, i.customer_id, i.customer_name, i.currency, i.total_minor, i.due_at_ms, d.step, d.next_at_ms, \
         CAST(coalesce((SELECT sum(a.amount_minor) FROM allocations a WHERE a.invoice_id = i.id), 0) AS BIGINT) AS settled, \
         (SELECT count(*) FROM payments p WHERE p.invoice_id = i.id AND p.state = 'failed') AS declines \
         FROM dunning d JOIN invoices i ON i.id = d.invoice_id WHERE i.status IN ('finalised', 'partially_paid') \
         AND ($1 = 0 OR i.customer_id = $1) AND ($2 = 0 OR d.next_at_ms IS NULL) AND i.due_at_ms <= $3 \
         ORDER BY i.due_at_ms, i.id LIMIT $4",
    )
    .bind(filter.customer.map_or(0, |customer| customer.0))
    .bind(i64::from(filter.exhausted))
    .bind(filter.overdue_at_ms.unwrap_or(i64::MAX))
    .bind(MAX_PAGE)
    .fetch_all(db)
    .await?;
    rows.iter().map(read_collection).collect()
}

fn read_collection(row: &AnyRow) -> Result<Collection, DunningError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let total = Money::new(row.try_get("total_minor")?, currency);
    Ok(Collection {
        invoice: InvoiceId(row.try_get("id")?),
        number: row.try_get("number")?,
        customer: CustomerId(row.try_get("customer_id")?),
        customer_name: row.try_get("customer_name")?,
        open: settlement::minus(total, Money::new(row.try_get("settled")?, currency))?,
        due_at_ms: row.try_get("due_at_ms")?,
        progress: Progress(row.try_get("step")?),
        next_at_ms: row.try_get("next_at_ms")?,
        declines: row.try_get("declines")?,
    })
}

#[cfg(test)]
mod tests;

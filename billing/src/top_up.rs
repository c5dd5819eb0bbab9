//! Credit that customers buy, are given, or have topped up by themselves (F-23).
//!
//! ```text
//! balance below the threshold ─▶ claim (not_before_ms moves on) ─▶ charge the default method ─▶ outcome counted
//!                                                                   succeeded: declines = 0
//!                                                                   declined:  1 h, 6 h, 24 h of peace, then disabled
//! ```
//!
//! Promises:
//! * At most one top-up of a customer is under way (`payments_one_top_up`), and of any number of workers that look at once
//!   one asks: each look claims the next attempt before it charges.
//! * A charge whose outcome is not known yet is waited for. Outcomes are counted from `payments`, each once, whoever heard
//!   of it: at once, from a webhook, days later.
//! * Four declines in a row switch it off, which is said. Setting it again starts anew.
//! * Every attempt is a row in `payments`, with its state and error.
//! * That the credit is low where nothing will be charged is said once, until it was enough again.
//!
//! A top-up is only ever looked at here; the balance is the ledger's ([`settlement::credit_balance`]).

mod buy;
mod limits;
mod movements;

pub use buy::{Purchase, buy};
pub use limits::{Limits, limits};
pub use movements::{Cause, Movement, movements};

use activity::act::Note;
use activity::event::{EventError, EventType};
use schemas::db::Database;
use schemas::ids::{CustomerId, PaymentId, TransactionId};
use schemas::inventory::{self, InventoryError};
use schemas::money::{Currency, Money, MoneyError};
use schemas::text::is_plain_text;
use schemas::window::HOUR_MS;
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};
use tracing::{info, warn};

use crate::charger::{self, ChargeOrder, ChargeResult, Charger, Purpose};
use crate::payment::PaymentError;
use crate::settlement::{self, SettlementError};

/// How long the payment method is left in peace after a decline, by how many there were in a row. With one more the top-up
/// is disabled.
pub const COOL_OFF_MS: [i64; 3] = [HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS];
/// Declines in a row after which nothing is charged any more.
pub const MAX_DECLINES: i64 = COOL_OFF_MS.len() as i64 + 1;
/// A claim holds so long: a process that died while it charged is not waited for longer.
const CLAIM_MS: i64 = 10 * 60_000;
/// What automatic top-ups say in `payments.note`; those by hand do not count.
pub const AUTOMATIC_NOTE: &str = "automatic top-up";
/// What bought credit says there.
pub const BOUGHT_NOTE: &str = "credit bought";
/// Customers that are read at once.
const PAGE: i64 = 1_000;
/// Characters in a reason at most.
const MAX_REASON_CHARS: usize = 500;

/// Why credit was not topped up, bought or granted.
#[derive(Debug, thiserror::Error)]
pub enum TopUpError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read the customer")]
    Inventory(#[from] InventoryError),
    #[error("read or change the credit")]
    Settlement(#[from] SettlementError),
    #[error("publish the event")]
    Event(#[from] EventError),
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("charge the payment method")]
    Charge(#[from] charger::ChargerError),
    #[error("buy credit")]
    Payment(#[from] PaymentError),
    #[error("{customer} pays in {pays}, not in {asked}")]
    OtherCurrency {
        customer: CustomerId,
        pays: Currency,
        asked: Currency,
    },
    #[error("a {what} lies between {min} and {max}, not {value}")]
    OutOfRange {
        what: &'static str,
        value: Money,
        min: Money,
        max: Money,
    },
    #[error("{amount} would not bring the credit over {threshold}: top up by at least as much")]
    TooLittle { amount: Money, threshold: Money },
    #[error("{0} has no automatic top-up")]
    NotSet(CustomerId),
    #[error(
        "a reason has between 1 and {MAX_REASON_CHARS} characters and no control characters or invisible ones, not {0:?}"
    )]
    Reason(String),
}

schemas::error_codes! {
    TopUpError: "top_up";
    of [Database, Inventory, Settlement, Event, Money, Charge, Payment]
    source []
    NotFound: NotSet = "not_set";
    Refused:
        OtherCurrency = "other_currency", OutOfRange = "out_of_range", TooLittle = "too_little", Reason = "reason";
}

/// A customer's automatic top-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct TopUp {
    pub customer: CustomerId,
    /// Below it credit is topped up.
    pub threshold: Money,
    /// By so much.
    pub amount: Money,
    pub is_enabled: bool,
    /// In a row.
    pub declines: i64,
    /// Nothing is charged before.
    pub not_before_ms: i64,
    pub updated_at_ms: i64,
    #[serde(skip)]
    counted: PaymentId,
    #[serde(skip)]
    low_balance_notified_at_ms: Option<i64>,
}

/// What a look at a customer's credit came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopUpCheck {
    /// There is no automatic top-up.
    NotSet,
    /// The balance is not below the threshold.
    Enough,
    /// Another top-up is under way.
    UnderWay(PaymentId),
    /// After declines, or because another worker is at it.
    Waits {
        until_ms: i64,
    },
    Disabled,
    NoMethod,
    Charged(ChargeResult),
}

/// What a look at all customers came to.
#[derive(Debug, Default)]
pub struct TopUpChecks {
    pub looked_at: u64,
    pub charged: Vec<(CustomerId, ChargeResult)>,
    pub failed: Vec<(CustomerId, TopUpError)>,
}

/// A customer's automatic top-up, enabled or not.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn settings(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Option<TopUp>, TopUpError> {
    let row = sqlx::query(
        "SELECT t.customer_id, t.threshold_minor, t.amount_minor, t.is_enabled, t.declines, t.not_before_ms, t.updated_at_ms, \
         t.counted_payment_id, t.low_balance_notified_at_ms, c.currency FROM top_ups t JOIN customers c ON c.id = t.customer_id \
         WHERE t.customer_id = $1",
    )
    .bind(customer.0)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Switches automatic top-up on, with these terms; declines before are forgotten.
///
/// # Errors
/// When an amount is out of the [`limits()`], in another currency, or too little to reach the threshold.
pub async fn set(
    connection: &mut AnyConnection,
    customer: CustomerId,
    threshold: Money,
    amount: Money,
    now_ms: i64,
) -> Result<Note, TopUpError> {
    settlement::lock_customer(connection, customer).await?;
    let limits = limits_of(connection, customer, threshold).await?;
    limits_of(connection, customer, amount).await?;
    limits.check("threshold", threshold, limits.threshold_min, limits.threshold_max)?;
    limits.check("top-up", amount, limits.amount_min, limits.amount_max)?;
    if amount.minor < threshold.minor {
        return Err(TopUpError::TooLittle { amount, threshold });
    }
    // What came out before is not held against the new terms. Another worker may be about to charge by the old ones: its
    // claim is kept, and nothing longer.
    let mut not_before_ms = 0;
    if let Some(before) = settings(&mut *connection, customer).await? {
        let before = count(connection, before, now_ms).await?;
        not_before_ms = before.not_before_ms.min(now_ms + CLAIM_MS);
    }
    let counted = last_settled(connection, customer).await?;
    sqlx::query(
        "INSERT INTO top_ups (customer_id, threshold_minor, amount_minor, is_enabled, declines, not_before_ms, \
         counted_payment_id, updated_at_ms) VALUES ($1, $2, $3, 1, 0, $6, $4, $5) \
         ON CONFLICT (customer_id) DO UPDATE SET threshold_minor = $2, amount_minor = $3, is_enabled = 1, declines = 0, \
         not_before_ms = $6, counted_payment_id = $4, updated_at_ms = $5",
    )
    .bind(customer.0)
    .bind(threshold.minor)
    .bind(amount.minor)
    .bind(counted)
    .bind(now_ms)
    .bind(not_before_ms)
    .execute(connection)
    .await?;
    let change = json!({
        "threshold_minor": threshold.minor, "amount_minor": amount.minor, "currency": amount.currency,
    });
    Ok(Note::new("top_up.set", customer).change(change))
}

/// Switches automatic top-up off. One that is under way goes on.
///
/// # Errors
/// [`TopUpError::NotSet`] when there is none.
pub async fn disable(connection: &mut AnyConnection, customer: CustomerId, now_ms: i64) -> Result<Note, TopUpError> {
    settlement::lock_customer(connection, customer).await?;
    let disabled = sqlx::query("UPDATE top_ups SET is_enabled = 0, updated_at_ms = $2 WHERE customer_id = $1")
        .bind(customer.0)
        .bind(now_ms)
        .execute(connection)
        .await?;
    if disabled.rows_affected() == 0 {
        return Err(TopUpError::NotSet(customer));
    }
    Ok(Note::new("top_up.disable", customer))
}

/// Looks at every customer with an automatic top-up: the daily job, and after credit was used. One who fails does not keep
/// the others from theirs.
///
/// # Errors
/// When the database cannot be read at all.
pub async fn check_all(database: &Database, charger: &dyn Charger, now_ms: i64) -> Result<TopUpChecks, TopUpError> {
    let mut all = TopUpChecks::default();
    let mut after = CustomerId(0);
    loop {
        let rows = sqlx::query("SELECT customer_id FROM top_ups WHERE customer_id > $1 ORDER BY customer_id LIMIT $2")
            .bind(after.0)
            .bind(PAGE)
            .fetch_all(database.pool())
            .await?;
        if rows.is_empty() {
            return Ok(all);
        }
        for row in &rows {
            after = CustomerId(row.try_get(0)?);
            all.looked_at += 1;
            match check(database, charger, after, now_ms).await {
                Ok(TopUpCheck::Charged(charge)) => all.charged.push((after, charge)),
                Ok(_) => {}
                Err(error) => all.failed.push((after, error)),
            }
        }
    }
}

/// Tops a customer's credit up where it is below the threshold and may be.
///
/// # Errors
/// As the database or the charger answers; then it is tried again when the claim has run out.
pub async fn check(
    database: &Database,
    charger: &dyn Charger,
    customer: CustomerId,
    now_ms: i64,
) -> Result<TopUpCheck, TopUpError> {
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, customer).await?;
    let looked = look(&mut transaction, customer, now_ms).await?;
    transaction.commit().await?;
    let order = match looked {
        TopUpStep::Charge(order) => order,
        TopUpStep::Done(checked) => return Ok(checked),
    };
    let charge = charger.charge(order, now_ms).await?;
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, customer).await?;
    if let Some(top_up) = settings(&mut *transaction, customer).await? {
        count(&mut transaction, top_up, now_ms).await?;
    }
    transaction.commit().await?;
    info!(%customer, ?charge, "credit topped up");
    Ok(TopUpCheck::Charged(charge))
}

enum TopUpStep {
    Charge(ChargeOrder<'static>),
    Done(TopUpCheck),
}

/// Counts what came out, and claims the next attempt where there is to be one.
async fn look(connection: &mut AnyConnection, customer: CustomerId, now_ms: i64) -> Result<TopUpStep, TopUpError> {
    let Some(top_up) = settings(&mut *connection, customer).await? else {
        return Ok(TopUpStep::Done(TopUpCheck::NotSet));
    };
    let top_up = count(connection, top_up, now_ms).await?;
    let balance = settlement::credit_balance(&mut *connection, customer, top_up.threshold.currency).await?;
    if balance.minor >= top_up.threshold.minor {
        note_low(connection, &top_up, None, balance, now_ms).await?;
        return Ok(TopUpStep::Done(TopUpCheck::Enough));
    }
    if let Some(payment) = under_way(connection, customer).await? {
        return Ok(TopUpStep::Done(TopUpCheck::UnderWay(payment)));
    }
    if !top_up.is_enabled {
        note_low(connection, &top_up, Some("automatic top-up is off"), balance, now_ms).await?;
        return Ok(TopUpStep::Done(TopUpCheck::Disabled));
    }
    if top_up.not_before_ms > now_ms {
        let until_ms = top_up.not_before_ms;
        return Ok(TopUpStep::Done(TopUpCheck::Waits { until_ms }));
    }
    let Some(method) = charger::default_method(&mut *connection, customer).await? else {
        note_low(connection, &top_up, Some("no payment method is saved"), balance, now_ms).await?;
        return Ok(TopUpStep::Done(TopUpCheck::NoMethod));
    };
    sqlx::query("UPDATE top_ups SET not_before_ms = $2, updated_at_ms = $3 WHERE customer_id = $1")
        .bind(customer.0)
        .bind(now_ms + CLAIM_MS)
        .bind(now_ms)
        .execute(connection)
        .await?;
    Ok(TopUpStep::Charge(ChargeOrder {
        customer,
        method,
        purpose: Purpose::TopUp(top_up.amount),
        note: AUTOMATIC_NOTE,
    }))
}

/// Takes into account what became of automatic top-ups, each once, in their order.
async fn count(connection: &mut AnyConnection, before: TopUp, now_ms: i64) -> Result<TopUp, TopUpError> {
    let customer = before.customer;
    let rows = sqlx::query(
        "SELECT id, state, error, updated_at_ms FROM payments WHERE customer_id = $1 AND purpose = 'top_up' AND note = $2 \
         AND id > $3 AND state IN ('succeeded', 'failed', 'cancelled') ORDER BY id",
    )
    .bind(customer.0)
    .bind(AUTOMATIC_NOTE)
    .bind(before.counted.0)
    .fetch_all(&mut *connection)
    .await?;
    let mut after = before;
    let mut last_error = String::new();
    for row in &rows {
        after.counted = PaymentId(row.try_get("id")?);
        let (state, error): (String, String) = (row.try_get("state")?, row.try_get("error")?);
        if state == "succeeded" {
            after.declines = 0;
            after.not_before_ms = 0;
            continue;
        }
        // The request never left us: that is not the customer's card.
        if error.starts_with("not_sent") {
            continue;
        }
        last_error = error;
        after.declines += 1;
        let declined_at_ms: i64 = row.try_get("updated_at_ms")?;
        match usize::try_from(after.declines - 1)
            .ok()
            .and_then(|index| COOL_OFF_MS.get(index))
        {
            Some(cool_off_ms) => after.not_before_ms = declined_at_ms + cool_off_ms,
            None => after.is_enabled = false,
        }
    }
    if after.counted == before.counted {
        return Ok(before);
    }
    sqlx::query(
        "UPDATE top_ups SET declines = $2, not_before_ms = $3, is_enabled = $4, counted_payment_id = $5, updated_at_ms = $6 \
         WHERE customer_id = $1",
    )
    .bind(customer.0)
    .bind(after.declines)
    .bind(after.not_before_ms)
    .bind(i64::from(after.is_enabled))
    .bind(after.counted.0)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    if before.is_enabled && !after.is_enabled {
        warn!(%customer, declines = after.declines, "automatic top-up disabled");
        let balance = settlement::credit_balance(&mut *connection, customer, before.amount.currency).await?;
        let facts = json!({
            "amount_minor": before.amount.minor, "currency": before.amount.currency, "balance_minor": balance.minor,
            "declines": after.declines, "reason": last_error, "is_disabled": true,
        });
        let subject = customer.to_string();
        settlement::tell(connection, EventType::TopUpFailed, customer, subject, facts, now_ms).await?;
    }
    Ok(after)
}

/// Says once that credit is low where nothing will be charged; `why` is absent when it is not, so that it is said anew the
/// next time.
async fn note_low(
    connection: &mut AnyConnection,
    top_up: &TopUp,
    why: Option<&str>,
    balance: Money,
    now_ms: i64,
) -> Result<(), TopUpError> {
    if why.is_some() == top_up.low_balance_notified_at_ms.is_some() {
        return Ok(());
    }
    sqlx::query("UPDATE top_ups SET low_balance_notified_at_ms = $2 WHERE customer_id = $1")
        .bind(top_up.customer.0)
        .bind(why.map(|_| now_ms))
        .execute(&mut *connection)
        .await?;
    if let Some(why) = why {
        let facts = json!({
            "balance_minor": balance.minor, "threshold_minor": top_up.threshold.minor, "currency": balance.currency,
            "reason": why,
        });
        let subject = top_up.customer.to_string();
        settlement::tell(
            connection,
            EventType::CreditLow,
            top_up.customer,
            subject,
            facts,
            now_ms,
        )
        .await?;
    }
    Ok(())
}

/// Refuses a grant that could not be made ([`grant`]), before somebody else is asked for it.
///
/// # Errors
/// When the amount is not more than zero or in another currency, or the reason or cause is empty.
pub async fn check_grant(
    connection: &mut AnyConnection,
    customer: CustomerId,
    amount: Money,
    cause: &str,
    reason: &str,
) -> Result<(), TopUpError> {
    limits_of(connection, customer, amount).await?;
    checked_reason(reason)?;
    checked_reason(cause)?;
    Ok(settlement::positive(amount)?)
}

/// Staff gives a customer credit. `cause` is what it is given once for, such as `ticket:4711`: where it was given before, nothing is
/// done that could be recorded, and there is no note.
///
/// # Errors
/// When the amount is not more than zero or in another currency, the reason is empty, or the cause stands for another amount.
pub async fn grant(
    connection: &mut AnyConnection,
    customer: CustomerId,
    amount: Money,
    cause: &str,
    reason: &str,
    now_ms: i64,
) -> Result<(TransactionId, Option<Note>), TopUpError> {
    settlement::lock_customer(connection, customer).await?;
    limits_of(connection, customer, amount).await?;
    let (reason, cause) = (checked_reason(reason)?, checked_reason(cause)?);
    let before = settlement::credit_balance(&mut *connection, customer, amount.currency).await?;
    let granted = settlement::grant_credit(connection, customer, amount, &cause, &reason, now_ms).await?;
    if settlement::credit_balance(connection, customer, amount.currency).await? == before {
        return Ok((granted, None));
    }
    let change = json!({
        "amount_minor": amount.minor, "currency": amount.currency, "cause": cause, "reason": reason,
        "transaction": granted,
    });
    Ok((granted, Some(Note::new("credit.grant", customer).change(change))))
}

fn checked_reason(text: &str) -> Result<String, TopUpError> {
    let trimmed = text.trim();
    let length = trimmed.chars().count();
    if length == 0 || length > MAX_REASON_CHARS || !is_plain_text(trimmed) {
        return Err(TopUpError::Reason(trimmed.chars().take(MAX_REASON_CHARS).collect()));
    }
    Ok(trimmed.to_owned())
}

/// The limits for a customer's top-ups, where `asked` is in the currency that the customer pays in.
async fn limits_of(connection: &mut AnyConnection, customer: CustomerId, asked: Money) -> Result<Limits, TopUpError> {
    let owner = inventory::customer(connection, customer).await?;
    if owner.currency != asked.currency {
        return Err(TopUpError::OtherCurrency {
            customer,
            pays: owner.currency,
            asked: asked.currency,
        });
    }
    Ok(limits(owner.currency))
}

/// Every top-up counts as one that is under way, bought ones too: two at once would be one too many.
async fn under_way(connection: &mut AnyConnection, customer: CustomerId) -> Result<Option<PaymentId>, TopUpError> {
    let row = sqlx::query(
        "SELECT id FROM payments WHERE customer_id = $1 AND purpose = 'top_up' \
         AND state IN ('intent', 'unknown', 'requires_action', 'processing')",
    )
    .bind(customer.0)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(PaymentId))
}

async fn last_settled(connection: &mut AnyConnection, customer: CustomerId) -> Result<i64, TopUpError> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(max(id), 0) AS BIGINT) FROM payments WHERE customer_id = $1 AND purpose = 'top_up' \
         AND state IN ('succeeded', 'failed', 'cancelled')",
    )
    .bind(customer.0)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

fn read(row: &AnyRow) -> Result<TopUp, TopUpError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(TopUp {
        customer: CustomerId(row.try_get("customer_id")?),
        threshold: Money::new(row.try_get("threshold_minor")?, currency),
        amount: Money::new(row.try_get("amount_minor")?, currency),
        is_enabled: row.try_get::<i64, _>("is_enabled")? == 1,
        declines: row.try_get("declines")?,
        not_before_ms: row.try_get("not_before_ms")?,
        updated_at_ms: row.try_get("updated_at_ms")?,
        counted: PaymentId(row.try_get("counted_payment_id")?),
        low_balance_notified_at_ms: row.try_get("low_balance_notified_at_ms")?,
    })
}

#[cfg(test)]
mod tests;

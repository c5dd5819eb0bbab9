//! Whether customers' VAT numbers were given out: asked of the Union's register (VIES) where that is switched on, and kept.
//!
//! A number that is entered is checked by its form at once, whatever the way in ([`schemas::vat_number`]). Where VIES is switched
//! on, a job asks it for every number of a member state, keeps each answer as evidence, and asks again where nobody answered
//! and once in a while. By a number that is not confirmed nothing is reverse charged:
//!
//! | what is known of the number | an invoice that it would make reverse charged |
//! |---|---|
//! | VIES is not switched on | reverse charged: its form is right |
//! | valid, or accepted by a person | reverse charged |
//! | not asked yet, or nobody answered | held until one of the others ([`crate::invoice::held`]) |
//! | invalid | bears the tax of the customer's place |
//!
//! Nothing waits for the register but the job: no transaction is open while it is asked.

pub mod vies;

use std::collections::HashMap;

use activity::event::{EventType, NewEvent};
use async_trait::async_trait;
use schemas::db::{Database, next_id};
use schemas::ids::CustomerId;
use schemas::inventory;
use schemas::vat_number;
use schemas::window::DAY_MS;
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;
use crate::event;
use crate::field::{checked_text, named};
use crate::tax::VatNumberStatus;

/// Characters of what a person says about accepting a number at most.
const MAX_REASON_CHARS: usize = 300;
/// Characters of what the register says that are kept at most.
const MAX_ANSWER_CHARS: usize = 500;
/// After nobody answered it is asked again so long after.
pub const RETRY_MS: i64 = 15 * 60_000;
/// An answer is asked for again so long after: numbers are withdrawn.
pub const RECHECK_MS: i64 = 90 * DAY_MS;
/// Numbers that one run of the job asks for at most.
pub const MAX_ASKED_AT_ONCE: i64 = 100;
/// So many numbers without an answer one after another end a run: it is away as a whole.
const MAX_UNANSWERED: u64 = 5;
/// In `settings`: whether VIES is switched on.
const SETTING: &str = "vies";

/// What a register is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VatQuery {
    /// With its prefix: `FR40303265045`.
    pub number: String,
    /// The seller's own number, for which the register keeps that it was asked; may be empty.
    pub requester: String,
}

/// What a register answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VatResponse {
    pub valid: bool,
    /// Under which the register keeps that it was asked.
    pub consultation: String,
    pub name: String,
    pub address: String,
}

/// The register did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("the register could not be reached")]
    Http(#[from] reqwest::Error),
    #[error("the register answered {0}")]
    Unavailable(String),
}

schemas::error_codes! {
    RegisterError: "vat_register";
    of []
    source []
    Fault: Http = "http", Unavailable = "unavailable";
}

/// Who knows which VAT numbers were given out.
#[async_trait]
pub trait VatRegister: Send + Sync + std::fmt::Debug {
    /// # Errors
    /// When it does not answer whether the number is valid.
    async fn ask(&self, question: &VatQuery) -> Result<VatResponse, RegisterError>;
}

/// What was found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VatCheckResult {
    Valid,
    Invalid,
    /// Nobody answered.
    Unavailable,
    /// By a person.
    Accepted,
}

named!(VatCheckResult, "answer about a VAT number", Valid => "valid", Invalid => "invalid", Unavailable => "unavailable",
    Accepted => "accepted");

/// What was found out about a customer's number, and when.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct VatCheck {
    pub id: i64,
    pub customer: CustomerId,
    pub vat_id: String,
    pub answer: VatCheckResult,
    pub consultation: String,
    pub requester: String,
    pub name: String,
    pub address: String,
    pub detail: String,
    /// `vies`, or who accepted it.
    pub source: String,
    pub checked_at_ms: i64,
}

/// Notes whether VIES is switched on: every process on the database goes by that.
///
/// # Errors
/// As the database answers.
pub async fn switch(database: &Database, on: bool) -> Result<(), BillingError> {
    if is_on(database.pool()).await? == on {
        return Ok(());
    }
    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(SETTING)
        .bind(if on { "on" } else { "off" })
        .execute(database.pool())
        .await?;
    Ok(())
}

/// Whether VIES is switched on.
///
/// # Errors
/// As the database answers.
pub async fn is_on(db: impl AnyExecutor<'_>) -> Result<bool, BillingError> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(SETTING)
        .fetch_optional(db)
        .await?;
    let value: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(value.as_deref() == Some("on"))
}

/// What may be charged by the numbers of the customers with ids from `first` to `last`; who is not there has one that is taken.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub(crate) async fn vat_number_statuses(
    connection: &mut AnyConnection,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<CustomerId, VatNumberStatus>, BillingError> {
    if !is_on(&mut *connection).await? {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT c.id AS customer_id, c.vat_id, {LATEST_ANSWER} AS answer FROM customers c WHERE c.id BETWEEN $1 AND $2 AND c.vat_id <> ''"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(first.0)
        .bind(last.0)
        .fetch_all(connection)
        .await?;
    let mut standings = HashMap::new();
    for row in &rows {
        let answer: Option<String> = row.try_get("answer")?;
        let standing = match answer.map(|answer| answer.parse()).transpose()? {
            Some(VatCheckResult::Valid | VatCheckResult::Accepted) => VatNumberStatus::Accepted,
            Some(VatCheckResult::Invalid) => VatNumberStatus::Refused,
            Some(VatCheckResult::Unavailable) | None => VatNumberStatus::Unconfirmed,
        };
        standings.insert(CustomerId(row.try_get("customer_id")?), standing);
    }
    Ok(standings)
}

/// The last answer about the number that a customer `c` has now. Nobody answering is none.
const LATEST_ANSWER: &str = "(SELECT v.answer FROM vat_checks v WHERE v.customer_id = c.id AND v.vat_id = c.vat_id \
     AND v.answer <> 'unavailable' ORDER BY v.id DESC LIMIT 1)";
/// When that number was last asked for, answered or not.
const LATEST_ASKED: &str =
    "(SELECT max(v.checked_at_ms) FROM vat_checks v WHERE v.customer_id = c.id AND v.vat_id = c.vat_id)";

/// The customers whose number is to be asked for now: never asked for, without an answer for a while, or answered long ago.
///
/// # Errors
/// As the database answers.
pub async fn due(db: impl AnyExecutor<'_>, now_ms: i64) -> Result<Vec<CustomerId>, BillingError> {
    let states: Vec<String> = vat_number::MEMBER_STATES
        .iter()
        .map(|state| format!("'{}'", if *state == "GR" { "EL" } else { state }))
        .collect();
    let sql = format!(
        "SELECT id FROM (SELECT c.id, {LATEST_ANSWER} AS answer, {LATEST_ASKED} AS asked_ms FROM customers c \
         WHERE c.vat_id <> '' AND substr(c.vat_id, 1, 2) IN ({})) AS numbers \
         WHERE asked_ms IS NULL OR (answer IS NULL AND asked_ms <= $1) OR asked_ms <= $2 \
         ORDER BY asked_ms IS NOT NULL, asked_ms, id LIMIT $3",
        states.join(", ")
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(now_ms - RETRY_MS)
        .bind(now_ms - RECHECK_MS)
        .bind(MAX_ASKED_AT_ONCE)
        .fetch_all(db)
        .await?;
    let ids = rows.iter().map(|row| row.try_get(0).map(CustomerId));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Asks for every number that is due, and how many of them were answered.
///
/// # Errors
/// As the database answers; that nobody answers is kept as evidence, and no error.
pub async fn ask_due(database: &Database, register: &dyn VatRegister, now_ms: i64) -> Result<u64, BillingError> {
    let (mut answered, mut unanswered) = (0, 0);
    for customer in due(database.pool(), now_ms).await? {
        let Some(check) = ask(database, register, customer, now_ms).await? else {
            continue;
        };
        if check.answer != VatCheckResult::Unavailable {
            (answered, unanswered) = (answered + 1, 0);
            continue;
        }
        unanswered += 1;
        if unanswered >= MAX_UNANSWERED {
            tracing::warn!(
                unanswered,
                "VIES does not answer: the other numbers are asked for later"
            );
            break;
        }
    }
    Ok(answered)
}

/// Asks for a customer's number, and keeps the answer. `None` where there is no number that the register knows of.
///
/// # Errors
/// When there is no such customer, or as the database answers.
pub async fn ask(
    database: &Database,
    register: &dyn VatRegister,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<VatCheck>, BillingError> {
    let found = inventory::customer(database.pool(), customer).await?;
    let number = found.billing.vat_id;
    if vat_number::state_of(&number).is_none() {
        return Ok(None);
    }
    let seller = inventory::entity(database.pool(), found.billing.entity).await?.profile;
    let requester = match vat_number::state_of(&seller.vat_id) {
        Some(_) => seller.vat_id,
        None => String::new(),
    };
    let question = VatQuery { number, requester };
    let (answer, said, detail) = match register.ask(&question).await {
        Ok(said) if said.valid => (VatCheckResult::Valid, said, String::new()),
        Ok(said) => (VatCheckResult::Invalid, said, String::new()),
        Err(error) => {
            tracing::warn!(%customer, number = question.number, error = %full(&error), "VAT number not confirmed");
            (VatCheckResult::Unavailable, VatResponse::default(), full(&error))
        }
    };
    let cut = |text: &str| text.trim().chars().take(MAX_ANSWER_CHARS).collect::<String>();
    let check = VatCheck {
        id: 0,
        customer,
        vat_id: question.number,
        answer,
        consultation: cut(&said.consultation),
        requester: question.requester,
        name: cut(&said.name),
        address: cut(&said.address),
        detail: cut(&detail),
        source: "vies".to_owned(),
        checked_at_ms: now_ms,
    };
    let mut transaction = database.begin_write().await?;
    let check = keep(&mut transaction, check).await?;
    if check.answer == VatCheckResult::Invalid {
        let new = NewEvent {
            event_type: EventType::VatNumberInvalid,
            customer: Some(customer),
            subject: customer.to_string(),
            payload: json!({
                "vat_id": check.vat_id, "customer_name": found.name, "checked_at_ms": now_ms,
                "consultation": check.consultation,
            }),
        };
        event::publish(&mut transaction, new, now_ms).await?;
    }
    transaction.commit().await?;
    Ok(Some(check))
}

/// An error with its causes.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A person takes the number that a customer has now, for a reason that is kept.
///
/// # Errors
/// When there is no such customer or number, or no reason.
pub async fn accept(
    connection: &mut AnyConnection,
    customer: CustomerId,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<VatCheck, BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    let number = inventory::customer(&mut *connection, customer).await?.billing.vat_id;
    if number.is_empty() {
        return Err(BillingError::NoVatNumber(customer));
    }
    let check = VatCheck {
        id: 0,
        customer,
        vat_id: number,
        answer: VatCheckResult::Accepted,
        consultation: String::new(),
        requester: String::new(),
        name: String::new(),
        address: String::new(),
        detail: reason,
        source: actor.to_owned(),
        checked_at_ms: now_ms,
    };
    keep(connection, check).await
}

async fn keep(connection: &mut AnyConnection, mut check: VatCheck) -> Result<VatCheck, BillingError> {
    check.id = next_id(&mut *connection, "vat_check").await?;
    sqlx::query(
        "INSERT INTO vat_checks (id, customer_id, vat_id, answer, consultation, requester, name, address, detail, source, \
         checked_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(check.id)
    .bind(check.customer.0)
    .bind(&check.vat_id)
    .bind(check.answer.name())
    .bind(&check.consultation)
    .bind(&check.requester)
    .bind(&check.name)
    .bind(&check.address)
    .bind(&check.detail)
    .bind(&check.source)
    .bind(check.checked_at_ms)
    .execute(connection)
    .await?;
    Ok(check)
}

/// Everything that was found out about a customer's numbers, newest first, at most `limit`.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn checks_of(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    limit: i64,
) -> Result<Vec<VatCheck>, BillingError> {
    let rows = sqlx::query(
        "SELECT id, customer_id, vat_id, answer, consultation, requester, name, address, detail, source, checked_at_ms \
         FROM vat_checks WHERE customer_id = $1 ORDER BY id DESC LIMIT $2",
    )
    .bind(customer.0)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<VatCheck, BillingError> {
    Ok(VatCheck {
        id: row.try_get("id")?,
        customer: CustomerId(row.try_get("customer_id")?),
        vat_id: row.try_get("vat_id")?,
        answer: row.try_get::<String, _>("answer")?.parse()?,
        consultation: row.try_get("consultation")?,
        requester: row.try_get("requester")?,
        name: row.try_get("name")?,
        address: row.try_get("address")?,
        detail: row.try_get("detail")?,
        source: row.try_get("source")?,
        checked_at_ms: row.try_get("checked_at_ms")?,
    })
}

#[cfg(test)]
mod tests;

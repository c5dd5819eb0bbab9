//! Invoices that wait for a person.
//!
//! What is due and has a tax whose rate nobody entered is not finalised: "VAT 0 %" would be a wrong bill that nobody notices.
//! Nor is what a VAT number would make reverse charged that nobody has confirmed ([`crate::vat`]), nor anything before the company that
//! issues it has a name and an address ([`schemas::inventory::Entity::is_issuer`]). It is held instead: it has an id from then on, finance finds it on a page of its own and in `ezscale invoice list`, an event
//! tells the admins once of each reason, and closing says what is missing. When that is settled, the next closing finalises it under that
//! id. What a customer is charged later waits behind it, as charges are made in their order.

use std::collections::{HashMap, HashSet};

use activity::event::{EventType, NewEvent};
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, InvoiceId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::Draft;
use crate::BillingError;
use crate::event;
use crate::tax::{HoldReason, MissingRate};

/// Held invoices that one list names at most.
pub const MAX_HELD: i64 = 1000;

/// Reasons, as they are stored.
const RATE: &str = "tax_rate_missing";
const VAT_NUMBER: &str = "vat_number_unconfirmed";
const ISSUER: &str = "issuer_incomplete";

/// An invoice that waits for a person.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct HeldInvoice {
    /// The invoice will have it too.
    pub id: InvoiceId,
    pub customer: CustomerId,
    pub customer_name: String,
    /// When what is on it is due to be charged.
    pub due_ms: i64,
    pub reason: HoldReason,
    pub held_at_ms: i64,
}

const SELECT: &str = "SELECT h.id, h.customer_id, c.name, h.due_ms, h.reason, h.country, h.region, h.rate_at_ms, h.vat_id, h.held_at_ms \
     FROM held_invoices h JOIN customers c ON c.id = h.customer_id WHERE h.released_at_ms IS NULL";

/// The invoices that wait, of one customer or of all, newest first, at most [`MAX_HELD`].
///
/// # Errors
/// As the database answers.
pub async fn held(db: impl AnyExecutor<'_>, customer: Option<CustomerId>) -> Result<Vec<HeldInvoice>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} AND ($1 = 0 OR h.customer_id = $1) ORDER BY h.id DESC LIMIT {MAX_HELD}"
    ));
    let rows = sqlx::query(sql)
        .bind(customer.map_or(0, |customer| customer.0))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One invoice that waits; `None` where none of this id does.
///
/// # Errors
/// As the database answers.
pub async fn held_invoice(db: impl AnyExecutor<'_>, id: InvoiceId) -> Result<Option<HeldInvoice>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} AND h.id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// What waits of the customers with ids from `first` to `last` is what their drafts say now: what is new is held and told
/// of, what waits no more is released. Customers who could not be drafted keep what they have.
///
/// # Errors
/// As the database answers.
pub(super) async fn note(
    database: &Database,
    (first, last): (CustomerId, CustomerId),
    drafts: &[&Draft],
    failed: &HashSet<CustomerId>,
    now_ms: i64,
) -> Result<(), BillingError> {
    let mut waiting: HashMap<(CustomerId, i64), (&Draft, &HoldReason)> = HashMap::new();
    for draft in drafts {
        if let Some(unsettled) = &draft.unsettled
            && draft.due_ms <= now_ms
        {
            waiting.insert((draft.customer, draft.due_ms), (draft, unsettled));
        }
    }
    // Mostly nothing waits, and then nothing is written.
    let mut known = known_between(database.pool(), first, last).await?;
    let ends = known.iter().filter(|(key, known)| {
        known.released_at_ms.is_none() && !waiting.contains_key(*key) && !failed.contains(&key.0)
    });
    let ended: Vec<InvoiceId> = ends.map(|(_, known)| known.id).collect();
    let is_new = |(key, (_, unsettled)): (&(CustomerId, i64), &(&Draft, &HoldReason))| {
        let same = known.get(key).filter(|known| known.waits_for(unsettled, key.1));
        same.is_none()
    };
    if ended.is_empty() && !waiting.iter().any(is_new) {
        return Ok(());
    }
    let mut transaction = database.begin_write().await?;
    // Closers take turns, so that what is looked up here is still so when it is written.
    next_id(&mut transaction, "closing").await?;
    known = known_between(&mut *transaction, first, last).await?;
    for id in ended {
        sqlx::query("UPDATE held_invoices SET released_at_ms = $1 WHERE id = $2 AND released_at_ms IS NULL")
            .bind(now_ms)
            .bind(id.0)
            .execute(&mut *transaction)
            .await?;
    }
    let mut waiting: Vec<_> = waiting.into_iter().collect();
    waiting.sort_unstable_by_key(|(key, _)| *key);
    for (key, (draft, unsettled)) in waiting {
        match known.get(&key) {
            Some(known) if known.waits_for(unsettled, key.1) => {}
            // Something else holds it now, or it had been released.
            Some(known) => hold_again(&mut transaction, known, draft, unsettled, now_ms).await?,
            None => hold(&mut transaction, draft, unsettled, now_ms).await?,
        }
    }
    transaction.commit().await?;
    Ok(())
}

/// A reason as it is stored: its name, the place and time of a rate, a VAT number.
struct Stored<'a> {
    reason: &'static str,
    country: &'a str,
    region: &'a str,
    at_ms: i64,
    vat_id: &'a str,
}

impl Stored<'_> {
    fn of(unsettled: &HoldReason, due_ms: i64) -> Stored<'_> {
        match unsettled {
            HoldReason::Rate(missing) => Stored {
                reason: RATE,
                country: &missing.country,
                region: &missing.region,
                at_ms: missing.at_ms,
                vat_id: "",
            },
            HoldReason::VatNumber { number } => Stored {
                reason: VAT_NUMBER,
                country: "",
                region: "",
                at_ms: due_ms,
                vat_id: number,
            },
            HoldReason::Issuer => Stored {
                reason: ISSUER,
                country: "",
                region: "",
                at_ms: due_ms,
                vat_id: "",
            },
        }
    }
}

async fn hold(
    connection: &mut AnyConnection,
    draft: &Draft,
    unsettled: &HoldReason,
    now_ms: i64,
) -> Result<(), BillingError> {
    let id = InvoiceId(next_id(&mut *connection, "invoice").await?);
    let stored = Stored::of(unsettled, draft.due_ms);
    sqlx::query(
        "INSERT INTO held_invoices (id, customer_id, due_ms, reason, country, region, rate_at_ms, vat_id, held_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id.0)
    .bind(draft.customer.0)
    .bind(draft.due_ms)
    .bind(stored.reason)
    .bind(stored.country)
    .bind(stored.region)
    .bind(stored.at_ms)
    .bind(stored.vat_id)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    tell(connection, id, draft, unsettled, now_ms).await
}

/// Tells the admins, in the transaction that holds it.
async fn tell(
    connection: &mut AnyConnection,
    id: InvoiceId,
    draft: &Draft,
    unsettled: &HoldReason,
    now_ms: i64,
) -> Result<(), BillingError> {
    let stored = Stored::of(unsettled, draft.due_ms);
    let new = NewEvent {
        event_type: EventType::InvoiceHeld,
        customer: Some(draft.customer),
        subject: id.to_string(),
        payload: json!({
            "reason": unsettled.to_string(), "country": stored.country, "region": stored.region, "at_ms": stored.at_ms,
            "vat_id": stored.vat_id, "due_ms": draft.due_ms, "customer_name": draft.customer_name,
        }),
    };
    event::publish(connection, new, now_ms).await?;
    tracing::warn!(invoice = %id, customer = %draft.customer, reason = %unsettled, "invoice held");
    Ok(())
}

/// What was released and waits again, such as after a rate was ended, or waits for something else now.
async fn hold_again(
    connection: &mut AnyConnection,
    known: &HeldInvoiceRow,
    draft: &Draft,
    unsettled: &HoldReason,
    now_ms: i64,
) -> Result<(), BillingError> {
    let stored = Stored::of(unsettled, draft.due_ms);
    // One that has waited all the time waits since then.
    let held_at_ms = match known.released_at_ms {
        Some(_) => now_ms,
        None => known.held_at_ms,
    };
    sqlx::query(
        "UPDATE held_invoices SET released_at_ms = NULL, held_at_ms = $1, reason = $2, country = $3, region = $4, rate_at_ms = $5, \
         vat_id = $6 WHERE id = $7",
    )
    .bind(held_at_ms)
    .bind(stored.reason)
    .bind(stored.country)
    .bind(stored.region)
    .bind(stored.at_ms)
    .bind(stored.vat_id)
    .bind(known.id.0)
    .execute(&mut *connection)
    .await?;
    // Of what was released and is held as before they know.
    if known.released_at_ms.is_none() {
        tell(connection, known.id, draft, unsettled, now_ms).await?;
    }
    Ok(())
}

/// The ids that invoices were given when they were first held and that wait no more, by customer and when they were due; each is
/// used once.
///
/// # Errors
/// As the database answers.
pub(super) async fn reserved(
    db: impl AnyExecutor<'_>,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<(CustomerId, i64), InvoiceId>, BillingError> {
    let rows = sqlx::query(
        "SELECT h.customer_id, h.due_ms, h.id FROM held_invoices h WHERE h.customer_id BETWEEN $1 AND $2 \
         AND h.released_at_ms IS NOT NULL AND NOT EXISTS (SELECT 1 FROM invoices i WHERE i.id = h.id)",
    )
    .bind(first.0)
    .bind(last.0)
    .fetch_all(db)
    .await?;
    let mut reserved = HashMap::new();
    for row in &rows {
        let key = (CustomerId(row.try_get(0)?), row.try_get(1)?);
        reserved.insert(key, InvoiceId(row.try_get(2)?));
    }
    Ok(reserved)
}

/// A row as far as noting needs it.
struct HeldInvoiceRow {
    id: InvoiceId,
    released_at_ms: Option<i64>,
    held_at_ms: i64,
    reason: String,
    country: String,
    region: String,
    vat_id: String,
}

impl HeldInvoiceRow {
    /// Whether it waits, and for this. When a rate is missing is no difference: it stays the first time.
    fn waits_for(&self, unsettled: &HoldReason, due_ms: i64) -> bool {
        let stored = Stored::of(unsettled, due_ms);
        self.released_at_ms.is_none()
            && (self.reason.as_str(), self.country.as_str()) == (stored.reason, stored.country)
            && (self.region.as_str(), self.vat_id.as_str()) == (stored.region, stored.vat_id)
    }
}

async fn known_between(
    db: impl AnyExecutor<'_>,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<(CustomerId, i64), HeldInvoiceRow>, BillingError> {
    let rows = sqlx::query(
        "SELECT customer_id, due_ms, id, released_at_ms, held_at_ms, reason, country, region, vat_id FROM held_invoices \
         WHERE customer_id BETWEEN $1 AND $2",
    )
    .bind(first.0)
    .bind(last.0)
    .fetch_all(db)
    .await?;
    let mut known = HashMap::new();
    for row in &rows {
        let key = (CustomerId(row.try_get(0)?), row.try_get(1)?);
        let of_row = HeldInvoiceRow {
            id: InvoiceId(row.try_get(2)?),
            released_at_ms: row.try_get(3)?,
            held_at_ms: row.try_get(4)?,
            reason: row.try_get(5)?,
            country: row.try_get(6)?,
            region: row.try_get(7)?,
            vat_id: row.try_get(8)?,
        };
        known.insert(key, of_row);
    }
    Ok(known)
}

fn read(row: &AnyRow) -> Result<HeldInvoice, BillingError> {
    Ok(HeldInvoice {
        id: InvoiceId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        customer_name: row.try_get("name")?,
        due_ms: row.try_get("due_ms")?,
        reason: match row.try_get::<String, _>("reason")?.as_str() {
            RATE => HoldReason::Rate(MissingRate {
                country: row.try_get("country")?,
                region: row.try_get("region")?,
                at_ms: row.try_get("rate_at_ms")?,
            }),
            VAT_NUMBER => HoldReason::VatNumber {
                number: row.try_get("vat_id")?,
            },
            ISSUER => HoldReason::Issuer,
            other => return Err(BillingError::corrupt("reason of a held invoice", other)),
        },
        held_at_ms: row.try_get("held_at_ms")?,
    })
}

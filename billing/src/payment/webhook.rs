//! What gateways tell us: believed by signature, counted once, in any order.

use activity::event::EventType;
use reqwest::header::HeaderMap;
use schemas::db::{Database, next_id};
use sqlx::{AnyConnection, Row as _};
use tracing::warn;

use super::engine::{cut, locked, record};
use super::gateway::{DisputeStatus, GatewayEvent, GatewayUpdate, PaymentGateway, SetupOutcome};
use super::{GatewayName, Gateways, PaymentError, PaymentState, refund};
use super::{method, store};
use crate::settlement;

/// Bytes of an event at most.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// An event about nothing that we know is tried again for so long.
const KEEP_MS: i64 = 72 * 3_600_000;
const MAX_BATCH: i64 = 200;
const MAX_ERROR_CHARS: usize = 500;

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebhookOutcome {
    Applied,
    /// It came before.
    Repeated,
    /// It is kept: what it is about is not known yet, or it cannot be.
    Stored,
}

/// Takes in what was posted to a gateway's endpoint. Answer 200 to the gateway when this is `Ok`, 400 when it is an error of
/// [`PaymentError::Webhook`], and 500 otherwise, so that it is sent again. Signatures age by `real_now_ms`, the wall clock; what
/// the event tells is recorded at `now_ms`, the clock that billing goes by.
///
/// # Errors
/// When it is not believed, or as the database answers.
pub async fn receive_webhook(
    database: &Database,
    gateway: &dyn PaymentGateway,
    headers: &HeaderMap,
    body: &[u8],
    real_now_ms: i64,
    now_ms: i64,
) -> Result<WebhookOutcome, PaymentError> {
    let not_believed = |source| PaymentError::Webhook {
        gateway: gateway.name(),
        source,
    };
    if body.len() > MAX_BODY_BYTES {
        let source = super::WebhookError::Body(format!("{} bytes, more than {MAX_BODY_BYTES}", body.len()));
        return Err(not_believed(source));
    }
    let event = gateway
        .verify_webhook(headers, body, real_now_ms)
        .await
        .map_err(not_believed)?;
    let setup = entered(gateway, &event).await;
    let mut transaction = database.begin_write().await?;
    if !insert(&mut transaction, gateway.name(), &event, body, now_ms).await? {
        return Ok(WebhookOutcome::Repeated);
    }
    match count(&mut transaction, gateway.name(), &event, setup.as_ref(), now_ms).await {
        Ok(true) => {
            mark(&mut transaction, gateway.name(), &event.id, now_ms, "").await?;
            transaction.commit().await?;
            Ok(WebhookOutcome::Applied)
        }
        Ok(false) => {
            transaction.commit().await?;
            Ok(WebhookOutcome::Stored)
        }
        Err(error @ PaymentError::Database(_)) => Err(error),
        Err(error) => {
            // What it began to change is undone; the event stays, with the reason.
            warn!(gateway = %gateway.name(), event = event.id, error = %error, "an event could not be counted");
            transaction.rollback().await?;
            let mut transaction = database.begin_write().await?;
            insert(&mut transaction, gateway.name(), &event, body, now_ms).await?;
            sqlx::query("UPDATE gateway_events SET error = $3 WHERE gateway = $1 AND event_id = $2")
                .bind(gateway.name().name())
                .bind(&event.id)
                .bind(cut(&error.to_string(), MAX_ERROR_CHARS))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(WebhookOutcome::Stored)
        }
    }
}

/// Tries events again that are not counted yet; how many are now.
pub(super) async fn again(database: &Database, gateways: &Gateways, now_ms: i64) -> Result<u64, PaymentError> {
    let rows = sqlx::query(
        "SELECT gateway, event_id, payload, received_at_ms FROM gateway_events WHERE processed_at_ms IS NULL \
         ORDER BY received_at_ms, event_id LIMIT $1",
    )
    .bind(MAX_BATCH)
    .fetch_all(database.pool())
    .await?;
    let mut counted = 0;
    for row in &rows {
        let name: GatewayName = row.try_get::<String, _>("gateway")?.parse()?;
        let (id, payload): (String, String) = (row.try_get("event_id")?, row.try_get("payload")?);
        let received_at_ms: i64 = row.try_get("received_at_ms")?;
        let Ok(gateway) = gateways.get(name) else { continue };
        let Ok(event) = gateway.parse_event(payload.as_bytes()) else {
            continue;
        };
        let setup = entered(gateway, &event).await;
        let mut transaction = database.begin_write().await?;
        let is_counted = match count(&mut transaction, name, &event, setup.as_ref(), now_ms).await {
            Ok(is_counted) => is_counted,
            Err(error @ PaymentError::Database(_)) => return Err(error),
            Err(_) => {
                transaction.rollback().await?;
                transaction = database.begin_write().await?;
                false
            }
        };
        if is_counted {
            mark(&mut transaction, name, &id, now_ms, "").await?;
            counted += 1;
        } else if now_ms - received_at_ms > KEEP_MS {
            let why = "about nothing that is known here";
            mark(&mut transaction, name, &id, now_ms, why).await?;
        }
        transaction.commit().await?;
    }
    Ok(counted)
}

/// `false` when it was there already.
async fn insert(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    event: &GatewayEvent,
    body: &[u8],
    now_ms: i64,
) -> Result<bool, PaymentError> {
    let inserted = sqlx::query(
        "INSERT INTO gateway_events (gateway, event_id, event_type, payload, received_at_ms, error) \
         VALUES ($1, $2, $3, $4, $5, '') ON CONFLICT (gateway, event_id) DO NOTHING",
    )
    .bind(gateway.name())
    .bind(&event.id)
    .bind(&event.event_type)
    .bind(String::from_utf8_lossy(body).into_owned())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn mark(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    id: &str,
    now_ms: i64,
    why: &str,
) -> Result<(), PaymentError> {
    sqlx::query(
        "UPDATE gateway_events SET processed_at_ms = $3, error = CASE WHEN $4 = '' THEN error ELSE $4 END \
         WHERE gateway = $1 AND event_id = $2 AND processed_at_ms IS NULL",
    )
    .bind(gateway.name())
    .bind(id)
    .bind(now_ms)
    .bind(why)
    .execute(connection)
    .await?;
    Ok(())
}

/// What a customer has entered on the gateway's page, when the event is about that: the event says which setup it was, and the
/// gateway is asked for the rest, outside any transaction. Without an answer the event is tried again.
async fn entered(gateway: &dyn PaymentGateway, event: &GatewayEvent) -> Option<SetupOutcome> {
    let GatewayUpdate::Setup { customer, reference } = &event.what else {
        return None;
    };
    match gateway.finish_setup(*customer, reference).await {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            warn!(gateway = %gateway.name(), event = event.id, error = %error, "a payment method was not saved yet");
            None
        }
    }
}

/// Lets an event change what it is about; `false` when that is not known.
async fn count(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    event: &GatewayEvent,
    setup: Option<&SetupOutcome>,
    now_ms: i64,
) -> Result<bool, PaymentError> {
    match &event.what {
        GatewayUpdate::Other => Ok(true),
        GatewayUpdate::Setup { customer, .. } => {
            let known = sqlx::query("SELECT 1 FROM customers WHERE id = $1").bind(customer.0);
            let is_known = known.fetch_optional(&mut *connection).await?.is_some();
            let Some(SetupOutcome::Saved(saved)) = setup.filter(|_| is_known) else {
                return Ok(false);
            };
            method::save(connection, gateway, *customer, saved, now_ms).await?;
            Ok(true)
        }
        GatewayUpdate::Charge {
            idempotency_key,
            outcome,
        } => {
            let mut found = None;
            if let Some(key) = idempotency_key {
                found = store::by_key(connection, key)
                    .await?
                    .filter(|payment| payment.gateway == gateway);
            }
            if let (None, Some(reference)) = (&found, &outcome.reference) {
                found = store::by_reference(connection, gateway, reference).await?;
            }
            match found {
                Some(payment) => record(connection, payment.id, outcome, now_ms).await.map(|()| true),
                None => Ok(false),
            }
        }
        GatewayUpdate::Refund {
            idempotency_key,
            payment_reference,
            amount,
            outcome,
        } => {
            let key = idempotency_key.as_deref();
            refund::heard(connection, gateway, key, payment_reference, *amount, outcome, now_ms).await
        }
        GatewayUpdate::Dispute {
            payment_reference,
            reference,
            amount,
            status,
            reason,
        } => {
            let dispute = Disputed {
                payment_reference,
                reference,
                amount: *amount,
                status: *status,
                reason,
            };
            disputed(connection, gateway, &dispute, now_ms).await
        }
    }
}

struct Disputed<'a> {
    payment_reference: &'a str,
    reference: &'a str,
    amount: schemas::money::Money,
    status: DisputeStatus,
    reason: &'a str,
}

async fn disputed(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    news: &Disputed<'_>,
    now_ms: i64,
) -> Result<bool, PaymentError> {
    let Some(payment) = store::by_reference(connection, gateway, news.payment_reference).await? else {
        return Ok(false);
    };
    let payment = locked(connection, payment.id).await?;
    if payment.state != PaymentState::Succeeded {
        // The payment's own success is on its way.
        return Ok(false);
    }
    let row = sqlx::query("SELECT status, amount_minor FROM disputes WHERE gateway = $1 AND reference = $2")
        .bind(gateway.name())
        .bind(news.reference)
        .fetch_optional(&mut *connection)
        .await?;
    let before: Option<(String, i64)> = match row {
        Some(row) => Some((row.try_get(0)?, row.try_get(1)?)),
        None => None,
    };
    // What is held back is what was disputed first.
    let minor = before.as_ref().map_or(news.amount.minor, |(_, minor)| *minor);
    let dispute = settlement::Dispute {
        payment: payment.id,
        reference: news.reference,
        amount: schemas::money::Money::new(minor, news.amount.currency),
    };
    let facts = |status: &str| {
        serde_json::json!({
            "payment": payment.id, "invoice": payment.purpose.invoice(), "amount_minor": minor,
            "currency": news.amount.currency.code(), "gateway": gateway.name(), "reference": news.reference,
            "reason": news.reason, "status": status,
        })
    };
    let subject = payment.id.to_string();
    if before.is_none() {
        let id = next_id(connection, "dispute").await?;
        sqlx::query(
            "INSERT INTO disputes (id, payment_id, gateway, reference, currency, amount_minor, status, reason, opened_at_ms, \
             updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, $8, $8)",
        )
        .bind(id)
        .bind(payment.id.0)
        .bind(gateway.name())
        .bind(news.reference)
        .bind(news.amount.currency.code())
        .bind(minor)
        .bind(news.reason)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
        settlement::open_dispute(connection, dispute, now_ms).await?;
        let (kind, facts) = (EventType::DisputeOpened, facts("open"));
        settlement::tell(connection, kind, payment.customer, subject.clone(), facts, now_ms).await?;
    }
    let is_decided = before.is_some_and(|(status, _)| status != "open");
    let (kind, status) = match news.status {
        DisputeStatus::Won => (EventType::DisputeWon, "won"),
        DisputeStatus::Lost => (EventType::DisputeLost, "lost"),
        DisputeStatus::Open => return Ok(true),
    };
    if is_decided {
        return Ok(true);
    }
    sqlx::query("UPDATE disputes SET status = $3, updated_at_ms = $4 WHERE gateway = $1 AND reference = $2")
        .bind(gateway.name())
        .bind(news.reference)
        .bind(status)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    settlement::close_dispute(connection, dispute, news.status == DisputeStatus::Won, now_ms).await?;
    settlement::tell(connection, kind, payment.customer, subject, facts(status), now_ms).await?;
    Ok(true)
}

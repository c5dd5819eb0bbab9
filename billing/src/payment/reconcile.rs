//! What was left over is looked for at the gateway: by any number of workers, after any crash.

use schemas::db::Database;
use schemas::fault;
use schemas::money::Money;
use sqlx::Row as _;
use tracing::warn;

use super::claim::{LEASE_MS, Reconciled, WORK_LIMIT};
use super::engine::{self, locked, schedule_recheck};
use super::gateway::{ChargeOutcome, ChargeState, FindRequest, PaymentGateway};
use super::method::{self, PaymentMethod};
use super::store::{self, Payment};
use super::{Gateways, PaymentError, PaymentState, Purpose, refund, webhook};
use crate::settlement;

/// Payments that one run looks at, at most.
const MAX_BATCH: i64 = 200;
/// A gateway is asked to charge so often at most.
const MAX_CALLS: i64 = 8;
/// What the customer has not confirmed by then is given up: before a gateway forgets keys (Stripe after 24 hours), so that
/// whatever comes of it can still be told apart by its key.
pub const ACTION_LIMIT_MS: i64 = 23 * 3_600_000;

/// Looks for every payment and refund whose time has come, and for events that came before what they are about.
///
/// # Errors
/// As the database answers. What a gateway does not answer is counted and looked for again.
pub async fn reconcile(database: &Database, gateways: &Gateways, now_ms: i64) -> Result<Reconciled, PaymentError> {
    let mut done = Reconciled {
        events: webhook::again(database, gateways, now_ms).await?,
        ..Reconciled::default()
    };
    let sql = sqlx::AssertSqlSafe(format!(
        "{} WHERE check_at_ms <= $1 AND state <> 'succeeded' ORDER BY check_at_ms, id LIMIT $2",
        store::SELECT
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(MAX_BATCH)
        .fetch_all(database.pool())
        .await?;
    for row in &rows {
        let payment = store::read(row)?;
        let Ok(gateway) = gateways.get(payment.gateway) else {
            done.errors += 1;
            continue;
        };
        let Some(payment) = claim(database, payment, now_ms).await? else {
            continue;
        };
        fault::at("reconcile.claimed");
        done.looked_for += 1;
        let (id, was_open) = (payment.id, payment.state.is_open());
        match tokio::time::timeout(WORK_LIMIT, look(database, gateway, payment, now_ms, &mut done)).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ PaymentError::Database(_))) => return Err(error),
            Ok(Err(error)) => {
                warn!(payment = %id, error = %error, "a payment was not reconciled");
                note(database, id, &error.to_string(), now_ms).await?;
                done.errors += 1;
            }
            Err(_) => {
                warn!(payment = %id, "a payment was not reconciled in time");
                done.errors += 1;
            }
        }
        if was_open && !store::payment(database.pool(), id).await?.state.is_open() {
            done.settled += 1;
        }
    }
    refund::reconcile(database, gateways, now_ms, &mut done).await?;
    Ok(done)
}

/// Takes a payment for this worker alone, by compare-and-set.
async fn claim(database: &Database, mut payment: Payment, now_ms: i64) -> Result<Option<Payment>, PaymentError> {
    let claimed_at_ms = now_ms.max(payment.updated_at_ms + 1);
    let claimed = sqlx::query(
        "UPDATE payments SET updated_at_ms = $4, check_at_ms = $5 WHERE id = $1 AND state = $2 AND updated_at_ms = $3",
    )
    .bind(payment.id.0)
    .bind(payment.state.name())
    .bind(payment.updated_at_ms)
    .bind(claimed_at_ms)
    .bind(now_ms + LEASE_MS)
    .execute(database.pool())
    .await?
    .rows_affected();
    payment.updated_at_ms = claimed_at_ms;
    Ok((claimed == 1).then_some(payment))
}

async fn look(
    database: &Database,
    gateway: &dyn PaymentGateway,
    payment: Payment,
    now_ms: i64,
    done: &mut Reconciled,
) -> Result<(), PaymentError> {
    let method = match payment.method {
        Some(id) => method::any_of_customer(database, payment.customer, id).await?,
        None => None,
    };
    let capabilities = gateway.capabilities();
    let found = if payment.reference.is_some() || capabilities.finds_by_key {
        let request = FindRequest {
            payment: payment.id,
            idempotency_key: &payment.idempotency_key,
            reference: payment.reference.as_deref(),
            gateway_customer: method.as_ref().map_or("", |method| &method.gateway_customer),
            created_at_ms: payment.created_at_ms,
        };
        gateway.find(&request).await.map_err(|source| PaymentError::Gateway {
            gateway: gateway.name(),
            source,
        })?
    } else {
        None
    };
    fault::at("reconcile.found");
    let age_ms = now_ms - payment.created_at_ms;
    match found {
        found if !payment.state.is_open() => last_look(database, &payment, found, now_ms).await,
        Some(outcome) => {
            let waits = matches!(outcome.state, ChargeState::RequiresAction { .. });
            engine::record_in_transaction(database, payment.id, &outcome, now_ms).await?;
            if waits && age_ms >= ACTION_LIMIT_MS {
                engine::cancel(database, gateway, payment.id, now_ms).await?;
            }
            Ok(())
        }
        None => not_found(database, gateway, payment, method, now_ms, done).await,
    }
}

/// It had failed or was given up; if the money is there after all, it counts, and otherwise nobody looks again.
async fn last_look(
    database: &Database,
    payment: &Payment,
    found: Option<ChargeOutcome>,
    now_ms: i64,
) -> Result<(), PaymentError> {
    if let Some(outcome) = found {
        engine::record_in_transaction(database, payment.id, &outcome, now_ms).await?;
    }
    sqlx::query("UPDATE payments SET check_at_ms = NULL WHERE id = $1 AND state IN ('failed', 'cancelled')")
        .bind(payment.id.0)
        .execute(database.pool())
        .await?;
    Ok(())
}

/// The gateway does not know it, and every call that could still tell it has ended.
async fn not_found(
    database: &Database,
    gateway: &dyn PaymentGateway,
    payment: Payment,
    method: Option<PaymentMethod>,
    now_ms: i64,
    done: &mut Reconciled,
) -> Result<(), PaymentError> {
    let age_ms = now_ms - payment.created_at_ms;
    let capabilities = gateway.capabilities();
    if payment.state == PaymentState::RequiresAction && age_ms >= ACTION_LIMIT_MS {
        // PayPal forgets orders that nobody approved: what is not there cannot be confirmed any more. Should money turn up
        // all the same, it counts.
        let outcome = ChargeOutcome {
            reference: None,
            amount: None,
            state: ChargeState::Cancelled,
        };
        engine::record_in_transaction(database, payment.id, &outcome, now_ms).await?;
        return Ok(());
    }
    if !matches!(payment.state, PaymentState::Intent | PaymentState::Unknown) {
        let why = "the gateway had it and does not know it any more";
        return note(database, payment.id, why, now_ms).await;
    }
    let has_forgotten = age_ms >= capabilities.remembers_keys_ms;
    if has_forgotten && !capabilities.finds_by_key {
        let why = "the gateway cannot be searched: look there for the payment's id, and record it or refund it";
        return note(database, payment.id, why, now_ms).await;
    }
    let Some(method) = method.filter(|method| method.removed_at_ms.is_none() && !has_forgotten) else {
        let outcome = ChargeOutcome {
            reference: None,
            amount: None,
            state: ChargeState::Declined {
                code: "not_found".to_owned(),
                message: "the gateway does not know it, and it is too late to ask again".to_owned(),
            },
        };
        engine::record_in_transaction(database, payment.id, &outcome, now_ms).await?;
        return Ok(());
    };
    if payment.calls >= MAX_CALLS {
        return note(
            database,
            payment.id,
            "asked for as often as may be; looked for still",
            now_ms,
        )
        .await;
    }
    // Compare and set, with the invoice looked at in the same transaction: it may have been paid by another way.
    let mut transaction = database.begin_write().await?;
    let current = locked(&mut transaction, payment.id).await?;
    if current.updated_at_ms != payment.updated_at_ms || current.state != payment.state {
        return Ok(());
    }
    if capabilities.finds_by_key && !is_wanted(&mut transaction, &payment).await? {
        let outcome = ChargeOutcome {
            reference: None,
            amount: None,
            state: ChargeState::Cancelled,
        };
        engine::record(&mut transaction, payment.id, &outcome, now_ms).await?;
        transaction.commit().await?;
        return Ok(());
    }
    sqlx::query("UPDATE payments SET state = 'unknown', calls = calls + 1 WHERE id = $1")
        .bind(payment.id.0)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    done.asked_again += 1;
    fault::at("reconcile.again");
    let answer = engine::ask(gateway, &payment, &method, None).await;
    engine::record_answer(database, payment.id, answer, now_ms).await?;
    Ok(())
}

/// Whether its invoice still leaves that much open.
async fn is_wanted(connection: &mut sqlx::AnyConnection, payment: &Payment) -> Result<bool, PaymentError> {
    let Purpose::Invoice(invoice) = payment.purpose else {
        return Ok(true);
    };
    let open: Money = settlement::outstanding(&mut *connection, invoice).await?;
    Ok(open.minor >= payment.amount.minor)
}

async fn note(database: &Database, id: schemas::ids::PaymentId, why: &str, now_ms: i64) -> Result<(), PaymentError> {
    let mut transaction = database.begin_write().await?;
    let payment = locked(&mut transaction, id).await?;
    if payment.state.is_open() {
        schedule_recheck(&mut transaction, &payment, why, now_ms).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// When the next payment or refund is due to be looked for.
///
/// # Errors
/// As the database answers.
pub async fn next_check_ms(database: &Database) -> Result<Option<i64>, PaymentError> {
    let row = sqlx::query(
        "SELECT CAST(min(at_ms) AS BIGINT) FROM ( \
         SELECT check_at_ms AS at_ms FROM payments WHERE check_at_ms IS NOT NULL \
         UNION ALL SELECT check_at_ms FROM refunds WHERE check_at_ms IS NOT NULL) due",
    )
    .fetch_one(database.pool())
    .await?;
    Ok(row.try_get(0)?)
}

//! Money that goes back, with the same care: committed, asked, recorded, looked for.

use activity::event::EventType;
use schemas::db::{Database, next_id};
use schemas::fault;
use schemas::ids::{PaymentId, RefundId};
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};
use tracing::warn;

use super::claim::{LEASE_MS, Reconciled, WORK_LIMIT};
use super::engine::{CHECK_AFTER_MS, cut, locked};
use super::gateway::{GatewayError, PaymentGateway, RefundOutcome, RefundProgress, RefundRequest};
use super::store::{self, Payment};
use super::{GatewayName, Gateways, PaymentError, PaymentState, checked_text, random_hex};
use crate::settlement;

const MAX_BATCH: i64 = 200;
const MAX_ERROR_CHARS: usize = 500;
const MAX_REASON_CHARS: usize = 500;
/// Between two looks at a refund; banks take days.
const BACKOFF_MS: i64 = 60_000;
const BACKOFF_MAX_MS: i64 = 3_600_000;

/// A refund's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefundState {
    Intent,
    Unknown,
    Processing,
    Succeeded,
    Failed,
}

impl RefundState {
    pub const ALL: [RefundState; 5] = [
        RefundState::Intent,
        RefundState::Unknown,
        RefundState::Processing,
        RefundState::Succeeded,
        RefundState::Failed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RefundState::Intent => "intent",
            RefundState::Unknown => "unknown",
            RefundState::Processing => "processing",
            RefundState::Succeeded => "succeeded",
            RefundState::Failed => "failed",
        }
    }

    pub fn is_open(self) -> bool {
        matches!(
            self,
            RefundState::Intent | RefundState::Unknown | RefundState::Processing
        )
    }

    /// As of payments; but a refund that went out can come back, and a failed one stays so.
    pub fn can_become(self, next: RefundState) -> bool {
        match self {
            RefundState::Intent => next != RefundState::Intent,
            RefundState::Unknown => matches!(
                next,
                RefundState::Processing | RefundState::Succeeded | RefundState::Failed
            ),
            RefundState::Processing => matches!(next, RefundState::Succeeded | RefundState::Failed),
            RefundState::Succeeded => next == RefundState::Failed,
            RefundState::Failed => false,
        }
    }

    fn of(progress: &RefundProgress) -> RefundState {
        match progress {
            RefundProgress::Succeeded => RefundState::Succeeded,
            RefundProgress::Processing => RefundState::Processing,
            RefundProgress::Failed { .. } => RefundState::Failed,
        }
    }
}

impl std::fmt::Display for RefundState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A refund.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refund {
    pub id: RefundId,
    pub payment: PaymentId,
    pub amount: Money,
    pub idempotency_key: String,
    pub state: RefundState,
    pub reference: Option<String>,
    pub reason: String,
    pub error: String,
    pub created_by: String,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
}

/// A refund to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewRefund<'a> {
    pub payment: PaymentId,
    pub amount: Money,
    pub reason: &'a str,
    /// Who asked: an id such as `usr_1`, or a name.
    pub created_by: &'a str,
}

const SELECT: &str = "SELECT id, payment_id, currency, amount_minor, idempotency_key, state, reference, reason, error, created_by, \
     created_at_ms, updated_at_ms FROM refunds";

/// Makes a refund: commits it, asks the gateway, records the answer. What is returned may be under way still.
///
/// # Errors
/// When not so much of the payment can be refunded, or the gateway cannot refund.
pub async fn refund(
    database: &Database,
    gateway: &dyn PaymentGateway,
    new: &NewRefund<'_>,
    now_ms: i64,
) -> Result<Refund, PaymentError> {
    let mut transaction = database.begin_write().await?;
    let id = intend(&mut transaction, gateway, new, now_ms).await?;
    transaction.commit().await?;
    ask(database, gateway, id, now_ms).await
}

/// Writes down that a refund is to be made: in the caller's transaction, with a key of its own. What was committed is asked of
/// the gateway by [`ask`], or by whoever reconciles next.
///
/// # Errors
/// When not so much of the payment can be refunded, or the gateway cannot refund.
pub async fn intend(
    connection: &mut AnyConnection,
    gateway: &dyn PaymentGateway,
    new: &NewRefund<'_>,
    now_ms: i64,
) -> Result<RefundId, PaymentError> {
    if !gateway.capabilities().refunds {
        return Err(PaymentError::NotCapable {
            gateway: gateway.name(),
            what: "refund",
        });
    }
    intend_by(connection, gateway.name(), new, now_ms).await
}

/// As [`intend`], where the gateway is not at hand: what it cannot do, it says when it is asked.
pub(crate) async fn intend_by(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    new: &NewRefund<'_>,
    now_ms: i64,
) -> Result<RefundId, PaymentError> {
    let (payment, reason) = checked(&mut *connection, gateway, new).await?;
    let row = NewRow {
        payment: payment.id,
        amount: new.amount,
        key: None,
        state: RefundState::Intent,
        reference: None,
        reason: &reason,
        created_by: new.created_by,
        check_at_ms: Some(now_ms + CHECK_AFTER_MS),
    };
    insert(connection, row, now_ms).await
}

/// Asks the gateway for a refund that was committed, and records the answer.
///
/// # Errors
/// When there is no such refund, or the database does not answer.
pub async fn ask(
    database: &Database,
    gateway: &dyn PaymentGateway,
    id: RefundId,
    now_ms: i64,
) -> Result<Refund, PaymentError> {
    let refund = get(database.pool(), id).await?;
    let payment = store::payment(database.pool(), refund.payment).await?;
    fault::at("refund.intended");
    let answer = match request(&refund, &payment) {
        Some(request) => gateway.refund(&request).await,
        None => Err(GatewayError::Refused {
            code: "no_reference".to_owned(),
            message: "the gateway's id of the payment is not known".to_owned(),
        }),
    };
    fault::at("refund.answered");
    record_answer(database, refund.id, answer, true, now_ms).await?;
    get(database.pool(), refund.id).await
}

/// The refunds of a payment, oldest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn refunds_of(db: impl AnyExecutor<'_>, payment: PaymentId) -> Result<Vec<Refund>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE payment_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(payment.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// One refund.
///
/// # Errors
/// [`PaymentError::NoRefund`] when there is none of this id.
pub(crate) async fn get(db: impl AnyExecutor<'_>, id: RefundId) -> Result<Refund, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(PaymentError::NoRefund(id))?)
}

/// The payment, locked, and the reason as it is kept, when so much of it can be refunded.
async fn checked(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    new: &NewRefund<'_>,
) -> Result<(Payment, String), PaymentError> {
    let reason = checked_text("reason", new.reason, MAX_REASON_CHARS)?;
    let payment = locked(&mut *connection, new.payment).await?;
    if payment.gateway != gateway {
        return Err(PaymentError::NotCapable {
            gateway,
            what: "refund what another gateway was paid",
        });
    }
    if payment.state != PaymentState::Succeeded {
        return Err(PaymentError::NotPaid(new.payment));
    }
    if new.amount.minor <= 0 {
        return Err(PaymentError::NotPositive(new.amount));
    }
    let refundable = settlement::refundable(connection, new.payment).await?;
    if new.amount.currency != refundable.currency || new.amount.minor > refundable.minor {
        return Err(PaymentError::NotRefundable {
            payment: new.payment,
            refundable,
            asked: new.amount,
        });
    }
    Ok((payment, reason))
}

/// Records that money of a bank transfer was sent back at the bank: succeeded at once, and once for a reference.
///
/// # Errors
/// When not so much of the payment can be refunded, it was no bank transfer, or the reference was recorded for it before.
pub async fn record_returned_transfer(
    connection: &mut AnyConnection,
    new: &NewRefund<'_>,
    reference: &str,
    now_ms: i64,
) -> Result<RefundId, PaymentError> {
    let reference = checked_text("reference", reference, MAX_REASON_CHARS)?;
    let (payment, reason) = checked(&mut *connection, GatewayName::Manual, new).await?;
    let before = refunds_of(&mut *connection, payment.id).await?;
    if before.iter().any(|one| one.reference.as_deref() == Some(&reference)) {
        return Err(PaymentError::RecordedBefore {
            reference,
            payment: payment.id,
        });
    }
    let row = NewRow {
        payment: payment.id,
        amount: new.amount,
        key: Some(format!("manual:{}:{reference}", payment.id)),
        state: RefundState::Intent,
        reference: Some(&reference),
        reason: &reason,
        created_by: new.created_by,
        check_at_ms: None,
    };
    let id = insert(&mut *connection, row, now_ms).await?;
    let outcome = RefundOutcome {
        reference: None,
        state: RefundProgress::Succeeded,
    };
    record(connection, id, &outcome, now_ms).await?;
    Ok(id)
}

struct NewRow<'a> {
    payment: PaymentId,
    amount: Money,
    key: Option<String>,
    state: RefundState,
    reference: Option<&'a str>,
    reason: &'a str,
    created_by: &'a str,
    check_at_ms: Option<i64>,
}

async fn insert(connection: &mut AnyConnection, new: NewRow<'_>, now_ms: i64) -> Result<RefundId, PaymentError> {
    let id = RefundId(next_id(connection, "refund").await?);
    let key = new.key.unwrap_or_else(|| format!("ezscale-{id}-{}", random_hex()));
    sqlx::query(
        "INSERT INTO refunds (id, payment_id, currency, amount_minor, idempotency_key, state, reference, reason, error, \
         created_by, created_at_ms, updated_at_ms, check_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', $9, $10, $10, $11)",
    )
    .bind(id.0)
    .bind(new.payment.0)
    .bind(new.amount.currency.code())
    .bind(new.amount.minor)
    .bind(key)
    .bind(new.state.name())
    .bind(new.reference)
    .bind(new.reason)
    .bind(new.created_by)
    .bind(now_ms)
    .bind(new.check_at_ms)
    .execute(connection)
    .await?;
    Ok(id)
}

fn request<'a>(refund: &'a Refund, payment: &'a Payment) -> Option<RefundRequest<'a>> {
    Some(RefundRequest {
        refund: refund.id,
        idempotency_key: &refund.idempotency_key,
        payment_reference: payment.reference.as_deref()?,
        reference: refund.reference.as_deref(),
        amount: refund.amount,
    })
}

async fn record_answer(
    database: &Database,
    id: RefundId,
    answer: Result<RefundOutcome, GatewayError>,
    is_first_call: bool,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let mut transaction = database.begin_write().await?;
    match answer {
        Ok(outcome) => record(&mut transaction, id, &outcome, now_ms).await?,
        Err(error @ (GatewayError::NotSent { .. } | GatewayError::Refused { .. })) if is_first_call => {
            let outcome = RefundOutcome {
                reference: None,
                state: RefundProgress::Failed {
                    code: "refused".to_owned(),
                    message: error.to_string(),
                },
            };
            record(&mut transaction, id, &outcome, now_ms).await?;
        }
        Err(error) => {
            warn!(refund = %id, error = %error, "a gateway did not say what became of a refund");
            schedule_recheck(&mut transaction, id, &error.to_string(), now_ms).await?;
        }
    }
    fault::at("refund.recording");
    transaction.commit().await?;
    Ok(())
}

async fn schedule_recheck(
    connection: &mut AnyConnection,
    id: RefundId,
    why: &str,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let refund = get(&mut *connection, id).await?;
    let wait_ms = (now_ms - refund.created_at_ms).clamp(BACKOFF_MS, BACKOFF_MAX_MS);
    sqlx::query(
        "UPDATE refunds SET state = CASE WHEN state = 'intent' THEN 'unknown' ELSE state END, error = $2, updated_at_ms = $3, \
         check_at_ms = $4 WHERE id = $1 AND state IN ('intent', 'unknown', 'processing')",
    )
    .bind(id.0)
    .bind(cut(why, MAX_ERROR_CHARS))
    .bind(now_ms.max(refund.updated_at_ms + 1))
    .bind(now_ms + wait_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records what a gateway knows of a refund of ours.
async fn record(
    connection: &mut AnyConnection,
    id: RefundId,
    outcome: &RefundOutcome,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let payment = get(&mut *connection, id).await?.payment;
    let payment = locked(connection, payment).await?;
    let refund = get(&mut *connection, id).await?;
    let next = RefundState::of(&outcome.state);
    if !refund.state.can_become(next) {
        if refund.state == next && next.is_open() {
            schedule_recheck(connection, id, &refund.error, now_ms).await?;
        }
        return Ok(());
    }
    let problem = match &outcome.state {
        RefundProgress::Failed { code, message } => format!("{code}: {message}"),
        _ => String::new(),
    };
    sqlx::query(
        "UPDATE refunds SET state = $2, reference = coalesce(reference, $3), error = $4, updated_at_ms = $5, check_at_ms = $6 \
         WHERE id = $1",
    )
    .bind(id.0)
    .bind(next.name())
    .bind(outcome.reference.as_deref())
    .bind(cut(&problem, MAX_ERROR_CHARS))
    .bind(now_ms.max(refund.updated_at_ms + 1))
    .bind(next.is_open().then_some(now_ms + BACKOFF_MS))
    .execute(&mut *connection)
    .await?;
    let mut is_top_up_off = false;
    match (refund.state, next) {
        (_, RefundState::Succeeded) => {
            is_top_up_off = settlement::refund_posted(connection, id, refund.payment, refund.amount, now_ms).await?;
        }
        (RefundState::Succeeded, RefundState::Failed) => {
            settlement::refund_returned(connection, id, refund.payment, refund.amount, now_ms).await?;
        }
        _ => {}
    }
    let event_type = match next {
        RefundState::Succeeded => EventType::RefundSucceeded,
        RefundState::Failed => EventType::RefundFailed,
        _ => return Ok(()),
    };
    let end = RefundResult {
        refund: id,
        amount: refund.amount,
        problem: &problem,
        is_top_up_off,
    };
    announce(connection, event_type, &payment, end, now_ms).await
}

/// How a refund ended, as it is told.
struct RefundResult<'a> {
    refund: RefundId,
    amount: Money,
    problem: &'a str,
    /// It switched automatic top-up off.
    is_top_up_off: bool,
}

async fn announce(
    connection: &mut AnyConnection,
    event_type: EventType,
    payment: &Payment,
    end: RefundResult<'_>,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let mut facts = serde_json::json!({
        "refund": end.refund,
        "payment": payment.id,
        "invoice": payment.purpose.invoice(),
        "amount_minor": end.amount.minor,
        "currency": end.amount.currency.code(),
        "gateway": payment.gateway.name(),
        "error": end.problem,
    });
    if end.is_top_up_off {
        facts["automatic_top_up"] = "off".into();
    }
    let subject = end.refund.to_string();
    settlement::tell(connection, event_type, payment.customer, subject, facts, now_ms).await?;
    Ok(())
}

/// A refund that the gateway told of: ours, by its key or reference; else one that was made without us. `false` when the
/// payment is not known.
pub(super) async fn heard(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    key: Option<&str>,
    payment_reference: &str,
    amount: Money,
    outcome: &RefundOutcome,
    now_ms: i64,
) -> Result<bool, PaymentError> {
    if let Some(id) = known(connection, gateway, key, outcome.reference.as_deref()).await? {
        record(connection, id, outcome, now_ms).await?;
        return Ok(true);
    }
    let Some(payment) = store::by_reference(connection, gateway, payment_reference).await? else {
        return Ok(false);
    };
    let payment = locked(connection, payment.id).await?;
    if payment.state != PaymentState::Succeeded {
        return Ok(false);
    }
    let state = RefundState::of(&outcome.state);
    if state.is_open() {
        // Nothing has moved yet; it is told again when it has.
        return Ok(true);
    }
    let reference = outcome.reference.as_deref();
    let row = NewRow {
        payment: payment.id,
        amount,
        key: Some(format!("{gateway}:{}", reference.unwrap_or(payment_reference))),
        state,
        reference,
        reason: "made at the gateway",
        created_by: gateway.name(),
        check_at_ms: None,
    };
    let id = insert(connection, row, now_ms).await?;
    if state == RefundState::Failed {
        // The row stays: that it had succeeded before may be told after this, and nothing has moved in the end.
        return Ok(true);
    }
    let is_top_up_off = settlement::settle_gateway_refund(connection, payment.id, id, amount, now_ms).await?;
    let end = RefundResult {
        refund: id,
        amount,
        problem: "",
        is_top_up_off,
    };
    announce(connection, EventType::RefundSucceeded, &payment, end, now_ms).await?;
    Ok(true)
}

async fn known(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    key: Option<&str>,
    reference: Option<&str>,
) -> Result<Option<RefundId>, PaymentError> {
    let row = sqlx::query(
        "SELECT r.id FROM refunds r JOIN payments p ON p.id = r.payment_id \
         WHERE p.gateway = $1 AND (r.idempotency_key = $2 OR r.reference = $3)",
    )
    .bind(gateway.name())
    .bind(key)
    .bind(reference)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(RefundId))
}

/// Looks for every refund whose time has come.
pub(super) async fn reconcile(
    database: &Database,
    gateways: &Gateways,
    now_ms: i64,
    done: &mut Reconciled,
) -> Result<(), PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE check_at_ms <= $1 AND state IN ('intent', 'unknown', 'processing') ORDER BY check_at_ms, id LIMIT $2"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(MAX_BATCH)
        .fetch_all(database.pool())
        .await?;
    for row in &rows {
        let refund = read(row)?;
        let payment = store::payment(database.pool(), refund.payment).await?;
        let Ok(gateway) = gateways.get(payment.gateway) else {
            done.errors += 1;
            continue;
        };
        let claimed = sqlx::query(
            "UPDATE refunds SET updated_at_ms = $4, check_at_ms = $5 WHERE id = $1 AND state = $2 AND updated_at_ms = $3",
        )
        .bind(refund.id.0)
        .bind(refund.state.name())
        .bind(refund.updated_at_ms)
        .bind(now_ms.max(refund.updated_at_ms + 1))
        .bind(now_ms + LEASE_MS)
        .execute(database.pool())
        .await?
        .rows_affected();
        if claimed == 0 {
            continue;
        }
        done.looked_for += 1;
        let work = look(database, gateway, &refund, &payment, now_ms);
        match tokio::time::timeout(WORK_LIMIT, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ PaymentError::Database(_))) => return Err(error),
            Ok(Err(error)) => {
                warn!(refund = %refund.id, error = %error, "a refund was not reconciled");
                done.errors += 1;
            }
            Err(_) => done.errors += 1,
        }
        if !get(database.pool(), refund.id).await?.state.is_open() {
            done.settled += 1;
        }
    }
    Ok(())
}

async fn look(
    database: &Database,
    gateway: &dyn PaymentGateway,
    refund: &Refund,
    payment: &Payment,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let Some(request) = request(refund, payment) else {
        return Ok(());
    };
    let is_young = now_ms - refund.created_at_ms < gateway.capabilities().remembers_keys_ms;
    match gateway.find_refund(&request).await {
        Ok(Some(outcome)) => record_answer(database, refund.id, Ok(outcome), false, now_ms).await,
        Ok(None) if is_young && refund.state != RefundState::Processing => {
            let answer = gateway.refund(&request).await;
            record_answer(database, refund.id, answer, false, now_ms).await
        }
        // Where nothing can be found without a reference, not finding proves nothing.
        Ok(None) if refund.state != RefundState::Processing && gateway.capabilities().finds_by_key => {
            let outcome = RefundOutcome {
                reference: None,
                state: RefundProgress::Failed {
                    code: "not_found".to_owned(),
                    message: "the gateway does not know it, and it is too late to ask again".to_owned(),
                },
            };
            record_answer(database, refund.id, Ok(outcome), false, now_ms).await
        }
        Ok(None) => {
            let error = GatewayError::unknown("the gateway does not know: look up the refund there");
            record_answer(database, refund.id, Err(error), false, now_ms).await
        }
        Err(error) => record_answer(database, refund.id, Err(error), false, now_ms).await,
    }
}

fn read(row: &AnyRow) -> Result<Refund, PaymentError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let state: String = row.try_get("state")?;
    let found = RefundState::ALL.into_iter().find(|known| known.name() == state);
    Ok(Refund {
        id: RefundId(row.try_get("id")?),
        payment: PaymentId(row.try_get("payment_id")?),
        amount: Money::new(row.try_get("amount_minor")?, currency),
        idempotency_key: row.try_get("idempotency_key")?,
        state: found.ok_or(PaymentError::Corrupt {
            what: "refund state",
            text: state,
        })?,
        reference: row.try_get("reference")?,
        reason: row.try_get("reason")?,
        error: row.try_get("error")?,
        created_by: row.try_get("created_by")?,
        created_at_ms: row.try_get("created_at_ms")?,
        updated_at_ms: row.try_get("updated_at_ms")?,
    })
}

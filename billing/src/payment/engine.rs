//! Starting a payment, and recording what became of it.

use activity::event::EventType;
use schemas::db::{Database, next_id};
use schemas::fault;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, PaymentMethodId};
use schemas::inventory;
use schemas::money::Money;
use sqlx::{AnyConnection, Row as _};
use tracing::{error, warn};

use super::gateway::{ChargeOutcome, ChargeRequest, ChargeState, FindRequest, GatewayError};
use super::method::{self, PaymentMethod};
use super::store::{self, Payment, Purpose};
use super::{PaymentError, PaymentGateway, PaymentState, random_hex};
use crate::settlement::{self, ReceivedMoney};

/// After so long a call has surely ended, whoever made it: twice its time-out.
pub(crate) const CHECK_AFTER_MS: i64 = 60_000;
/// Between two looks at a payment that nobody knows about; doubled from look to look up to the second.
const BACKOFF_MS: i64 = 60_000;
const BACKOFF_MAX_MS: i64 = 3_600_000;
/// What failed or was given up without the gateway's word is looked for once more after so long: a charge may have been made
/// after everybody had stopped waiting.
const LAST_LOOK_MS: i64 = 24 * 3_600_000;
/// Characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 500;
const MAX_NOTE_CHARS: usize = 500;
const MAX_REQUEST_CHARS: usize = 128;

const _: () = assert!(CHECK_AFTER_MS >= 2 * super::gateway::CALL_TIMEOUT_MS as i64);

/// A payment to be made of a saved method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewPayment<'a> {
    pub customer: CustomerId,
    /// For this invoice; `None`: a top-up.
    pub invoice: Option<InvoiceId>,
    /// `None`: all that the invoice leaves open.
    pub amount: Option<Money>,
    pub method: PaymentMethodId,
    pub note: &'a str,
    /// Where the customer comes back to from a page of the bank's.
    pub return_url: Option<&'a str>,
}

/// Makes a payment: commits it, asks the gateway, records the answer. What is returned may be under way still.
///
/// # Errors
/// When it may not be made: another is under way, nothing is open, the method is not the customer's. What the gateway
/// answers, or does not, is no error but the payment's state.
pub async fn start(
    database: &Database,
    gateway: &dyn PaymentGateway,
    new: &NewPayment<'_>,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    begin(database, gateway, new, None, now_ms).await
}

/// As [`start`], once for each `request`, such as the token of a form: who sends the same again, at the same time or days
/// later, gets the payment that it began, wherever that is, and nothing is charged for it. The request is a part of the
/// payment's key, and the customer another, so that nobody meets somebody else's payment.
///
/// # Errors
/// As [`start`], or when `request` is not of 1 to 128 letters, digits and hyphens.
pub async fn start_once(
    database: &Database,
    gateway: &dyn PaymentGateway,
    new: &NewPayment<'_>,
    request: &str,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let is_plain = request.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_plain || request.is_empty() || request.len() > MAX_REQUEST_CHARS {
        return Err(PaymentError::Text {
            field: "request",
            max: MAX_REQUEST_CHARS,
            text: cut(request, MAX_REQUEST_CHARS),
        });
    }
    let key = format!("ezscale-{}-{request}", new.customer);
    begin(database, gateway, new, Some(&key), now_ms).await
}

async fn begin(
    database: &Database,
    gateway: &dyn PaymentGateway,
    new: &NewPayment<'_>,
    key: Option<&str>,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    if !gateway.capabilities().charges {
        return Err(PaymentError::NotCapable {
            gateway: gateway.name(),
            what: "charge",
        });
    }
    let (payment, method) = match intend(database, gateway, new, key, now_ms).await? {
        PaymentIntent::New(payment, method) => (payment, method),
        PaymentIntent::Existing(payment) => return Ok(*payment),
    };
    fault::at("payment.intended");
    let answer = ask(gateway, &payment, &method, new.return_url).await;
    fault::at("payment.answered");
    record_answer(database, payment.id, answer, now_ms).await
}

/// What is meant.
enum PaymentIntent {
    New(Box<Payment>, Box<PaymentMethod>),
    /// The same request meant it before.
    Existing(Box<Payment>),
}

/// Gives up a payment that waits for the customer.
///
/// # Errors
/// When the gateway does not answer; what it answers is recorded, and may be that the money came.
pub async fn cancel(
    database: &Database,
    gateway: &dyn PaymentGateway,
    id: PaymentId,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let payment = store::payment(database.pool(), id).await?;
    let (PaymentState::RequiresAction, Some(reference)) = (payment.state, &payment.reference) else {
        return Ok(payment);
    };
    let outcome = gateway
        .cancel(reference)
        .await
        .map_err(|source| PaymentError::Gateway {
            gateway: gateway.name(),
            source,
        })?;
    record_in_transaction(database, id, &outcome, now_ms).await
}

/// Asks the gateway about a payment that waits for the customer, for the moment in which they come back from the bank's page:
/// nobody has to wait for the webhook or the next look. Nothing is charged by it.
///
/// # Errors
/// When the gateway does not answer; then it is looked at later, as before.
pub async fn query_gateway(
    database: &Database,
    gateway: &dyn PaymentGateway,
    id: PaymentId,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let payment = store::payment(database.pool(), id).await?;
    if payment.state != PaymentState::RequiresAction || payment.reference.is_none() {
        return Ok(payment);
    }
    let request = FindRequest {
        payment: payment.id,
        idempotency_key: &payment.idempotency_key,
        reference: payment.reference.as_deref(),
        gateway_customer: "",
        created_at_ms: payment.created_at_ms,
    };
    let found = gateway.find(&request).await.map_err(|source| PaymentError::Gateway {
        gateway: gateway.name(),
        source,
    })?;
    match found {
        Some(outcome) => record_in_transaction(database, id, &outcome, now_ms).await,
        None => Ok(payment),
    }
}

pub(crate) async fn ask(
    gateway: &dyn PaymentGateway,
    payment: &Payment,
    method: &PaymentMethod,
    return_url: Option<&str>,
) -> Result<ChargeOutcome, GatewayError> {
    let request = ChargeRequest {
        payment: payment.id,
        idempotency_key: &payment.idempotency_key,
        amount: payment.amount,
        gateway_customer: &method.gateway_customer,
        method: &method.reference,
        description: &payment.note,
        return_url,
    };
    gateway.charge(&request).await
}

/// Commits what is meant (B4).
async fn intend(
    database: &Database,
    gateway: &dyn PaymentGateway,
    new: &NewPayment<'_>,
    key: Option<&str>,
    now_ms: i64,
) -> Result<PaymentIntent, PaymentError> {
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, new.customer).await?;
    if let Some(key) = key
        && let Some(before) = store::by_key(&mut transaction, key).await?
    {
        return Ok(PaymentIntent::Existing(Box::new(before)));
    }
    let method = method::of_customer(&mut transaction, new.customer, new.method).await?;
    if method.gateway != gateway.name() {
        return Err(PaymentError::OtherGateway {
            method: new.method,
            of: method.gateway,
            gateway: gateway.name(),
        });
    }
    let amount = payable(&mut transaction, new.customer, new.invoice, new.amount).await?;
    let purpose = new.invoice.map_or(Purpose::TopUp, Purpose::Invoice);
    if let Some(payment) = under_way(&mut transaction, new.customer, purpose).await? {
        return Err(PaymentError::UnderWay { payment });
    }
    let id = PaymentId(next_id(&mut transaction, "payment").await?);
    let inserted = sqlx::query(
        "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, method_id, currency, amount_minor, \
         idempotency_key, state, reference, action_url, error, calls, note, created_at_ms, updated_at_ms, check_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, '', '', 1, $11, $12, $12, $13)",
    )
    .bind(id.0)
    .bind(new.customer.0)
    .bind(new.invoice.map(|invoice| invoice.0))
    .bind(purpose.name())
    .bind(gateway.name().name())
    .bind(new.method.0)
    .bind(amount.currency.code())
    .bind(amount.minor)
    .bind(key.map_or_else(|| format!("ezscale-{id}-{}", random_hex()), str::to_owned))
    .bind(PaymentState::Intent.name())
    .bind(cut_plain(new.note, MAX_NOTE_CHARS))
    .bind(now_ms)
    .bind(now_ms + CHECK_AFTER_MS)
    .execute(&mut *transaction)
    .await;
    inserted?;
    fault::at("payment.intending");
    let payment = store::payment(&mut *transaction, id).await?;
    transaction.commit().await?;
    Ok(PaymentIntent::New(Box::new(payment), Box::new(method)))
}

/// What a payment may be of: at most what its invoice leaves open, in the customer's currency.
pub(crate) async fn payable(
    connection: &mut AnyConnection,
    customer: CustomerId,
    invoice: Option<InvoiceId>,
    asked: Option<Money>,
) -> Result<Money, PaymentError> {
    let amount = match invoice {
        Some(invoice) => {
            let open = settlement::outstanding(&mut *connection, invoice).await?;
            let owner: i64 = sqlx::query("SELECT customer_id FROM invoices WHERE id = $1")
                .bind(invoice.0)
                .fetch_one(&mut *connection)
                .await?
                .try_get(0)?;
            if owner != customer.0 {
                return Err(PaymentError::OtherCustomer {
                    invoice,
                    owner: CustomerId(owner),
                    customer,
                });
            }
            let asked = asked.unwrap_or(open);
            if asked.currency != open.currency || asked.minor > open.minor || open.minor <= 0 {
                return Err(PaymentError::NotOpen { invoice, open, asked });
            }
            asked
        }
        None => {
            let asked = asked.ok_or(PaymentError::NoAmount)?;
            same_currency(connection, customer, asked).await?;
            asked
        }
    };
    if amount.minor <= 0 {
        return Err(PaymentError::NotPositive(amount));
    }
    Ok(amount)
}

pub(crate) async fn same_currency(
    connection: &mut AnyConnection,
    customer: CustomerId,
    amount: Money,
) -> Result<(), PaymentError> {
    let owner = inventory::customer(connection, customer)
        .await
        .map_err(|error| PaymentError::Corrupt {
            what: "customer",
            text: error.to_string(),
        })?;
    if owner.currency != amount.currency {
        return Err(PaymentError::OtherCurrency {
            customer,
            pays: owner.currency,
            asked: amount.currency,
        });
    }
    Ok(())
}

async fn under_way(
    connection: &mut AnyConnection,
    customer: CustomerId,
    purpose: Purpose,
) -> Result<Option<PaymentId>, PaymentError> {
    let row = sqlx::query(
        "SELECT id FROM payments WHERE customer_id = $1 AND purpose = $2 AND coalesce(invoice_id, 0) = $3 \
         AND state IN ('intent', 'unknown', 'requires_action', 'processing')",
    )
    .bind(customer.0)
    .bind(purpose.name())
    .bind(purpose.invoice().map_or(0, |invoice| invoice.0))
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(PaymentId))
}

/// Records what the gateway answered, or that it did not.
pub(crate) async fn record_answer(
    database: &Database,
    id: PaymentId,
    answer: Result<ChargeOutcome, GatewayError>,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let unanswered = match answer {
        Ok(outcome) => return record_in_transaction(database, id, &outcome, now_ms).await,
        Err(unanswered) => unanswered,
    };
    warn!(payment = %id, error = %unanswered, "a gateway did not say what became of a charge");
    let mut transaction = database.begin_write().await?;
    let payment = locked(&mut transaction, id).await?;
    if payment.state == PaymentState::Succeeded {
        // Somebody has heard of it in the meantime.
        return Ok(payment);
    }
    let nothing_happened = matches!(unanswered, GatewayError::NotSent { .. } | GatewayError::Refused { .. });
    // An earlier call with the same key may have done what this one did not.
    if nothing_happened && payment.calls == 1 {
        let code = match &unanswered {
            GatewayError::Refused { code, .. } => code.clone(),
            _ => "not_sent".to_owned(),
        };
        let outcome = ChargeOutcome {
            reference: None,
            amount: None,
            state: ChargeState::Declined {
                code,
                message: unanswered.to_string(),
            },
        };
        record(&mut transaction, id, &outcome, now_ms).await?;
    } else {
        schedule_recheck(&mut transaction, &payment, &unanswered.to_string(), now_ms).await?;
    }
    fault::at("payment.recording");
    transaction.commit().await?;
    fault::at("payment.recorded");
    store::payment(database.pool(), id).await
}

/// Nobody knows: it is looked for later. One that was given up in the meantime stays so until it is found.
pub(crate) async fn schedule_recheck(
    connection: &mut AnyConnection,
    payment: &Payment,
    why: &str,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let state = match payment.state {
        PaymentState::Intent => PaymentState::Unknown,
        state => state,
    };
    // The longer nothing is known, the longer it may take.
    let age_ms = (now_ms - payment.created_at_ms).max(0);
    let wait_ms = age_ms.clamp(BACKOFF_MS, BACKOFF_MAX_MS);
    sqlx::query(
        "UPDATE payments SET state = $2, error = $3, updated_at_ms = $4, check_at_ms = $5 WHERE id = $1 AND state = $6",
    )
    .bind(payment.id.0)
    .bind(state.name())
    .bind(cut(why, MAX_ERROR_CHARS))
    .bind(now_ms.max(payment.updated_at_ms + 1))
    .bind(now_ms + wait_ms)
    .bind(payment.state.name())
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn record_in_transaction(
    database: &Database,
    id: PaymentId,
    outcome: &ChargeOutcome,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let mut transaction = database.begin_write().await?;
    record(&mut transaction, id, outcome, now_ms).await?;
    fault::at("payment.recording");
    transaction.commit().await?;
    fault::at("payment.recorded");
    store::payment(database.pool(), id).await
}

/// A payment, its customer locked first.
pub(crate) async fn locked(connection: &mut AnyConnection, id: PaymentId) -> Result<Payment, PaymentError> {
    let customer = store::payment(&mut *connection, id).await?.customer;
    settlement::lock_customer(connection, customer).await?;
    store::payment(connection, id).await
}

/// Records what a gateway knows of a payment, whoever heard it and however late: the state, the money and the event.
pub(crate) async fn record(
    connection: &mut AnyConnection,
    id: PaymentId,
    outcome: &ChargeOutcome,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let payment = locked(connection, id).await?;
    let next = PaymentState::of(&outcome.state);
    if next == PaymentState::Succeeded {
        believable(&payment, outcome)?;
    }
    if !payment.state.can_become(next) {
        if payment.state == next && payment.state.is_open() {
            // The same as before: look again later.
            schedule_recheck(connection, &payment, &payment.error, now_ms).await?;
        }
        return Ok(());
    }
    let (url, problem) = match &outcome.state {
        ChargeState::RequiresAction { url } => (url.as_str(), String::new()),
        ChargeState::Declined { code, message } => ("", format!("{code}: {message}")),
        _ => ("", String::new()),
    };
    let check_at_ms = match next {
        _ if next.is_open() => Some(now_ms + CHECK_AFTER_MS),
        PaymentState::Failed | PaymentState::Cancelled if outcome.reference.is_none() => Some(now_ms + LAST_LOOK_MS),
        _ => None,
    };
    // A success names the charge that has the money; otherwise the first that was heard of stays.
    let reference = match (next, &outcome.reference) {
        (PaymentState::Succeeded, Some(reference)) => Some(reference.clone()),
        (_, heard) => payment.reference.clone().or_else(|| heard.clone()),
    };
    sqlx::query(
        "UPDATE payments SET state = $2, reference = $3, action_url = $4, error = $5, updated_at_ms = $6, check_at_ms = $7, \
         paid_at_ms = $8, value_at_ms = $8 WHERE id = $1",
    )
    .bind(id.0)
    .bind(next.name())
    .bind(reference)
    .bind(url)
    .bind(cut(&problem, MAX_ERROR_CHARS))
    .bind(now_ms.max(payment.updated_at_ms + 1))
    .bind(check_at_ms)
    .bind((next == PaymentState::Succeeded).then_some(now_ms))
    .execute(&mut *connection)
    .await?;
    if next == PaymentState::Succeeded {
        settle(connection, &payment, now_ms).await?;
    }
    announce(connection, &payment, next, url, &problem, now_ms).await
}

/// A second charge, or one of another amount, is not recorded: a person must look at it.
fn believable(payment: &Payment, outcome: &ChargeOutcome) -> Result<(), PaymentError> {
    if let Some(reported) = outcome.amount
        && reported != payment.amount
    {
        error!(payment = %payment.id, %reported, expected = %payment.amount, "a gateway charged another amount");
        return Err(PaymentError::OtherAmount {
            gateway: payment.gateway,
            payment: payment.id,
            reported,
            amount: payment.amount,
        });
    }
    if let (PaymentState::Succeeded, Some(first), Some(second)) =
        (payment.state, &payment.reference, &outcome.reference)
        && first != second
    {
        error!(payment = %payment.id, first, second, "a gateway charged twice");
        return Err(PaymentError::ChargedTwice {
            gateway: payment.gateway,
            payment: payment.id,
            first: first.clone(),
            second: second.clone(),
        });
    }
    Ok(())
}

/// The money is there: it settles the invoice, or becomes credit.
pub(crate) async fn settle(connection: &mut AnyConnection, payment: &Payment, now_ms: i64) -> Result<(), PaymentError> {
    let received = ReceivedMoney {
        payment: payment.id,
        customer: payment.customer,
        gateway: payment.gateway.name(),
        amount: payment.amount,
    };
    match payment.purpose {
        Purpose::Invoice(invoice) => settlement::pay_invoice(connection, received, invoice, now_ms).await?,
        Purpose::TopUp => settlement::top_up(connection, received, now_ms).await?,
    };
    Ok(())
}

pub(crate) async fn announce(
    connection: &mut AnyConnection,
    payment: &Payment,
    state: PaymentState,
    url: &str,
    problem: &str,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let event_type = match (state, payment.purpose) {
        (PaymentState::Succeeded, Purpose::Invoice(_)) => EventType::PaymentSucceeded,
        (PaymentState::Succeeded, Purpose::TopUp) => EventType::TopUpSucceeded,
        (PaymentState::Failed, Purpose::Invoice(_)) => EventType::PaymentFailed,
        (PaymentState::Failed, Purpose::TopUp) => EventType::TopUpFailed,
        (PaymentState::RequiresAction, _) => EventType::PaymentRequiresAction,
        _ => return Ok(()),
    };
    let facts = serde_json::json!({
        "payment": payment.id,
        "invoice": payment.purpose.invoice(),
        "amount_minor": payment.amount.minor,
        "currency": payment.amount.currency.code(),
        "gateway": payment.gateway.name(),
        "action_url": url,
        "error": problem,
    });
    settlement::tell(
        connection,
        event_type,
        payment.customer,
        payment.id.to_string(),
        facts,
        now_ms,
    )
    .await?;
    Ok(())
}

pub(crate) fn cut(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// As [`cut`], without what cannot be seen.
pub(super) fn cut_plain(text: &str, max: usize) -> String {
    text.chars()
        .filter(|character| schemas::text::is_plain(*character))
        .take(max)
        .collect()
}

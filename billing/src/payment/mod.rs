//! Money that comes in and goes out through gateways, exactly once (B4).
//!
//! ```text
//! start      a row in state `intent` with its key, committed        what was meant survives whatever happens next
//!   │
//!   ▼
//! charge     the gateway is asked, with that key                    an error means: nobody knows
//!   │
//!   ▼
//! record     state, ledger and event in one transaction             an answer, a webhook and a search record the same way
//!   │
//!   ▼
//! reconcile  whoever is left over is looked for at the gateway      found: recorded. Not found: asked again with the same key,
//!                                                                   as long as the gateway remembers keys, else failed
//! ```
//!
//! Promises:
//! * At most one payment of an invoice, and one top-up of a customer, is under way: a unique index says so.
//! * A payment is asked for again only with its own key, after the gateway was searched for it and after the earlier call has
//!   surely ended; never by guess.
//! * The gateway is the truth: a success that arrives late is recorded, whatever we believed. What the invoice does not need
//!   any more becomes the customer's credit.
//! * Events count once, in any order: [`PaymentState`] never moves backwards.
//! * An invoice is paid if, and only if, its money is in the ledger, in the same transaction.

mod charges;
mod claim;
mod engine;
pub mod gateway;
pub mod manual;
pub mod method;
pub mod paypal;
mod reconcile;
mod refund;
mod reversal;
mod state;
mod store;
pub mod stripe;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod trial;
mod webhook;

pub use charges::GatewayCharger;
pub use claim::Reconciled;
pub use engine::{NewPayment, cancel, query_gateway, start, start_once};
pub use gateway::{
    Capabilities, ChargeOutcome, ChargeRequest, ChargeState, FindRequest, GatewayError, GatewayEvent, PaymentGateway,
    WebhookError,
};
pub use manual::{Transfer, record_transfer, record_transfer_in};
pub use reconcile::{ACTION_LIMIT_MS, next_check_ms, reconcile};
pub use refund::{NewRefund, Refund, RefundState, ask, intend, record_returned_transfer, refund, refunds_of};
pub(crate) use refund::{get as refund_by_id, intend_by};
pub use reversal::{NewReversal, Reversal, reversal_of, reverse_transfer, reverse_transfer_in};
pub use state::PaymentState;
pub use store::{MAX_PAGE, Payment, PaymentFilter, Purpose, list, payment};
pub use webhook::{MAX_BODY_BYTES, WebhookOutcome, receive_webhook};

use std::sync::Arc;

use activity::event::EventError;
use jiff::civil::Date;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, PaymentMethodId, RefundId};
use schemas::money::{Currency, Money, MoneyError};
use schemas::text::is_plain_text;

pub use crate::gateway_name::GatewayName;
use crate::settlement::SettlementError;

/// Why a payment could not be started, recorded or read.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("settle")]
    Settlement(#[from] SettlementError),
    #[error("publish the event")]
    Event(#[from] EventError),
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("ask {gateway}")]
    Gateway {
        gateway: GatewayName,
        #[source]
        source: GatewayError,
    },
    #[error("check what {gateway} is said to have sent")]
    Webhook {
        gateway: GatewayName,
        #[source]
        source: WebhookError,
    },
    #[error("no payment {0}")]
    NoPayment(PaymentId),
    #[error("no refund {0}")]
    NoRefund(RefundId),
    #[error("{customer} has no payment method {method}")]
    NoMethod {
        customer: CustomerId,
        method: PaymentMethodId,
    },
    #[error("{gateway} is not configured: add the section [payments.{gateway}]")]
    NotConfigured { gateway: GatewayName },
    #[error("{gateway} cannot {what}")]
    NotCapable { gateway: GatewayName, what: &'static str },
    #[error("{method} is of {of}, and {gateway} was asked")]
    OtherGateway {
        method: PaymentMethodId,
        of: GatewayName,
        gateway: GatewayName,
    },
    #[error("{payment} is under way: wait for it, or cancel it")]
    UnderWay { payment: PaymentId },
    #[error("{invoice} is of {owner}, not of {customer}")]
    OtherCustomer {
        invoice: InvoiceId,
        owner: CustomerId,
        customer: CustomerId,
    },
    #[error("{invoice} leaves {open} open, and {asked} was asked for")]
    NotOpen {
        invoice: InvoiceId,
        open: Money,
        asked: Money,
    },
    #[error("{customer} pays in {pays}, not in {asked}")]
    OtherCurrency {
        customer: CustomerId,
        pays: Currency,
        asked: Currency,
    },
    #[error("an amount must be more than zero, not {0}")]
    NotPositive(Money),
    #[error("a top-up needs an amount")]
    NoAmount,
    #[error("{0} has not succeeded, so nothing can be refunded")]
    NotPaid(PaymentId),
    #[error(
        "{refundable} of {payment} can be refunded, not {asked}: what settled an invoice becomes credit by a credit note first, \
         and credit that was granted is not paid out"
    )]
    NotRefundable {
        payment: PaymentId,
        refundable: Money,
        asked: Money,
    },
    #[error(
        "{payment} came by bank transfer and goes back by one: send it at the bank, then record it with the bank's reference \
         (--reference); if it never came in, reverse it"
    )]
    SentAtTheBank { payment: PaymentId },
    #[error("{payment} cannot be reversed: {why}")]
    NotReversed { payment: PaymentId, why: &'static str },
    #[error("{gateway} reports {reported} for {payment}, which is of {amount}: look at it there")]
    OtherAmount {
        gateway: GatewayName,
        payment: PaymentId,
        reported: Money,
        amount: Money,
    },
    #[error("{gateway} reports the charge {second} for {payment}, which {first} has paid: refund one of them there")]
    ChargedTwice {
        gateway: GatewayName,
        payment: PaymentId,
        first: String,
        second: String,
    },
    #[error("{reference:?} was recorded before, as {payment}")]
    RecordedBefore { reference: String, payment: PaymentId },
    #[error(
        "the value date of a transfer lies between {earliest} and {latest}, not on {date}: record it once it has come in"
    )]
    ValueDate { date: Date, earliest: Date, latest: Date },
    #[error("a {field} has between 1 and {max} characters and no control characters or invisible ones, not {text:?}")]
    Text {
        field: &'static str,
        max: usize,
        text: String,
    },
    #[error("{gateway} has not saved a payment method under {reference:?} yet: {why}")]
    SetupUnfinished {
        gateway: GatewayName,
        reference: String,
        why: String,
    },
    #[error("{0:?} is no payment gateway: use stripe, paypal, manual or test")]
    UnknownGateway(String),
    #[error("the test gateway cannot be combined with a live one: {why}")]
    TestBesideLive { why: String },
    #[error("the books hold invoices or payments already: only new ones can become test books")]
    BooksInUse,
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    PaymentError: "payment";
    of [Database, Settlement, Event, Money]
    source [Gateway, Webhook]
    NotFound:
        NoPayment = "no_payment", NoRefund = "no_refund", NoMethod = "no_method", NotConfigured = "not_configured",
        UnknownGateway = "unknown_gateway", OtherCustomer = "other_customer";
    Refused:
        NotCapable = "not_capable", OtherGateway = "other_gateway", OtherCurrency = "other_currency",
        NotPositive = "not_positive", NoAmount = "no_amount", SentAtTheBank = "sent_at_the_bank",
        ValueDate = "value_date", Text = "text", SetupUnfinished = "setup_unfinished",
        TestBesideLive = "test_beside_live", NotRefundable = "not_refundable";
    Conflict:
        UnderWay = "under_way", NotOpen = "not_open", NotPaid = "not_paid", NotReversed = "not_reversed",
        RecordedBefore = "recorded_before", BooksInUse = "books_in_use";
    Fault: OtherAmount = "other_amount", ChargedTwice = "charged_twice", Corrupt = "corrupt";
}

/// The gateways that are configured.
#[derive(Clone, Debug, Default)]
pub struct Gateways(Vec<Arc<dyn PaymentGateway>>);

impl Gateways {
    pub fn new(gateways: Vec<Arc<dyn PaymentGateway>>) -> Gateways {
        Gateways(gateways)
    }

    /// # Errors
    /// [`PaymentError::NotConfigured`] when it is not among them.
    pub fn get(&self, name: GatewayName) -> Result<&dyn PaymentGateway, PaymentError> {
        let found = self.0.iter().find(|gateway| gateway.name() == name);
        found
            .map(AsRef::as_ref)
            .ok_or(PaymentError::NotConfigured { gateway: name })
    }

    pub fn iter(&self) -> impl Iterator<Item = &dyn PaymentGateway> {
        self.0.iter().map(AsRef::as_ref)
    }
}

/// 128 random bits as hex: the part of a key that nobody else has.
fn random_hex() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Trims, and requires something to be left and to be short.
fn checked_text(field: &'static str, text: &str, max: usize) -> Result<String, PaymentError> {
    let trimmed = text.trim();
    let length = trimmed.chars().count();
    if length == 0 || length > max || !is_plain_text(trimmed) {
        return Err(PaymentError::Text {
            field,
            max,
            text: trimmed.chars().take(max).collect(),
        });
    }
    Ok(trimmed.to_owned())
}

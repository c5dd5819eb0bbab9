//! What a gateway is to us: a few questions, and answers as closed types.

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemas::ids::{CustomerId, PaymentId, RefundId};
use schemas::money::{Currency, Money};

use super::PaymentError;
use crate::gateway_name::GatewayName;

/// A call to a gateway is given up after so long.
pub const CALL_TIMEOUT_MS: u64 = 30_000;

impl std::str::FromStr for GatewayName {
    type Err = PaymentError;

    fn from_str(text: &str) -> Result<GatewayName, PaymentError> {
        match text {
            "stripe" => Ok(GatewayName::Stripe),
            "paypal" => Ok(GatewayName::Paypal),
            "manual" => Ok(GatewayName::Manual),
            "test" => Ok(GatewayName::Test),
            _ => Err(PaymentError::UnknownGateway(text.to_owned())),
        }
    }
}

/// What a gateway can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Charges a saved method while the customer is away.
    pub charges: bool,
    pub saves_methods: bool,
    pub refunds: bool,
    /// A charge can be found by our key, though we never heard its reference.
    pub finds_by_key: bool,
    /// So long it answers a key that it knows with what it did the first time, with room to spare; 0: never.
    pub remembers_keys_ms: i64,
}

/// A charge to be made of a saved method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChargeRequest<'a> {
    pub payment: PaymentId,
    pub idempotency_key: &'a str,
    pub amount: Money,
    pub gateway_customer: &'a str,
    pub method: &'a str,
    pub description: &'a str,
    /// Where the customer comes back to after a page of the bank's.
    pub return_url: Option<&'a str>,
}

/// A charge that may have been made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FindRequest<'a> {
    pub payment: PaymentId,
    pub idempotency_key: &'a str,
    /// The gateway's own id, when we have heard it.
    pub reference: Option<&'a str>,
    pub gateway_customer: &'a str,
    pub created_at_ms: i64,
}

/// Where a charge is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChargeState {
    Succeeded,
    Processing,
    /// The customer must confirm it with the bank, at this address; empty when the gateway gave none.
    RequiresAction {
        url: String,
    },
    Declined {
        code: String,
        message: String,
    },
    Cancelled,
}

/// What a gateway knows of a charge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeOutcome {
    /// The gateway's id of it; some declines have none.
    pub reference: Option<String>,
    /// What it says the amount is, where it says so.
    pub amount: Option<Money>,
    pub state: ChargeState,
}

/// A refund to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefundRequest<'a> {
    pub refund: RefundId,
    pub idempotency_key: &'a str,
    pub payment_reference: &'a str,
    /// The gateway's id of the refund, when we have heard it.
    pub reference: Option<&'a str>,
    pub amount: Money,
}

/// Where a refund is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RefundProgress {
    Succeeded,
    Processing,
    Failed { code: String, message: String },
}

/// What a gateway knows of a refund.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefundOutcome {
    pub reference: Option<String>,
    pub state: RefundProgress,
}

/// A payment method that a customer is about to save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetupRequest<'a> {
    pub customer: CustomerId,
    pub name: &'a str,
    pub email: &'a str,
    /// The gateway's id of the customer, when there is one.
    pub gateway_customer: Option<&'a str>,
    /// What the customer pays in: which methods are offered depends on it.
    pub currency: Currency,
    /// Where the customer comes back to when it is entered; the gateway adds which setup it was.
    pub return_url: &'a str,
    /// And where to without having entered it.
    pub cancel_url: &'a str,
}

/// A setup, and the gateway's page on which the customer enters it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetupStarted {
    pub reference: String,
    pub gateway_customer: String,
    pub url: String,
}

/// A payment method that a gateway has saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedMethod {
    pub gateway_customer: String,
    pub reference: String,
    /// `card`, `sepa_debit`, `paypal`.
    pub kind: String,
    /// As people know it: `visa •••• 4242`.
    pub label: String,
    /// `2030-12`; empty when it does not expire.
    pub expires: String,
}

/// How far saving is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetupOutcome {
    Saved(SavedMethod),
    Unfinished { why: String },
}

/// What a gateway told us on its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayEvent {
    pub id: String,
    pub event_type: String,
    pub what: GatewayUpdate,
}

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GatewayUpdate {
    Charge {
        /// Our key, where the gateway kept it.
        idempotency_key: Option<String>,
        outcome: ChargeOutcome,
    },
    Refund {
        idempotency_key: Option<String>,
        payment_reference: String,
        amount: Money,
        outcome: RefundOutcome,
    },
    Dispute {
        payment_reference: String,
        reference: String,
        amount: Money,
        status: DisputeStatus,
        reason: String,
    },
    /// A customer has entered a payment method on the gateway's page.
    Setup { customer: CustomerId, reference: String },
    /// Nothing that changes money.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisputeStatus {
    Open,
    Won,
    Lost,
}

/// The gateway did not answer what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Nothing has left this machine, so nothing has happened.
    #[error("the request was not sent: {why}")]
    NotSent {
        why: String,
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The gateway understood and did nothing: a wrong key, a wrong amount.
    #[error("refused ({code}): {message}")]
    Refused { code: String, message: String },
    /// Whether it happened is unknown.
    #[error("no answer that says whether it happened: {why}")]
    Unknown {
        why: String,
        #[source]
        source: Option<reqwest::Error>,
    },
}

schemas::error_codes! {
    GatewayError: "gateway";
    of []
    source []
    Fault: NotSent = "not_sent", Unknown = "unknown", Refused = "refused";
}

impl GatewayError {
    pub(crate) fn unknown(why: impl Into<String>) -> GatewayError {
        GatewayError::Unknown {
            why: why.into(),
            source: None,
        }
    }

    /// An error of the HTTP client: before a connection is there, nothing is sent.
    pub(crate) fn from_http(error: reqwest::Error) -> GatewayError {
        let why = |words: &str| words.to_owned();
        if error.is_builder() || error.is_connect() {
            return GatewayError::NotSent {
                why: why("no connection"),
                source: Some(error),
            };
        }
        let words = if error.is_timeout() {
            "time-out"
        } else {
            "the connection broke"
        };
        GatewayError::Unknown {
            why: why(words),
            source: Some(error),
        }
    }
}

/// Why something that says it comes from a gateway is not believed.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("no header {0}")]
    NoHeader(&'static str),
    #[error("the header {0} is not understood")]
    Header(&'static str),
    #[error("no signature fits the body: is the webhook secret that of this endpoint?")]
    Signature,
    #[error("signed {age_s} s ago, more than {tolerance_s} s from now: is the clock right?")]
    TooOld { age_s: i64, tolerance_s: i64 },
    #[error("this gateway sends no webhooks")]
    NotSupported,
    #[error("the body is not understood: {0}")]
    Body(String),
    #[error("ask the gateway whether it sent this")]
    Gateway(#[from] GatewayError),
}

schemas::error_codes! {
    WebhookError: "gateway_message";
    of [Gateway]
    source []
    Refused:
        NoHeader = "no_header", Header = "header", Signature = "signature", TooOld = "too_old",
        NotSupported = "not_supported", Body = "body";
}

/// A payment gateway. An `Err` means that nobody knows whether it happened, unless it is one that says nothing did.
#[async_trait]
pub trait PaymentGateway: Send + Sync + std::fmt::Debug {
    fn name(&self) -> GatewayName;

    fn capabilities(&self) -> Capabilities;

    /// Where its own pages are, as `https://host`: what a form may lead to.
    fn page_origins(&self) -> Vec<String>;

    async fn charge(&self, request: &ChargeRequest<'_>) -> Result<ChargeOutcome, GatewayError>;

    /// The charge of this payment, if there is one; never makes one.
    async fn find(&self, request: &FindRequest<'_>) -> Result<Option<ChargeOutcome>, GatewayError>;

    /// Gives up a charge that waits for the customer; answers where it is then.
    async fn cancel(&self, reference: &str) -> Result<ChargeOutcome, GatewayError>;

    async fn refund(&self, request: &RefundRequest<'_>) -> Result<RefundOutcome, GatewayError>;

    async fn find_refund(&self, request: &RefundRequest<'_>) -> Result<Option<RefundOutcome>, GatewayError>;

    async fn start_setup(&self, request: &SetupRequest<'_>) -> Result<SetupStarted, GatewayError>;

    /// What became of a setup; `customer` must be the one who started it.
    async fn finish_setup(&self, customer: CustomerId, reference: &str) -> Result<SetupOutcome, GatewayError>;

    async fn detach(&self, method: &str) -> Result<(), GatewayError>;

    /// The event, once its signature is believed. `now_ms` is the real time: signatures are.
    async fn verify_webhook(&self, headers: &HeaderMap, body: &[u8], now_ms: i64)
    -> Result<GatewayEvent, WebhookError>;

    /// An event that was believed before.
    fn parse_event(&self, body: &[u8]) -> Result<GatewayEvent, WebhookError>;
}

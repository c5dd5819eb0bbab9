//! Stripe: PaymentIntents of saved cards while the customer is away, cards saved on Stripe's own page (Checkout in setup
//! mode), refunds, webhooks.
//!
//! * Each POST that moves money carries our key as `Idempotency-Key`; Stripe keeps keys for at least 24 hours.
//! * Our key is also metadata of the object (`ezscale_key`), so that a charge whose answer was lost is found by listing the
//!   customer's PaymentIntents since then. Search is not used: it lags behind.
//! * Amounts are whole minor units; those of three-decimal currencies must be multiples of ten
//!   (docs.stripe.com/currencies).

mod signature;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemas::ids::CustomerId;
use serde_json::Value;

use super::GatewayName;
use super::gateway::{
    CALL_TIMEOUT_MS, Capabilities, ChargeOutcome, ChargeRequest, ChargeState, FindRequest, GatewayError, GatewayEvent,
    PaymentGateway, RefundOutcome, RefundRequest, SavedMethod, SetupOutcome, SetupRequest, SetupStarted, WebhookError,
};
pub use signature::{TOLERANCE_S, sign};
use wire::{charge_outcome, object_event, refund_outcome, stripe_amount, text};

/// Where Stripe answers.
pub const BASE_URL: &str = "https://api.stripe.com";
/// Where its customers enter their cards.
const PAGES: &str = "https://checkout.stripe.com";
/// The version of the interface that this module speaks.
const API_VERSION: &str = "2024-06-20";
/// Stripe forgets keys after 24 hours; with an hour to spare.
const REMEMBERS_KEYS_MS: i64 = 23 * 3_600_000;
/// Objects on a page of a list, and pages that are read at most.
const PAGE: &str = "100";
const MAX_PAGES: usize = 20;
/// The clocks of both sides may differ by so much.
const CLOCK_SKEW_S: i64 = 300;
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// How Stripe is reached.
#[derive(Clone)]
pub struct StripeConfig {
    pub secret_key: String,
    /// Of the webhook endpoint: `whsec_…`.
    pub webhook_secret: String,
    pub base_url: String,
    pub timeout: Duration,
}

impl StripeConfig {
    pub fn new(secret_key: &str, webhook_secret: &str) -> StripeConfig {
        StripeConfig {
            secret_key: secret_key.to_owned(),
            webhook_secret: webhook_secret.to_owned(),
            base_url: BASE_URL.to_owned(),
            timeout: Duration::from_millis(CALL_TIMEOUT_MS),
        }
    }
}

impl std::fmt::Debug for StripeConfig {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StripeConfig")
            .field("base_url", &self.base_url)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Stripe as a gateway.
#[derive(Clone, Debug)]
pub struct Stripe {
    config: StripeConfig,
    client: reqwest::Client,
}

/// What Stripe answered, if it says anything about what it did.
struct Reply {
    status: u16,
    body: Value,
}

impl Stripe {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(config: StripeConfig) -> Result<Stripe, GatewayError> {
        let client = reqwest::Client::builder()
            .timeout(config.timeout)
            .connect_timeout(config.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(GatewayError::from_http)?;
        Ok(Stripe { config, client })
    }

    async fn post(&self, path: &str, form: &[(&str, &str)], key: Option<&str>) -> Result<Reply, GatewayError> {
        let mut request = self.client.post(self.url(path)).form(form);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request).await
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply, GatewayError> {
        self.send(self.client.get(self.url(path)).query(query)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.config.base_url.trim_end_matches('/'))
    }

    /// 2xx and 402 are answers; anything that may have been done half is unknown; the rest was refused.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, GatewayError> {
        let request = request
            .bearer_auth(&self.config.secret_key)
            .header("Stripe-Version", API_VERSION);
        let answer = request.send().await.map_err(GatewayError::from_http)?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.map_err(GatewayError::from_http)?;
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(GatewayError::unknown(format!("an answer of {} bytes", bytes.len())));
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let error = &body["error"];
        let is_about_the_key = text(&error["type"]) == "idempotency_error";
        match status {
            200..=299 | 402 if body.is_object() => Ok(Reply { status, body }),
            400 | 401 | 403 | 404 if body.is_object() && !is_about_the_key => Err(GatewayError::Refused {
                code: match text(&error["code"]) {
                    "" => status.to_string(),
                    code => code.to_owned(),
                },
                message: text(&error["message"]).to_owned(),
            }),
            _ => Err(GatewayError::unknown(format!(
                "status {status} {}",
                text(&error["message"])
            ))),
        }
    }

    /// Objects of a list that carry our key.
    async fn with_key(&self, path: &str, query: &[(&str, &str)], key: &str) -> Result<Vec<Value>, GatewayError> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = query.to_vec();
            query.push(("limit", PAGE));
            if let Some(after) = &after {
                query.push(("starting_after", after));
            }
            let Reply { status, body } = self.get(path, &query).await?;
            let Some(objects) = body["data"].as_array().filter(|_| status != 402) else {
                return Err(GatewayError::unknown("a list without data"));
            };
            let ours = objects
                .iter()
                .filter(|object| text(&object["metadata"]["ezscale_key"]) == key);
            found.extend(ours.cloned());
            after = objects.last().map(|object| text(&object["id"]).to_owned());
            if body["has_more"] != Value::Bool(true) {
                return Ok(found);
            }
        }
        // What lies on later pages is not known: that is no proof that there is none.
        match found.is_empty() {
            true => Err(GatewayError::unknown(format!("more than {MAX_PAGES} pages to search"))),
            false => Ok(found),
        }
    }

    /// The bank wants the customer to confirm: an address where that can be done, if there is one.
    async fn confirmable(&self, id: &str, request: &ChargeRequest<'_>) -> ChargeOutcome {
        let waits = ChargeOutcome {
            reference: Some(id.to_owned()),
            amount: None,
            state: ChargeState::RequiresAction { url: String::new() },
        };
        let Some(return_url) = request.return_url else {
            return waits;
        };
        let form = [("payment_method", request.method), ("return_url", return_url)];
        let key = format!("{}-confirm", request.idempotency_key);
        // Whatever this gave, the charge is known by its id, and is looked at again.
        match self
            .post(&format!("/v1/payment_intents/{id}/confirm"), &form, Some(&key))
            .await
        {
            Ok(Reply { status: 200, body }) => charge_outcome(&body).unwrap_or(waits),
            _ => waits,
        }
    }
}

#[async_trait]
impl PaymentGateway for Stripe {
    fn name(&self) -> GatewayName {
        GatewayName::Stripe
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            charges: true,
            saves_methods: true,
            refunds: true,
            finds_by_key: true,
            remembers_keys_ms: REMEMBERS_KEYS_MS,
        }
    }

    fn page_origins(&self) -> Vec<String> {
        let base = self.config.base_url.trim_end_matches('/');
        vec![if base == BASE_URL { PAGES } else { base }.to_owned()]
    }

    async fn charge(&self, request: &ChargeRequest<'_>) -> Result<ChargeOutcome, GatewayError> {
        let amount = stripe_amount(request.amount)?.to_string();
        let currency = request.amount.currency.code().to_ascii_lowercase();
        let payment = request.payment.to_string();
        let mut form = vec![
            ("amount", amount.as_str()),
            ("currency", &currency),
            ("customer", request.gateway_customer),
            ("payment_method", request.method),
            ("confirm", "true"),
            ("off_session", "true"),
            ("metadata[ezscale_payment]", &payment),
            ("metadata[ezscale_key]", request.idempotency_key),
        ];
        if !request.description.is_empty() {
            form.push(("metadata[description]", request.description));
        }
        let Reply { status, body } = self
            .post("/v1/payment_intents", &form, Some(request.idempotency_key))
            .await?;
        if status != 402 {
            return charge_outcome(&body);
        }
        let error = &body["error"];
        let id = text(&error["payment_intent"]["id"]);
        let code = text(&error["code"]);
        if code == "authentication_required" && !id.is_empty() {
            return Ok(self.confirmable(id, request).await);
        }
        Ok(ChargeOutcome {
            reference: Some(id).filter(|id| !id.is_empty()).map(str::to_owned),
            amount: None,
            state: wire::declined(error),
        })
    }

    async fn find(&self, request: &FindRequest<'_>) -> Result<Option<ChargeOutcome>, GatewayError> {
        if let Some(reference) = request.reference {
            return match self.get(&format!("/v1/payment_intents/{reference}"), &[]).await {
                Ok(reply) => charge_outcome(&reply.body).map(Some),
                Err(GatewayError::Refused { code, .. }) if code == "resource_missing" => Ok(None),
                Err(error) => Err(error),
            };
        }
        let since = (request.created_at_ms.div_euclid(1000) - CLOCK_SKEW_S).to_string();
        let query = [("customer", request.gateway_customer), ("created[gte]", &since)];
        let found = self
            .with_key("/v1/payment_intents", &query, request.idempotency_key)
            .await?;
        let mut outcomes = Vec::with_capacity(found.len());
        for intent in &found {
            outcomes.push(charge_outcome(intent)?);
        }
        // With more than one, the one that has the money counts.
        outcomes.sort_by_key(|outcome| match outcome.state {
            ChargeState::Succeeded => 0,
            ChargeState::Processing => 1,
            ChargeState::RequiresAction { .. } => 2,
            ChargeState::Declined { .. } | ChargeState::Cancelled => 3,
        });
        Ok(outcomes.into_iter().next())
    }

    async fn cancel(&self, reference: &str) -> Result<ChargeOutcome, GatewayError> {
        let path = format!("/v1/payment_intents/{reference}");
        match self.post(&format!("{path}/cancel"), &[], None).await {
            Ok(reply) => charge_outcome(&reply.body),
            // It cannot be cancelled any more: what it is instead is the answer.
            Err(GatewayError::Refused { .. }) => charge_outcome(&self.get(&path, &[]).await?.body),
            Err(error) => Err(error),
        }
    }

    async fn refund(&self, request: &RefundRequest<'_>) -> Result<RefundOutcome, GatewayError> {
        let amount = stripe_amount(request.amount)?.to_string();
        let refund = request.refund.to_string();
        let form = [
            ("payment_intent", request.payment_reference),
            ("amount", &amount),
            ("metadata[ezscale_refund]", &refund),
            ("metadata[ezscale_key]", request.idempotency_key),
        ];
        let Reply { status, body } = self.post("/v1/refunds", &form, Some(request.idempotency_key)).await?;
        match status {
            402 => Err(GatewayError::Refused {
                code: text(&body["error"]["code"]).to_owned(),
                message: text(&body["error"]["message"]).to_owned(),
            }),
            _ => refund_outcome(&body),
        }
    }

    async fn find_refund(&self, request: &RefundRequest<'_>) -> Result<Option<RefundOutcome>, GatewayError> {
        if let Some(reference) = request.reference {
            let reply = self.get(&format!("/v1/refunds/{reference}"), &[]).await?;
            return refund_outcome(&reply.body).map(Some);
        }
        let query = [("payment_intent", request.payment_reference)];
        let found = self.with_key("/v1/refunds", &query, request.idempotency_key).await?;
        found.first().map(refund_outcome).transpose()
    }

    async fn start_setup(&self, request: &SetupRequest<'_>) -> Result<SetupStarted, GatewayError> {
        let customer = request.customer.to_string();
        let gateway_customer = match request.gateway_customer {
            Some(known) => known.to_owned(),
            None => {
                let form = [
                    ("name", request.name),
                    ("email", request.email),
                    ("metadata[ezscale_customer]", &customer),
                ];
                let reply = self.post("/v1/customers", &form, None).await?;
                required(&reply.body, "id")?
            }
        };
        let currency = request.currency.code().to_ascii_lowercase();
        // Stripe puts the session's id in the place of the braces.
        let separator = if request.return_url.contains('?') { '&' } else { '?' };
        let success_url = format!("{}{separator}reference={{CHECKOUT_SESSION_ID}}", request.return_url);
        let form = [
            ("mode", "setup"),
            ("customer", gateway_customer.as_str()),
            ("currency", &currency),
            ("success_url", &success_url),
            ("cancel_url", request.cancel_url),
            ("metadata[ezscale_customer]", &customer),
            ("setup_intent_data[metadata][ezscale_customer]", &customer),
        ];
        let reply = self.post("/v1/checkout/sessions", &form, None).await?;
        Ok(SetupStarted {
            reference: required(&reply.body, "id")?,
            url: required(&reply.body, "url")?,
            gateway_customer,
        })
    }

    /// Of a Checkout Session, or of a SetupIntent by itself.
    async fn finish_setup(&self, customer: CustomerId, reference: &str) -> Result<SetupOutcome, GatewayError> {
        let unfinished = |why: &str| Ok(SetupOutcome::Unfinished { why: why.to_owned() });
        let is_session = reference.starts_with("cs_");
        if !(is_session || reference.starts_with("seti_")) || !is_id(reference) {
            return unfinished("it is no setup");
        }
        let ours = customer.to_string();
        let (intent, payer) = if is_session {
            let path = format!("/v1/checkout/sessions/{reference}");
            let session = match self.get(&path, &[]).await {
                Err(GatewayError::Refused { code, .. }) if code == "resource_missing" => {
                    return unfinished("Stripe does not know it");
                }
                reply => reply?.body,
            };
            if text(&session["metadata"]["ezscale_customer"]) != ours {
                return unfinished("it is not this customer's");
            }
            match (text(&session["mode"]), text(&session["status"])) {
                ("setup", "complete") => {}
                (_, status) => return unfinished(status),
            }
            (
                required(&session, "setup_intent")?,
                Some(required(&session, "customer")?),
            )
        } else {
            (reference.to_owned(), None)
        };
        let intent = match self.get(&format!("/v1/setup_intents/{intent}"), &[]).await {
            Err(GatewayError::Refused { code, .. }) if code == "resource_missing" => {
                return unfinished("Stripe does not know it");
            }
            reply => reply?.body,
        };
        // S1: another customer's is not theirs.
        let is_theirs = payer.is_none_or(|payer| text(&intent["customer"]) == payer);
        if text(&intent["metadata"]["ezscale_customer"]) != ours || !is_theirs {
            return unfinished("it is not this customer's");
        }
        match text(&intent["status"]) {
            "succeeded" => {}
            status => return unfinished(status),
        }
        let gateway_customer = required(&intent, "customer")?;
        let method = required(&intent, "payment_method")?;
        let mut saved = self.get(&format!("/v1/payment_methods/{method}"), &[]).await?.body;
        if text(&saved["customer"]) != gateway_customer {
            let form = [("customer", gateway_customer.as_str())];
            let reply = self
                .post(&format!("/v1/payment_methods/{method}/attach"), &form, None)
                .await?;
            saved = reply.body;
        }
        let kind = text(&saved["type"]).to_owned();
        let card = &saved[kind.as_str()];
        let expires = match (card["exp_year"].as_i64(), card["exp_month"].as_i64()) {
            (Some(year), Some(month)) => format!("{year}-{month:02}"),
            _ => String::new(),
        };
        let brand = match text(&card["brand"]) {
            "" => kind.as_str(),
            brand => brand,
        };
        Ok(SetupOutcome::Saved(SavedMethod {
            gateway_customer,
            reference: method,
            label: format!("{brand} •••• {}", text(&card["last4"])),
            expires,
            kind,
        }))
    }

    async fn detach(&self, method: &str) -> Result<(), GatewayError> {
        match self
            .post(&format!("/v1/payment_methods/{method}/detach"), &[], None)
            .await
        {
            // It is gone already.
            Ok(_) | Err(GatewayError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_ms: i64,
    ) -> Result<GatewayEvent, WebhookError> {
        let header = headers
            .get("stripe-signature")
            .ok_or(WebhookError::NoHeader("Stripe-Signature"))?;
        let header = header.to_str().map_err(|_| WebhookError::Header("Stripe-Signature"))?;
        signature::verify(header, body, &self.config.webhook_secret, now_ms)?;
        self.parse_event(body)
    }

    fn parse_event(&self, body: &[u8]) -> Result<GatewayEvent, WebhookError> {
        let event: Value = serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
        object_event(&event)
    }
}

fn is_id(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn required(body: &Value, name: &'static str) -> Result<String, GatewayError> {
    match text(&body[name]) {
        "" => Err(GatewayError::unknown(format!("an answer without {name}"))),
        found => Ok(found.to_owned()),
    }
}

//! PayPal: orders of a vaulted account (Orders v2), refunds, webhooks.
//!
//! * Each POST that moves money carries our key as `PayPal-Request-Id`; the same key again gives the same order, for six hours.
//! * Orders cannot be listed, so one whose answer was lost is asked for again with its key, and after that only its webhook
//!   (our key is its `custom_id`) or a person can say what became of it.
//! * Until it is paid, a payment's reference is the order; then it is the capture, which refunds and disputes name.
//! * Webhooks are believed when PayPal says that it sent them.

mod wire;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemas::ids::CustomerId;
use serde_json::{Value, json};

use super::GatewayName;
use super::gateway::{
    CALL_TIMEOUT_MS, Capabilities, ChargeOutcome, ChargeRequest, FindRequest, GatewayError, GatewayEvent,
    PaymentGateway, RefundOutcome, RefundRequest, SavedMethod, SetupOutcome, SetupRequest, SetupStarted, WebhookError,
};
use wire::{link, order_outcome, paypal_amount, refund_outcome, text};

/// Where PayPal answers.
pub const BASE_URL: &str = "https://api-m.paypal.com";
const SANDBOX_URL: &str = "https://api-m.sandbox.paypal.com";
/// Where its customers approve what is asked of them.
const PAGES: &str = "https://www.paypal.com";
const SANDBOX_PAGES: &str = "https://www.sandbox.paypal.com";
/// PayPal keeps the keys of orders for six hours; with an hour to spare.
const REMEMBERS_KEYS_MS: i64 = 5 * 3_600_000;
/// A token is renewed so long before it expires.
const TOKEN_SPARE: Duration = Duration::from_secs(60);
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// How PayPal is reached.
#[derive(Clone)]
pub struct PaypalConfig {
    pub client_id: String,
    pub client_secret: String,
    /// The id of the webhook as PayPal shows it.
    pub webhook_id: String,
    pub base_url: String,
    pub timeout: Duration,
}

impl PaypalConfig {
    pub fn new(client_id: &str, client_secret: &str, webhook_id: &str) -> PaypalConfig {
        PaypalConfig {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            webhook_id: webhook_id.to_owned(),
            base_url: BASE_URL.to_owned(),
            timeout: Duration::from_millis(CALL_TIMEOUT_MS),
        }
    }
}

impl std::fmt::Debug for PaypalConfig {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaypalConfig")
            .field("base_url", &self.base_url)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

struct Token {
    text: String,
    good_until: Instant,
}

/// PayPal as a gateway.
pub struct Paypal {
    config: PaypalConfig,
    client: reqwest::Client,
    token: Mutex<Option<Token>>,
}

impl std::fmt::Debug for Paypal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paypal")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What PayPal answered, if it says anything about what it did: 2xx, or 422 for a business reason.
struct Reply {
    status: u16,
    body: Value,
}

impl Paypal {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(config: PaypalConfig) -> Result<Paypal, GatewayError> {
        let client = reqwest::Client::builder()
            .timeout(config.timeout)
            .connect_timeout(config.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(GatewayError::from_http)?;
        Ok(Paypal {
            config,
            client,
            token: Mutex::new(None),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.config.base_url.trim_end_matches('/'))
    }

    /// Without a token nothing is asked, so a failure here means that nothing has happened.
    async fn token(&self) -> Result<String, GatewayError> {
        let known = self.token.lock().ok().and_then(|token| {
            let token = token.as_ref()?;
            (token.good_until > Instant::now()).then(|| token.text.clone())
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let not_sent = |why: String, source| GatewayError::NotSent { why, source };
        let request = self
            .client
            .post(self.url("/v1/oauth2/token"))
            .basic_auth(&self.config.client_id, Some(&self.config.client_secret))
            .form(&[("grant_type", "client_credentials")]);
        let answer = request
            .send()
            .await
            .map_err(|error| not_sent("no token".to_owned(), Some(error)))?;
        let status = answer.status();
        let bytes = answer
            .bytes()
            .await
            .map_err(|error| not_sent(format!("no token: status {status}"), Some(error)))?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let found = text(&body["access_token"]);
        if found.is_empty() {
            return Err(not_sent(
                format!("no token: status {status} {}", text(&body["error"])),
                None,
            ));
        }
        let lasts = Duration::from_secs(body["expires_in"].as_u64().unwrap_or(0));
        if let Ok(mut token) = self.token.lock() {
            *token = Some(Token {
                text: found.to_owned(),
                good_until: Instant::now() + lasts.saturating_sub(TOKEN_SPARE),
            });
        }
        Ok(found.to_owned())
    }

    async fn post(&self, path: &str, body: String, key: Option<&str>) -> Result<Reply, GatewayError> {
        let mut request = self
            .client
            .post(self.url(path))
            .header("Content-Type", "application/json");
        if let Some(key) = key {
            request = request
                .header("PayPal-Request-Id", key)
                .header("Prefer", "return=representation");
        }
        self.send(request.body(body)).await
    }

    async fn get(&self, path: &str) -> Result<Reply, GatewayError> {
        self.send(self.client.get(self.url(path))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, GatewayError> {
        let token = self.token().await?;
        let answer = request
            .bearer_auth(token)
            .send()
            .await
            .map_err(GatewayError::from_http)?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.map_err(GatewayError::from_http)?;
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(GatewayError::unknown(format!("an answer of {} bytes", bytes.len())));
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        match status {
            // Removing answers with nothing.
            204 => Ok(Reply { status, body }),
            200..=299 | 422 if body.is_object() => Ok(Reply { status, body }),
            400 | 401 | 403 | 404 if body.is_object() => Err(GatewayError::Refused {
                code: text(&body["name"]).to_owned(),
                message: text(&body["message"]).to_owned(),
            }),
            _ => Err(GatewayError::unknown(format!(
                "status {status} {}",
                text(&body["message"])
            ))),
        }
    }

    async fn order(&self, id: &str) -> Result<Option<Value>, GatewayError> {
        match self.get(&format!("/v2/checkout/orders/{id}")).await {
            Ok(reply) => Ok(Some(reply.body)),
            Err(GatewayError::Refused { code, .. }) if code == "RESOURCE_NOT_FOUND" => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl PaymentGateway for Paypal {
    fn name(&self) -> GatewayName {
        GatewayName::Paypal
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            charges: true,
            saves_methods: true,
            refunds: true,
            finds_by_key: false,
            remembers_keys_ms: REMEMBERS_KEYS_MS,
        }
    }

    fn page_origins(&self) -> Vec<String> {
        let pages = match self.config.base_url.trim_end_matches('/') {
            BASE_URL => PAGES,
            SANDBOX_URL => SANDBOX_PAGES,
            other => other,
        };
        vec![pages.to_owned()]
    }

    async fn charge(&self, request: &ChargeRequest<'_>) -> Result<ChargeOutcome, GatewayError> {
        let order = json!({
            "intent": "CAPTURE",
            "purchase_units": [{
                "custom_id": request.idempotency_key,
                "reference_id": request.payment.to_string(),
                "amount": paypal_amount(request.amount)?,
            }],
            "payment_source": { "paypal": { "vault_id": request.method } },
        });
        let key = Some(request.idempotency_key);
        let Reply { status, body } = self.post("/v2/checkout/orders", order.to_string(), key).await?;
        if status == 422 {
            return Ok(wire::declined(&body));
        }
        if text(&body["status"]) != "APPROVED" {
            return order_outcome(&body);
        }
        // Approved and not captured: it is captured by a key of its own.
        let path = format!("/v2/checkout/orders/{}/capture", text(&body["id"]));
        let key = format!("{}-capture", request.idempotency_key);
        let Reply { status, body } = self.post(&path, "{}".to_owned(), Some(&key)).await?;
        match status {
            422 => Ok(wire::declined(&body)),
            _ => order_outcome(&body),
        }
    }

    async fn find(&self, request: &FindRequest<'_>) -> Result<Option<ChargeOutcome>, GatewayError> {
        let Some(reference) = request.reference else {
            return Err(GatewayError::unknown("orders cannot be searched"));
        };
        self.order(reference).await?.as_ref().map(order_outcome).transpose()
    }

    /// An order that is not approved expires by itself after some hours: there is nothing to cancel.
    async fn cancel(&self, reference: &str) -> Result<ChargeOutcome, GatewayError> {
        match self.order(reference).await? {
            Some(order) => order_outcome(&order),
            None => Ok(ChargeOutcome {
                reference: Some(reference.to_owned()),
                amount: None,
                state: super::ChargeState::Cancelled,
            }),
        }
    }

    async fn refund(&self, request: &RefundRequest<'_>) -> Result<RefundOutcome, GatewayError> {
        let body = json!({ "amount": paypal_amount(request.amount)?, "custom_id": request.idempotency_key });
        let path = format!("/v2/payments/captures/{}/refund", request.payment_reference);
        let key = Some(request.idempotency_key);
        let Reply { status, body } = self.post(&path, body.to_string(), key).await?;
        if status == 422 {
            return Err(GatewayError::Refused {
                code: text(&body["details"][0]["issue"]).to_owned(),
                message: text(&body["details"][0]["description"]).to_owned(),
            });
        }
        refund_outcome(&body)
    }

    async fn find_refund(&self, request: &RefundRequest<'_>) -> Result<Option<RefundOutcome>, GatewayError> {
        let Some(reference) = request.reference else {
            return Ok(None);
        };
        let reply = self.get(&format!("/v2/payments/refunds/{reference}")).await?;
        refund_outcome(&reply.body).map(Some)
    }

    async fn start_setup(&self, request: &SetupRequest<'_>) -> Result<SetupStarted, GatewayError> {
        let mut customer = json!({ "merchant_customer_id": request.customer.to_string() });
        if let Some(known) = request.gateway_customer {
            customer["id"] = known.into();
        }
        let setup = json!({
            "customer": customer,
            "payment_source": { "paypal": {
                "usage_type": "MERCHANT",
                "experience_context": { "return_url": request.return_url, "cancel_url": request.cancel_url },
            } },
        });
        let body = self.post("/v3/vault/setup-tokens", setup.to_string(), None).await?.body;
        let reference = text(&body["id"]).to_owned();
        if reference.is_empty() {
            return Err(GatewayError::unknown("a setup token without an id"));
        }
        Ok(SetupStarted {
            reference,
            gateway_customer: text(&body["customer"]["id"]).to_owned(),
            url: link(&body, "approve"),
        })
    }

    async fn finish_setup(&self, customer: CustomerId, reference: &str) -> Result<SetupOutcome, GatewayError> {
        let unfinished = |why: &str| Ok(SetupOutcome::Unfinished { why: why.to_owned() });
        let is_id = reference
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if reference.is_empty() || reference.len() > 255 || !is_id {
            return unfinished("it is no setup token");
        }
        let setup = match self.get(&format!("/v3/vault/setup-tokens/{reference}")).await {
            Err(GatewayError::Refused { code, .. }) if code == "RESOURCE_NOT_FOUND" => {
                return unfinished("PayPal does not know it");
            }
            reply => reply?.body,
        };
        // S1: another customer's is not theirs.
        if text(&setup["customer"]["merchant_customer_id"]) != customer.to_string() {
            return unfinished("it is not this customer's");
        }
        let token = json!({ "payment_source": { "token": { "id": reference, "type": "SETUP_TOKEN" } } });
        let key = format!("ezscale-vault-{reference}");
        let Reply { status, body } = self
            .post("/v3/vault/payment-tokens", token.to_string(), Some(&key))
            .await?;
        if status == 422 {
            return unfinished(text(&body["details"][0]["issue"]));
        }
        let account = text(&body["payment_source"]["paypal"]["email_address"]);
        Ok(SetupOutcome::Saved(SavedMethod {
            gateway_customer: text(&body["customer"]["id"]).to_owned(),
            reference: text(&body["id"]).to_owned(),
            kind: "paypal".to_owned(),
            label: format!("PayPal {account}").trim().to_owned(),
            expires: String::new(),
        }))
    }

    async fn detach(&self, method: &str) -> Result<(), GatewayError> {
        let request = self
            .client
            .delete(self.url(&format!("/v3/vault/payment-tokens/{method}")));
        match self.send(request).await {
            // It is gone already.
            Ok(_) | Err(GatewayError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        _now_ms: i64,
    ) -> Result<GatewayEvent, WebhookError> {
        let event = self.parse_event(body)?;
        let mut asked = json!({ "webhook_id": self.config.webhook_id });
        for (field, header) in [
            ("auth_algo", "paypal-auth-algo"),
            ("cert_url", "paypal-cert-url"),
            ("transmission_id", "paypal-transmission-id"),
            ("transmission_sig", "paypal-transmission-sig"),
            ("transmission_time", "paypal-transmission-time"),
        ] {
            let value = headers.get(header).ok_or(WebhookError::NoHeader(header))?;
            asked[field] = value.to_str().map_err(|_| WebhookError::Header(header))?.into();
        }
        // The event byte for byte as it came: its checksum is part of what was signed.
        let mut asked = asked.to_string();
        asked.truncate(asked.len() - 1);
        let raw = std::str::from_utf8(body).map_err(|error| WebhookError::Body(error.to_string()))?;
        let asked = format!("{asked},\"webhook_event\":{raw}}}");
        let reply = self
            .post("/v1/notifications/verify-webhook-signature", asked, None)
            .await?;
        match text(&reply.body["verification_status"]) {
            "SUCCESS" => Ok(event),
            _ => Err(WebhookError::Signature),
        }
    }

    fn parse_event(&self, body: &[u8]) -> Result<GatewayEvent, WebhookError> {
        let event: Value = serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
        wire::object_event(&event)
    }
}

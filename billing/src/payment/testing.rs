//! A gateway that answers by a script, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemas::db::Database;
use schemas::ids::{CustomerId, PaymentMethodId};

use super::GatewayName;
use super::gateway::{
    Capabilities, ChargeOutcome, ChargeRequest, ChargeState, FindRequest, GatewayError, GatewayEvent, PaymentGateway,
    RefundOutcome, RefundProgress, RefundRequest, SavedMethod, SetupOutcome, SetupRequest, SetupStarted, WebhookError,
};
use super::method;

/// What is said to a call: where the charge is, or nothing.
pub(crate) type ScriptedState = Option<ChargeState>;

#[derive(Debug, Default)]
pub(crate) struct ScriptedGateway {
    /// To charges, in their order; success where nothing is left.
    pub(crate) charges: Mutex<VecDeque<ScriptedState>>,
    /// To every look, of the latest charge; `Some(None)`: it is not known.
    pub(crate) found: Mutex<Option<Option<ChargeState>>>,
    /// To every cancellation.
    pub(crate) cancelled: Mutex<ScriptedState>,
    /// To refunds, in their order; without them it cannot refund.
    pub(crate) refunds: Option<Mutex<VecDeque<RefundProgress>>>,
    /// Keys of the charges that were asked for.
    pub(crate) keys: Mutex<Vec<String>>,
    pub(crate) cancels: Mutex<u64>,
}

fn outcome(state: ChargeState) -> ChargeOutcome {
    ChargeOutcome {
        reference: Some("pi_1".to_owned()),
        amount: None,
        state,
    }
}

fn said(state: ScriptedState) -> Result<ChargeOutcome, GatewayError> {
    state.map(outcome).ok_or_else(|| GatewayError::unknown("time-out"))
}

#[async_trait]
impl PaymentGateway for ScriptedGateway {
    fn name(&self) -> GatewayName {
        GatewayName::Stripe
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            charges: true,
            saves_methods: false,
            refunds: self.refunds.is_some(),
            finds_by_key: true,
            remembers_keys_ms: 23 * 3_600_000,
        }
    }

    fn page_origins(&self) -> Vec<String> {
        Vec::new()
    }

    async fn charge(&self, request: &ChargeRequest<'_>) -> Result<ChargeOutcome, GatewayError> {
        self.keys.lock().unwrap().push(request.idempotency_key.to_owned());
        let next = self.charges.lock().unwrap().pop_front();
        said(next.unwrap_or(Some(ChargeState::Succeeded)))
    }

    async fn find(&self, _: &FindRequest<'_>) -> Result<Option<ChargeOutcome>, GatewayError> {
        let found = self.found.lock().unwrap().clone();
        let found = found.ok_or_else(|| GatewayError::unknown("time-out"))?;
        Ok(found.map(outcome))
    }

    async fn cancel(&self, _: &str) -> Result<ChargeOutcome, GatewayError> {
        *self.cancels.lock().unwrap() += 1;
        said(self.cancelled.lock().unwrap().clone())
    }

    async fn refund(&self, _: &RefundRequest<'_>) -> Result<RefundOutcome, GatewayError> {
        let scripted = self.refunds.as_ref();
        let next = scripted.and_then(|refunds| refunds.lock().unwrap().pop_front());
        let state = next.ok_or_else(|| GatewayError::unknown("no refunds here"))?;
        Ok(RefundOutcome { reference: None, state })
    }

    async fn find_refund(&self, _: &RefundRequest<'_>) -> Result<Option<RefundOutcome>, GatewayError> {
        Ok(None)
    }

    async fn start_setup(&self, _: &SetupRequest<'_>) -> Result<SetupStarted, GatewayError> {
        Err(GatewayError::unknown("nothing is saved here"))
    }

    async fn finish_setup(&self, _: CustomerId, _: &str) -> Result<SetupOutcome, GatewayError> {
        Err(GatewayError::unknown("nothing is saved here"))
    }

    async fn detach(&self, _: &str) -> Result<(), GatewayError> {
        Ok(())
    }

    async fn verify_webhook(&self, _: &HeaderMap, _: &[u8], _: i64) -> Result<GatewayEvent, WebhookError> {
        Err(WebhookError::NotSupported)
    }

    fn parse_event(&self, _: &[u8]) -> Result<GatewayEvent, WebhookError> {
        Err(WebhookError::NotSupported)
    }
}

/// A card that this gateway has saved.
pub(crate) async fn save_card(database: &Database, customer: CustomerId, reference: &str) -> PaymentMethodId {
    let saved = SavedMethod {
        gateway_customer: "cus_x".to_owned(),
        reference: reference.to_owned(),
        kind: "card".to_owned(),
        label: "visa •••• 4242".to_owned(),
        expires: "2030-12".to_owned(),
    };
    let mut transaction = database.begin_write().await.unwrap();
    let method = method::save(&mut transaction, GatewayName::Stripe, customer, &saved, 0)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    method.id
}

//! Collection and top-ups charge through the engine.

use async_trait::async_trait;
use schemas::db::Database;
use schemas::ids::PaymentId;

use super::{Gateways, NewPayment, Payment, PaymentError, PaymentState, engine, method};
use crate::charger::{ChargeOrder, ChargeResult, Charger, ChargerError, Purpose};

/// Charges saved methods with the gateways that are configured.
#[derive(Clone, Copy, Debug)]
pub struct GatewayCharger<'a> {
    pub database: &'a Database,
    pub gateways: &'a Gateways,
}

#[async_trait]
impl Charger for GatewayCharger<'_> {
    async fn charge(&self, order: ChargeOrder<'_>, now_ms: i64) -> Result<ChargeResult, ChargerError> {
        match self.start(order, now_ms).await {
            Ok(payment) => Ok(became(payment)),
            Err(PaymentError::UnderWay { payment }) => Ok(ChargeResult::UnderWay(payment)),
            Err(PaymentError::NotOpen { open, .. }) if open.minor <= 0 => Ok(ChargeResult::NothingOpen),
            Err(source) => Err(ChargerError {
                customer: order.customer,
                source: Box::new(source),
            }),
        }
    }
}

impl GatewayCharger<'_> {
    async fn start(&self, order: ChargeOrder<'_>, now_ms: i64) -> Result<Payment, PaymentError> {
        let methods = method::methods(self.database.pool(), order.customer).await?;
        let chosen = methods
            .iter()
            .find(|method| method.id == order.method)
            .ok_or(PaymentError::NoMethod {
                customer: order.customer,
                method: order.method,
            })?;
        let (invoice, amount) = match order.purpose {
            Purpose::Invoice(invoice) => (Some(invoice), None),
            Purpose::TopUp(amount) => (None, Some(amount)),
        };
        let new = NewPayment {
            customer: order.customer,
            invoice,
            amount,
            method: order.method,
            note: order.note,
            return_url: None,
        };
        engine::start(self.database, self.gateways.get(chosen.gateway)?, &new, now_ms).await
    }
}

fn became(payment: Payment) -> ChargeResult {
    let id: PaymentId = payment.id;
    match payment.state {
        PaymentState::Succeeded => ChargeResult::Succeeded(id),
        PaymentState::Failed | PaymentState::Cancelled => ChargeResult::Declined {
            payment: id,
            reason: payment.error,
        },
        PaymentState::Intent | PaymentState::Unknown | PaymentState::RequiresAction | PaymentState::Processing => {
            ChargeResult::UnderWay(id)
        }
    }
}

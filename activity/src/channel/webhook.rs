//! Requests to programs.
//!
//! A request is `POST` with the JSON `{id, type, created_at, customer, subject, data}` and three headers:
//!
//! ```text
//! EZSCALE-Event:     evt_7            the same however often it is sent: remember it to do things once
//! EZSCALE-Delivery:  dlv_9            the same for each try of one delivery
//! EZSCALE-Signature: t=1732320000,v1=5257a8…[,v1=…]
//! ```
//!
//! `v1` is HMAC-SHA256, in hex, of `t`, a dot and the body, with the endpoint's secret as the key, as it was given out. After
//! a rotation the secret before signs too, for [`endpoint::ROTATION_MS`], so that the receiver can change over at leisure: it accepts
//! a request when one `v1` fits. A receiver refuses what is older than some minutes, so that nobody repeats it.

use std::fmt::Write as _;

use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::db::Database;
use schemas::ids::{DeliveryId, EndpointId};
use schemas::secret::SecretError;
use sha2::Sha256;
use sqlx::AnyConnection;

use super::deliver::{ENDPOINTS_AT_ONCE, ENDPOINTS_PER_OWNER};
use super::endpoint::{self, Endpoint, EndpointError, EndpointKind, Owner, Secrets};
use super::guard::EndpointResponse;
use super::{Channel, ChannelError, DeliveryOutcome, DueDelivery, Sending, Targets, Transports, dispatch_to_endpoints};
use crate::event::{Consumer, Event, EventType, HandleError};
use crate::hex::hex;

/// Signed requests to programs.
#[derive(Clone, Copy, Debug)]
pub struct Webhooks;

impl Consumer for Webhooks {
    fn name(&self) -> &'static str {
        "dispatch_webhooks"
    }

    fn description(&self) -> &'static str {
        "Queues the webhook calls of new events"
    }

    fn noun(&self) -> &'static str {
        "webhook call"
    }

    fn wants(&self, _event_type: EventType) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        connection: &'a mut AnyConnection,
        events: &'a [Event],
        now_ms: i64,
    ) -> BoxFuture<'a, Result<u64, HandleError>> {
        Box::pin(async move { Ok(dispatch_to_endpoints(connection, EndpointKind::Webhook, events, now_ms).await?) })
    }
}

impl Channel for Webhooks {
    fn channel(&self) -> &'static str {
        EndpointKind::Webhook.name()
    }

    fn sending(&self) -> Option<Sending> {
        Some(Sending {
            job: "webhooks",
            targets: Targets::Endpoints,
            at_once: ENDPOINTS_AT_ONCE,
            per_owner: ENDPOINTS_PER_OWNER,
        })
    }

    fn send<'a>(
        &'a self,
        database: &'a Database,
        transports: Transports<'a>,
        due: &'a DueDelivery,
        event: &'a Event,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<DeliveryOutcome, ChannelError>> {
        Box::pin(async move {
            let (endpoint, secrets) = match open(database, due, now_ms).await? {
                Ok(opened) => opened,
                Err(outcome) => return Ok(outcome),
            };
            let body = body(event);
            let headers = headers(event, due.id, &secrets, &body, now_ms);
            let client = transports.client;
            Ok(match client.post(endpoint.kind, &endpoint.url, &headers, body).await {
                EndpointResponse::Accepted => DeliveryOutcome::Delivered,
                EndpointResponse::Refused(refusal) => DeliveryOutcome::Retry(refusal.why),
                EndpointResponse::Unreachable(why) => DeliveryOutcome::Unreachable(why),
            })
        })
    }
}

/// The endpoint of a delivery with its secrets, or what becomes of the delivery without them.
pub(super) async fn open(
    database: &Database,
    due: &DueDelivery,
    now_ms: i64,
) -> Result<Result<(Endpoint, Secrets), DeliveryOutcome>, ChannelError> {
    let gone = || {
        Ok(Err(DeliveryOutcome::Rejected(
            "there is no such endpoint any more".to_owned(),
        )))
    };
    let Ok(id) = due.target.parse::<EndpointId>() else {
        return gone();
    };
    let endpoint = match endpoint::endpoint(database.pool(), id, Owner::Anybody).await {
        Ok(endpoint) => endpoint,
        Err(EndpointError::NoEndpoint(_)) => return gone(),
        Err(error) => return Err(error.into()),
    };
    if endpoint.disabled_at_ms.is_some() {
        return Ok(Err(DeliveryOutcome::Rejected("the endpoint is disabled".to_owned())));
    }
    match endpoint::secrets(database, id, now_ms).await {
        Ok(secrets) => Ok(Ok((endpoint, secrets))),
        Err(EndpointError::NoEndpoint(_)) => gone(),
        // Of this endpoint alone: the others must not wait for it.
        Err(EndpointError::Secret(SecretError::Database(error))) => Err(error.into()),
        Err(EndpointError::Secret(error)) => Ok(Err(DeliveryOutcome::Retry(error.to_string()))),
        Err(error) => Err(error.into()),
    }
}

/// What is sent of an event.
pub fn body(event: &Event) -> String {
    serde_json::json!({
        "id": event.id,
        "type": event.event_type,
        "created_at": event.created_at().to_string(),
        "customer": event.customer,
        "subject": event.subject,
        "data": event.payload,
    })
    .to_string()
}

/// The headers of a request beside its content type.
fn headers(
    event: &Event,
    delivery: DeliveryId,
    secrets: &Secrets,
    body: &str,
    now_ms: i64,
) -> [(&'static str, String); 3] {
    [
        ("EZSCALE-Event", event.id.to_string()),
        ("EZSCALE-Delivery", delivery.to_string()),
        ("EZSCALE-Signature", signature(secrets, body, now_ms.div_euclid(1000))),
    ]
}

fn signature(secrets: &Secrets, body: &str, at_s: i64) -> String {
    let mut header = format!("t={at_s}");
    for secret in &secrets.0 {
        let _ = write!(
            header,
            ",v1={}",
            hmac_hex(secret.reveal().as_bytes(), &format!("{at_s}.{body}"))
        );
    }
    header
}

/// HMAC-SHA256 in hex.
fn hmac_hex(key: &[u8], message: &str) -> String {
    // A key of any length is taken (RFC 2104 §2).
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use schemas::secret::Secret;

    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_as_published() {
        // RFC 4231, test case 2.
        assert_eq!(
            hmac_hex(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let both = Secrets(vec![Secret::new("whsec_new"), Secret::new("whsec_old")]);
        let header = signature(&both, "{}", 1_732_320_000);
        let parts: Vec<&str> = header.split(',').collect();
        assert_eq!(parts[0], "t=1732320000");
        assert_eq!(parts[1], format!("v1={}", hmac_hex(b"whsec_new", "1732320000.{}")));
        assert_eq!(parts[2], format!("v1={}", hmac_hex(b"whsec_old", "1732320000.{}")));
        assert_eq!(parts.len(), 3);
        assert!(!format!("{both:?}").contains("whsec"));
    }
}

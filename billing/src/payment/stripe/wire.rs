//! What Stripe's objects say, in our words.

use schemas::money::{Currency, Money};
use serde_json::Value;

use crate::payment::gateway::{
    ChargeOutcome, ChargeState, DisputeStatus, GatewayError, GatewayEvent, GatewayUpdate, RefundOutcome,
    RefundProgress, WebhookError,
};

/// A text, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Digits after the point as Stripe counts them (docs.stripe.com/currencies): ISO 4217, but for currencies that lost theirs
/// and are still written with them, and the ariary.
fn stripe_digits(currency: Currency) -> u32 {
    match currency.code() {
        "ISK" | "UGX" => 2,
        "MGA" | "XOF" => 0,
        _ => currency.minor_digits(),
    }
}

/// An amount as Stripe takes it.
pub(super) fn stripe_amount(amount: Money) -> Result<i64, GatewayError> {
    let refused = |message: String| GatewayError::Refused {
        code: "amount".to_owned(),
        message,
    };
    let (ours, theirs) = (amount.currency.minor_digits(), stripe_digits(amount.currency));
    let scaled = if theirs >= ours {
        amount.minor.checked_mul(10i64.pow(theirs - ours))
    } else {
        let step = 10i64.pow(ours - theirs);
        (amount.minor % step == 0).then_some(amount.minor / step)
    };
    let scaled = scaled.ok_or_else(|| refused(format!("Stripe has no unit for {amount}")))?;
    if ours == 3 && scaled % 10 != 0 {
        return Err(refused(format!(
            "Stripe takes {} only in tens of the smallest unit, not {amount}",
            amount.currency
        )));
    }
    Ok(scaled)
}

fn our_amount(minor: Option<i64>, currency: &str) -> Option<Money> {
    let currency: Currency = currency.to_ascii_uppercase().parse().ok()?;
    let (ours, theirs) = (currency.minor_digits(), stripe_digits(currency));
    let minor = minor?;
    let minor = if ours >= theirs {
        minor.checked_mul(10i64.pow(ours - theirs))?
    } else {
        minor / 10i64.pow(theirs - ours)
    };
    Some(Money::new(minor, currency))
}

pub(super) fn declined(error: &Value) -> ChargeState {
    let code = match text(&error["decline_code"]) {
        "" => text(&error["code"]),
        code => code,
    };
    ChargeState::Declined {
        code: if code.is_empty() { "declined" } else { code }.to_owned(),
        message: text(&error["message"]).to_owned(),
    }
}

/// What a PaymentIntent says.
pub(super) fn charge_outcome(intent: &Value) -> Result<ChargeOutcome, GatewayError> {
    let id = text(&intent["id"]);
    if id.is_empty() {
        return Err(GatewayError::unknown("a charge without an id"));
    }
    let error = &intent["last_payment_error"];
    let state = match text(&intent["status"]) {
        "succeeded" => ChargeState::Succeeded,
        "processing" | "requires_capture" => ChargeState::Processing,
        "requires_action" => ChargeState::RequiresAction {
            url: text(&intent["next_action"]["redirect_to_url"]["url"]).to_owned(),
        },
        "canceled" => ChargeState::Cancelled,
        "requires_payment_method" if text(&error["code"]) == "authentication_required" => {
            ChargeState::RequiresAction { url: String::new() }
        }
        "requires_payment_method" | "requires_confirmation" => declined(error),
        other => return Err(GatewayError::unknown(format!("a charge in state {other:?}"))),
    };
    let received = intent["amount_received"].as_i64().filter(|received| *received > 0);
    Ok(ChargeOutcome {
        reference: Some(id.to_owned()),
        amount: our_amount(received.or(intent["amount"].as_i64()), text(&intent["currency"])),
        state,
    })
}

/// What a Refund says.
pub(super) fn refund_outcome(refund: &Value) -> Result<RefundOutcome, GatewayError> {
    let state = match text(&refund["status"]) {
        "succeeded" => RefundProgress::Succeeded,
        "pending" | "requires_action" => RefundProgress::Processing,
        "failed" | "canceled" => RefundProgress::Failed {
            code: match text(&refund["failure_reason"]) {
                "" => text(&refund["status"]),
                reason => reason,
            }
            .to_owned(),
            message: "the refund did not reach the customer".to_owned(),
        },
        other => return Err(GatewayError::unknown(format!("a refund in state {other:?}"))),
    };
    Ok(RefundOutcome {
        reference: Some(text(&refund["id"]).to_owned()),
        state,
    })
}

fn id_of(object: &Value) -> Result<String, WebhookError> {
    match text(&object["id"]) {
        "" => Err(WebhookError::Body("an object without an id".to_owned())),
        id => Ok(id.to_owned()),
    }
}

/// What an Event says.
pub(super) fn object_event(event: &Value) -> Result<GatewayEvent, WebhookError> {
    let (id, event_type) = (text(&event["id"]), text(&event["type"]));
    if id.is_empty() || event_type.is_empty() {
        return Err(WebhookError::Body("an event without id or type".to_owned()));
    }
    let object = &event["data"]["object"];
    let body = |error: GatewayError| WebhookError::Body(error.to_string());
    let key = Some(text(&object["metadata"]["ezscale_key"])).filter(|key| !key.is_empty());
    let amount = || {
        our_amount(object["amount"].as_i64(), text(&object["currency"]))
            .ok_or_else(|| WebhookError::Body("an amount that is not understood".to_owned()))
    };
    let what = match (event_type, text(&object["object"])) {
        (
            "payment_intent.succeeded"
            | "payment_intent.payment_failed"
            | "payment_intent.processing"
            | "payment_intent.requires_action"
            | "payment_intent.canceled",
            "payment_intent",
        ) => GatewayUpdate::Charge {
            idempotency_key: key.map(str::to_owned),
            outcome: charge_outcome(object).map_err(body)?,
        },
        ("checkout.session.completed", "checkout.session") if text(&object["mode"]) == "setup" => {
            // One that names none of our customers is not from here.
            match text(&object["metadata"]["ezscale_customer"]).parse() {
                Ok(customer) => GatewayUpdate::Setup {
                    customer,
                    reference: id_of(object)?,
                },
                Err(_) => GatewayUpdate::Other,
            }
        }
        (_, "refund") if !text(&object["payment_intent"]).is_empty() => GatewayUpdate::Refund {
            idempotency_key: key.map(str::to_owned),
            payment_reference: text(&object["payment_intent"]).to_owned(),
            amount: amount()?,
            outcome: refund_outcome(object).map_err(body)?,
        },
        (_, "dispute") if !text(&object["payment_intent"]).is_empty() => {
            let status = match text(&object["status"]) {
                "needs_response" | "under_review" => Some(DisputeStatus::Open),
                "won" => Some(DisputeStatus::Won),
                "lost" => Some(DisputeStatus::Lost),
                // Inquiries move no money.
                _ => None,
            };
            match status {
                Some(status) => GatewayUpdate::Dispute {
                    payment_reference: text(&object["payment_intent"]).to_owned(),
                    reference: text(&object["id"]).to_owned(),
                    amount: amount()?,
                    status,
                    reason: text(&object["reason"]).to_owned(),
                },
                None => GatewayUpdate::Other,
            }
        }
        _ => GatewayUpdate::Other,
    };
    Ok(GatewayEvent {
        id: id.to_owned(),
        event_type: event_type.to_owned(),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_stripe_s_units() {
        for (minor, currency, expected) in [
            (1_999, "USD", Some(1_999)),
            (500, "JPY", Some(500)),
            (12_340, "KWD", Some(12_340)),
            (12_345, "KWD", None),
            (500, "ISK", Some(50_000)),
            (500, "UGX", Some(50_000)),
            (500, "MGA", Some(5)),
            (501, "MGA", None),
            (i64::MAX, "ISK", None),
        ] {
            let money = Money::new(minor, currency.parse().unwrap());
            let amount = stripe_amount(money).ok();
            assert_eq!(amount, expected, "{minor} {currency}");
            if amount.is_some() {
                assert_eq!(our_amount(amount, &currency.to_lowercase()), Some(money));
            }
        }
    }

    #[test]
    fn what_a_payment_intent_says() {
        for (json, expected) in [
            (r#"{"status":"succeeded"}"#, ChargeState::Succeeded),
            (r#"{"status":"processing"}"#, ChargeState::Processing),
            (r#"{"status":"canceled"}"#, ChargeState::Cancelled),
            (
                r#"{"status":"requires_action","next_action":{"redirect_to_url":{"url":"https://bank"}}}"#,
                ChargeState::RequiresAction {
                    url: "https://bank".to_owned(),
                },
            ),
            (
                r#"{"status":"requires_payment_method","last_payment_error":{"code":"authentication_required"}}"#,
                ChargeState::RequiresAction { url: String::new() },
            ),
            (
                r#"{"status":"requires_payment_method","last_payment_error":{"code":"card_declined","decline_code":"insufficient_funds","message":"no"}}"#,
                ChargeState::Declined {
                    code: "insufficient_funds".to_owned(),
                    message: "no".to_owned(),
                },
            ),
        ] {
            let mut intent: Value = serde_json::from_str(json).unwrap();
            intent["id"] = "pi_1".into();
            assert_eq!(charge_outcome(&intent).unwrap().state, expected, "{json}");
        }
        for json in [r#"{"id":"pi_1","status":"new"}"#, r#"{"status":"succeeded"}"#, "null"] {
            let intent: Value = serde_json::from_str(json).unwrap();
            assert!(
                matches!(charge_outcome(&intent), Err(GatewayError::Unknown { .. })),
                "{json}"
            );
        }
    }
}

//! What PayPal's objects say, in our words.

use rust_decimal::Decimal;
use schemas::money::{Currency, Money};
use serde_json::{Value, json};

use crate::payment::gateway::{
    ChargeOutcome, ChargeState, DisputeStatus, GatewayError, GatewayEvent, GatewayUpdate, RefundOutcome,
    RefundProgress, WebhookError,
};

/// PayPal takes these without decimals, though they have some (developer.paypal.com/reference/currency-codes).
const WHOLE_ONLY: [&str; 2] = ["HUF", "TWD"];

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The address of a link by its relation; empty when there is none.
pub(super) fn link(body: &Value, relation: &str) -> String {
    let links = body["links"].as_array().map_or(&[][..], Vec::as_slice);
    let found = links.iter().find(|link| text(&link["rel"]) == relation);
    found.map_or(String::new(), |link| text(&link["href"]).to_owned())
}

/// `{"currency_code": "USD", "value": "25.00"}`.
pub(super) fn paypal_amount(amount: Money) -> Result<Value, GatewayError> {
    let mut major = amount.to_major();
    if WHOLE_ONLY.contains(&amount.currency.code()) {
        if !major.fract().is_zero() {
            return Err(GatewayError::Refused {
                code: "amount".to_owned(),
                message: format!("PayPal takes {} without decimals, not {amount}", amount.currency),
            });
        }
        major = major.trunc();
    }
    Ok(json!({ "currency_code": amount.currency.code(), "value": major.to_string() }))
}

fn our_amount(amount: &Value) -> Option<Money> {
    let currency: Currency = text(&amount["currency_code"]).parse().ok()?;
    let major: Decimal = text(&amount["value"]).parse().ok()?;
    Money::exact_from_major(major, currency).ok()
}

/// A 422: understood, and not done for a business reason.
pub(super) fn declined(body: &Value) -> ChargeOutcome {
    let detail = &body["details"][0];
    let code = match text(&detail["issue"]) {
        "" => text(&body["name"]),
        issue => issue,
    };
    ChargeOutcome {
        reference: None,
        amount: None,
        state: ChargeState::Declined {
            code: code.to_owned(),
            message: text(&detail["description"]).to_owned(),
        },
    }
}

fn capture_state(capture: &Value) -> Result<ChargeState, GatewayError> {
    match text(&capture["status"]) {
        // What was refunded since was paid once.
        "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED" => Ok(ChargeState::Succeeded),
        "PENDING" => Ok(ChargeState::Processing),
        "DECLINED" | "FAILED" => Ok(ChargeState::Declined {
            code: text(&capture["status"]).to_owned(),
            message: text(&capture["status_details"]["reason"]).to_owned(),
        }),
        other => Err(GatewayError::unknown(format!("a capture in state {other:?}"))),
    }
}

/// What an order says. Its reference is the capture once that has the money.
pub(super) fn order_outcome(order: &Value) -> Result<ChargeOutcome, GatewayError> {
    let id = text(&order["id"]);
    if id.is_empty() {
        return Err(GatewayError::unknown("an order without an id"));
    }
    let unit = &order["purchase_units"][0];
    let capture = &unit["payments"]["captures"][0];
    let (state, amount) = if capture.is_object() {
        (capture_state(capture)?, our_amount(&capture["amount"]))
    } else {
        let state = match text(&order["status"]) {
            "PAYER_ACTION_REQUIRED" | "CREATED" => ChargeState::RequiresAction {
                url: match link(order, "payer-action") {
                    url if url.is_empty() => link(order, "approve"),
                    url => url,
                },
            },
            "APPROVED" | "SAVED" => ChargeState::Processing,
            "VOIDED" => ChargeState::Cancelled,
            other => return Err(GatewayError::unknown(format!("an order in state {other:?}"))),
        };
        (state, our_amount(&unit["amount"]))
    };
    let reference = match &state {
        ChargeState::Succeeded => text(&capture["id"]),
        _ => id,
    };
    Ok(ChargeOutcome {
        reference: Some(reference.to_owned()),
        amount,
        state,
    })
}

pub(super) fn refund_outcome(refund: &Value) -> Result<RefundOutcome, GatewayError> {
    let state = match text(&refund["status"]) {
        "COMPLETED" => RefundProgress::Succeeded,
        "PENDING" => RefundProgress::Processing,
        "FAILED" | "CANCELLED" => RefundProgress::Failed {
            code: text(&refund["status"]).to_owned(),
            message: text(&refund["status_details"]["reason"]).to_owned(),
        },
        other => return Err(GatewayError::unknown(format!("a refund in state {other:?}"))),
    };
    Ok(RefundOutcome {
        reference: Some(text(&refund["id"]).to_owned()),
        state,
    })
}

pub(super) fn object_event(event: &Value) -> Result<GatewayEvent, WebhookError> {
    let (id, event_type) = (text(&event["id"]), text(&event["event_type"]));
    if id.is_empty() || event_type.is_empty() {
        return Err(WebhookError::Body("an event without id or type".to_owned()));
    }
    let resource = &event["resource"];
    let body = |error: GatewayError| WebhookError::Body(error.to_string());
    let no_amount = || WebhookError::Body("an amount that is not understood".to_owned());
    let key = Some(text(&resource["custom_id"]).to_owned()).filter(|key| !key.is_empty());
    let what = match event_type {
        "PAYMENT.CAPTURE.COMPLETED"
        | "PAYMENT.CAPTURE.PENDING"
        | "PAYMENT.CAPTURE.DENIED"
        | "PAYMENT.CAPTURE.DECLINED" => {
            let state = capture_state(resource).map_err(body)?;
            let reference = match &state {
                ChargeState::Succeeded => text(&resource["id"]),
                _ => text(&resource["supplementary_data"]["related_ids"]["order_id"]),
            };
            GatewayUpdate::Charge {
                idempotency_key: key,
                outcome: ChargeOutcome {
                    reference: Some(reference.to_owned()).filter(|reference| !reference.is_empty()),
                    amount: our_amount(&resource["amount"]),
                    state,
                },
            }
        }
        "PAYMENT.CAPTURE.REFUNDED" => {
            let up = link(resource, "up");
            GatewayUpdate::Refund {
                idempotency_key: key,
                payment_reference: up.rsplit('/').next().unwrap_or("").to_owned(),
                amount: our_amount(&resource["amount"]).ok_or_else(no_amount)?,
                outcome: refund_outcome(resource).map_err(body)?,
            }
        }
        "CUSTOMER.DISPUTE.CREATED" | "CUSTOMER.DISPUTE.UPDATED" | "CUSTOMER.DISPUTE.RESOLVED" => {
            let status = match text(&resource["dispute_outcome"]["outcome_code"]) {
                "RESOLVED_BUYER_FAVOUR" => DisputeStatus::Lost,
                "RESOLVED_SELLER_FAVOUR" | "CANCELED_BY_BUYER" => DisputeStatus::Won,
                _ => DisputeStatus::Open,
            };
            GatewayUpdate::Dispute {
                payment_reference: text(&resource["disputed_transactions"][0]["seller_transaction_id"]).to_owned(),
                reference: text(&resource["dispute_id"]).to_owned(),
                amount: our_amount(&resource["dispute_amount"]).ok_or_else(no_amount)?,
                status,
                reason: text(&resource["reason"]).to_owned(),
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
    fn amounts_are_decimal_strings_with_the_currency_s_digits() {
        for (minor, currency, expected) in [
            (2_500, "USD", Some("25.00")),
            (5, "EUR", Some("0.05")),
            (500, "JPY", Some("500")),
            (12_300, "HUF", Some("123")),
            (12_345, "HUF", None),
        ] {
            let money = Money::new(minor, currency.parse().unwrap());
            let amount = paypal_amount(money).ok();
            assert_eq!(
                amount.as_ref().map(|amount| text(&amount["value"])),
                expected,
                "{money}"
            );
            if let Some(amount) = amount {
                assert_eq!(our_amount(&amount), Some(money));
            }
        }
    }

    #[test]
    fn what_an_order_says() {
        let captured = |status: &str| {
            json!({"id": "O1", "status": "COMPLETED", "purchase_units": [{"payments": {"captures": [
                {"id": "C1", "status": status, "amount": {"currency_code": "USD", "value": "25.00"}}]}}]})
        };
        let paid = order_outcome(&captured("COMPLETED")).unwrap();
        assert_eq!(
            (paid.reference.as_deref(), paid.state),
            (Some("C1"), ChargeState::Succeeded)
        );
        assert_eq!(paid.amount, Some(Money::new(2_500, Currency::USD)));
        let waits = order_outcome(&captured("PENDING")).unwrap();
        assert_eq!(
            (waits.reference.as_deref(), waits.state),
            (Some("O1"), ChargeState::Processing)
        );
        let failed = order_outcome(&captured("DECLINED")).unwrap();
        assert!(matches!(failed.state, ChargeState::Declined { .. }));
        let order = json!({"id": "O1", "status": "PAYER_ACTION_REQUIRED",
            "links": [{"rel": "payer-action", "href": "https://paypal/confirm"}]});
        let ChargeState::RequiresAction { url } = order_outcome(&order).unwrap().state else {
            panic!("the payer must act");
        };
        assert_eq!(url, "https://paypal/confirm");
        assert!(order_outcome(&json!({"id": "O1", "status": "COMPLETED"})).is_err());
    }

    #[test]
    fn what_events_say() {
        let refund = json!({"id": "W1", "event_type": "PAYMENT.CAPTURE.REFUNDED", "resource": {
            "id": "R1", "status": "COMPLETED", "custom_id": "k", "amount": {"currency_code": "USD", "value": "10.00"},
            "links": [{"rel": "up", "href": "https://api/v2/payments/captures/C1"}]}});
        let GatewayUpdate::Refund {
            payment_reference,
            amount,
            ..
        } = object_event(&refund).unwrap().what
        else {
            panic!("a refund");
        };
        assert_eq!(
            (payment_reference.as_str(), amount),
            ("C1", Money::new(1_000, Currency::USD))
        );
        for (code, expected) in [
            ("", DisputeStatus::Open),
            ("RESOLVED_BUYER_FAVOUR", DisputeStatus::Lost),
            ("RESOLVED_SELLER_FAVOUR", DisputeStatus::Won),
        ] {
            let dispute = json!({"id": "W2", "event_type": "CUSTOMER.DISPUTE.UPDATED", "resource": {
                "dispute_id": "PP-1", "dispute_amount": {"currency_code": "USD", "value": "10.00"},
                "disputed_transactions": [{"seller_transaction_id": "C1"}], "dispute_outcome": {"outcome_code": code}}});
            let GatewayUpdate::Dispute { status, .. } = object_event(&dispute).unwrap().what else {
                panic!("a dispute");
            };
            assert_eq!(status, expected);
        }
    }
}

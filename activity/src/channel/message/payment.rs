//! What is said of payments, refunds, disputes and ways to pay.

use serde_json::Value;

use super::{Facts, Message, Target, Tone};
use crate::event::{Event, EventType};

pub(super) fn payment(event: &Event, facts: &Facts<'_>) -> Message {
    let amount = facts.amount();
    let number = facts.text("number");
    let of = number
        .as_ref()
        .map_or(String::new(), |number| format!(" for invoice {number}"));
    let page = match facts.text("invoice") {
        Some(invoice) => format!("/invoices/{invoice}"),
        None => "/credit".to_owned(),
    };
    let method = facts.text("method_label");
    match event.event_type {
        EventType::PaymentSucceeded => Message::new(
            Tone::Good,
            format!("We received {amount}{of}"),
            "Thank you for your payment",
        )
        .say(format!("We received {amount}{of}."))
        .fact("Amount", Some(amount))
        .fact("Paid with", method)
        .fact("Payment", facts.text("payment"))
        .page(if number.is_some() { "See the invoice" } else { "See your credit" }, page),
        EventType::PaymentFailed => Message::new(
            Tone::Alert,
            format!("Your payment of {amount}{of} did not go through"),
            "Your payment did not go through",
        )
        .say(format!("We tried to charge {amount}{of}, and it was declined. You have not been charged."))
        .say("Please check the card or account with your bank, or pay with another one.")
        .fact("Amount", Some(amount))
        .fact("Tried with", method)
        .fact("Reason", facts.text("reason"))
        .page("Pay or change how you pay", page),
        EventType::PaymentRequiresAction => {
            let message = Message::new(
                Tone::Alert,
                format!("Please confirm your payment of {amount}{of}"),
                "Please confirm your payment",
            )
            .say(format!(
                "Your bank asks you to confirm the payment of {amount}{of} (3-D Secure). Until then it is not made."
            ))
            .fact("Amount", Some(amount))
            .fact("Pay with", method);
            match facts.payload.get("action_url").and_then(Value::as_str) {
                Some(address) if address.starts_with("https://") => Message {
                    action: Some((
                        "Confirm the payment",
                        Target::Address {
                            address: address.to_owned(),
                            page,
                        },
                    )),
                    ..message
                },
                _ => message.page("Confirm the payment", page),
            }
        }
        EventType::PaymentReversed => {
            let (open, button) = match number {
                Some(_) => ("The invoice is open again: please pay it.", "Pay the invoice"),
                None => ("It is no longer part of your credit.", "See your credit"),
            };
            Message::new(
                Tone::Alert,
                format!("Your transfer of {amount}{of} was reversed"),
                "A bank transfer was reversed",
            )
            .say(format!("We had recorded a bank transfer of {amount}{of}, and it did not come in. {open}"))
            .fact("Amount", Some(amount))
            .fact("Reference", facts.text("reference"))
            .fact("Reason", facts.text("reason"))
            .page(button, page)
        }
        EventType::RefundSucceeded => Message::new(Tone::Good, format!("We refunded {amount}"), "Your refund is on its way")
            .say(refunded(&amount, &of, facts))
            .fact("Amount", Some(amount))
            .fact("Reason", facts.text("reason"))
            .page(if number.is_some() { "See the invoice" } else { "See your credit" }, page),
        EventType::RefundFailed => {
            Message::new(Tone::Alert, format!("A refund of {amount} failed"), "A refund failed")
                .say(format!("The gateway did not make the refund of {amount}{of}. The money is with us: send it back another way, or try again."))
                .fact("Refund", facts.text("refund"))
                .fact("Payment", facts.text("payment"))
                .fact("Reason", facts.text("reason"))
                .page("See payments", "/finance/payments")
        }
        EventType::DisputeOpened => Message::new(
            Tone::Alert,
            format!("A payment of {amount} is disputed"),
            "A payment is disputed",
        )
        .say(format!("The payer disputes {amount}{of}. The gateway holds the money back until it is decided; answer with evidence before its deadline."))
        .fact("Payment", facts.text("payment"))
        .fact("Reason", facts.text("reason"))
        .page("See payments", "/finance/payments"),
        EventType::DisputeWon | EventType::DisputeLost => {
            let (tone, word, what) = match event.event_type {
                EventType::DisputeWon => (Tone::Good, "won", "The money is ours again."),
                _ => (Tone::Alert, "lost", "The money went back to the payer, and the invoice is open again."),
            };
            Message::new(tone, format!("The dispute over {amount} is {word}"), format!("A dispute is {word}"))
                .say(format!("The dispute over {amount}{of} was decided. {what}"))
                .fact("Payment", facts.text("payment"))
                .page("See payments", "/finance/payments")
        }
        EventType::PaymentMethodAdded => Message::new(Tone::Plain, "Payment method saved", "Payment method saved")
            .say("From now on it can be charged for your invoices.")
            .fact("Payment method", method)
            .page("See your payment methods", "/payment-methods"),
        EventType::PaymentMethodExpiring => {
            let name = method.clone().unwrap_or_else(|| "Your card".to_owned());
            let when = facts.text("expires").map_or(String::new(), |month| format!(" at the end of {month}"));
            Message::new(Tone::Alert, format!("{name} expires{when}"), "Your card expires soon")
                .say(format!("{name}, which your invoices are charged to, expires{when}."))
                .say("Please save another payment method, so that your services keep running.")
                .fact("Payment method", method)
                .page("Save another payment method", "/payment-methods")
        }
        // Removed.
        _ => Message::new(Tone::Plain, "Payment method removed", "Payment method removed")
            .say("It is no longer charged.")
            .fact("Payment method", method)
            .page("See your payment methods", "/payment-methods"),
    }
}

fn refunded(amount: &str, of: &str, facts: &Facts<'_>) -> String {
    let sent = format!(
        "We have returned {amount}{of} to the card or account that it was paid with. Banks take some days to show it."
    );
    match facts.text("automatic_top_up") {
        Some(_) => format!(
            "{sent} Automatic top-up is switched off, so that it is not charged again; you can switch it on at any \
             time."
        ),
        None => sent,
    }
}

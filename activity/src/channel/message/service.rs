//! What is said of services: suspended, back, removed, moved to another customer.

use serde_json::Value;

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

pub(super) fn service(event: &Event, facts: &Facts<'_>) -> Message {
    let (service, reason) = (facts.service(), facts.text("reason"));
    match event.event_type {
        EventType::SuspendRequested => {
            let (what_to_do, label, page) = match event.payload.get("cause").and_then(Value::as_str) {
                Some("unpaid") => (
                    "It resumes as soon as the open invoices are paid. Your data is kept.",
                    "Pay open invoices",
                    "/invoices",
                ),
                Some("budget") => (
                    "It has used up the budget that you set. Raise the budget, or unlock it by paying for the usage, and it resumes immediately.",
                    "See the budget",
                    "/budget",
                ),
                _ => (
                    "Please write to us, so that we can put it right together.",
                    "See your services",
                    "/usage",
                ),
            };
            Message::new(
                Tone::Alert,
                format!("{service} is suspended"),
                format!("{service} is suspended"),
            )
            .say(format!("{service} is being suspended."))
            .say(what_to_do)
            .fact("Reason", reason)
            .page(label, page)
        }
        EventType::UnsuspendRequested => {
            Message::new(Tone::Good, format!("{service} is back"), format!("{service} is back"))
                .say(format!(
                    "The suspension of {service} is lifted. It is available again within a few minutes."
                ))
                .page("See your services", "/usage")
        }
        EventType::TerminateRequested => Message::new(
            Tone::Alert,
            format!("{service} is being removed"),
            format!("{service} is being removed"),
        )
        .say(format!(
            "{service} has ended and is being removed, with the data on it."
        ))
        .fact("Reason", reason)
        .page("See your services", "/usage"),
        EventType::FreeTierInactive => {
            let on = facts
                .day("ends_at_ms")
                .map_or(String::new(), |day| format!(" on {day}"));
            Message::new(
                Tone::Alert,
                format!("{service} ends{on} unless it is used"),
                "Your free service is not being used",
            )
            .say(format!(
                "{service} was not used for a long time. It ends{on} unless you sign in or use it before."
            ))
            .page("See your services", "/usage")
        }
        kind => transfer(kind, &service, facts).fact("Reason", reason),
    }
}

/// A service's move between customers: each side has its own event.
fn transfer(kind: EventType, service: &str, facts: &Facts<'_>) -> Message {
    let is_giver = facts.payload.get("side").and_then(Value::as_str) != Some("receiver");
    let other = facts.or("other_name", if is_giver { "another account" } else { "its holder" });
    let move_words = match is_giver {
        true => format!("{service} to {other}"),
        false => format!("{service} from {other} to you"),
    };
    let message = match kind {
        EventType::TransferRequested => Message::new(
            Tone::Plain,
            format!("Transfer requested: {service}"),
            "Transfer requested",
        )
        .say(format!(
            "The transfer of {move_words} was requested. We verify it with both parties before anything changes."
        ))
        .say("If you know nothing of this, please write to us at once."),
        EventType::TransferApproved => Message::new(
            Tone::Plain,
            format!("Approved: the transfer of {service}"),
            "A transfer is approved",
        )
        .say(format!(
            "The transfer of {move_words} is approved and takes place shortly."
        )),
        EventType::TransferCompleted => {
            let money = match is_giver {
                true => "You are charged up to that day; what you paid beyond it is credited to your account.",
                false => "You are charged from that day on; what was used before is not yours to pay.",
            };
            Message::new(
                Tone::Good,
                format!("{service} was transferred"),
                "The transfer is complete",
            )
            .say(format!("The transfer of {move_words} is complete."))
            .say(money)
        }
        _ => Message::new(
            Tone::Plain,
            format!("Called off: the transfer of {service}"),
            "A transfer was called off",
        )
        .say(format!(
            "The transfer of {move_words} was called off. Nothing has changed."
        )),
    };
    message
        .fact("Service", facts.text("service_name"))
        .fact("Transfer", facts.text("transfer"))
        .fact("Takes effect", facts.day("at_ms"))
        .page("See your services", "/usage")
}

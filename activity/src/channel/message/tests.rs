use std::collections::BTreeMap;

use schemas::ids::{CustomerId, EventId};
use serde_json::json;

use super::*;
use crate::event::EventType;

fn event(event_type: EventType, payload: Value) -> Event {
    Event {
        id: EventId(1),
        event_type,
        customer: Some(CustomerId(1)),
        subject: "inv_7".to_owned(),
        payload,
        created_at_ms: 0,
        dispatched_at_ms: None,
    }
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

#[test]
fn an_invoice_says_how_much_is_due_when_in_the_customers_days() {
    // 23:30 UTC on the 14th is the 15th in Berlin.
    let due_at_ms = "2026-06-14T23:30:00Z".parse::<Timestamp>().unwrap().as_millisecond();
    let payload = json!({"invoice": "inv_7", "number": "2026-0007", "amount_minor": 123_450, "currency": "EUR", "due_at_ms": due_at_ms});
    let message = compose(&event(EventType::InvoiceFinalised, payload), &berlin());
    assert_eq!(message.subject, "Invoice 2026-0007: EUR 1,234.50, due on 15 Jun 2026");
    assert_eq!(message.link(), "/invoices/inv_7");
}

#[test]
fn every_event_that_people_are_told_of_has_words_of_its_own_even_without_facts() {
    let mut told = BTreeMap::new();
    for kind in EventType::ALL {
        let message = compose(&event(*kind, json!({})), &TimeZone::UTC);
        assert!(!message.subject.is_empty() && !message.heading.is_empty(), "{kind}");
        assert!(!message.summary().is_empty(), "{kind}");
        assert_ne!(message.heading, kind.name(), "{kind} has only its name");
        assert!(message.action.is_some(), "{kind} leads nowhere");
        let words = (message.subject.clone(), message.summary().to_owned());
        if let Some(other) = told.insert(words, kind) {
            panic!("{kind} is told in the words of {other}");
        }
        let is_of = |area: &str| kind.name().starts_with(area);
        if is_of("invoice.") || is_of("credit_note.") || is_of("subscription.") {
            let all = format!("{} {}", message.subject, message.paragraphs.join(" "));
            assert!(
                !all.contains("the amount") && !all.contains("the plan for"),
                "{kind}: {all}"
            );
        }
    }
}

#[test]
fn a_fact_is_one_line_and_a_foreign_link_is_secure() {
    let payload = json!({"service_name": "web\r\nBcc: eve@example.net", "plan_name": "x".repeat(999)});
    let message = compose(&event(EventType::SubscriptionActivated, payload), &TimeZone::UTC);
    assert_eq!(message.subject, "webBcc: eve@example.net is active");
    assert!(message.summary().len() < 300);
    for (address, expected) in [
        (
            "https://hooks.example.com/3ds",
            Target::Address {
                address: "https://hooks.example.com/3ds".to_owned(),
                page: "/credit".to_owned(),
            },
        ),
        ("javascript:alert(1)", Target::Page("/credit".to_owned())),
    ] {
        let payload = json!({"amount_minor": 1999, "currency": "USD", "action_url": address});
        let message = compose(&event(EventType::PaymentRequiresAction, payload), &TimeZone::UTC);
        assert_eq!(message.action.unwrap().1, expected);
    }
}

#[test]
fn both_sides_of_a_transfer_are_told_their_own() {
    let side = |side| {
        let payload = json!({"side": side, "service": "svc_4", "service_name": "web-1", "other_name": "Ben Ltd"});
        compose(&event(EventType::TransferCompleted, payload), &TimeZone::UTC).paragraphs
    };
    let (giver, receiver) = (side("giver"), side("receiver"));
    assert!(
        giver[0].contains("web-1 to Ben Ltd") && giver[1].contains("up to that day"),
        "{giver:?}"
    );
    assert!(
        receiver[0].contains("from Ben Ltd to you") && receiver[1].contains("from that day"),
        "{receiver:?}"
    );
}

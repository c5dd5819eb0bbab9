use std::path::Path;

use activity::event::{self, EventType};
use serde_json::json;

use super::*;
use crate::testing::{DEAL, World};

#[tokio::test]
async fn an_event_carries_the_documented_facts_whoever_publishes_it() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    let subscription = contract.subscription.id.to_string();
    let new = |event_type, subject: &str, payload| NewEvent {
        event_type,
        customer: Some(customer),
        subject: subject.to_owned(),
        payload,
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    let events = vec![
        new(
            EventType::InvoicePaid,
            "inv_7",
            json!({"number": "2026-0007", "total_minor": 1999, "currency": "USD"}),
        ),
        new(EventType::SubscriptionResumed, &subscription, json!({})),
        // As the payment engine says it of money that came in.
        new(
            EventType::PaymentSucceeded,
            "pay_9",
            json!({"payment": "pay_9", "amount_minor": 0, "currency": "USD", "invoice": null, "action_url": "", "error": ""}),
        ),
        // What is there already is left as it is.
        new(
            EventType::InvoiceVoided,
            "inv_7",
            json!({"invoice": "inv_8", "number": "2026-0008"}),
        ),
    ];
    let first = publish_all(&mut transaction, events, 1).await.unwrap();
    let refused = publish(&mut transaction, new(EventType::InvoicePaid, "inv_7", json!([1])), 1).await;
    assert!(
        matches!(refused, Err(EventError::NotAnObject { .. })),
        "{refused:?} is left to be refused where events are stored"
    );
    transaction.commit().await.unwrap();
    let mut facts = Vec::new();
    for number in 0..4 {
        let stored = event::event(world.database.pool(), EventId(first.0 + number)).await;
        facts.push(stored.unwrap().payload);
    }
    assert_eq!(
        (&facts[0]["invoice"], &facts[0]["amount_minor"]),
        (&json!("inv_7"), &json!(1999))
    );
    assert_eq!(facts[1]["subscription"], json!(subscription));
    assert_eq!(facts[1]["service_name"], "web-1");
    assert_eq!(facts[1]["plan_name"], "VPS Pro");
    assert_eq!(
        facts[2],
        json!({"payment": "pay_9", "amount_minor": 0, "currency": "USD"}),
        "what is not known is left out"
    );
    assert_eq!(facts[3]["invoice"], "inv_8");
}

/// What is published past this module lacks the facts that docs/events.md promises.
#[test]
fn billing_publishes_through_this_module_alone() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let this = source.join("event.rs");
    let mut folders = vec![source];
    let mut files_read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.to_string_lossy().contains("tests");
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path == this || is_test || path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            files_read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap();
            let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code = code.collect::<Vec<_>>().join("\n");
            for past in ["activity::event::publish", "use activity::event::{self"] {
                assert!(
                    !code.contains(past),
                    "{} has {past:?}: use crate::event",
                    path.display()
                );
            }
        }
    }
    assert!(files_read > 50, "{files_read} files were read");
}

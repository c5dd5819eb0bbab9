//! The facts of an event as docs/events.md promises them.
//!
//! Whoever publishes gives what it has at hand. What follows from the subject is completed here, in the same transaction and
//! for every event alike, so that a mail never speaks of "the amount" and a program finds the same names everywhere. What is
//! there already is left as it is; what is not to be found is left out.

use std::str::FromStr;

use activity::event::NewEvent;
use schemas::ids::{InvoiceId, PaymentId, ServiceId, SubscriptionId, TransferId};
use serde_json::{Map, Value, json};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

type Facts = Map<String, Value>;

fn set(facts: &mut Facts, name: &str, value: Option<Value>) {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return;
    };
    if facts.get(name).is_none_or(Value::is_null) {
        facts.insert(name.to_owned(), value);
    }
}

/// The same fact by the name that the documentation gives it.
fn also(facts: &mut Facts, documented: &str, name: &str) {
    let value = facts.get(name).cloned().filter(|value| value.as_str() != Some(""));
    set(facts, documented, value);
}

/// An id among the facts, or the subject.
fn id<T: FromStr>(facts: &Facts, name: &str, subject: &str) -> Option<T> {
    let text = facts.get(name).and_then(Value::as_str).unwrap_or(subject);
    text.parse().ok()
}

/// Completes the facts of an event. A payload that is no object is left for [`activity::event::publish`] to refuse.
///
/// # Errors
/// As the database answers.
pub(super) async fn complete(connection: &mut AnyConnection, event: &mut NewEvent) -> Result<(), sqlx::Error> {
    let subject = event.subject.as_str();
    let Value::Object(facts) = &mut event.payload else {
        return Ok(());
    };
    match event.event_type.name().split('.').next().unwrap_or_default() {
        "invoice" => {
            set(facts, "invoice", Some(json!(subject)));
            also(facts, "amount_minor", "total_minor");
            Ok(())
        }
        "credit_note" => credit_note(connection, subject, facts).await,
        "payment" | "refund" | "dispute" | "top_up" => payment(connection, subject, facts).await,
        "payment_method" => {
            set(facts, "payment_method", Some(json!(subject)));
            also(facts, "method_label", "label");
            Ok(())
        }
        "subscription" | "free_tier" => subscription(connection, subject, facts).await,
        "service" if subject.parse::<TransferId>().is_ok() => {
            set(facts, "transfer", Some(json!(subject)));
            service(connection, facts).await
        }
        "service" => subscription(connection, subject, facts).await,
        _ => Ok(()),
    }
}

async fn row_of(connection: &mut AnyConnection, sql: &'static str, id: i64) -> Result<Option<AnyRow>, sqlx::Error> {
    sqlx::query(sql).bind(id).fetch_optional(connection).await
}

async fn credit_note(connection: &mut AnyConnection, subject: &str, facts: &mut Facts) -> Result<(), sqlx::Error> {
    set(facts, "credit_note", Some(json!(subject)));
    also(facts, "amount_minor", "total_minor");
    let Ok(note) = subject.parse::<InvoiceId>() else {
        return Ok(());
    };
    let sql = "SELECT c.id, c.number FROM invoices n JOIN invoices c ON c.id = n.corrects_invoice_id WHERE n.id = $1";
    if let Some(row) = row_of(connection, sql, note.0).await? {
        set(facts, "invoice", Some(json!(InvoiceId(row.try_get(0)?))));
        set(facts, "invoice_number", Some(json!(row.try_get::<String, _>(1)?)));
    }
    Ok(())
}

async fn payment(connection: &mut AnyConnection, subject: &str, facts: &mut Facts) -> Result<(), sqlx::Error> {
    also(facts, "reason", "error");
    if let Some(payment) = id::<PaymentId>(facts, "payment", subject) {
        let sql = "SELECT m.label FROM payments p JOIN payment_methods m ON m.id = p.method_id WHERE p.id = $1";
        let row = row_of(&mut *connection, sql, payment.0).await?;
        let label = row.map(|row| row.try_get::<String, _>(0)).transpose()?;
        set(facts, "method_label", label.map(Value::from));
    }
    if let Some(invoice) = id::<InvoiceId>(facts, "invoice", "") {
        let row = row_of(connection, "SELECT number FROM invoices WHERE id = $1", invoice.0).await?;
        let number = row.map(|row| row.try_get::<String, _>(0)).transpose()?;
        set(facts, "number", number.map(Value::from));
    }
    Ok(())
}

async fn subscription(connection: &mut AnyConnection, subject: &str, facts: &mut Facts) -> Result<(), sqlx::Error> {
    also(facts, "plan_name", "plan");
    also(facts, "change", "change_id");
    also(facts, "at_ms", "ends_at_ms");
    also(facts, "at_ms", "ended_at_ms");
    let Ok(id) = subject.parse::<SubscriptionId>() else {
        return service(connection, facts).await;
    };
    set(facts, "subscription", Some(json!(id)));
    let sql = "SELECT s.service_id, (SELECT l.name FROM phases p JOIN plans l ON l.id = p.plan_id WHERE p.subscription_id = s.id \
               ORDER BY p.id DESC LIMIT 1) AS plan FROM subscriptions s WHERE s.id = $1";
    if let Some(row) = row_of(&mut *connection, sql, id.0).await? {
        set(facts, "service_id", Some(json!(ServiceId(row.try_get(0)?))));
        // Of a planned change it is the plan that it is to be, or none.
        if facts.get("plan").is_none() {
            set(
                facts,
                "plan_name",
                row.try_get::<Option<String>, _>(1)?.map(Value::from),
            );
        }
    }
    service(connection, facts).await
}

/// `service` is the id, `service_name` the name.
async fn service(connection: &mut AnyConnection, facts: &mut Facts) -> Result<(), sqlx::Error> {
    let given = facts.get("service").and_then(Value::as_str).map(str::to_owned);
    let named = given.filter(|text| text.parse::<ServiceId>().is_err());
    if let Some(name) = named {
        facts.remove("service");
        set(facts, "service_name", Some(json!(name)));
    }
    also(facts, "service", "service_id");
    if let Some(id) = id::<ServiceId>(facts, "service", "")
        && !facts.contains_key("service_name")
    {
        let row = row_of(connection, "SELECT name FROM services WHERE id = $1", id.0).await?;
        let name = row.map(|row| row.try_get::<String, _>(0)).transpose()?;
        set(facts, "service_name", name.map(Value::from));
    }
    Ok(())
}

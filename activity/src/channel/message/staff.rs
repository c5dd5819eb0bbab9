//! What is said to owner and admins, and of webhooks.

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

/// `account_deletion` → `account deletion`.
fn kind_words(kind: &str) -> String {
    kind.replace('_', " ")
}

pub(super) fn staff(event: &Event, facts: &Facts<'_>) -> Message {
    let (object, summary) = (facts.or("object", &event.subject), facts.text("summary"));
    match event.event_type {
        EventType::WebhookDisabled => {
            let url = facts.text("url");
            let (heading, said) = match facts.text("kind").as_deref() {
                Some("discord") => (
                    "Your Discord channel was disconnected",
                    "Discord no longer accepts our posts to it, so we have stopped sending. Add the webhook's present address as a new endpoint, or enable this one once it works again; what it missed can be sent again.",
                ),
                _ => (
                    "Your webhook endpoint was disabled",
                    "For days it accepted nothing that we sent, so we have stopped sending. Fix it and enable it; what it missed can be sent again.",
                ),
            };
            Message::new(Tone::Alert, heading, heading)
                .say(said)
                .fact("Endpoint", url)
                .fact("Last error", facts.text("error"))
                .page("See your endpoints", "/webhooks")
        }
        EventType::InvoiceHeld => {
            let customer = facts.or("customer_name", "a customer");
            let (waits_for, to_do) = if facts.text("vat_id").is_some() {
                ("a VAT number", "Check the number again or accept it")
            } else if facts.text("country").is_some() {
                ("a tax rate", "Enter the rate, be it 0 %")
            } else {
                ("its issuer", "Enter name and address of the company under Entities")
            };
            // The reason of a missing rate has its instant to the millisecond; when it is due stands below.
            let reason = match facts.text("country").filter(|_| facts.text("vat_id").is_none()) {
                Some(country) => format!("no tax rate is known for {country}"),
                None => facts.or("reason", "something is missing"),
            };
            Message::new(
                Tone::Alert,
                format!("Invoice held: {customer}"),
                format!("An invoice waits for {waits_for}"),
            )
            .say(format!(
                "An invoice of {customer} is due and not finalised: {reason}. {to_do}, and the next closing finalises it."
            ))
            .fact("Invoice", Some(event.subject.clone()))
            .fact("Due", facts.instant("due_ms"))
            .fact("Country", facts.text("country"))
            .fact("Region", facts.text("region"))
            .page("See held invoices", "/finance/held")
        }
        EventType::VatNumberInvalid => {
            let customer = facts.or("customer_name", "a customer");
            Message::new(
                Tone::Alert,
                format!("VAT number not valid: {customer}"),
                "A VAT number is not valid",
            )
            .say(format!(
                "The register of its member state says that the VAT number of {customer} was not given out. Invoices bear the tax of \
                 the customer's place from now on."
            ))
            .fact("Customer", Some(event.subject.clone()))
            .fact("VAT number", facts.text("vat_id"))
            .fact("Consultation", facts.text("consultation"))
            .page("See the customer", format!("/finance/customers/{}", event.subject))
        }
        EventType::ApprovalRequested => {
            let by = facts.or("requested_by", "An admin");
            Message::new(
                Tone::Alert,
                format!("Approval needed: {}", kind_words(&facts.or("action", "an action"))),
                "An action waits for your approval",
            )
            .say(format!(
                "{by} asks for a high-risk action. Another admin approves or rejects it."
            ))
            .fact("Description", summary)
            .fact("About", Some(object))
            .page("Decide", "/admin/approvals")
        }
        EventType::ApprovalDecided => {
            let (by, decision) = (facts.or("decided_by", "An admin"), facts.or("decision", "decided"));
            let said = match decision.as_str() {
                "expired" => "Nobody decided in time. If it is still needed, request it again.".to_owned(),
                _ => format!("{by} has decided."),
            };
            Message::new(
                Tone::Plain,
                format!("Request {decision}: {}", kind_words(&facts.or("action", "an action"))),
                format!("An action was {decision}"),
            )
            .say(said)
            .fact("Description", summary)
            .fact("About", Some(object))
            .fact("Reason", facts.text("reason"))
            .page("See approvals", "/admin/approvals")
        }
        EventType::HighRiskAction => {
            let (actor, action) = (facts.or("actor", "Somebody"), facts.or("action", "an action"));
            Message::new(
                Tone::Alert,
                format!("High-risk action: {action} by {actor}"),
                "High-risk action",
            )
            .say(format!(
                "{actor} performed a high-risk action. If that should not be, act at once."
            ))
            .fact("Action", Some(action))
            .fact("About", Some(object))
            .fact("From", facts.text("ip"))
            .fact("Audit entry", facts.text("audit"))
            .page("See the audit log", "/admin/audit")
        }
        EventType::GatewaySettingsChanged => Message::new(
            Tone::Alert,
            "Payment gateway settings changed",
            "The settings of a payment gateway changed",
        )
        .say(
            "The configuration names other settings of a payment gateway than when the server was started before. If nobody of you \
             did that, stop the server and compare the file: payments may go to somebody else.",
        )
        .fact("Settings", facts.text("settings"))
        .fact("Audit entry", facts.text("audit"))
        .page("See the audit log", "/admin/audit"),
        EventType::BillingStopped => Message::new(
            Tone::Alert,
            "Billing is stopped: the clock moved",
            "Billing is stopped: the clock moved",
        )
        .say(
            "The machine's clock is not where it can be. Nothing is charged, collected, suspended or ended until the clock is \
             right again, or an admin confirms that it is.",
        )
        .fact("Last valid time", facts.instant("good_ms"))
        .fact("The clock shows", facts.instant("clock_ms"))
        .page("Decide", "/admin/clock"),
        EventType::BillingResumed => {
            Message::new(Tone::Good, "Billing resumed", "Billing resumed")
                .say("Billing was stopped because the clock had jumped. It was resumed.")
                .fact("Why", facts.text("reason"))
                .fact("The clock shows", facts.instant("clock_ms"))
                .page("See the clock", "/admin/clock")
        }
        EventType::UsageUnmeasured => {
            let name = facts.or("customer_name", &event.subject);
            Message::new(
                Tone::Alert,
                format!("An invoice of {name} waits: too little was measured"),
                "An invoice waits for a person",
            )
            .say(
                "The due usage was not measured well enough to be charged without a confirmation. It is finalised when the \
                 missing data arrives, or when a person confirms it.",
            )
            .fact("Why", facts.text("reason"))
            .fact("Measured", facts.text("coverage_percent").map(|percent| format!("{percent} %")))
            .fact("Period from", facts.day("period_start_ms"))
            .fact("Amount so far", facts.money("amount_minor"))
            .page("Decide", "/finance/unmeasured")
        }
        EventType::JobFailing => {
            let job = facts.or("job", &event.subject);
            Message::new(
                Tone::Alert,
                format!("Background job failing: {job}"),
                "A background job fails",
            )
            .say(format!(
                "The job {job} has failed {} times in a row. It is tried again until it succeeds; we notify you when it does.",
                facts.or("failures_in_a_row", "several")
            ))
            .fact("What it does", facts.text("description"))
            .fact("Last error", facts.text("error"))
            .fact("Last success", facts.instant("last_success_at_ms"))
            .fact("Process", facts.text("instance"))
            .page("See background jobs", "/ops/jobs")
        }
        EventType::JobRecovered => {
            let job = facts.or("job", &event.subject);
            Message::new(
                Tone::Good,
                format!("Background job works again: {job}"),
                "A background job works again",
            )
            .say(format!("The job {job} had failed several times in a row. Its last run succeeded."))
            .fact("What it does", facts.text("description"))
            .fact("Process", facts.text("instance"))
            .page("See background jobs", "/ops/jobs")
        }
        other => Message::new(Tone::Plain, other.name(), other.name()).say(format!("{other}: {}", event.subject)),
    }
}

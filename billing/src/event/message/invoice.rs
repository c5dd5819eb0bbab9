//! What is said of invoices and credit notes.

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

fn invoice_page(event: &Event, facts: &Facts<'_>) -> String {
    format!("/invoices/{}", facts.or("invoice", &event.subject))
}

pub(super) fn invoice(event: &Event, facts: &Facts<'_>) -> Message {
    let (number, amount, due) = (facts.number(), facts.amount(), facts.day("due_at_ms"));
    match event.event_type {
        EventType::InvoiceFinalised => {
            let due_words = due.as_ref().map_or(String::new(), |due| format!(", due on {due}"));
            Message::new(
                Tone::Plain,
                format!("Invoice {number}: {amount}{due_words}"),
                format!("Your invoice {number}"),
            )
            .say(format!("We have issued invoice {number} for {amount}{due_words}."))
            .say("If you have saved a way to pay, it is charged automatically and there is nothing to do. Otherwise you can pay in the portal.")
            .fact("Amount", Some(amount))
            .fact("Due on", due)
            .page("See and pay the invoice", invoice_page(event, facts))
        }
        EventType::InvoicePaid => Message::new(
            Tone::Good,
            format!("Invoice {number} is paid"),
            format!("Invoice {number} is paid"),
        )
        .say(format!("Invoice {number} for {amount} is settled. Thank you."))
        .fact("Amount", Some(amount))
        .page("See the invoice", invoice_page(event, facts)),
        EventType::InvoiceOverdue => {
            let open = facts.money("open_minor").unwrap_or(amount);
            let since = due.as_ref().map_or(String::new(), |due| format!(" since {due}"));
            let suspends = facts.day("suspends_at_ms");
            Message::new(
                Tone::Alert,
                format!("Invoice {number} is overdue: {open}"),
                format!("Invoice {number} is overdue"),
            )
            .say(format!(
                "{open} of invoice {number} has been due{since} and is still open."
            ))
            .say_if(
                suspends.map(|day| format!("If it is not paid by {day}, the services that it bills are suspended.")),
            )
            .say("If you have paid in the meantime, please disregard this message.")
            .fact("Open", Some(open))
            .fact("Was due on", due)
            .page("Pay now", invoice_page(event, facts))
        }
        EventType::InvoiceVoided => Message::new(
            Tone::Plain,
            format!("Invoice {number} was cancelled"),
            format!("Invoice {number} was cancelled"),
        )
        .say(format!("Invoice {number} no longer has to be paid."))
        .fact("Reason", facts.text("reason"))
        .page("See the invoice", invoice_page(event, facts)),
        // Credit notes.
        _ => {
            let corrects = facts.text("invoice_number");
            let of = corrects
                .as_ref()
                .map_or(String::new(), |number| format!(" for invoice {number}"));
            let amount = amount.trim_start_matches('-').to_owned();
            Message::new(
                Tone::Good,
                format!("Credit note {number}{of}: {amount}"),
                format!("Your credit note {number}"),
            )
            .say(format!("We have issued a credit note of {amount}{of}."))
            .say("What the invoice still has open is reduced by it; what was paid already is kept as credit on your account.")
            .fact("Amount", Some(amount))
            .fact("Corrects", corrects)
            .fact("Reason", facts.text("reason"))
            .page("See the credit note", format!("/invoices/{}", facts.or("credit_note", &event.subject)))
        }
    }
}

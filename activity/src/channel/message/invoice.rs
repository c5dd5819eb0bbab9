//! What is said of invoices and credit notes.

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

fn invoice_page(event: &Event, facts: &Facts<'_>) -> String {
    format!("/invoices/{}", facts.or("invoice", &event.subject))
}

pub(super) fn invoice(event: &Event, facts: &Facts<'_>) -> Message {
    let (number, amount, due) = (facts.number(), facts.money("amount_minor"), facts.day("due_at_ms"));
    let colon = |amount: &Option<String>| amount.as_ref().map_or(String::new(), |amount| format!(": {amount}"));
    let for_amount = amount.as_ref().map_or(String::new(), |amount| format!(" for {amount}"));
    match event.event_type {
        EventType::InvoiceFinalised => {
            let due_words = due.as_ref().map_or(String::new(), |due| format!(", due on {due}"));
            Message::new(
                Tone::Plain,
                format!("Invoice {number}{}{due_words}", colon(&amount)),
                format!("Your invoice {number}"),
            )
            .say(format!("We have issued invoice {number}{for_amount}{due_words}."))
            .say("If you have saved a payment method, it is charged automatically and there is nothing to do. Otherwise you can pay in the portal.")
            .fact("Amount", amount)
            .fact("Due on", due)
            .page("See and pay the invoice", invoice_page(event, facts))
        }
        EventType::InvoicePaid => Message::new(
            Tone::Good,
            format!("Invoice {number} is paid"),
            format!("Invoice {number} is paid"),
        )
        .say(format!("Invoice {number}{for_amount} is settled. Thank you."))
        .fact("Amount", amount)
        .page("See the invoice", invoice_page(event, facts)),
        EventType::InvoiceDueSoon => {
            let open = facts.money("open_minor").or(amount);
            let when = due.as_ref().map_or(String::new(), |due| format!(" on {due}"));
            Message::new(
                Tone::Plain,
                format!("Invoice {number} is due{when}{}", colon(&open)),
                format!("Invoice {number} is due soon"),
            )
            .say(format!("Invoice {number} is due{when} and is still open."))
            .say("If you have saved a payment method, it is charged on that day. Otherwise please pay it in the portal or by bank transfer.")
            .fact("Open", open)
            .fact("Due on", due)
            .page("See and pay the invoice", invoice_page(event, facts))
        }
        EventType::InvoiceOverdue => {
            let open = facts.money("open_minor").or(amount);
            let what = match &open {
                Some(open) => format!("{open} of invoice {number}"),
                None => format!("Invoice {number}"),
            };
            let since = due.as_ref().map_or(String::new(), |due| format!(" since {due}"));
            let suspends = facts.day("suspends_at_ms");
            Message::new(
                Tone::Alert,
                format!("Invoice {number} is overdue{}", colon(&open)),
                format!("Invoice {number} is overdue"),
            )
            .say(format!("{what} has been due{since} and is still open."))
            .sentence_if(
                suspends.map(|day| format!("If it is not paid by {day}, the services that it bills are suspended.")),
            )
            .sentence_if(facts.day("terminates_at_ms").map(|day| {
                format!("If it is still not paid by {day}, their subscriptions end and their data is deleted.")
            }))
            .say("If you have paid in the meantime, please disregard this message.")
            .fact("Open", open)
            .fact("Was due on", due)
            .page("Pay now", invoice_page(event, facts))
        }
        EventType::InvoiceReopened => {
            let open = facts.money("open_minor").or(amount);
            Message::new(
                Tone::Alert,
                format!("Invoice {number} is open again{}", colon(&open)),
                format!("Invoice {number} is open again"),
            )
            .say(format!(
                "The payment of invoice {number} was reversed, so the invoice is open again."
            ))
            .say("It is not charged automatically: please pay it in the portal or by bank transfer.")
            .fact("Open", open)
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
            let amount = amount.map(|amount| amount.trim_start_matches('-').to_owned());
            let worth = amount.as_ref().map_or(String::new(), |amount| format!(" of {amount}"));
            Message::new(
                Tone::Good,
                format!("Credit note {number}{of}{}", colon(&amount)),
                format!("Your credit note {number}"),
            )
            .say(format!("We have issued a credit note{worth}{of}."))
            .say("What the invoice still has open is reduced by it; what was paid already is kept as credit on your account.")
            .fact("Amount", amount)
            .fact("Corrects", corrects)
            .fact("Reason", facts.text("reason"))
            .page("See the credit note", format!("/invoices/{}", facts.or("credit_note", &event.subject)))
        }
    }
}

//! What is said of credit, top-ups and budgets.

use serde_json::Value;

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

pub(super) fn credit(event: &Event, facts: &Facts<'_>) -> Message {
    let (amount, balance) = (facts.amount(), facts.money("balance_minor"));
    let (spent, budget) = (facts.money("spent_minor"), facts.money("budget_minor"));
    let resets = facts.day("resets_at_ms");
    match event.event_type {
        EventType::CreditGranted => Message::new(
            Tone::Good,
            format!("{amount} of credit for you"),
            "Credit was added to your account",
        )
        .say(format!(
            "We have added {amount} to your account. It pays for your next invoices."
        ))
        .fact("Balance", balance)
        .fact("Reason", facts.text("reason"))
        .page("See your credit", "/credit"),
        EventType::CreditLow => {
            let left = balance.clone().unwrap_or_else(|| "little".to_owned());
            Message::new(Tone::Alert, format!("Your credit is low: {left}"), "Your credit is low")
                .say(format!(
                    "There is {left} left on your account. Top it up, so that your next invoice is covered."
                ))
                .fact("Balance", balance)
                .page("Top up", "/credit")
        }
        EventType::CreditOwed | EventType::CreditOverdue => {
            let (is_late, due) = (event.event_type == EventType::CreditOverdue, facts.day("due_at_ms"));
            let subject = match is_late {
                true => format!("{amount} is overdue"),
                false => format!("You owe us {amount}"),
            };
            Message::new(Tone::Alert, subject.clone(), subject)
                .say(format!(
                    "A payment that was refunded to you was also charged back, so your credit is {amount} below zero."
                ))
                .sentence_if(due.as_ref().map(|due| match is_late {
                    true => format!("It was due on {due} and has not been paid."),
                    false => format!("Please pay it by {due}: add credit in the portal, or send a bank transfer."),
                }))
                .sentence_if(facts.day("suspends_at_ms").map(|day| {
                    format!("If it is not paid by {day}, your services are suspended.")
                }))
                .fact("Balance", balance)
                .fact("Due on", due)
                .page("Pay it", "/credit")
        }
        EventType::TopUpSucceeded => Message::new(
            Tone::Good,
            format!("Your account was topped up by {amount}"),
            "Your account was topped up",
        )
        .say(format!(
            "We charged {amount} as you asked us to, and added it to your credit."
        ))
        .fact("Amount", Some(amount))
        .fact("Paid with", facts.text("method_label"))
        .fact("Balance", balance)
        .page("See your credit", "/credit"),
        EventType::TopUpFailed => Message::new(
            Tone::Alert,
            format!("The top-up of {amount} did not go through"),
            "The top-up did not go through",
        )
        .say(format!(
            "We tried to charge {amount} to top up your account, and it was declined. You have not been charged."
        ))
        .sentence_if(
            (event.payload.get("is_disabled").and_then(Value::as_bool) == Some(true)).then(|| {
                "It was declined too often, so we have switched automatic top-up off. Switch it on again once the payment method is right.".to_owned()
            }),
        )
        .fact("Tried with", facts.text("method_label"))
        .fact("Reason", facts.text("reason"))
        .fact("Balance", balance)
        .page("Change how you pay", "/payment-methods"),
        EventType::BudgetThresholdReached => {
            let percent = facts.or("threshold_percent", "much");
            let is_forecast = event.payload.get("basis").and_then(Value::as_str) == Some("forecast");
            let (subject, sentence) = match is_forecast {
                true => (
                    format!("You are on the way to {percent} % of your budget"),
                    format!("At the pace of the last days, this cycle ends at {percent} % of your budget or more."),
                ),
                false => (
                    format!("{percent} % of your budget is used"),
                    format!("{percent} % of this cycle's budget is used."),
                ),
            };
            Message::new(Tone::Plain, subject.clone(), subject)
                .say(sentence)
                .fact("Used so far", spent)
                .fact("Forecast", facts.money("forecast_minor"))
                .fact("Budget", budget)
                .fact("Resets on", resets)
                .page("See the budget", "/budget")
        }
        EventType::BudgetExceeded => {
            let suspends = event.payload.get("suspends").and_then(Value::as_bool) == Some(true);
            let what = match suspends {
                true => {
                    "As you set it, your services are suspended until the budget resets. Unlock them by paying for what was used, or raise the budget."
                }
                false => "Your services keep running and are charged.",
            };
            Message::new(Tone::Alert, "Your budget is used up", "Your budget is used up")
                .say("All of this cycle's budget is used.")
                .say(what)
                .fact("Used so far", spent)
                .fact("Budget", budget)
                .fact("Resets on", resets)
                .page(
                    if suspends {
                        "Unlock your services"
                    } else {
                        "See the budget"
                    },
                    "/budget",
                )
        }
        EventType::BudgetReset => Message::new(Tone::Good, "Your budget was reset", "Your budget was reset")
            .say("A new cycle has begun, and with it a new budget.")
            .fact("Budget", budget)
            .fact("Resets on", resets)
            .page("See the budget", "/budget"),
        // Unlocked.
        _ => Message::new(Tone::Good, "Your services are unlocked", "Your services are unlocked")
            .say("Thank you for your payment. Your services keep running over the budget until the cycle ends.")
            .fact("Paid", facts.money("amount_minor"))
            .fact("Until", facts.day("unlocked_until_ms"))
            .page("See the budget", "/budget"),
    }
}

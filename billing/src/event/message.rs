//! What people are told of an event: one wording, from which the mail's HTML, its text and the notification in the portal
//! are made. Facts that a payload lacks leave out the sentence or row that would say them, never the message.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::money::{Currency, Money};
use serde_json::Value;

use super::{Event, EventType};

/// Characters of a fact that are shown.
const MAX_FACT_CHARS: usize = 200;

/// How a message looks at first glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    Plain,
    Good,
    /// Something is to be done.
    Alert,
}

/// Where a message leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A page of the portal: `/invoices/inv_7`.
    Page(String),
    /// Elsewhere: a gateway's page; from a list in the portal, a page of it.
    Address { address: String, page: String },
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub subject: String,
    pub heading: String,
    pub paragraphs: Vec<String>,
    /// Name and value.
    pub facts: Vec<(&'static str, String)>,
    /// What to press, and where it leads.
    pub action: Option<(&'static str, Target)>,
    pub tone: Tone,
}

/// The facts of an event, as text for people.
struct Facts<'a> {
    payload: &'a Value,
    zone: &'a TimeZone,
}

impl Facts<'_> {
    /// In one line, so that no header or list is broken by it.
    fn text(&self, name: &str) -> Option<String> {
        let text = match self.payload.get(name)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_FACT_CHARS).collect();
        Some(text).filter(|text| !text.trim().is_empty())
    }

    fn or(&self, name: &str, otherwise: &str) -> String {
        self.text(name).unwrap_or_else(|| otherwise.to_owned())
    }

    /// An amount in the payload's currency.
    fn money(&self, name: &str) -> Option<String> {
        let minor = self.payload.get(name)?.as_i64()?;
        let currency: Currency = self.payload.get("currency")?.as_str()?.parse().ok()?;
        Some(Money::new(minor, currency).to_string())
    }

    fn amount(&self) -> String {
        self.money("amount_minor").unwrap_or_else(|| "the amount".to_owned())
    }

    fn zoned(&self, name: &str, format: &str) -> Option<String> {
        let at = Timestamp::from_millisecond(self.payload.get(name)?.as_i64()?).ok()?;
        Some(at.to_zoned(self.zone.clone()).strftime(format).to_string())
    }

    /// `15 June 2026`.
    fn day(&self, name: &str) -> Option<String> {
        self.zoned(name, "%-d %B %Y")
    }

    /// `15 June 2026, 14:00 CEST`.
    fn instant(&self, name: &str) -> Option<String> {
        self.zoned(name, "%-d %B %Y, %H:%M %Z")
    }

    /// The service by its name, else its id.
    fn service(&self) -> String {
        self.text("service_name")
            .or_else(|| self.text("service"))
            .unwrap_or_else(|| "your service".to_owned())
    }

    fn plan(&self) -> String {
        self.or("plan_name", "the plan")
    }

    fn number(&self) -> String {
        self.text("number").or_else(|| self.text("invoice")).unwrap_or_default()
    }
}

impl Message {
    fn new(tone: Tone, subject: impl Into<String>, heading: impl Into<String>) -> Message {
        Message {
            subject: subject.into(),
            heading: heading.into(),
            paragraphs: Vec::new(),
            facts: Vec::new(),
            action: None,
            tone,
        }
    }

    fn say(mut self, sentence: impl Into<String>) -> Message {
        self.paragraphs.push(sentence.into());
        self
    }

    fn say_if(self, sentence: Option<String>) -> Message {
        match sentence {
            Some(sentence) => self.say(sentence),
            None => self,
        }
    }

    fn fact(mut self, name: &'static str, value: Option<String>) -> Message {
        self.facts.extend(value.map(|value| (name, value)));
        self
    }

    fn page(mut self, label: &'static str, path: impl Into<String>) -> Message {
        self.action = Some((label, Target::Page(path.into())));
        self
    }

    /// What the portal shows in its list: the first paragraph.
    pub fn summary(&self) -> &str {
        self.paragraphs.first().map_or("", String::as_str)
    }

    /// The page of the portal it leads to; empty where there is none.
    pub fn link(&self) -> &str {
        match &self.action {
            Some((_, Target::Page(page) | Target::Address { page, .. })) => page,
            None => "",
        }
    }
}

/// The message of an event, with times in a zone.
pub fn compose(event: &Event, zone: &TimeZone) -> Message {
    let facts = Facts {
        payload: &event.payload,
        zone,
    };
    let area = event.event_type.name().split('.').next().unwrap_or_default();
    match area {
        "invoice" | "credit_note" => invoice(event, &facts),
        "payment" | "refund" | "dispute" | "payment_method" => payment(event, &facts),
        "subscription" => subscription(event, &facts),
        "service" | "free_tier" => service(event, &facts),
        "credit" | "top_up" | "budget" => credit(event, &facts),
        _ => staff(event, &facts),
    }
}

fn invoice_page(event: &Event, facts: &Facts<'_>) -> String {
    format!("/invoices/{}", facts.or("invoice", &event.subject))
}

fn invoice(event: &Event, facts: &Facts<'_>) -> Message {
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

fn payment(event: &Event, facts: &Facts<'_>) -> Message {
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
        .say_if(facts.day("next_attempt_at_ms").map(|day| format!("We try again on {day}.")))
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
        EventType::RefundSucceeded => Message::new(Tone::Good, format!("We refunded {amount}"), "Your refund is on its way")
            .say(format!("We have returned {amount}{of} to the card or account that it was paid with. Banks take some days to show it."))
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
        EventType::PaymentMethodAdded => Message::new(Tone::Plain, "A way to pay was saved", "A way to pay was saved")
            .say("From now on it can be charged for your invoices.")
            .fact("Way to pay", method)
            .page("See your ways to pay", "/payment-methods"),
        // Removed.
        _ => Message::new(Tone::Plain, "A way to pay was removed", "A way to pay was removed")
            .say("It is no longer charged.")
            .fact("Way to pay", method)
            .page("See your ways to pay", "/payment-methods"),
    }
}

fn subscription(event: &Event, facts: &Facts<'_>) -> Message {
    let (plan, service, reason) = (facts.plan(), facts.service(), facts.text("reason"));
    let at = facts.instant("at_ms");
    let on = at.as_ref().map_or(String::new(), |at| format!(" on {at}"));
    let page = format!("/subscriptions/{}", facts.or("subscription", &event.subject));
    let change = match event.payload.get("kind").and_then(Value::as_str) {
        Some("cancel") => format!("The cancellation of {service}"),
        Some("addon") => format!("Adding {plan} to {service}"),
        _ => format!("The change of {service} to {plan}"),
    };
    let message = match event.event_type {
        EventType::SubscriptionCreated => {
            Message::new(Tone::Plain, format!("{service}: {plan} ordered"), "Thank you for your order")
                .say(format!("{plan} for {service} is ordered."))
        }
        EventType::SubscriptionActivated => {
            Message::new(Tone::Good, format!("{service} is active"), format!("{service} is active"))
                .say(format!("{plan} for {service} is active from now on."))
        }
        EventType::SubscriptionChanged => {
            Message::new(Tone::Plain, format!("{service} is now {plan}"), "Your plan was changed")
                .say(format!("{service} has {plan} from now on. What is left of the plan before is credited by the day."))
        }
        EventType::SubscriptionCancelled => {
            Message::new(Tone::Plain, format!("{service} is cancelled"), format!("{service} is cancelled"))
                .say(format!("Your cancellation of {service} is noted; it ends{on}. Until then nothing changes, and you can take it back."))
                .fact("Ends", at)
        }
        EventType::SubscriptionResumed => {
            Message::new(Tone::Good, format!("{service} goes on"), format!("{service} goes on"))
                .say(format!("{service} is active as before. There is nothing more to do."))
        }
        EventType::SubscriptionEnded => {
            Message::new(Tone::Plain, format!("{service} has ended"), format!("{service} has ended"))
                .say(format!("{plan} for {service} has ended. Usage up to the end is on the last invoice."))
        }
        EventType::SubscriptionPastDue => {
            Message::new(Tone::Alert, format!("{service}: an invoice is overdue"), "An invoice is overdue")
                .say(format!("An invoice for {service} is overdue. Please pay it, so that the service stays on."))
        }
        EventType::SubscriptionSuspended => {
            Message::new(Tone::Alert, format!("{service} is suspended"), format!("{service} is suspended"))
                .say(format!("{service} is suspended."))
        }
        EventType::ChangeScheduled => {
            Message::new(Tone::Plain, format!("Planned: {change}{on}"), "A change is planned")
                .say(format!("{change} is planned{on}. You are reminded a day before, and can call it off until then."))
                .fact("When", at)
        }
        EventType::ChangeReminder => {
            Message::new(Tone::Plain, format!("Tomorrow: {change}"), "A change is due soon")
                .say(format!("{change} takes place{on}. If that is what you want, there is nothing to do; otherwise call it off before."))
                .fact("When", at)
        }
        EventType::ChangeExecuted => {
            Message::new(Tone::Good, format!("Done: {change}"), "The planned change was made").say(format!("{change} was made as planned."))
        }
        EventType::ChangeFailed => Message::new(Tone::Alert, format!("Not made: {change}"), "A planned change was not made")
            .say(format!("{change} could not be made. Everything stays as it was; please plan it anew or write to us.")),
        // Called off.
        _ => Message::new(Tone::Plain, format!("Called off: {change}"), "A planned change was called off")
            .say(format!("{change} was called off. Everything stays as it is.")),
    };
    message.fact("Reason", reason).page("See the subscription", page)
}

fn service(event: &Event, facts: &Facts<'_>) -> Message {
    let (service, reason) = (facts.service(), facts.text("reason"));
    match event.event_type {
        EventType::SuspendRequested => {
            let (what_to_do, label, page) = match event.payload.get("cause").and_then(Value::as_str) {
                Some("unpaid") => (
                    "It goes on as soon as the open invoices are paid. Your data is kept.",
                    "Pay open invoices",
                    "/invoices",
                ),
                Some("budget") => (
                    "It has used up the budget that you set. Raise the budget, or unlock it by paying for what was used, and it goes on at once.",
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
            format!("Asked for: the transfer of {service}"),
            "A transfer was asked for",
        )
        .say(format!(
            "The transfer of {move_words} was asked for. We check with both sides before anything changes."
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
        .fact("Service", facts.text("service"))
        .fact("Transfer", facts.text("transfer"))
        .fact("Takes effect", facts.day("at_ms"))
        .page("See your services", "/usage")
}

fn credit(event: &Event, facts: &Facts<'_>) -> Message {
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
        .say_if(
            facts
                .day("next_attempt_at_ms")
                .map(|day| format!("We try again on {day} at the earliest.")),
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
                false => "Your services go on, and so do charges.",
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
        EventType::BudgetReset => Message::new(Tone::Good, "Your budget starts anew", "Your budget starts anew")
            .say("A new cycle has begun, and with it a new budget.")
            .fact("Budget", budget)
            .fact("Resets on", resets)
            .page("See the budget", "/budget"),
        // Unlocked.
        _ => Message::new(Tone::Good, "Your services are unlocked", "Your services are unlocked")
            .say("Thank you for your payment. Your services go on, whatever the budget says, until the cycle ends.")
            .fact("Paid", facts.money("amount_minor"))
            .fact("Until", facts.day("unlocked_until_ms"))
            .page("See the budget", "/budget"),
    }
}

fn staff(event: &Event, facts: &Facts<'_>) -> Message {
    let (object, summary) = (facts.or("object", &event.subject), facts.text("summary"));
    match event.event_type {
        EventType::WebhookDisabled => {
            let url = facts.text("url");
            Message::new(Tone::Alert, "Your webhook endpoint was disabled", "Your webhook endpoint was disabled")
                .say("For days nothing we sent to it was taken, so we have stopped. Put it right and enable it; what it missed can be sent again.")
                .fact("Endpoint", url)
                .fact("Last error", facts.text("error"))
                .page("See your endpoints", "/webhooks")
        }
        EventType::ApprovalRequested => {
            let by = facts.or("requested_by", "An admin");
            Message::new(
                Tone::Alert,
                format!("Approval needed: {}", facts.or("action", "an action")),
                "An action waits for your approval",
            )
            .say(format!(
                "{by} asks for an action of high risk. Another admin approves or rejects it."
            ))
            .fact("What", summary)
            .fact("About", Some(object))
            .page("Decide", "/admin/approvals")
        }
        EventType::ApprovalDecided => {
            let (by, decision) = (facts.or("decided_by", "An admin"), facts.or("decision", "decided"));
            Message::new(
                Tone::Plain,
                format!("{} was {decision}", facts.or("action", "An action")),
                format!("An action was {decision}"),
            )
            .say(format!("{by} has decided."))
            .fact("What", summary)
            .fact("About", Some(object))
            .fact("Reason", facts.text("reason"))
            .page("See approvals", "/admin/approvals")
        }
        EventType::HighRiskAction => {
            let (actor, action) = (facts.or("actor", "Somebody"), facts.or("action", "an action"));
            Message::new(
                Tone::Alert,
                format!("High risk: {action} by {actor}"),
                "An action of high risk",
            )
            .say(format!(
                "{actor} did something of high risk. If that should not be, act at once."
            ))
            .fact("Action", Some(action))
            .fact("About", Some(object))
            .fact("From", facts.text("ip"))
            .fact("Audit entry", facts.text("audit"))
            .page("See the audit log", "/admin/audit")
        }
        other => Message::new(Tone::Plain, other.name(), other.name()).say(format!("{other}: {}", event.subject)),
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::{CustomerId, EventId};
    use serde_json::json;

    use super::*;

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
        assert_eq!(message.subject, "Invoice 2026-0007: 1,234.50 EUR, due on 15 June 2026");
        assert_eq!(message.link(), "/invoices/inv_7");
    }

    #[test]
    fn every_event_that_people_are_told_of_has_words_even_without_facts() {
        for kind in EventType::ALL {
            let message = compose(&event(*kind, json!({})), &TimeZone::UTC);
            assert!(!message.subject.is_empty() && !message.heading.is_empty(), "{kind}");
            assert!(!message.summary().is_empty(), "{kind}");
            assert_ne!(message.heading, kind.name(), "{kind} has only its name");
            assert!(message.action.is_some(), "{kind} leads nowhere");
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
}

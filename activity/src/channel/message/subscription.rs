//! What is said of subscriptions and their planned changes.

use serde_json::Value;

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

pub(super) fn subscription(event: &Event, facts: &Facts<'_>) -> Message {
    let (plan, service, reason) = (facts.text("plan_name"), facts.service(), facts.text("reason"));
    // Without a plan the service alone.
    let plan_for = match &plan {
        Some(plan) => format!("{plan} for {service}"),
        None => service.clone(),
    };
    let at = facts.instant("at_ms");
    let on = at.as_ref().map_or(String::new(), |at| format!(" on {at}"));
    let page = format!("/subscriptions/{}", facts.or("subscription", &event.subject));
    let change = match event.payload.get("kind").and_then(Value::as_str) {
        Some("cancel") => format!("The cancellation of {service}"),
        Some("addon") => match &plan {
            Some(plan) => format!("Adding {plan} to {service}"),
            None => format!("The add-on to {service}"),
        },
        _ => match &plan {
            Some(plan) => format!("The change of {service} to {plan}"),
            None => format!("The change of {service}"),
        },
    };
    let message = match event.event_type {
        EventType::SubscriptionCreated => {
            Message::new(Tone::Plain, format!("{plan_for} is ordered"), "Thank you for your order")
                .say(format!("{plan_for} is ordered."))
        }
        EventType::SubscriptionActivated => {
            Message::new(Tone::Good, format!("{service} is active"), format!("{service} is active"))
                .say(format!("{plan_for} is active from now on."))
        }
        EventType::SubscriptionChanged => {
            let now = plan.map_or_else(
                || format!("The plan of {service} was changed"),
                |plan| match facts.text("price") {
                    Some(price) => format!("{service} has {plan} at {price} from now on"),
                    None => format!("{service} has {plan} from now on"),
                },
            );
            Message::new(Tone::Plain, now.clone(), "Your plan was changed")
                .say(format!("{now}. What is left of the plan before is credited by the day."))
        }
        EventType::SubscriptionCancelled => {
            Message::new(Tone::Plain, format!("{service} is cancelled"), format!("{service} is cancelled"))
                .say(format!("Your cancellation of {service} is noted; it ends{on}. Until then nothing changes, and you can resume it."))
                .fact("Ends", at)
        }
        EventType::SubscriptionResumed => {
            Message::new(Tone::Good, format!("{service} resumed"), format!("{service} resumed"))
                .say(format!("{service} is active as before. There is nothing more to do."))
        }
        EventType::SubscriptionEnded => {
            Message::new(Tone::Plain, format!("{service} has ended"), format!("{service} has ended"))
                .say(format!("{plan_for} has ended. Usage up to the end is on the last invoice."))
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
                .say(format!("{change} takes place{on}. If that is what you want, there is nothing to do; otherwise cancel it before then."))
                .fact("When", at)
        }
        EventType::ChangeExecuted => {
            Message::new(Tone::Good, format!("Done: {change}"), "The planned change was made").say(format!("{change} was made as planned."))
        }
        EventType::ChangeFailed => Message::new(Tone::Alert, format!("Not made: {change}"), "A planned change was not made")
            .say(format!("{change} could not be made. Nothing was changed; please schedule it again or contact us.")),
        // Called off.
        _ => Message::new(Tone::Plain, format!("Called off: {change}"), "A planned change was called off")
            .say(format!("{change} was called off. Everything stays as it is.")),
    };
    message.fact("Reason", reason).page("See the subscription", page)
}

//! What is said of an account's address.

use super::{Facts, Message, Tone};
use crate::event::Event;

pub(super) fn email(event: &Event, facts: &Facts<'_>) -> Message {
    let address = facts.or("email", "This address");
    // There only while its mail is being made.
    let token = facts
        .text("token")
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let message = Message::new(
        Tone::Plain,
        "Please confirm your email address",
        "Please confirm your email address",
    )
    .say(format!(
        "{address} is where invoices and notices of your account go. Please confirm that you read it."
    ));
    match token {
        Some(token) => message
            .say("The link can be used once, within 24 hours. If you do not know what this is about, do nothing.")
            .fact("Account", Some(event.subject.clone()))
            .page("Confirm the address", format!("/verify-email/{token}")),
        None => message.page("See your account", "/account"),
    }
}

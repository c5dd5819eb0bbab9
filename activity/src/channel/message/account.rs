//! What is said of an account's address, and of how somebody signs in.

use super::{Facts, Message, Tone};
use crate::event::{Event, EventType};

pub(super) fn account(event: &Event, facts: &Facts<'_>) -> Message {
    match event.event_type {
        EventType::EmailChanged => changed(facts),
        EventType::PasswordResetRequested => password_reset(facts),
        EventType::PasswordChanged => password_changed(facts),
        EventType::SecondFactorChanged => second_factor(facts),
        EventType::TokenAdded => token_added(facts),
        _ => verification(event, facts),
    }
}

/// The token of a link, which is there only while its mail is being made.
fn token(facts: &Facts<'_>) -> Option<String> {
    facts
        .text("token")
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn verification(event: &Event, facts: &Facts<'_>) -> Message {
    let address = facts.or("email", "This address");
    let message = Message::new(
        Tone::Plain,
        "Please confirm your email address",
        "Please confirm your email address",
    )
    .say(format!(
        "{address} is where invoices and notices of your account go. Please confirm that you read it."
    ));
    match token(facts) {
        Some(token) => message
            .say("The link can be used once, within 24 hours. If you do not know what this is about, do nothing.")
            .fact("Account", Some(event.subject.clone()))
            .page("Confirm the address", format!("/verify-email/{token}")),
        None => message.page("See your account", "/account"),
    }
}

/// To the address that was left.
fn changed(facts: &Facts<'_>) -> Message {
    Message::new(
        Tone::Alert,
        "The email address of your account was changed",
        "The email address of your account was changed",
    )
    .say(
        "Invoices and notices of your account no longer come to this address. If you did not expect that, sign in, look at \
         the address, change your password, and write to us.",
    )
    .fact("New address", facts.text("email"))
    .fact("When", facts.instant("at_ms"))
    .page("See your account", "/account")
}

fn password_reset(facts: &Facts<'_>) -> Message {
    let who = facts.or("to", "your account");
    let by = match facts.text("by").as_deref() {
        Some("staff") => format!("We were asked for a new password of {who}."),
        _ => format!("Somebody asked for a new password of {who}."),
    };
    let message = Message::new(Tone::Plain, "Set a new password", "Set a new password").say(by);
    match token(facts) {
        Some(token) => message
            .say(
                "The link can be used once, within one hour of being asked for. If it was not you, do nothing: your password \
                 stays as it is.",
            )
            .fact("Asked from", facts.text("ip"))
            .fact("When", facts.instant("at_ms"))
            .page("Set a new password", format!("/reset-password/{token}")),
        None => message.page("Ask for a link", "/forgot-password"),
    }
}

fn password_changed(facts: &Facts<'_>) -> Message {
    let who = facts.or("to", "your account");
    let said = match facts.text("how").as_deref() {
        Some("reset") => format!("The password of {who} was reset with a link that we mailed."),
        Some("staff") => format!("The password of {who} was set by an operator."),
        _ => format!("The password of {who} was changed."),
    };
    Message::new(Tone::Plain, "Your password was changed", "Your password was changed")
        .say(said)
        .say("Other browsers were signed out. If it was not you, set a new password at once and write to us.")
        .fact("From", facts.text("ip"))
        .fact("When", facts.instant("at_ms"))
        .page("Set a new password", "/forgot-password")
        .alert()
}

fn second_factor(facts: &Facts<'_>) -> Message {
    let who = facts.or("to", "your account");
    let (heading, said) = match facts.text("change").as_deref() {
        Some("on") => (
            "Your second factor was turned on",
            format!("Signing in as {who} takes a code from an app from now on."),
        ),
        Some("off") => (
            "Your second factor was turned off",
            format!("The password alone signs in as {who} from now on."),
        ),
        Some("reset") => (
            "Your second factor was turned off by an operator",
            format!("The password alone signs in as {who} from now on. All browsers were signed out."),
        ),
        Some("recovery_codes") => (
            "New recovery codes were made",
            format!("The recovery codes of {who} from before are void."),
        ),
        Some("recovery_code_used") => (
            "A recovery code was used",
            format!("Somebody signed in as {who} with the password and a recovery code."),
        ),
        _ => (
            "Your second factor was changed",
            format!("The second factor of {who} was changed."),
        ),
    };
    Message::new(Tone::Alert, heading, heading)
        .say(said)
        .say("If it was not you, set a new password at once and write to us.")
        .fact("From", facts.text("ip"))
        .fact("When", facts.instant("at_ms"))
        .page("See your account", "/account/two-factor")
}

fn token_added(facts: &Facts<'_>) -> Message {
    let who = facts.or("to", "your account");
    let heading = "A new API token of your account";
    Message::new(Tone::Alert, heading, heading)
        .say(format!(
            "A new API token was created. Programs with it can read through the API what {who} can, without the password."
        ))
        .say("If it was not you, revoke it, set a new password at once, and write to us.")
        .fact("Token", facts.text("name"))
        .fact("From", facts.text("ip"))
        .fact("When", facts.instant("at_ms"))
        .page("See your tokens", "/account/tokens")
}

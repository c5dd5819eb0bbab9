//! What an entry is written from: who acts, and what they did.

use schemas::ids::UserId;
use schemas::text::is_plain;
use serde_json::{Value, json};

use super::{Actor, Risk};

/// Characters of the name of an account of the operating system at most.
const MAX_ACCOUNT_CHARS: usize = 64;

/// Who acts, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct By {
    name: String,
    user: Option<UserId>,
    ip: String,
    claims: String,
}

impl By {
    /// Somebody who has signed in, or came with a token.
    pub fn user(email: impl Into<String>, user: UserId, ip: impl Into<String>) -> By {
        By {
            name: email.into(),
            user: Some(user),
            ip: ip.into(),
            claims: String::new(),
        }
    }

    /// An account of the operating system, on the command line. `claims`: the account that it says it acts for, as sudo tells;
    /// whoever has the first account can say what they like.
    pub fn operator(account: &str, claims: Option<&str>) -> By {
        By {
            name: account_name(account),
            claims: claims.map(account_name).unwrap_or_default(),
            ..By::program("")
        }
    }

    /// The program itself, such as `configuration`.
    pub fn program(name: &str) -> By {
        By {
            name: name.to_owned(),
            user: None,
            ip: String::new(),
            claims: String::new(),
        }
    }

    pub fn actor(&self) -> Actor<'_> {
        Actor {
            name: &self.name,
            user: self.user,
            ip: &self.ip,
        }
    }

    /// Empty where nothing is claimed.
    pub(crate) fn claims(&self) -> &str {
        &self.claims
    }
}

impl From<Actor<'_>> for By {
    fn from(actor: Actor<'_>) -> By {
        By {
            name: actor.name.to_owned(),
            user: actor.user,
            ip: actor.ip.to_owned(),
            claims: String::new(),
        }
    }
}

/// As the audit log names an account of the operating system.
fn account_name(account: &str) -> String {
    let plain = account.chars().filter(|letter| is_plain(*letter));
    format!("os:{}", plain.take(MAX_ACCOUNT_CHARS).collect::<String>())
}

/// What was done: an act is committed with it.
#[must_use = "commit the act with what was done"]
#[derive(Clone, PartialEq, Debug)]
pub struct Note {
    /// Such as `invoice.void`.
    pub action: String,
    /// The id of what it was done to.
    pub subject: String,
    /// Before and after. Secrets have no place in it.
    pub change: Value,
    /// The part of the change that says something of people, such as names and addresses: it is kept where it can be erased.
    /// `null` where there is none.
    pub personal: Value,
    pub risk: Risk,
}

impl Note {
    /// That something was done whose change is that it was done.
    pub fn new(action: impl Into<String>, subject: impl std::fmt::Display) -> Note {
        Note {
            action: action.into(),
            subject: subject.to_string(),
            change: json!({}),
            personal: Value::Null,
            risk: Risk::Normal,
        }
    }

    /// With the values before and after.
    pub fn change(self, change: Value) -> Note {
        Note { change, ..self }
    }

    /// With what says something of people; shown as a part of the change.
    pub fn personal(self, personal: Value) -> Note {
        Note { personal, ..self }
    }

    /// The owner is told.
    pub fn risk(self, risk: Risk) -> Note {
        Note { risk, ..self }
    }
}

//! What people are told of an event: one wording, from which the mail's HTML, its text and the notification in the portal
//! are made. Facts that a payload lacks leave out the sentence or row that would say them, never the message.

mod account;
mod credit;
mod invoice;
mod payment;
mod service;
mod staff;
mod subscription;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::money::{Currency, Money};
use schemas::text::is_plain;
use serde_json::Value;

use crate::event::{Event, EventType};

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
        let text: String = text.chars().filter(|c| is_plain(*c)).take(MAX_FACT_CHARS).collect();
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

    /// `15 Jun 2026`.
    fn day(&self, name: &str) -> Option<String> {
        self.zoned(name, "%-d %b %Y")
    }

    /// `15 Jun 2026, 14:00 CEST`.
    fn instant(&self, name: &str) -> Option<String> {
        self.zoned(name, "%-d %b %Y, %H:%M %Z")
    }

    /// The service by its name, else its id.
    fn service(&self) -> String {
        self.text("service_name")
            .or_else(|| self.text("service"))
            .unwrap_or_else(|| "your service".to_owned())
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

    fn sentence_if(self, sentence: Option<String>) -> Message {
        match sentence {
            Some(sentence) => self.say(sentence),
            None => self,
        }
    }

    fn alert(mut self) -> Message {
        self.tone = Tone::Alert;
        self
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
        "invoice" if event.event_type == EventType::InvoiceHeld => staff::staff(event, &facts),
        "invoice" | "credit_note" => invoice::invoice(event, &facts),
        "payment" | "refund" | "dispute" | "payment_method" => payment::payment(event, &facts),
        "subscription" => subscription::subscription(event, &facts),
        "service" | "free_tier" => service::service(event, &facts),
        "credit" | "top_up" | "budget" => credit::credit(event, &facts),
        "email" | "user" => account::account(event, &facts),
        _ => staff::staff(event, &facts),
    }
}

#[cfg(test)]
mod tests;

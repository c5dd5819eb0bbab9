//! Posts to Discord channels.
//!
//! Whoever runs a channel makes a webhook for it in Discord and gives us its address, `https://discord.com/api/webhooks/ID/TOKEN`.
//! The address lets anybody post: it is kept sealed, as the secret of its endpoint, and shown without its token.
//!
//! A post is `POST …?wait=true` with the JSON of Discord's *Execute Webhook*
//! (<https://discord.com/developers/docs/resources/webhook#execute-webhook>):
//!
//! ```text
//! { "allowed_mentions": {"parse": []},
//!   "embeds": [{ "title", "description", "url", "color", "timestamp", "fields": [{"name", "value", "inline"}], "footer": {"text"} }] }
//! ```
//!
//! * What an event says comes from its facts, which customers have a hand in: nobody is mentioned, and what would be markup is
//!   escaped.
//! * `wait=true` has Discord answer once the message is stored, so that one it does not store is sent again.
//! * An answer of 429 says how long to wait (`retry_after`): the post and all others to that channel wait so long, and the
//!   schedule of retries does not count it.
//! * An answer of 401, 403 or 404 says that the webhook was removed or its token changed: Discord bars who goes on asking, so the
//!   endpoint is disabled at once.

use futures::future::BoxFuture;
use schemas::db::Database;
use serde_json::{Value, json};
use sqlx::AnyConnection;
use url::Url;

use super::deliver::{ENDPOINTS_AT_ONCE, ENDPOINTS_PER_OWNER};
use super::endpoint::{Endpoint, EndpointKind};
use super::guard::{EndpointResponse, Refusal};
use super::message::{Message, Tone, compose};
use super::{
    Channel, ChannelError, DeliveryOutcome, DueDelivery, Sending, Targets, Transports, dispatch_to_endpoints, webhook,
    zone_of,
};
use crate::event::{Consumer, Event, EventType, HandleError};

/// Characters of a post's parts at most. Discord refuses more than 256, 4,096, 256 and 1,024 of each and 6,000 of all.
const MAX_TITLE_CHARS: usize = 256;
const MAX_DESCRIPTION_CHARS: usize = 2_000;
const MAX_NAME_CHARS: usize = 64;
const MAX_VALUE_CHARS: usize = 200;
/// Facts in a post at most, of the 25 that Discord takes.
const MAX_FIELDS: usize = 12;
/// How long a channel waits that was asked for patience without being told how long, and at least.
const PATIENCE_MS: i64 = 5_000;
const PATIENCE_MIN_MS: i64 = 1_000;
/// And at most, whatever it was told.
const PATIENCE_MAX_MS: i64 = 3_600_000;

/// Posts to Discord channels.
#[derive(Clone, Copy, Debug)]
pub struct Discord;

impl Consumer for Discord {
    fn name(&self) -> &'static str {
        "dispatch_discord"
    }

    fn description(&self) -> &'static str {
        "Queues the Discord posts of new events"
    }

    fn noun(&self) -> &'static str {
        "Discord post"
    }

    fn wants(&self, _event_type: EventType) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        connection: &'a mut AnyConnection,
        events: &'a [Event],
        now_ms: i64,
    ) -> BoxFuture<'a, Result<u64, HandleError>> {
        Box::pin(async move { Ok(dispatch_to_endpoints(connection, EndpointKind::Discord, events, now_ms).await?) })
    }
}

impl Channel for Discord {
    fn channel(&self) -> &'static str {
        EndpointKind::Discord.name()
    }

    fn sending(&self) -> Option<Sending> {
        Some(Sending {
            job: "discord",
            targets: Targets::Endpoints,
            at_once: ENDPOINTS_AT_ONCE,
            per_owner: ENDPOINTS_PER_OWNER,
        })
    }

    fn send<'a>(
        &'a self,
        database: &'a Database,
        transports: Transports<'a>,
        due: &'a DueDelivery,
        event: &'a Event,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<DeliveryOutcome, ChannelError>> {
        Box::pin(async move {
            let (endpoint, secrets) = match webhook::open(database, due, now_ms).await? {
                Ok(opened) => opened,
                Err(outcome) => return Ok(outcome),
            };
            let address = secrets.0.first().and_then(|address| Url::parse(address.reveal()).ok());
            let Some(mut address) = address else {
                // `ezscale secrets discard` puts something else in the place of what no key opens.
                let why = "its address was lost with the key that sealed it: remove it and add it again";
                return Ok(DeliveryOutcome::Gone(why.to_owned()));
            };
            address.query_pairs_mut().append_pair("wait", "true");
            let zone = zone_of(database, endpoint.customer).await?;
            let message = compose(event, &zone);
            let body = post(event, &message, &endpoint, transports.portal_url).to_string();
            let kind = EndpointKind::Discord;
            Ok(match transports.client.post(kind, address.as_str(), &[], body).await {
                EndpointResponse::Accepted => DeliveryOutcome::Delivered,
                EndpointResponse::Refused(refusal) => outcome_of(refusal),
                EndpointResponse::Unreachable(why) => DeliveryOutcome::Unreachable(why),
            })
        })
    }
}

fn outcome_of(refusal: Refusal) -> DeliveryOutcome {
    match refusal.status {
        Some(429) => DeliveryOutcome::Deferred {
            after_ms: refusal
                .retry_after_ms
                .unwrap_or(PATIENCE_MS)
                .clamp(PATIENCE_MIN_MS, PATIENCE_MAX_MS),
            why: refusal.why,
        },
        Some(401 | 403 | 404) => DeliveryOutcome::Gone(format!(
            "{}: the webhook was removed in Discord, or has another address now",
            refusal.why
        )),
        _ => DeliveryOutcome::Retry(refusal.why),
    }
}

/// The post of an event, as JSON.
fn post(event: &Event, message: &Message, endpoint: &Endpoint, portal_url: &str) -> Value {
    let mut fields = Vec::new();
    // Staff read of all customers, and what is said is said to one.
    if let (None, Some(customer)) = (endpoint.customer, event.customer) {
        fields.push(field("Customer", &customer.to_string()));
    }
    fields.extend(message.facts.iter().map(|(name, value)| field(name, value)));
    fields.truncate(MAX_FIELDS);
    let mut embed = json!({
        "title": clipped(&escaped(&message.heading), MAX_TITLE_CHARS),
        "description": clipped(&escaped(&message.paragraphs.join("\n\n")), MAX_DESCRIPTION_CHARS),
        "color": match message.tone {
            Tone::Plain => 0x15_60_bd,
            Tone::Good => 0x1a_7f_4b,
            Tone::Alert => 0xb4_23_18,
        },
        "timestamp": event.created_at().to_string(),
        "fields": fields,
        "footer": {"text": format!("{} · {}", event.event_type, event.id)},
    });
    // Always a page of the portal, where who may see it signs in: never an address that acts by itself.
    if !message.link().is_empty() {
        embed["url"] = json!(format!("{portal_url}{}", message.link()));
    }
    json!({ "allowed_mentions": {"parse": []}, "embeds": [embed] })
}

fn field(name: &str, value: &str) -> Value {
    json!({
        "name": clipped(name, MAX_NAME_CHARS),
        "value": clipped(&escaped(value), MAX_VALUE_CHARS),
        "inline": true,
    })
}

/// With a backslash before what Discord would take for markup, a mention or a link with another text.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(
            character,
            '\\' | '*' | '_' | '~' | '`' | '|' | '[' | ']' | '<' | '>' | '#'
        ) {
            plain.push('\\');
        }
        plain.push(character);
    }
    plain
}

/// The beginning of a text, so many characters of it, without half of an escape at its end.
fn clipped(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(max_chars - 1).collect();
    let escapes = kept.chars().rev().take_while(|character| *character == '\\').count();
    if escapes % 2 == 1 {
        kept.pop();
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use schemas::ids::{CustomerId, EndpointId, EventId};

    use super::*;

    fn endpoint(customer: Option<CustomerId>) -> Endpoint {
        Endpoint {
            id: EndpointId(1),
            kind: EndpointKind::Discord,
            customer,
            url: "https://discord.com/api/webhooks/1234567890/…".to_owned(),
            event_types: Vec::new(),
            created_at_ms: 0,
            disabled_at_ms: None,
            failures: 0,
        }
    }

    #[test]
    fn a_post_is_an_embed_that_mentions_nobody() {
        let event = Event {
            id: EventId(7),
            event_type: EventType::SubscriptionEnded,
            customer: Some(CustomerId(1)),
            subject: "sub_1".to_owned(),
            payload: json!({"service_name": "@everyone [pay](https://evil.example) *now*", "at_ms": 0}),
            created_at_ms: 1_700_000_000_000,
            dispatched_at_ms: None,
        };
        let message = compose(&event, &jiff::tz::TimeZone::UTC);
        let post = post(&event, &message, &endpoint(None), "https://portal.example.net");
        assert_eq!(post["allowed_mentions"], json!({"parse": []}));
        let embed = &post["embeds"][0];
        let title = embed["title"].as_str().unwrap();
        assert!(title.contains(r"\[pay\](https://evil.example) \*now\*"), "{title}");
        assert_eq!(embed["timestamp"], "2023-11-14T22:13:20Z");
        assert_eq!(embed["footer"]["text"], "subscription.ended · evt_7");
        assert!(
            embed["url"]
                .as_str()
                .unwrap()
                .starts_with("https://portal.example.net/"),
            "{embed}"
        );
        assert_eq!(embed["fields"][0]["value"], r"cus\_1", "staff read whom it is about");
        let theirs = super::post(&event, &message, &endpoint(Some(CustomerId(1))), "");
        assert_ne!(theirs["embeds"][0]["fields"][0]["name"], "Customer");
    }

    #[test]
    fn every_event_fits_discords_limits() {
        for kind in EventType::ALL {
            let long = "*".repeat(2_000);
            let facts = [
                "service_name",
                "reason",
                "customer_name",
                "summary",
                "url",
                "error",
                "number",
            ];
            let payload: serde_json::Map<String, Value> =
                facts.iter().map(|name| ((*name).to_owned(), json!(long))).collect();
            let event = Event {
                id: EventId(1),
                event_type: *kind,
                customer: Some(CustomerId(1)),
                subject: "inv_7".to_owned(),
                payload: payload.into(),
                created_at_ms: 0,
                dispatched_at_ms: None,
            };
            let message = compose(&event, &jiff::tz::TimeZone::UTC);
            let post = post(&event, &message, &endpoint(None), "https://portal.example.net");
            let embed = &post["embeds"][0];
            let chars = |value: &Value| value.as_str().unwrap().chars().count();
            let mut all = chars(&embed["title"]) + chars(&embed["description"]) + chars(&embed["footer"]["text"]);
            assert!((1..=256).contains(&chars(&embed["title"])), "{kind}");
            assert!(chars(&embed["description"]) <= 4_096, "{kind}");
            let fields = embed["fields"].as_array().unwrap();
            assert!(fields.len() <= 25, "{kind}");
            for field in fields {
                assert!((1..=256).contains(&chars(&field["name"])), "{kind}");
                assert!((1..=1_024).contains(&chars(&field["value"])), "{kind}");
                all += chars(&field["name"]) + chars(&field["value"]);
            }
            assert!(all <= 6_000, "{kind}: {all}");
        }
    }

    #[test]
    fn an_answer_says_what_becomes_of_a_post() {
        let refusal = |status, retry_after_ms| Refusal {
            why: format!("answered {status}"),
            status: Some(status),
            retry_after_ms,
        };
        let deferred = |after_ms| DeliveryOutcome::Deferred {
            after_ms,
            why: "answered 429".to_owned(),
        };
        assert_eq!(outcome_of(refusal(429, Some(64_570))), deferred(64_570));
        assert_eq!(outcome_of(refusal(429, Some(0))), deferred(1_000));
        assert_eq!(outcome_of(refusal(429, Some(i64::MAX))), deferred(3_600_000));
        assert_eq!(outcome_of(refusal(429, None)), deferred(5_000));
        for status in [401, 403, 404] {
            assert!(
                matches!(outcome_of(refusal(status, None)), DeliveryOutcome::Gone(_)),
                "{status}"
            );
        }
        for status in [400, 500, 502] {
            assert!(
                matches!(outcome_of(refusal(status, None)), DeliveryOutcome::Retry(_)),
                "{status}"
            );
        }
    }

    #[test]
    fn what_is_clipped_ends_with_whole_characters() {
        assert_eq!(clipped("short", 5), "short");
        assert_eq!(clipped("longer", 5), "long…");
        assert_eq!(clipped(r"abc\*d", 5), "abc…", "no escape without what it escapes");
        assert_eq!(clipped(r"ab\\\\\\", 5), r"ab\\…");
    }
}

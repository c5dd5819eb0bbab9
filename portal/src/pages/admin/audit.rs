//! The audit log (F-60): who did what to what, from where, with the values before and after.

use activity::audit::{self, AuditFilter, Risk};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::money::{Currency, Money};
use serde_json::Value;

use super::PATH;
use crate::auth::Admin;
use crate::error::{PageError, page};
use crate::format;
use crate::pages::finance::url_encoded;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// The end of the name of an amount in the smallest unit of its currency.
const MINOR: &str = "_minor";
/// Entries on one page.
const PAGE_ENTRIES: i64 = 50;

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct AuditQuery {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    risk: String,
    #[serde(default)]
    before: String,
}

/// A value that was changed, set or noted.
struct Changed {
    name: String,
    before: Option<String>,
    after: Option<String>,
}

struct Row {
    at: String,
    actor: String,
    /// Whom the actor's account said it acts for.
    claimed_by: Option<String>,
    ip: String,
    action: String,
    subject: String,
    is_high: bool,
    changes: Vec<Changed>,
}

#[derive(Template)]
#[template(path = "admin_audit.html")]
struct AuditPage {
    shell: Shell,
    query: AuditQuery,
    rows: Vec<Row>,
    older_href: Option<String>,
}

/// A value as people read it. Amounts and times are told by the end of their name: `amount_minor` is money in `currency`,
/// `ends_at_ms` a time.
fn text(name: &str, value: &Value, currency: Option<Currency>) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match (number.as_i64(), currency) {
            (Some(minor), Some(currency)) if name.ends_with(MINOR) => Money::new(minor, currency).to_string(),
            (Some(at_ms), _) if name.ends_with("_at_ms") || name.ends_with("_since_ms") => {
                format!("{} UTC", format::minute(at_ms, &TimeZone::UTC))
            }
            _ => number.to_string(),
        },
        Value::String(text) => string_text(text, currency),
        Value::Array(values) => {
            let words: Vec<String> = values.iter().map(|value| text(name, value, currency)).collect();
            match words.is_empty() {
                true => "none".to_owned(),
                false => words.join(", "),
            }
        }
        Value::Object(fields) => {
            let own = currency_of(fields).or(currency);
            if let (2, Some(minor), Some(currency)) = (fields.len(), fields.get("minor").and_then(Value::as_i64), own) {
                return Money::new(minor, currency).to_string();
            }
            let told = fields.iter().filter(|(_, value)| value.as_str() != Some(""));
            let words: Vec<String> = told
                .map(|(name, value)| format!("{} {}", name_words(name), text(name, value, own)))
                .collect();
            words.join(", ")
        }
    }
}

/// A string, which may be a time or JSON itself: parameters of a command are stored as they were sent.
fn string_text(text: &str, currency: Option<Currency>) -> String {
    if text.starts_with(['{', '['])
        && let Ok(inner) = serde_json::from_str::<Value>(text)
    {
        return self::text("", &inner, currency);
    }
    match text.parse::<Timestamp>() {
        Ok(at) => format!("{} UTC", format::minute(at.as_millisecond(), &TimeZone::UTC)),
        Err(_) => text.to_owned(),
    }
}

fn currency_of(fields: &serde_json::Map<String, Value>) -> Option<Currency> {
    fields.get("currency")?.as_str()?.parse().ok()
}

/// `amount_minor` as `amount`, `ends_at_ms` as `ends at`: the unit is in the value.
fn name_words(name: &str) -> String {
    let name = name.strip_suffix(MINOR).or(name.strip_suffix("_ms")).unwrap_or(name);
    name.replace('_', " ")
}

/// Values by name: those of before and after beside each other, without the ones that are the same.
fn changes(change: &Value) -> Vec<Changed> {
    let Some(fields) = change.as_object() else {
        return vec![Changed {
            name: String::new(),
            before: None,
            after: Some(text("", change, None)),
        }];
    };
    let sides = ["after", "before"].map(|side| fields.get(side).and_then(Value::as_object).and_then(currency_of));
    let currency = currency_of(fields).or(sides[0]).or(sides[1]);
    // An amount that is stored beside the one before it.
    let was = fields
        .get("before_minor")
        .filter(|_| fields.contains_key("amount_minor"));
    let empty = serde_json::Map::new();
    let part = |name: &str| fields.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let (before, after) = (part("before"), part("after"));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let mut found: Vec<Changed> = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        // What was empty and is, or was not asked for at all, says nothing.
        .filter(|name| before.contains_key(*name) || after.get(*name).is_none_or(|value| value.as_str() != Some("")))
        .map(|name| Changed {
            name: name_words(name),
            before: before.get(name).map(|value| text(name, value, currency)),
            after: after.get(name).map(|value| text(name, value, currency)),
        })
        .collect();
    let others = fields.iter().filter(|(name, value)| {
        let is_side = ["before", "after"].contains(&name.as_str()) && (value.is_object() || value.is_null());
        let is_told_elsewhere = (name.as_str() == "before_minor" && was.is_some()) || name.as_str() == "currency";
        !is_side && !is_told_elsewhere && value.as_str() != Some("")
    });
    found.extend(others.map(|(name, value)| {
        Changed {
            name: name_words(name),
            before: was
                .filter(|was| name.as_str() == "amount_minor" && !was.is_null())
                .map(|was| text(name, was, currency)),
            after: Some(text(name, value, currency)),
        }
    }));
    found
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Admin(who): Admin,
    PageQuery(query): PageQuery<AuditQuery>,
) -> Result<Response, PageError> {
    fn asked(text: &str) -> Option<&str> {
        Some(text.trim()).filter(|text| !text.is_empty())
    }
    let wanted = AuditFilter {
        actor: asked(&query.actor),
        action: asked(&query.action),
        subject: asked(&query.subject),
        risk: filter("risk", &query.risk, "a risk such as high")?,
        before: filter("before", &query.before, "the id of an entry")?,
        ..AuditFilter::default()
    };
    let mut found = audit::list(state.db().pool(), wanted, PAGE_ENTRIES + 1).await?;
    let most = usize::try_from(PAGE_ENTRIES).unwrap_or(usize::MAX);
    let has_older = found.len() > most;
    found.truncate(most);
    let older_href = found.last().filter(|_| has_older).map(|last| {
        format!(
            "/admin/audit?actor={}&action={}&subject={}&risk={}&before={}",
            url_encoded(query.actor.trim()),
            url_encoded(query.action.trim()),
            url_encoded(query.subject.trim()),
            url_encoded(query.risk.trim()),
            last.id
        )
    });
    let rows = found.into_iter().map(|entry| Row {
        at: format::minute(entry.at_ms, &TimeZone::UTC),
        changes: changes(&entry.change),
        is_high: entry.risk == Risk::High,
        actor: entry.actor,
        claimed_by: entry.claimed_by,
        ip: entry.ip,
        action: entry.action,
        subject: entry.subject,
    });
    page(&AuditPage {
        shell: Shell::new(&who, "Audit log", PATH),
        rows: rows.collect(),
        query,
        older_href,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_beside_each_other_and_what_stayed_is_left_out() {
        let change = serde_json::json!({"before": {"city": "Bonn", "street": "A"}, "after": {"city": "Ulm", "street": "A"},
            "approval": "apr_1"});
        let found = changes(&change);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (
                found[0].name.as_str(),
                found[0].before.as_deref(),
                found[0].after.as_deref()
            ),
            ("city", Some("Bonn"), Some("Ulm"))
        );
        assert_eq!(
            (found[1].name.as_str(), found[1].after.as_deref()),
            ("approval", Some("apr_1"))
        );
    }

    #[test]
    fn amounts_lists_and_times_are_told_as_people_read_them() {
        let told = |change: Value| -> Vec<String> {
            let found = changes(&change).into_iter();
            found
                .map(|one| match (one.before, one.after) {
                    (Some(before), Some(after)) => format!("{}: {before} → {after}", one.name),
                    (_, after) => format!("{}: {}", one.name, after.unwrap_or_default()),
                })
                .collect()
        };
        let budget = serde_json::json!({"amount_minor": 100_000, "currency": "USD", "before_minor": 5_000,
            "suspends": true, "thresholds": [50, 80]});
        assert_eq!(
            told(budget),
            [
                "amount: USD 50.00 → USD 1,000.00",
                "suspends: yes",
                "thresholds: 50, 80"
            ]
        );
        let first = serde_json::json!({"amount_minor": 100_000, "currency": "USD", "before_minor": null});
        assert_eq!(told(first), ["amount: USD 1,000.00"]);
        let ended = serde_json::json!({"parameters": "{\"subscriptions\":[\"sub_152\"]}", "disabled_at_ms": 1_792_800_000_000_i64});
        assert_eq!(
            told(ended),
            [
                "disabled at: 24 Oct 2026 00:00 UTC",
                "parameters: subscriptions sub_152"
            ]
        );
    }
}

//! The audit log (F-60): who did what to what, from where, with the values before and after.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::audit::{self, AuditError, AuditFilter, Risk};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::PATH;
use crate::auth::Admin;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::pages::finance::url_encoded;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// Entries on one page.
const PAGE_ENTRIES: i64 = 50;

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(super) struct AuditQuery {
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

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Failure {
        Failure::internal("read the audit log")(error.into())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

/// Values by name: those of before and after beside each other, without the ones that are the same.
fn changes(change: &Value) -> Vec<Changed> {
    let Some(fields) = change.as_object() else {
        return vec![Changed {
            name: String::new(),
            before: None,
            after: Some(text(change)),
        }];
    };
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
            name: name.replace('_', " "),
            before: before.get(name).map(text),
            after: after.get(name).map(text),
        })
        .collect();
    let others = fields.iter().filter(|(name, value)| {
        let is_side = ["before", "after"].contains(&name.as_str()) && (value.is_object() || value.is_null());
        !is_side && value.as_str() != Some("")
    });
    found.extend(others.map(|(name, value)| Changed {
        name: name.replace('_', " "),
        before: None,
        after: Some(text(value)),
    }));
    found
}

pub(super) async fn show(
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
}

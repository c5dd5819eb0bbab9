//! What was changed outside of the program is seen by its fingerprint: the values that stand for nothing secret, and of each secret
//! a salted hash.
//!
//! ```text
//! settings: "fingerprint.gateways" ─▶ {"stripe.base_url": {"plain": "https://…"}, "stripe.secret_key": {"salt": …, "sha256": …}}
//! ```
//!
//! A look that differs from the one before is an act of high risk, the first one that finds anything too.

use std::collections::BTreeMap;

use rand::random;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Row as _};

use super::store;
use crate::act::{Act, Note};
use crate::audit::{AuditError, AuditReceipt, Risk};
use crate::event::{self, EventType, NewEvent};
use crate::hex::hex;

/// A value of a configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    Plain(String),
    /// Kept and told as a hash only.
    Secret(String),
}

impl std::fmt::Debug for Value {
    /// Without a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Plain(text) => f.debug_tuple("Plain").field(text).finish(),
            Value::Secret(_) => f.write_str("Secret(…)"),
        }
    }
}

/// A value as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", untagged)]
enum StoredValue {
    Plain { plain: String },
    Secret { salt: String, sha256: String },
}

fn sha256(salt: &str, text: &str) -> String {
    hex(&Sha256::digest(format!("{salt}:{text}").as_bytes()))
}

impl StoredValue {
    fn of(value: &Value) -> StoredValue {
        match value {
            Value::Plain(text) => StoredValue::Plain { plain: text.clone() },
            Value::Secret(text) => {
                let salt = hex(&random::<[u8; 16]>());
                StoredValue::Secret {
                    sha256: sha256(&salt, text),
                    salt,
                }
            }
        }
    }

    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (StoredValue::Plain { plain }, Value::Plain(text)) => plain == text,
            (StoredValue::Secret { salt, sha256: known }, Value::Secret(text)) => sha256(salt, text) == *known,
            _ => false,
        }
    }

    /// For the audit log.
    fn told(&self) -> &str {
        match self {
            StoredValue::Plain { plain } => plain,
            StoredValue::Secret { .. } => "(secret)",
        }
    }
}

/// A look at a part of the configuration that differs from the one before.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// For the act's entry.
    pub note: Note,
    /// The names of what was added, changed or removed.
    pub names: Vec<String>,
}

/// Commits a difference in the settings of payment gateways, and tells the admins; the owner is told as of anything of high risk.
///
/// # Errors
/// As [`Act::commit`].
pub async fn commit_gateways(mut act: Act, found: Difference) -> Result<AuditReceipt, AuditError> {
    let now_ms = act.now_ms();
    let entered = act.enter(found.note).await?;
    let event = NewEvent {
        event_type: EventType::GatewaySettingsChanged,
        customer: None,
        subject: "gateways".to_owned(),
        payload: json!({ "audit": entered.id(), "settings": found.names.join(", ") }),
    };
    event::publish(act.connection(), event, now_ms).await?;
    act.commit_entered(entered).await
}

/// Compares a part of the configuration with what was seen before, and keeps it; `None` where nothing differs. `action` and `subject`
/// stand in the entry.
///
/// # Errors
/// As the database answers, or when what is stored is not understood.
pub async fn look(
    connection: &mut AnyConnection,
    (action, subject): (&str, &str),
    values: &BTreeMap<String, Value>,
) -> Result<Option<Difference>, sqlx::Error> {
    let setting = format!("fingerprint.{subject}");
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(&setting)
        .fetch_optional(&mut *connection)
        .await?;
    let before: BTreeMap<String, StoredValue> = match row {
        None => BTreeMap::new(),
        Some(row) => {
            let text: String = row.try_get(0)?;
            serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(Box::new(error)))?
        }
    };
    let mut after = BTreeMap::new();
    let mut changes = serde_json::Map::new();
    for (name, value) in values {
        let kept = before.get(name).filter(|kept| kept.is(value));
        let new = kept.cloned().unwrap_or_else(|| StoredValue::of(value));
        if kept.is_none() {
            let change = json!({ "before": before.get(name).map(StoredValue::told), "after": new.told() });
            changes.insert(name.clone(), change);
        }
        after.insert(name.clone(), new);
    }
    for (name, kept) in &before {
        if !values.contains_key(name) {
            changes.insert(name.clone(), json!({ "before": kept.told(), "after": null }));
        }
    }
    if changes.is_empty() {
        return Ok(None);
    }
    store(connection, &setting, serde_json::to_string(&after)).await?;
    let names = changes.keys().cloned().collect();
    let change = json!({ "settings": changes });
    Ok(Some(Difference {
        note: Note::new(action, subject).change(change).risk(Risk::High),
        names,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    const ABOUT: (&str, &str) = ("gateway.settings", "gateways");

    fn stripe(key: &str, url: &str) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("stripe.secret_key".to_owned(), Value::Secret(key.to_owned())),
            ("stripe.base_url".to_owned(), Value::Plain(url.to_owned())),
        ])
    }

    #[tokio::test]
    async fn f60_owner_and_admins_are_told_of_other_settings() {
        let world = World::new().await;
        let operator = crate::act::By::operator("alice", None);
        let mut act = Act::begin(&world.database, operator, 7).await.unwrap();
        let found = look(act.connection(), ABOUT, &stripe("sk_one", "https://a"))
            .await
            .unwrap();
        let entered = commit_gateways(act, found.unwrap()).await.unwrap();
        let told = event::list(world.database.pool(), event::EventFilter::default(), 10)
            .await
            .unwrap();
        let types: Vec<EventType> = told.iter().map(|event| event.event_type).collect();
        assert_eq!(types, [EventType::GatewaySettingsChanged, EventType::HighRiskAction]);
        for event in &told {
            assert_eq!(event.payload["audit"], entered.id().to_string());
        }
    }

    #[tokio::test]
    async fn f60_another_key_is_seen_and_not_told() {
        let world = World::new().await;
        let mut transaction = world.database.begin_write().await.unwrap();
        let nothing = look(&mut transaction, ABOUT, &BTreeMap::new()).await.unwrap();
        assert_eq!(nothing, None, "nothing was and is configured");
        let first = look(&mut transaction, ABOUT, &stripe("sk_one", "https://a"))
            .await
            .unwrap();
        let first = first.unwrap();
        assert_eq!(first.names.len(), 2);
        let same = look(&mut transaction, ABOUT, &stripe("sk_one", "https://a"))
            .await
            .unwrap();
        assert_eq!(same, None);
        let key = look(&mut transaction, ABOUT, &stripe("sk_two", "https://a"))
            .await
            .unwrap();
        let key = key.unwrap();
        assert_eq!(key.note.risk, Risk::High);
        assert_eq!(key.names, ["stripe.secret_key"]);
        let url = look(&mut transaction, ABOUT, &stripe("sk_two", "https://b"))
            .await
            .unwrap();
        let change = &url.unwrap().note.change["settings"]["stripe.base_url"];
        assert_eq!(
            (&change["before"], &change["after"]),
            (&json!("https://a"), &json!("https://b"))
        );
        let gone = look(&mut transaction, ABOUT, &BTreeMap::new()).await.unwrap().unwrap();
        assert_eq!(gone.names, ["stripe.base_url", "stripe.secret_key"]);
        let stored: Vec<String> = sqlx::query_scalar("SELECT value FROM settings")
            .fetch_all(&mut *transaction)
            .await
            .unwrap();
        for text in [format!("{first:?}"), format!("{key:?}"), stored.concat()] {
            assert!(!text.contains("sk_one") && !text.contains("sk_two"), "{text}");
        }
    }
}

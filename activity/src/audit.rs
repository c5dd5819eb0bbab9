//! The audit log (F-60): who did what, to what, from where, and what it changed.
//!
//! The log only grows: there is no function here that changes or removes an entry, and nothing else writes the table. An
//! entry is written in the transaction of the change that it tells of ([`crate::act`]) and chained to the one before it
//! ([`chain`]). One of high risk is told to the owner.
//!
//! `change` says what was before and after. Secrets have no place in it: whoever records names them and leaves them out.
//! Names of people lie beside the log, where they can be erased.

pub mod chain;
mod note;

pub use note::{By, Note};
use schemas::audit_chain::{Content, committed};
use schemas::db::{next_id, next_ids};
use schemas::ids::{AuditId, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::event::{self, EventError, EventType, NewEvent};

/// Stands where a name or a text was erased.
pub const ERASED: &str = "(erased)";

/// Entries on a page at most.
pub const MAX_PAGE: i64 = 500;
/// Bytes of a change's JSON at most.
pub const MAX_CHANGE_BYTES: usize = 256 << 10;

/// Why nothing was recorded or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("notify the owner")]
    Event(#[from] EventError),
    #[error("an entry of the audit log names its {field}")]
    Empty { field: &'static str },
    #[error(
        "the change of {action} has {size} bytes, more than {MAX_CHANGE_BYTES}: record what changed, not all there is"
    )]
    TooLarge { action: String, size: usize },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    AuditError: "audit";
    of [Database, Event]
    source []
    Fault: Empty = "empty", TooLarge = "too_large", Corrupt = "corrupt";
}

/// Whether the owner is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    Normal,
    High,
}

impl Risk {
    pub fn name(self) -> &'static str {
        match self {
            Risk::Normal => "normal",
            Risk::High => "high",
        }
    }
}

impl std::str::FromStr for Risk {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Risk, AuditError> {
        match text {
            "normal" => Ok(Risk::Normal),
            "high" => Ok(Risk::High),
            _ => Err(AuditError::Corrupt {
                what: "risk",
                text: text.to_owned(),
            }),
        }
    }
}

/// Who acts: a person with the address they came from, or the program itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor<'a> {
    /// An email address, an account of the operating system (`os:alice`), or what acted: `configuration`.
    pub name: &'a str,
    pub user: Option<UserId>,
    /// Empty where there is none.
    pub ip: &'a str,
}

/// What is to be recorded.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry<'a> {
    pub actor: Actor<'a>,
    /// What was done, such as `invoice.void`.
    pub action: &'a str,
    /// The id of what it was done to.
    pub subject: &'a str,
    /// Before and after.
    pub change: serde_json::Value,
    pub risk: Risk,
}

/// What was recorded.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct AuditRecord {
    pub id: AuditId,
    pub at_ms: i64,
    /// [`ERASED`] where the name was.
    pub actor: String,
    /// The account that the actor's account said it acts for: told by sudo, proved by nobody.
    pub claimed_by: Option<String>,
    pub user: Option<UserId>,
    pub ip: String,
    pub action: String,
    pub subject: String,
    pub change: serde_json::Value,
    pub risk: Risk,
    /// Of the chain; empty for entries of before it.
    pub hash: String,
}

/// That an entry was written, in a transaction which may be committed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditReceipt(AuditId);

impl AuditReceipt {
    pub fn id(self) -> AuditId {
        self.0
    }
}

/// Which entries to list; what is not set is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditFilter<'a> {
    /// Who acted, or said to be the one who acts through another account.
    pub actor: Option<&'a str>,
    pub action: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub risk: Option<Risk>,
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// Older than this one: the last of the page before.
    pub before: Option<AuditId>,
}

/// Adds an entry, in the transaction of what it tells of.
///
/// # Errors
/// When it names no actor, action or subject, or its change is too large.
pub async fn record(connection: &mut AnyConnection, entry: Entry<'_>, now_ms: i64) -> Result<AuditReceipt, AuditError> {
    let note = Note::new(entry.action, entry.subject)
        .change(entry.change)
        .risk(entry.risk);
    enter(connection, &By::from(entry.actor), note, now_ms).await
}

/// As [`record`].
pub(crate) async fn enter(
    connection: &mut AnyConnection,
    by: &By,
    note: Note,
    now_ms: i64,
) -> Result<AuditReceipt, AuditError> {
    let actor = by.actor();
    let Note {
        action,
        subject,
        change,
        personal,
        risk,
    } = note;
    let (action, subject) = (action.as_str(), subject.as_str());
    for (field, text) in [("actor", actor.name), ("action", action), ("subject", subject)] {
        if text.trim().is_empty() {
            return Err(AuditError::Empty { field });
        }
    }
    let change = change.to_string();
    let personal = (!personal.is_null()).then(|| personal.to_string());
    let size = change.len() + personal.as_ref().map_or(0, String::len);
    if size > MAX_CHANGE_BYTES {
        return Err(AuditError::TooLarge {
            action: action.to_owned(),
            size,
        });
    }
    // Whatever publishes and records takes the sequence of events before that of entries: two who take two locks in opposite
    // orders would wait for each other.
    next_ids(&mut *connection, "event", 0).await?;
    let id = AuditId(next_id(&mut *connection, chain::SEQUENCE).await?);
    let (actor_id, actor_commitment) = chain::actor(&mut *connection, actor.name).await?;
    let claims = match by.claims() {
        "" => None,
        name => Some(chain::actor(&mut *connection, name).await?),
    };
    let kept = personal.as_deref().map(committed).transpose()?;
    let content = Content {
        id: id.0,
        at_ms: now_ms,
        actor: &actor_commitment,
        user: actor.user.map(|user| user.0),
        ip: actor.ip,
        claims: claims.as_ref().map_or("", |(_, commitment)| commitment),
        action,
        subject,
        change: &change,
        personal: kept.as_ref().map_or("", |(_, commitment)| commitment),
        risk: risk.name(),
    };
    let (previous_hash, hash) = chain::link(&mut *connection, &content).await?;
    sqlx::query(
        "INSERT INTO audit_log (id, at_ms, actor_id, claims_id, user_id, ip, action, subject, change, personal, risk, \
         previous_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(id.0)
    .bind(now_ms)
    .bind(actor_id)
    .bind(claims.as_ref().map(|(id, _)| *id))
    .bind(content.user)
    .bind(actor.ip)
    .bind(action)
    .bind(subject)
    .bind(&change)
    .bind(content.personal)
    .bind(risk.name())
    .bind(previous_hash)
    .bind(hash)
    .execute(&mut *connection)
    .await?;
    if let (Some((salt, _)), Some(text)) = (&kept, &personal) {
        sqlx::query("INSERT INTO audit_personal (entry_id, salt, text) VALUES ($1, $2, $3)")
            .bind(id.0)
            .bind(salt)
            .bind(text)
            .execute(&mut *connection)
            .await?;
    }
    if risk == Risk::High {
        let event = NewEvent {
            event_type: EventType::HighRiskAction,
            customer: None,
            subject: id.to_string(),
            payload: serde_json::json!({
                "audit": id,
                "actor": actor.name,
                "ip": actor.ip,
                "action": action,
                "object": subject,
            }),
        };
        event::publish(connection, event, now_ms).await?;
    }
    Ok(AuditReceipt(id))
}

/// Entries, latest first, `limit` at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list(
    db: impl AnyExecutor<'_>,
    filter: AuditFilter<'_>,
    limit: i64,
) -> Result<Vec<AuditRecord>, AuditError> {
    let rows = sqlx::query(
        "SELECT l.id, l.at_ms, a.name AS actor, l.claims_id, c.name AS claims, l.user_id, l.ip, l.action, l.subject, l.change, \
         l.personal, p.text AS personal_text, l.risk, l.hash FROM audit_log l \
         LEFT JOIN audit_actors a ON a.id = l.actor_id LEFT JOIN audit_actors c ON c.id = l.claims_id \
         LEFT JOIN audit_personal p ON p.entry_id = l.id \
         WHERE l.id < $1 AND l.at_ms >= $2 AND l.at_ms < $3 AND ($4 = '' OR a.name = $4 OR c.name = $4) \
         AND ($5 = '' OR l.action = $5) AND ($6 = '' OR l.subject = $6) AND ($7 = '' OR l.risk = $7) \
         ORDER BY l.id DESC LIMIT $8",
    )
    .bind(filter.before.map_or(i64::MAX, |before| before.0))
    .bind(filter.from_ms.unwrap_or(i64::MIN))
    .bind(filter.to_ms.unwrap_or(i64::MAX))
    .bind(filter.actor.unwrap_or(""))
    .bind(filter.action.unwrap_or(""))
    .bind(filter.subject.unwrap_or(""))
    .bind(filter.risk.map_or("", Risk::name))
    .bind(limit.clamp(1, MAX_PAGE))
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

/// Who left an entry, as [`AuditRecord::actor`]; `None` where there is no such entry.
///
/// # Errors
/// As the database answers.
pub async fn actor_of(db: impl AnyExecutor<'_>, entry: AuditId) -> Result<Option<String>, AuditError> {
    let row =
        sqlx::query("SELECT a.name FROM audit_log l LEFT JOIN audit_actors a ON a.id = l.actor_id WHERE l.id = $1")
            .bind(entry.0)
            .fetch_optional(db)
            .await?;
    let name = row.map(|row| row.try_get::<Option<String>, _>(0)).transpose()?;
    Ok(name.map(|name| name.unwrap_or_else(|| ERASED.to_owned())))
}

fn read(row: &AnyRow) -> Result<AuditRecord, AuditError> {
    let name = |name: Option<String>| name.unwrap_or_else(|| ERASED.to_owned());
    let mut change = json_of("change", row.try_get("change")?)?;
    if !row.try_get::<String, _>("personal")?.is_empty() {
        match row.try_get("personal_text")? {
            Some(text) => merge(&mut change, json_of("personal part of a change", text)?),
            None => merge(&mut change, serde_json::json!({"personal": ERASED})),
        }
    }
    let claims = row.try_get::<Option<i64>, _>("claims_id")?;
    Ok(AuditRecord {
        id: AuditId(row.try_get("id")?),
        at_ms: row.try_get("at_ms")?,
        actor: name(row.try_get("actor")?),
        claimed_by: match claims {
            Some(_) => Some(name(row.try_get("claims")?)),
            None => None,
        },
        user: row.try_get::<Option<i64>, _>("user_id")?.map(UserId),
        ip: row.try_get("ip")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        change,
        risk: row.try_get::<String, _>("risk")?.parse()?,
        hash: row.try_get("hash")?,
    })
}

fn json_of(what: &'static str, text: String) -> Result<serde_json::Value, AuditError> {
    serde_json::from_str(&text).map_err(|_| AuditError::Corrupt { what, text })
}

/// Puts the fields of one object into another.
fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use schemas::db::Database;
    use serde_json::json;

    use super::*;
    use crate::event::EventFilter;

    fn entry<'a>(action: &'a str, subject: &'a str, risk: Risk) -> Entry<'a> {
        Entry {
            actor: Actor {
                name: "ada@example.net",
                user: None,
                ip: "192.0.2.7",
            },
            action,
            subject,
            change: json!({"before": {"total_minor": 100}, "after": {"total_minor": 90}}),
            risk,
        }
    }

    #[tokio::test]
    async fn f60_the_log_only_grows_and_says_who_did_what() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        let mut connection = database.pool().acquire().await.unwrap();
        let mut rows = 0;
        for (number, (action, risk)) in [
            ("invoice.void", Risk::Normal),
            ("gateway.settings", Risk::High),
            ("invoice.void", Risk::High),
        ]
        .into_iter()
        .enumerate()
        {
            let subject = format!("inv_{}", number + 1);
            record(&mut connection, entry(action, &subject, risk), 1_000 + number as i64)
                .await
                .unwrap();
            let all = list(&mut *connection, AuditFilter::default(), MAX_PAGE).await.unwrap();
            assert!(all.len() > rows, "an entry is added and none is lost");
            rows = all.len();
            assert_eq!(
                (all[0].action.as_str(), all[0].subject.as_str()),
                (action, subject.as_str())
            );
            assert_eq!(all[0].change["after"]["total_minor"], 90);
            assert_eq!(all[0].ip, "192.0.2.7");
        }
        let ids = |entries: Vec<AuditRecord>| entries.into_iter().map(|entry| entry.id.0).collect::<Vec<_>>();
        let all = AuditFilter::default();
        for (filter, expected) in [
            (
                AuditFilter {
                    action: Some("invoice.void"),
                    ..all
                },
                vec![3, 1],
            ),
            (
                AuditFilter {
                    risk: Some(Risk::High),
                    ..all
                },
                vec![3, 2],
            ),
            (
                AuditFilter {
                    subject: Some("inv_2"),
                    ..all
                },
                vec![2],
            ),
            (
                AuditFilter {
                    before: Some(AuditId(3)),
                    ..all
                },
                vec![2, 1],
            ),
            (
                AuditFilter {
                    from_ms: Some(1_001),
                    to_ms: Some(1_002),
                    ..all
                },
                vec![2],
            ),
            (
                AuditFilter {
                    actor: Some("eve"),
                    ..all
                },
                vec![],
            ),
        ] {
            assert_eq!(
                ids(list(&mut *connection, filter, MAX_PAGE).await.unwrap()),
                expected,
                "{filter:?}"
            );
        }
        let told = event::list(&mut *connection, EventFilter::default(), 10).await.unwrap();
        let told: Vec<_> = told
            .iter()
            .map(|event| (event.event_type, event.subject.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (EventType::HighRiskAction, "aud_3"),
                (EventType::HighRiskAction, "aud_2")
            ]
        );
    }

    #[tokio::test]
    async fn an_entry_without_a_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        let mut connection = database.pool().acquire().await.unwrap();
        for (action, subject) in [(" ", "inv_1"), ("invoice.void", "")] {
            let refused = record(&mut connection, entry(action, subject, Risk::Normal), 0).await;
            assert!(matches!(refused, Err(AuditError::Empty { .. })), "{refused:?}");
        }
        let mut large = entry("invoice.void", "inv_1", Risk::Normal);
        large.change = json!("x".repeat(MAX_CHANGE_BYTES));
        let refused = record(&mut connection, large, 0).await;
        assert!(matches!(refused, Err(AuditError::TooLarge { .. })), "{refused:?}");
        let all = list(&mut *connection, AuditFilter::default(), MAX_PAGE).await.unwrap();
        assert_eq!(all, []);
    }

    /// One act publishes and then records, the other records what the owner is alerted to: each takes two sequences.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn acts_at_once_do_not_wait_for_each_other_on_postgresql() {
        let world = crate::testing::World::on_postgres().await;
        let acts = (0..100).map(|number| {
            let database = world.database.clone();
            tokio::spawn(async move {
                let mut transaction = database.begin_write().await.unwrap();
                let risk = if number % 2 == 0 { Risk::High } else { Risk::Normal };
                if risk == Risk::Normal {
                    let event = NewEvent {
                        event_type: EventType::BillingStopped,
                        customer: None,
                        subject: "billing".to_owned(),
                        payload: json!({"good_ms": 1, "stopped_at_ms": 2}),
                    };
                    event::publish(&mut transaction, event, 1).await.unwrap();
                }
                record(&mut transaction, entry("plan.stock", "pln_1", risk), 1)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
            })
        });
        for act in acts.collect::<Vec<_>>() {
            act.await.unwrap();
        }
        let all = list(world.database.pool(), AuditFilter::default(), MAX_PAGE)
            .await
            .unwrap();
        assert_eq!(all.len(), 100);
        let verified = chain::verify(&world.database).await.unwrap();
        assert_eq!((verified.entries, verified.broken), (100, None));
    }

    /// What F-60 promises of the table holds only as long as nobody else writes it.
    #[test]
    fn f60_no_statement_changes_or_removes_an_entry() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut folders: Vec<_> = [
            "schemas/src",
            "activity/src",
            "collector/src",
            "analytics/src",
            "billing/src",
            "portal/src",
            "src",
        ]
        .map(|f| root.join(f))
        .into();
        let mut files_read = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                files_read += 1;
                let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
                for verb in ["update", "delete from"] {
                    let statement = format!("{verb} {}", "audit_log");
                    assert!(!text.contains(&statement), "{} has {statement:?}", path.display());
                }
            }
        }
        assert!(files_read > 50, "{files_read} files were read");
    }
}

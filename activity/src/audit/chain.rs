//! The chain of the audit log: whoever changes, removes, adds or moves an entry behind the program's back breaks it.
//!
//! ```text
//! audit_head    sealed_id, sealed_hash ──── covers the entries of before the chain, 1 … sealed_id
//!                    │
//!                    ▼
//! audit_log     previous_hash │ content │ hash = SHA-256(previous_hash, content)
//!                                          │
//!                    ┌─────────────────────┘
//!                    ▼
//!               previous_hash │ content │ hash  ──▶ …  ──▶  audit_head   last_id, hash
//! ```
//!
//! Promises:
//! * An entry's hash covers the hash before it and everything the entry says: `Content` lists the fields in their order, each
//!   written as its length (8 bytes, big endian) and its bytes; numbers are 8 bytes big endian, what is absent is empty.
//! * The head is moved in the transaction of the entry. Who appends holds the sequence `audit`, so appending takes turns.
//! * Genesis is the hash of a fixed text. The entries of before the chain are hashed on from there in the order of their ids by
//!   the first entry after them, which seals them: only the hash of the last of them is kept, in the head.
//! * Names of people, and what entries say of people, lie beside the log (`audit_actors`, `audit_personal`) with a random salt
//!   each; the chain holds commitments to them, SHA-256(salt, text). Text and salt can be erased, and the chain still holds.
//!
//! What it does not show: that somebody who may write the database computed the whole chain anew. Whoever wants to see that too
//! notes the head that [`verify`] answers elsewhere, and compares the hash of that entry later.

use std::collections::HashMap;

use schemas::db::{Database, next_id};
use schemas::ids::AuditId;
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::AuditError;
use crate::hex::hex;

/// What each kind of hash begins with, so that none can stand for another.
const GENESIS: &str = "ezscale audit log 1";
const ENTRY: &str = "ezscale audit entry 1";
const TEXT: &str = "ezscale audit text 1";
const SALT_BYTES: usize = 32;
/// Entries that are read at once.
const PAGE_ENTRIES: i64 = 1_000;

/// Fields under a hash, each after its length.
struct Fields(Sha256);

impl Fields {
    fn of(kind: &str) -> Fields {
        Fields(Sha256::new()).then(kind.as_bytes())
    }

    fn then(mut self, bytes: &[u8]) -> Fields {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn number(self, number: i64) -> Fields {
        self.then(&number.to_be_bytes())
    }

    /// In hex, as it is stored.
    fn hash(self) -> String {
        hex(&self.0.finalize())
    }
}

fn genesis() -> String {
    Fields::of(GENESIS).hash()
}

/// Stands for a text in the chain.
fn commitment(salt: &str, text: &str) -> String {
    Fields::of(TEXT).then(salt.as_bytes()).then(text.as_bytes()).hash()
}

fn salt() -> String {
    hex(&rand::random::<[u8; SALT_BYTES]>())
}

/// A text that can be erased: its salt and the commitment to it.
pub(crate) fn committed(text: &str) -> (String, String) {
    let salt = salt();
    let commitment = commitment(&salt, text);
    (salt, commitment)
}

/// What an entry says, in the order in which it is hashed; texts as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Content<'a> {
    pub(crate) id: i64,
    pub(crate) at_ms: i64,
    /// Commitment to the name of who acted.
    pub(crate) actor: &'a str,
    pub(crate) user: Option<i64>,
    pub(crate) ip: &'a str,
    /// Commitment to who they say they are; empty where they say nothing.
    pub(crate) claims: &'a str,
    pub(crate) action: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) change: &'a str,
    /// Commitment to what is said of people; empty where nothing is.
    pub(crate) personal: &'a str,
    pub(crate) risk: &'a str,
}

impl Content<'_> {
    fn hash_after(&self, previous_hash: &str) -> String {
        let user = self.user.map(i64::to_be_bytes);
        Fields::of(ENTRY)
            .then(previous_hash.as_bytes())
            .number(self.id)
            .number(self.at_ms)
            .then(self.actor.as_bytes())
            .then(user.as_ref().map_or(&[][..], |bytes| &bytes[..]))
            .then(self.ip.as_bytes())
            .then(self.claims.as_bytes())
            .then(self.action.as_bytes())
            .then(self.subject.as_bytes())
            .then(self.change.as_bytes())
            .then(self.personal.as_bytes())
            .then(self.risk.as_bytes())
            .hash()
    }
}

/// Where the chain ends.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Head {
    sealed_id: i64,
    sealed_hash: String,
    last_id: i64,
    hash: String,
}

async fn head(connection: &mut AnyConnection) -> Result<Option<Head>, sqlx::Error> {
    let row = sqlx::query("SELECT sealed_id, sealed_hash, last_id, hash FROM audit_head WHERE id = 1")
        .fetch_optional(connection)
        .await?;
    let read = |row: AnyRow| -> Result<Head, sqlx::Error> {
        Ok(Head {
            sealed_id: row.try_get(0)?,
            sealed_hash: row.try_get(1)?,
            last_id: row.try_get(2)?,
            hash: row.try_get(3)?,
        })
    };
    row.map(read).transpose()
}

/// Seals what was recorded before the chain. Call it while the sequence `audit` is held.
pub(crate) async fn seal(connection: &mut AnyConnection) -> Result<(), AuditError> {
    if head(&mut *connection).await?.is_some() {
        return Ok(());
    }
    let names = sqlx::query("SELECT id, name FROM audit_actors WHERE commitment = ''")
        .fetch_all(&mut *connection)
        .await?;
    for row in names {
        let (salt, commitment) = committed(&row.try_get::<String, _>("name")?);
        sqlx::query("UPDATE audit_actors SET salt = $1, commitment = $2 WHERE id = $3")
            .bind(salt)
            .bind(commitment)
            .bind(row.try_get::<i64, _>("id")?)
            .execute(&mut *connection)
            .await?;
    }
    let actors = Actors::read(&mut *connection).await?;
    let (mut last_id, mut hash) = (0, genesis());
    loop {
        let page = Stored::page(&mut *connection, last_id, i64::MAX).await?;
        let Some(last) = page.last() else { break };
        last_id = last.id;
        for entry in &page {
            hash = entry.hash_after(&hash, &actors);
        }
    }
    sqlx::query("INSERT INTO audit_head (id, sealed_id, sealed_hash, last_id, hash) VALUES (1, $1, $2, $1, $2)")
        .bind(last_id)
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// The key and the commitment of who acts; stored where they are new. Call it while the sequence `audit` is held.
pub(crate) async fn actor(connection: &mut AnyConnection, name: &str) -> Result<(i64, String), AuditError> {
    let known = sqlx::query("SELECT id, commitment FROM audit_actors WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = known {
        return Ok((row.try_get(0)?, row.try_get(1)?));
    }
    let id = next_id(&mut *connection, "audit_actor").await?;
    let (salt, commitment) = committed(name);
    sqlx::query("INSERT INTO audit_actors (id, name, salt, commitment) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(name)
        .bind(salt)
        .bind(&commitment)
        .execute(connection)
        .await?;
    Ok((id, commitment))
}

/// Moves the head over a new entry; answers the hash before it and its own. Call it while the sequence `audit` is held, after
/// [`seal`].
pub(crate) async fn link(
    connection: &mut AnyConnection,
    content: &Content<'_>,
) -> Result<(String, String), AuditError> {
    let head = head(&mut *connection).await?.ok_or(sqlx::Error::RowNotFound)?;
    let hash = content.hash_after(&head.hash);
    sqlx::query("UPDATE audit_head SET last_id = $1, hash = $2 WHERE id = 1")
        .bind(content.id)
        .bind(&hash)
        .execute(connection)
        .await?;
    Ok((head.hash, hash))
}

/// Everybody who acted: what the chain holds of them, and whether their name is the one it was made of. There are few.
struct Actors(HashMap<i64, (String, bool)>);

impl Actors {
    async fn read(connection: &mut AnyConnection) -> Result<Actors, sqlx::Error> {
        let rows = sqlx::query("SELECT id, name, salt, commitment FROM audit_actors")
            .fetch_all(connection)
            .await?;
        let mut actors = HashMap::with_capacity(rows.len());
        for row in rows {
            let (name, salt): (Option<String>, Option<String>) = (row.try_get("name")?, row.try_get("salt")?);
            let stored: String = row.try_get("commitment")?;
            let is_sound = name.is_none_or(|name| commitment(&salt.unwrap_or_default(), &name) == stored);
            actors.insert(row.try_get("id")?, (stored, is_sound));
        }
        Ok(Actors(actors))
    }

    /// Empty where there is none of this key.
    fn commitment(&self, id: i64) -> &str {
        self.0.get(&id).map_or("", |(commitment, _)| commitment)
    }

    fn is_sound(&self, id: i64) -> bool {
        self.0.get(&id).is_some_and(|(_, is_sound)| *is_sound)
    }
}

/// An entry as it is stored.
struct Stored {
    id: i64,
    at_ms: i64,
    actor_id: i64,
    user: Option<i64>,
    ip: String,
    claims_id: Option<i64>,
    action: String,
    subject: String,
    change: String,
    personal: String,
    personal_salt: Option<String>,
    personal_text: Option<String>,
    risk: String,
    previous_hash: String,
    hash: String,
}

impl Stored {
    async fn page(connection: &mut AnyConnection, after: i64, to: i64) -> Result<Vec<Stored>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT l.id, l.at_ms, l.actor_id, l.user_id, l.ip, l.claims_id, l.action, l.subject, l.change, l.personal, \
             p.salt AS personal_salt, p.text AS personal_text, l.risk, l.previous_hash, l.hash FROM audit_log l \
             LEFT JOIN audit_personal p ON p.entry_id = l.id WHERE l.id > $1 AND l.id <= $2 ORDER BY l.id LIMIT $3",
        )
        .bind(after)
        .bind(to)
        .bind(PAGE_ENTRIES)
        .fetch_all(connection)
        .await?;
        rows.iter().map(Stored::read).collect()
    }

    fn read(row: &AnyRow) -> Result<Stored, sqlx::Error> {
        Ok(Stored {
            id: row.try_get("id")?,
            at_ms: row.try_get("at_ms")?,
            actor_id: row.try_get("actor_id")?,
            user: row.try_get("user_id")?,
            ip: row.try_get("ip")?,
            claims_id: row.try_get("claims_id")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            change: row.try_get("change")?,
            personal: row.try_get("personal")?,
            personal_salt: row.try_get("personal_salt")?,
            personal_text: row.try_get("personal_text")?,
            risk: row.try_get("risk")?,
            previous_hash: row.try_get("previous_hash")?,
            hash: row.try_get("hash")?,
        })
    }

    fn hash_after(&self, previous_hash: &str, actors: &Actors) -> String {
        let content = Content {
            id: self.id,
            at_ms: self.at_ms,
            actor: actors.commitment(self.actor_id),
            user: self.user,
            ip: &self.ip,
            claims: self.claims_id.map_or("", |id| actors.commitment(id)),
            action: &self.action,
            subject: &self.subject,
            change: &self.change,
            personal: &self.personal,
            risk: &self.risk,
        };
        content.hash_after(previous_hash)
    }

    /// What lies beside the log and is not what was recorded, if anything.
    fn unsound(&self, actors: &Actors) -> Option<&'static str> {
        if !actors.is_sound(self.actor_id) {
            return Some("the name of who acted is not the one that was recorded");
        }
        if self.claims_id.is_some_and(|id| !actors.is_sound(id)) {
            return Some("the name of who acted through another account is not the one that was recorded");
        }
        let text = self.personal_text.as_deref()?;
        let salt = self.personal_salt.as_deref().unwrap_or_default();
        (commitment(salt, text) != self.personal).then_some("what it says of people is not what was recorded")
    }
}

/// How the chain is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakKind {
    /// An entry says something else than was recorded.
    Content,
    /// An entry does not follow the one before it.
    Order,
    /// Entries are gone.
    Missing,
    /// The end of the log is not where the chain ends.
    Head,
}

impl BreakKind {
    pub fn name(self) -> &'static str {
        match self {
            BreakKind::Content => "content",
            BreakKind::Order => "order",
            BreakKind::Missing => "missing",
            BreakKind::Head => "head",
        }
    }
}

/// Where the chain is broken first.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Break {
    pub entry: AuditId,
    pub kind: BreakKind,
    /// For people.
    pub what: String,
}

/// What [`verify`] found.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Verified {
    /// Entries that were looked at; all, where nothing is broken.
    pub entries: u64,
    /// The last entry of those that were recorded before the chain, where there are any.
    pub sealed: Option<AuditId>,
    /// The last entry and its hash; none before the first.
    pub head: Option<(AuditId, String)>,
    pub broken: Option<Break>,
}

/// Walks the chain from its beginning to the first break, or to its end as it is when the walk begins.
///
/// # Errors
/// As the database answers.
pub async fn verify(database: &Database) -> Result<Verified, AuditError> {
    let mut connection = database.pool().acquire().await?;
    let Some(head) = head(&mut connection).await? else {
        return unsealed(&mut connection).await;
    };
    let mut verified = Verified {
        entries: 0,
        sealed: Some(AuditId(head.sealed_id)).filter(|id| id.0 > 0),
        head: Some((AuditId(head.last_id), head.hash.clone())),
        broken: None,
    };
    // Of every entry up to the head: who acted was stored before it.
    let actors = Actors::read(&mut connection).await?;
    let mut walk = Walk {
        head: &head,
        actors: &actors,
        last_id: 0,
        hash: genesis(),
        is_sealed: false,
    };
    loop {
        let page = Stored::page(&mut connection, walk.last_id, head.last_id).await?;
        if page.is_empty() {
            break;
        }
        for entry in &page {
            verified.entries += 1;
            verified.broken = walk.step(entry);
            if verified.broken.is_some() {
                return Ok(verified);
            }
        }
    }
    verified.broken = walk.end();
    if verified.broken.is_none() {
        verified.broken = after_the_head(&mut connection).await?;
    }
    Ok(verified)
}

/// A log that nothing was added to since it can be chained.
async fn unsealed(connection: &mut AnyConnection) -> Result<Verified, AuditError> {
    let sql = "SELECT count(*), CAST(coalesce(min(CASE WHEN hash <> '' THEN id END), 0) AS BIGINT) FROM audit_log";
    let row = sqlx::query(sql).fetch_one(connection).await?;
    let (entries, chained): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Verified {
        entries: u64::try_from(entries).unwrap_or(0),
        sealed: None,
        head: None,
        broken: (chained > 0).then(|| Break {
            entry: AuditId(chained),
            kind: BreakKind::Head,
            what: "the row that says where the chain ends is gone".to_owned(),
        }),
    })
}

/// Entries that came into the log and not into the chain. One statement: the head moves while others act.
async fn after_the_head(connection: &mut AnyConnection) -> Result<Option<Break>, AuditError> {
    let sql = "SELECT CAST(coalesce(min(id), 0) AS BIGINT) FROM audit_log \
               WHERE id > (SELECT last_id FROM audit_head WHERE id = 1)";
    let first: i64 = sqlx::query(sql).fetch_one(connection).await?.try_get(0)?;
    Ok((first > 0).then(|| Break {
        entry: AuditId(first),
        kind: BreakKind::Head,
        what: "it stands after the end of the chain".to_owned(),
    }))
}

/// How far the chain was walked.
struct Walk<'a> {
    head: &'a Head,
    actors: &'a Actors,
    last_id: i64,
    hash: String,
    /// The entries of before the chain are behind, and were what was sealed.
    is_sealed: bool,
}

impl Walk<'_> {
    fn step(&mut self, entry: &Stored) -> Option<Break> {
        let broken = |kind, what: &str| {
            Some(Break {
                entry: AuditId(entry.id),
                kind,
                what: what.to_owned(),
            })
        };
        if entry.id > self.head.sealed_id {
            if let Some(unsealed) = self.check_seal() {
                return Some(unsealed);
            }
            if entry.previous_hash != self.hash {
                return match entry.id > self.last_id + 1 {
                    true => Some(missing(self.last_id + 1, entry.id - 1)),
                    false => broken(BreakKind::Order, "it does not follow the entry before it"),
                };
            }
        }
        let hash = entry.hash_after(&self.hash, self.actors);
        if entry.id > self.head.sealed_id && entry.hash != hash {
            return broken(BreakKind::Content, "it is not what was recorded");
        }
        if let Some(what) = entry.unsound(self.actors) {
            return broken(BreakKind::Content, what);
        }
        (self.last_id, self.hash) = (entry.id, hash);
        None
    }

    /// Once, at the first entry after the sealed ones.
    fn check_seal(&mut self) -> Option<Break> {
        if self.is_sealed {
            return None;
        }
        self.is_sealed = true;
        let sealed_id = self.head.sealed_id;
        (self.hash != self.head.sealed_hash).then(|| Break {
            entry: AuditId(sealed_id.max(1)),
            kind: BreakKind::Content,
            what: format!(
                "the entries up to {}, of before the log was chained, are not what was sealed",
                AuditId(sealed_id)
            ),
        })
    }

    fn end(mut self) -> Option<Break> {
        if let Some(unsealed) = self.check_seal() {
            return Some(unsealed);
        }
        if self.last_id < self.head.last_id {
            return Some(missing(self.last_id + 1, self.head.last_id));
        }
        (self.hash != self.head.hash).then(|| Break {
            entry: AuditId(self.head.last_id),
            kind: BreakKind::Head,
            what: "its hash is not the one at the end of the chain".to_owned(),
        })
    }
}

fn missing(from: i64, to: i64) -> Break {
    let (first, last) = (AuditId(from), AuditId(to));
    Break {
        entry: first,
        kind: BreakKind::Missing,
        what: match from == to {
            true => "it is gone".to_owned(),
            false => format!("{first} to {last} are gone"),
        },
    }
}

#[cfg(test)]
mod tests;

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
//!   the migration that made the head, which seals them: only the hash of the last of them is kept, in the head. Nothing else makes
//!   a head ([`schemas::audit_chain`]): one that is gone is a break, and stays one.
//! * Ids have no gaps, and the sequence `audit` gave the id of the last entry and none after it.
//! * Names of people, and what entries say of people, lie beside the log (`audit_actors`, `audit_personal`) with a random salt
//!   each; the chain holds commitments to them, SHA-256(salt, text). Text and salt can be erased, and the chain still holds.
//!
//! What it does not show: that somebody who may write the database computed the chain anew, or cut off its end and put head and
//! sequence back to the entry that is the last one now. Whoever wants to see that too notes the head that [`verify`] answers
//! elsewhere, and compares the hash of that entry later.

use std::collections::HashMap;

use schemas::audit_chain::{Content, commitment, committed, genesis};
use schemas::db::{Database, last_id, next_id};
use schemas::ids::AuditId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tracing::error;

use super::AuditError;

/// The sequence that gives entries their ids.
pub(super) const SEQUENCE: &str = "audit";
/// Entries that are read at once.
const PAGE_ENTRIES: i64 = 1_000;

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
    let (salt, commitment) = committed(name)?;
    sqlx::query("INSERT INTO audit_actors (id, name, salt, commitment) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(name)
        .bind(salt)
        .bind(&commitment)
        .execute(connection)
        .await?;
    Ok((id, commitment))
}

/// Moves the head over a new entry; answers the hash before it and its own. Call it while the sequence `audit` is held.
///
/// Where the head is gone the entry follows the last one there is, and no head is made: what is done is recorded all the same, and
/// [`verify`] goes on saying that the chain is broken.
pub(crate) async fn link(
    connection: &mut AnyConnection,
    content: &Content<'_>,
) -> Result<(String, String), AuditError> {
    let previous_hash = match head(&mut *connection).await? {
        Some(head) => head.hash,
        None => {
            error!("the row that says where the audit log ends is gone: see `ezscale audit verify`");
            last_hash(&mut *connection).await?
        }
    };
    let hash = content.hash_after(&previous_hash);
    sqlx::query("UPDATE audit_head SET last_id = $1, hash = $2 WHERE id = 1")
        .bind(content.id)
        .bind(&hash)
        .execute(connection)
        .await?;
    Ok((previous_hash, hash))
}

/// The hash of the last entry, as that says.
async fn last_hash(connection: &mut AnyConnection) -> Result<String, sqlx::Error> {
    let last = sqlx::query("SELECT hash FROM audit_log ORDER BY id DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    let hash = last.map(|row| row.try_get::<String, _>(0)).transpose()?;
    Ok(hash.filter(|hash| !hash.is_empty()).unwrap_or_else(genesis))
}

/// Everybody who acted. There are few.
struct Actors {
    /// What the chain holds of each, and whether their name is the one it was made of.
    known: HashMap<i64, (String, bool)>,
    /// How many have no name any more.
    erased: u64,
}

impl Actors {
    async fn read(connection: &mut AnyConnection) -> Result<Actors, sqlx::Error> {
        let rows = sqlx::query("SELECT id, name, salt, commitment FROM audit_actors")
            .fetch_all(connection)
            .await?;
        let mut known = HashMap::with_capacity(rows.len());
        let mut erased = 0;
        for row in rows {
            let (name, salt): (Option<String>, Option<String>) = (row.try_get("name")?, row.try_get("salt")?);
            let stored: String = row.try_get("commitment")?;
            erased += u64::from(name.is_none());
            let is_sound = name.is_none_or(|name| commitment(&salt.unwrap_or_default(), &name) == stored);
            known.insert(row.try_get("id")?, (stored, is_sound));
        }
        Ok(Actors { known, erased })
    }

    /// Empty where there is none of this key.
    fn commitment(&self, id: i64) -> &str {
        self.known.get(&id).map_or("", |(commitment, _)| commitment)
    }

    fn is_sound(&self, id: i64) -> bool {
        self.known.get(&id).is_some_and(|(_, is_sound)| *is_sound)
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

    /// Whether it said something of people that is gone.
    fn is_erased(&self) -> bool {
        !self.personal.is_empty() && self.personal_text.is_none()
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
    /// Names and texts of people, among what was looked at, that were erased.
    pub erased: u64,
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
    // Before the head: both move in one transaction, so that the head is here or further on.
    let given_before = last_id(&mut connection, SEQUENCE).await?;
    let Some(head) = head(&mut connection).await? else {
        return headless(&mut connection).await;
    };
    // Of every entry up to the head: who acted was stored before it.
    let actors = Actors::read(&mut connection).await?;
    let mut verified = Verified {
        entries: 0,
        erased: actors.erased,
        sealed: Some(AuditId(head.sealed_id)).filter(|id| id.0 > 0),
        head: Some((AuditId(head.last_id), head.hash.clone())).filter(|(id, _)| id.0 > 0),
        broken: None,
    };
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
            verified.erased += u64::from(entry.is_erased());
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
    if verified.broken.is_none() {
        let given_after = last_id(&mut connection, SEQUENCE).await?;
        verified.broken = ids_given(&head, given_before, given_after);
    }
    Ok(verified)
}

/// A log that nobody can say the end of. The program never leaves one: see [`schemas::audit_chain`].
async fn headless(connection: &mut AnyConnection) -> Result<Verified, AuditError> {
    let row = sqlx::query("SELECT count(*) FROM audit_log")
        .fetch_one(&mut *connection)
        .await?;
    let entries: i64 = row.try_get(0)?;
    let actors = Actors::read(connection).await?;
    Ok(Verified {
        entries: u64::try_from(entries).unwrap_or(0),
        erased: actors.erased,
        sealed: None,
        head: None,
        broken: Some(Break {
            entry: AuditId(1),
            kind: BreakKind::Head,
            what: "the row that says where the chain ends is gone".to_owned(),
        }),
    })
}

/// Ids that were given to entries, beside the end of the chain: as of before the head was read, and of after.
fn ids_given(head: &Head, before: i64, after: i64) -> Option<Break> {
    if before > head.last_id {
        return Some(missing(head.last_id + 1, before));
    }
    (after < head.last_id).then(|| Break {
        entry: AuditId(head.last_id),
        kind: BreakKind::Head,
        what: format!(
            "the next entry would be {}: its id was given before",
            AuditId(after + 1)
        ),
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
        what: "it is after the end of the chain".to_owned(),
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
        if entry.id > self.last_id + 1 {
            return Some(missing(self.last_id + 1, entry.id - 1));
        }
        if entry.id > self.head.sealed_id {
            if let Some(unsealed) = self.check_seal() {
                return Some(unsealed);
            }
            if entry.previous_hash != self.hash {
                return broken(BreakKind::Order, "it does not follow the entry before it");
            }
        } else if !entry.hash.is_empty() || !entry.previous_hash.is_empty() {
            return broken(
                BreakKind::Content,
                "it has a hash, and is said to be of before the log was chained",
            );
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
            entry: AuditId(self.head.last_id.max(1)),
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

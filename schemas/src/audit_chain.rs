//! How the audit log is hashed, and how its chain begins. The log itself, its head and its verification are
//! `activity::audit::chain`.
//!
//! The chain begins once, in the transaction of the migration that brought it ([`seal`]): what was recorded before is hashed on from
//! genesis in the order of the ids, and the hash of the last of it becomes the head's `sealed_hash`; an empty log begins with
//! genesis. No other statement makes a head: one that is gone stays gone, and is found.

use std::fmt::Write as _;

use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::{AnyConnection, Row as _};

/// What each kind of hash begins with, so that none can stand for another.
const GENESIS: &str = "ezscale audit log 1";
const ENTRY: &str = "ezscale audit entry 1";
const TEXT: &str = "ezscale audit text 1";
const SALT_BYTES: usize = 32;
/// Entries that are read at once.
const PAGE_ENTRIES: i64 = 1_000;

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Fields under a hash, each after its length.
struct Fields(Context);

impl Fields {
    fn of(kind: &str) -> Fields {
        Fields(Context::new(&SHA256)).then(kind.as_bytes())
    }

    fn then(mut self, bytes: &[u8]) -> Fields {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn number(self, number: i64) -> Fields {
        self.then(&number.to_be_bytes())
    }

    /// In hex, as it is stored.
    fn hash(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// What the first entry follows.
pub fn genesis() -> String {
    Fields::of(GENESIS).hash()
}

/// Stands for a text in the chain.
pub fn commitment(salt: &str, text: &str) -> String {
    Fields::of(TEXT).then(salt.as_bytes()).then(text.as_bytes()).hash()
}

/// A new salt and the commitment to a text that can be erased.
///
/// # Errors
/// When the system has no random bytes.
pub fn committed(text: &str) -> Result<(String, String), sqlx::Error> {
    let mut salt = [0_u8; SALT_BYTES];
    let filled = SystemRandom::new().fill(&mut salt);
    filled.map_err(|_| sqlx::Error::Io(std::io::Error::other("the system has no random bytes")))?;
    let salt = hex(&salt);
    let commitment = commitment(&salt, text);
    Ok((salt, commitment))
}

/// What an entry says, in the order in which it is hashed; texts as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content<'a> {
    pub id: i64,
    /// UTC milliseconds.
    pub at_ms: i64,
    /// Commitment to the name of who acted.
    pub actor: &'a str,
    pub user: Option<i64>,
    pub ip: &'a str,
    /// Commitment to who they say they are; empty where they say nothing.
    pub claims: &'a str,
    pub action: &'a str,
    pub subject: &'a str,
    pub change: &'a str,
    /// Commitment to what is said of people; empty where nothing is.
    pub personal: &'a str,
    pub risk: &'a str,
}

impl Content<'_> {
    /// The entry's hash, after an entry with the hash `previous_hash`.
    pub fn hash_after(&self, previous_hash: &str) -> String {
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

/// Begins the chain over what the log has. A log that has a head is left as it is, and so is one whose entries have hashes and
/// whose head is gone: it is broken, and verification says so.
pub(crate) async fn seal(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let sql = "SELECT (SELECT count(*) FROM audit_head) + (SELECT count(*) FROM audit_log WHERE hash <> '')";
    let chained: i64 = sqlx::query(sql).fetch_one(&mut *connection).await?.try_get(0)?;
    if chained > 0 {
        return Ok(());
    }
    commit_to_names(&mut *connection).await?;
    let (mut last_id, mut hash) = (0_i64, genesis());
    loop {
        let page = sqlx::query(
            "SELECT l.id, l.at_ms, l.user_id, l.ip, l.action, l.subject, l.change, l.personal, l.risk, \
             coalesce(a.commitment, '') AS actor, coalesce(c.commitment, '') AS claims FROM audit_log l \
             LEFT JOIN audit_actors a ON a.id = l.actor_id LEFT JOIN audit_actors c ON c.id = l.claims_id \
             WHERE l.id > $1 ORDER BY l.id LIMIT $2",
        )
        .bind(last_id)
        .bind(PAGE_ENTRIES)
        .fetch_all(&mut *connection)
        .await?;
        if page.is_empty() {
            break;
        }
        for row in &page {
            last_id = row.try_get("id")?;
            let content = Content {
                id: last_id,
                at_ms: row.try_get("at_ms")?,
                actor: row.try_get("actor")?,
                user: row.try_get("user_id")?,
                ip: row.try_get("ip")?,
                claims: row.try_get("claims")?,
                action: row.try_get("action")?,
                subject: row.try_get("subject")?,
                change: row.try_get("change")?,
                personal: row.try_get("personal")?,
                risk: row.try_get("risk")?,
            };
            hash = content.hash_after(&hash);
        }
    }
    sqlx::query("INSERT INTO audit_head (id, sealed_id, sealed_hash, last_id, hash) VALUES (1, $1, $2, $1, $2)")
        .bind(last_id)
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Names of before the chain get their salts.
async fn commit_to_names(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let names = sqlx::query("SELECT id, name FROM audit_actors WHERE commitment = '' AND name IS NOT NULL")
        .fetch_all(&mut *connection)
        .await?;
    for row in names {
        let (salt, commitment) = committed(row.try_get("name")?)?;
        sqlx::query("UPDATE audit_actors SET salt = $1, commitment = $2 WHERE id = $3")
            .bind(salt)
            .bind(commitment)
            .bind(row.try_get::<i64, _>("id")?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The encoding is for ever: a change of it would break every chain there is.
    #[test]
    fn the_encoding_stays() {
        let content = Content {
            id: 1,
            at_ms: 2,
            actor: "a",
            user: Some(3),
            ip: "192.0.2.7",
            claims: "",
            action: "invoice.void",
            subject: "inv_1",
            change: "{}",
            personal: "",
            risk: "normal",
        };
        // Computed by another program.
        assert_eq!(
            genesis(),
            "0c537a6d32b8fa0ee784c5ea21036c8d96a61ecc5cadbf3fa1d67cb89eee4512"
        );
        assert_eq!(
            commitment("s", "t"),
            "e764b651a00250f6274a02b4d5a22a079bcdebb97732206caf24736c32ac5baa"
        );
        assert_eq!(
            content.hash_after("p"),
            "298509426764fd03001c97269e36ac856378d869c162f1eba76c7f5277fe86c1"
        );
        // What moves from one field into the next is something else.
        let moved = Content {
            action: "invoice.voidi",
            subject: "nv_1",
            ..content
        };
        assert_ne!(moved.hash_after("p"), content.hash_after("p"));
    }

    #[test]
    fn the_same_text_twice_has_two_commitments() {
        let ((one_salt, one), (other_salt, other)) = (committed("t").unwrap(), committed("t").unwrap());
        assert_ne!((&one_salt, &one), (&other_salt, &other));
        assert_eq!(one, commitment(&one_salt, "t"));
        assert_eq!(one_salt.len(), 2 * SALT_BYTES);
    }
}

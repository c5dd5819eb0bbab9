//! Acts: everything that somebody changes, by portal, API or command line, with its entry in the audit log.
//!
//! ```text
//! Act::begin ──▶ connection(): the change ──▶ commit(note)   the entry and the change, or neither
//!                                         └─▶ dropped        nothing happened, nothing is recorded
//!
//! Act::steps ──▶ an entry that says what begins ──▶ transactions of its own ──▶ end: an entry that says what came of it
//! ```
//!
//! Promises:
//! * An act is one transaction. The only way to commit it is to say what was done: it leaves exactly one entry.
//! * An act that found nothing to change is dropped, and leaves none.
//! * What cannot be one transaction (every customer's closing, a gateway's answer, files) is recorded before it begins, so that
//!   one that was interrupted is known, and again with its result: `….done` or `….failed`, which names the first entry.

use schemas::db::Database;
use serde_json::{Value, json};
use sqlx::{Any, AnyConnection, Transaction};

use crate::audit::{self, Actor, AuditError, AuditReceipt};
pub use crate::audit::{By, Note};

/// Something that is being done, in its transaction. Dropped without [`Act::commit`], nothing happened.
#[must_use = "an act that is not committed did not happen"]
#[derive(Debug)]
pub struct Act {
    transaction: Transaction<'static, Any>,
    by: By,
    now_ms: i64,
}

impl Act {
    /// Begins; on SQLite this waits for who else writes.
    ///
    /// # Errors
    /// When no connection or lock is to be had in time.
    pub async fn begin(database: &Database, by: By, now_ms: i64) -> Result<Act, sqlx::Error> {
        Ok(Act {
            transaction: database.begin_write().await?,
            by,
            now_ms,
        })
    }

    /// Records that something begins which takes several transactions. The entry is committed when this returns.
    ///
    /// # Errors
    /// As [`Act::commit`].
    pub async fn steps(database: &Database, by: By, now_ms: i64, begins: Note) -> Result<Steps, AuditError> {
        let act = Act::begin(database, by, now_ms).await?;
        act.begin_steps(database, begins).await
    }

    /// Commits as [`Act::commit`]; what begins with it takes more transactions.
    ///
    /// # Errors
    /// As [`Act::commit`].
    pub async fn begin_steps(self, database: &Database, begins: Note) -> Result<Steps, AuditError> {
        let (by, now_ms) = (self.by.clone(), self.now_ms);
        let (action, subject) = (begins.action.clone(), begins.subject.clone());
        Ok(Steps {
            entry: self.commit(begins).await?,
            database: database.clone(),
            by,
            action,
            subject,
            now_ms,
        })
    }

    /// Where what is done is written.
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// The connection with who acts, for what keeps that too.
    pub fn parts(&mut self) -> (&mut AnyConnection, Actor<'_>) {
        (&mut self.transaction, self.by.actor())
    }

    /// The connection with all that is known of who acts, for what may have to wait for somebody else.
    pub fn asking(&mut self) -> (&mut AnyConnection, &By) {
        (&mut self.transaction, &self.by)
    }

    pub fn actor(&self) -> Actor<'_> {
        self.by.actor()
    }

    /// UTC milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Records what was done, to be committed by [`Act::commit_entered`].
    pub(crate) async fn enter(&mut self, note: Note) -> Result<AuditReceipt, AuditError> {
        audit::enter(&mut self.transaction, &self.by, note, self.now_ms).await
    }

    /// Records what was done, and commits both.
    ///
    /// # Errors
    /// When the note names no action or subject, or its change is too large; as the database answers.
    pub async fn commit(mut self, note: Note) -> Result<AuditReceipt, AuditError> {
        let entered = self.enter(note).await?;
        self.commit_entered(entered).await
    }

    /// Commits what has recorded itself in this act's transaction.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn commit_entered(self, entered: AuditReceipt) -> Result<AuditReceipt, AuditError> {
        self.transaction.commit().await?;
        Ok(entered)
    }
}

/// Something that takes several transactions, and has begun.
#[must_use = "say what came of it"]
#[derive(Debug)]
pub struct Steps {
    entry: AuditReceipt,
    database: Database,
    by: By,
    action: String,
    subject: String,
    now_ms: i64,
}

impl Steps {
    /// Records what came of it: a result, or why it failed.
    ///
    /// # Errors
    /// As [`Act::commit`].
    pub async fn end(self, outcome: Result<Value, String>) -> Result<(), AuditError> {
        let (suffix, change) = match outcome {
            Ok(result) => ("done", json!({"entry": self.entry.id(), "after": result})),
            Err(error) => ("failed", json!({"entry": self.entry.id(), "error": error})),
        };
        let note = Note::new(format!("{}.{suffix}", self.action), self.subject).change(change);
        let act = Act::begin(&self.database, self.by, self.now_ms).await?;
        act.commit(note).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::UserId;

    use super::*;
    use crate::audit::{AuditFilter, AuditRecord, MAX_PAGE};

    async fn open() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        (folder, database)
    }

    async fn entries(database: &Database) -> Vec<AuditRecord> {
        audit::list(database.pool(), AuditFilter::default(), MAX_PAGE)
            .await
            .unwrap()
    }

    async fn store(connection: &mut AnyConnection, value: &str) {
        sqlx::query("INSERT INTO settings (name, value) VALUES ('x', $1) ON CONFLICT (name) DO UPDATE SET value = $1")
            .bind(value)
            .execute(connection)
            .await
            .unwrap();
    }

    async fn stored(database: &Database) -> Vec<String> {
        sqlx::query_scalar("SELECT value FROM settings WHERE name = 'x'")
            .fetch_all(database.pool())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn an_act_is_kept_with_its_entry_or_not_at_all() {
        let (_folder, database) = open().await;
        let by = By::user("ada@example.net", UserId(7), "192.0.2.7");
        sqlx::query(
            "INSERT INTO users (id, email, name, role, password_hash, created_at_ms) \
             VALUES (7, 'ada@example.net', 'Ada', 'admin', 'x', 0)",
        )
        .execute(database.pool())
        .await
        .unwrap();
        let mut act = Act::begin(&database, by.clone(), 5).await.unwrap();
        store(act.connection(), "dropped").await;
        drop(act);
        assert_eq!((stored(&database).await, entries(&database).await), (vec![], vec![]));

        let mut act = Act::begin(&database, by.clone(), 5).await.unwrap();
        store(act.connection(), "refused").await;
        let refused = act.commit(Note::new("x.set", " ")).await;
        assert!(matches!(refused, Err(AuditError::Empty { .. })), "{refused:?}");
        assert_eq!((stored(&database).await, entries(&database).await), (vec![], vec![]));

        let mut act = Act::begin(&database, by, 5).await.unwrap();
        store(act.connection(), "kept").await;
        let note = Note::new("x.set", "x").change(json!({"after": "kept"}));
        act.commit(note).await.unwrap();
        assert_eq!(stored(&database).await, ["kept"]);
        let [entry] = &entries(&database).await[..] else {
            panic!("one entry");
        };
        assert_eq!((entry.actor.as_str(), entry.user), ("ada@example.net", Some(UserId(7))));
        assert_eq!((entry.ip.as_str(), entry.at_ms), ("192.0.2.7", 5));
        assert_eq!(entry.claimed_by, None);
    }

    #[tokio::test]
    async fn an_account_says_for_whom_it_acts_and_is_found_by_both() {
        let (_folder, database) = open().await;
        let by = By::operator("root", Some("al\nice"));
        let act = Act::begin(&database, by, 1).await.unwrap();
        act.commit(Note::new("x.set", "x")).await.unwrap();
        for actor in ["os:root", "os:alice"] {
            let filter = AuditFilter {
                actor: Some(actor),
                ..AuditFilter::default()
            };
            let found = audit::list(database.pool(), filter, 10).await.unwrap();
            assert_eq!(found.len(), 1, "{actor}");
            assert_eq!(found[0].actor, "os:root");
            assert_eq!(found[0].claimed_by.as_deref(), Some("os:alice"));
        }
    }

    #[tokio::test]
    async fn steps_are_recorded_before_they_begin_and_with_their_result() {
        let (_folder, database) = open().await;
        let begins = || Note::new("invoice.close", "all customers");
        let operator = || By::operator("ada", None);
        let steps = Act::steps(&database, operator(), 1, begins()).await.unwrap();
        assert_eq!(entries(&database).await.len(), 1);
        steps.end(Ok(json!({"invoices": 3}))).await.unwrap();
        let steps = Act::steps(&database, operator(), 2, begins()).await.unwrap();
        steps.end(Err("no disk".to_owned())).await.unwrap();
        let told = entries(&database).await;
        let actions: Vec<_> = told.iter().rev().map(|entry| entry.action.as_str()).collect();
        assert_eq!(
            actions,
            [
                "invoice.close",
                "invoice.close.done",
                "invoice.close",
                "invoice.close.failed"
            ]
        );
        assert_eq!(told[2].change, json!({"entry": "aud_1", "after": {"invoices": 3}}));
        assert_eq!(told[0].change, json!({"entry": "aud_3", "error": "no disk"}));
        assert!(told.iter().all(|entry| entry.subject == "all customers"));
    }
}

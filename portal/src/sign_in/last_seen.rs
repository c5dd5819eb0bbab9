//! When sessions and tokens were last used: noted in memory by the request, written to the database behind its back.
//!
//! A page must not wait for the database's write lock to be shown, so the note is best effort: what a crash loses makes a
//! session end a little earlier. Until it is written the note counts ([`LastSeen::noted`]), however long somebody else
//! holds the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::db::Database;
use schemas::identity;
use schemas::ids::TokenId;

/// Uses that wait to be written at most; further notes are dropped, and made again by the next request.
const MAX_NOTES: usize = 10_000;
/// Before a note that could not be written is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What was used.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Used {
    /// A session, by the hash of its token.
    Session(String),
    Token(TokenId),
}

#[derive(Debug, Default)]
struct Notes {
    /// When each was used.
    waiting: HashMap<Used, i64>,
    is_writing: bool,
}

/// The notes of one portal.
#[derive(Debug, Default)]
pub(crate) struct LastSeen {
    notes: Mutex<Notes>,
}

impl LastSeen {
    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// When it was last used, if that is not written yet.
    pub(crate) fn noted(&self, used: &Used) -> Option<i64> {
        self.notes().waiting.get(used).copied()
    }

    /// Notes that it was used, and has that written.
    pub(crate) fn note(self: &Arc<Self>, db: &Database, used: Used, now_ms: i64) {
        let mut notes = self.notes();
        if notes.waiting.len() >= MAX_NOTES && !notes.waiting.contains_key(&used) {
            return;
        }
        notes.waiting.insert(used, now_ms);
        if !notes.is_writing {
            notes.is_writing = true;
            tokio::spawn(write(Arc::clone(self), db.clone()));
        }
    }
}

/// Writes until nothing waits.
async fn write(last_seen: Arc<LastSeen>, db: Database) {
    loop {
        let waiting = {
            let mut notes = last_seen.notes();
            if notes.waiting.is_empty() {
                notes.is_writing = false;
                return;
            }
            notes.waiting.clone()
        };
        match write_all(&db, &waiting).await {
            Ok(()) => {
                let mut notes = last_seen.notes();
                // One that was noted again meanwhile is written again.
                notes.waiting.retain(|used, seen_ms| waiting.get(used) != Some(seen_ms));
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    uses = waiting.len(),
                    "last use of sessions and tokens not written yet"
                );
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn write_all(db: &Database, waiting: &HashMap<Used, i64>) -> Result<(), sqlx::Error> {
    let mut transaction = db.begin_write().await?;
    for (used, seen_ms) in waiting {
        match used {
            Used::Session(hash) => identity::note_session_used(&mut transaction, hash, *seen_ms).await?,
            Used::Token(token) => identity::note_token_used(&mut transaction, *token, *seen_ms).await?,
        }
    }
    transaction.commit().await
}

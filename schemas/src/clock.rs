//! What time it is, for everything that decides by it: jobs, billing, the portal.
//!
//! A test clock stands still until it is set, and only ever goes forward, so that a year of billing can be walked through
//! in a minute and twice the same way. What arrives from outside keeps its real time: the kernel stamps datagrams.
//!
//! A database that is made with a test clock keeps what it shows in `settings`: every process on it goes by that, and a
//! database with real books never gets one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

/// Where the time of a test clock is kept: UTC milliseconds.
const SETTING: &str = "test_clock_ms";

/// The machine's time, whatever clock the database goes by: for what arrives from outside and for files, which keep their real
/// time. This is the one place that reads it (`clippy.toml`). Whoever decides something by the time takes it once and passes
/// it on: a second read may lie in another hour, day or month.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
pub fn machine_now() -> Timestamp {
    Timestamp::now()
}

/// As [`machine_now`], UTC milliseconds.
pub fn machine_now_ms() -> i64 {
    machine_now().as_millisecond()
}

/// A clock. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Test(Arc<AtomicI64>),
}

/// Why a clock was not set.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    #[error("only a test clock can be set: start with --clock")]
    System,
    #[error("the clock is at {now} and only goes forward, not to {asked}")]
    Backwards { now: Timestamp, asked: Timestamp },
    #[error("this database has books that were kept by the system's clock: a test clock is for an empty one")]
    RealBooks,
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("the stored test clock is not understood: {0:?}")]
    Corrupt(String),
}

crate::error_codes! {
    ClockError: "clock";
    of [Database]
    source []
    Refused: System = "system", Backwards = "backwards";
    Conflict: RealBooks = "real_books";
    Fault: Corrupt = "corrupt";
}

/// What a database's test clock shows; `None` where it goes by the system's.
///
/// # Errors
/// As the database answers, or when the stored value is not understood.
pub async fn stored(db: impl AnyExecutor<'_>) -> Result<Option<Timestamp>, ClockError> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(SETTING)
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.try_get(0)?;
    let at = text.parse().ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(Some).ok_or(ClockError::Corrupt(text))
}

/// The clock that a database goes by.
///
/// # Errors
/// As [`stored`].
pub async fn of(db: impl AnyExecutor<'_>) -> Result<Clock, ClockError> {
    Ok(stored(db).await?.map_or(Clock::system(), Clock::test))
}

/// Begins a test clock on a database without books, or goes on with the one it has, set to `at` where that is later. Answers also
/// to whether that changed anything.
///
/// # Errors
/// When the database has books but no test clock; as the database answers.
pub async fn begin(connection: &mut AnyConnection, at: Timestamp) -> Result<(Clock, bool), ClockError> {
    let before = stored(&mut *connection).await?;
    if before.is_none() {
        let row = sqlx::query("SELECT count(*) FROM ledger_transactions")
            .fetch_one(&mut *connection)
            .await?;
        if row.try_get::<i64, _>(0)? > 0 {
            return Err(ClockError::RealBooks);
        }
    }
    let at = before.map_or(at, |before| before.max(at));
    write(connection, at).await?;
    Ok((Clock::test(at), before != Some(at)))
}

/// Sets a database's test clock.
///
/// # Errors
/// When it has none, or `to` lies before what it shows.
pub async fn store(connection: &mut AnyConnection, to: Timestamp) -> Result<(), ClockError> {
    let now = stored(&mut *connection).await?.ok_or(ClockError::System)?;
    if to < now {
        return Err(ClockError::Backwards { now, asked: to });
    }
    Ok(write(connection, to).await?)
}

async fn write(connection: &mut AnyConnection, at: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(SETTING)
        .bind(at.as_millisecond().to_string())
        .execute(connection)
        .await?;
    Ok(())
}

impl Clock {
    /// The machine's.
    pub const fn system() -> Clock {
        Clock(Source::System)
    }

    /// One that stands at `at` until it is set.
    pub fn test(at: Timestamp) -> Clock {
        Clock(Source::Test(Arc::new(AtomicI64::new(at.as_millisecond()))))
    }

    pub fn is_test(&self) -> bool {
        matches!(self.0, Source::Test(_))
    }

    /// UTC milliseconds.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => machine_now_ms(),
            Source::Test(at_ms) => at_ms.load(Ordering::SeqCst),
        }
    }

    pub fn now(&self) -> Timestamp {
        // Every value came from a timestamp.
        Timestamp::from_millisecond(self.now_ms()).unwrap_or(Timestamp::MAX)
    }

    /// Sets a test clock, for all of its clones.
    ///
    /// # Errors
    /// When it is the machine's clock, or `to` lies before what it shows.
    pub fn set(&self, to: Timestamp) -> Result<(), ClockError> {
        let Source::Test(at_ms) = &self.0 else {
            return Err(ClockError::System);
        };
        let before_ms = at_ms.fetch_max(to.as_millisecond(), Ordering::SeqCst);
        if before_ms > to.as_millisecond() {
            let now = Timestamp::from_millisecond(before_ms).unwrap_or(Timestamp::MAX);
            return Err(ClockError::Backwards { now, asked: to });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Database;

    #[test]
    fn a_test_clock_stands_still_and_goes_forward_only() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let clock = Clock::test(at("2024-01-31T00:00:00Z"));
        let shared = clock.clone();
        shared.set(at("2024-02-29T00:00:00Z")).unwrap();
        assert_eq!(clock.now(), at("2024-02-29T00:00:00Z"));
        let refused = clock.set(at("2024-02-28T23:59:59Z")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the clock is at 2024-02-29T00:00:00Z and only goes forward, not to 2024-02-28T23:59:59Z"
        );
        assert_eq!(clock.now(), at("2024-02-29T00:00:00Z"));
        let refused = Clock::system().set(at("2024-02-29T00:00:00Z"));
        assert!(matches!(refused, Err(ClockError::System)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_database_keeps_its_test_clock_and_real_books_get_none() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        assert!(!of(database.pool()).await.unwrap().is_test());
        let mut connection = database.pool().acquire().await.unwrap();
        assert!(matches!(
            store(&mut connection, at("2024-01-01T00:00:00Z")).await,
            Err(ClockError::System)
        ));
        let (_, is_begun) = begin(&mut connection, at("2024-01-31T00:00:00Z")).await.unwrap();
        assert!(is_begun);
        store(&mut connection, at("2024-02-01T00:00:00Z")).await.unwrap();
        let back = store(&mut connection, at("2024-01-31T00:00:00Z")).await;
        assert!(matches!(back, Err(ClockError::Backwards { .. })), "{back:?}");
        // Begun again it goes on.
        let (clock, is_begun) = begin(&mut connection, at("2024-01-31T00:00:00Z")).await.unwrap();
        assert_eq!((clock.now(), is_begun), (at("2024-02-01T00:00:00Z"), false));

        let dir = tempfile::tempdir().unwrap();
        let real = Database::open(&Database::default_url(dir.path())).await.unwrap();
        sqlx::query(
            "INSERT INTO ledger_transactions (id, idempotency_key, description, posted_at_ms) VALUES (1, 'x', 'x', 0)",
        )
        .execute(real.pool())
        .await
        .unwrap();
        let mut connection = real.pool().acquire().await.unwrap();
        assert!(matches!(
            begin(&mut connection, at("2024-01-31T00:00:00Z")).await,
            Err(ClockError::RealBooks)
        ));
    }
}

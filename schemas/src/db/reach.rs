//! Reaching PostgreSQL before a pool does: a server that starts is waited for, and what keeps it away is said.
//!
//! A pool tries again in silence for [`super::ACQUIRE_TIMEOUT`] and then says that it waited, not for what.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection as _};

use super::{DatabaseError, opening_failed, without_password};

/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// A connection to a PostgreSQL server, which may be about to start: one that refuses connections is asked again for so long.
///
/// # Errors
/// With the cause of the last try.
pub(super) async fn reach(url: &str, wait: Duration) -> Result<AnyConnection, DatabaseError> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let left = wait.saturating_sub(began.elapsed()).max(RETRY);
        let Ok(tried) = tokio::time::timeout(left, AnyConnection::connect(url)).await else {
            return Err(DatabaseError::Silent {
                url: without_password(url),
                seconds: wait.as_secs(),
            });
        };
        let error = match tried {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if !is_passing(&error) || began.elapsed() >= wait {
            return Err(opening_failed(url, error));
        }
        if !is_told {
            let (url, seconds) = (without_password(url), wait.as_secs());
            tracing::warn!("the database {url} is not there yet ({error}): trying again for {seconds} s");
            is_told = true;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether it may be over in a moment: nobody listens yet, or PostgreSQL says so.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// What PostgreSQL says, without the line of its own source that sqlx adds, and what helps; `None` where another has failed.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    let advice = match error.code().as_deref() {
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        Some("3D000") => " (make it, empty: `createdb`)",
        Some("28P01" | "28000") => " (check user and password of the URL, and pg_hba.conf)",
        _ => "",
    };
    Some(format!("{}{advice}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_with_its_cause() {
        sqlx::any::install_default_drivers();
        // Taken by nobody: it was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let url = format!("postgres://ez:hush4711@{free}/ez");
        let error = reach(&url, Duration::ZERO).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("open database postgres://ez:(hidden)@{free}/ez")
        );
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("refused"), "{source}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_told_so() {
        sqlx::any::install_default_drivers();
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://ez@{}/ez", silent.local_addr().unwrap());
        let error = reach(&url, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.ends_with("does not answer within 0 s"), "{error}");
    }
}

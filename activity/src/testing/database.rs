//! What the handle of the database promises of a PostgreSQL that people and machines treat badly.

use std::time::{Duration, Instant};

use fixtures::postgres::Cluster;
use schemas::db::Database;

use super::postgres::Postgres;

/// Until a server that was started again takes what is written.
const START_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_transaction_whose_caller_went_away_is_not_left_to_the_next() {
    let copy = Postgres::migrated().await.copy();
    let database = Database::open(&copy.url()).await.unwrap();
    for polls in 0..300u32 {
        // Dropped after so many looks at it: before, while and after the server hears of it.
        let patience = async {
            for _ in 0..polls * 10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            begun = database.pool().begin() => drop(begun.unwrap()),
            () = patience => {}
        }
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, '1')")
            .bind(format!("name-{polls}"))
            .execute(database.pool())
            .await
            .unwrap();
    }
    let others = Database::open(&copy.url()).await.unwrap();
    let row = sqlx::query("SELECT count(*) FROM settings WHERE name LIKE 'name-%'");
    let seen: i64 = sqlx::Row::get(&row.fetch_one(others.pool()).await.unwrap(), 0);
    assert_eq!(seen, 300, "what was written is there for all");
}

#[tokio::test]
async fn connections_that_a_crash_of_the_server_ended_are_replaced() {
    let mut server = Cluster::start();
    let database = Database::open(&server.url("postgres")).await.unwrap();
    let write = async || {
        let mut transaction = database.begin_write().await?;
        sqlx::query("INSERT INTO probes (name, at_ms) VALUES ('x', 1) ON CONFLICT (name) DO UPDATE SET at_ms = 2")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    };
    // Several connections, some of them in the middle of a transaction.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(database.begin_write().await.unwrap());
    }
    write().await.unwrap();
    server.crash();
    let patience = Duration::from_secs(2);
    let without_server = tokio::time::timeout(patience, write()).await;
    assert!(!matches!(without_server, Ok(Ok(()))), "nobody was there to take it");
    for transaction in open {
        assert!(transaction.commit().await.is_err());
    }
    server.start_again();
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match tokio::time::timeout(patience, write()).await {
            Ok(Ok(())) => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
    // Whichever connection is taken.
    for _ in 0..20 {
        write().await.unwrap();
    }
    database.probe_write(1).await.unwrap();
}

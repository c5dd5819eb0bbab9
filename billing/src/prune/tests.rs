use activity::channel::endpoint::{self, EndpointKind};
use activity::channel::{self, WebhookClient};
use activity::event::{self, EventType, NewEvent};
use schemas::ids::{CustomerId, EventId};
use serde_json::json;
use sqlx::Row as _;

use super::*;
use crate::testing::{World, migrated, ms};

const ADA: CustomerId = CustomerId(1);

async fn database(folder: &tempfile::TempDir) -> Database {
    migrated(folder.path()).await;
    let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
    let database = database.with_vault(schemas::secret::Vault::random().unwrap());
    sqlx::query(
        "INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms) \
         VALUES (1, 'Ada', 'ada@example.net', 'EUR', 'UTC', 'DE', '0', 0)",
    )
    .execute(database.pool())
    .await
    .unwrap();
    database
}

async fn publish(database: &Database, now_ms: i64) -> EventId {
    let new = NewEvent {
        event_type: EventType::InvoiceFinalised,
        customer: Some(ADA),
        subject: "inv_1".to_owned(),
        payload: json!({"invoice": "inv_1", "number": "2026-0001", "amount_minor": 1999, "currency": "EUR"}),
    };
    let mut transaction = database.begin_write().await.unwrap();
    let id = event::publish(&mut transaction, new, now_ms).await.unwrap();
    transaction.commit().await.unwrap();
    id
}

async fn count(database: &Database, sql: &'static str) -> i64 {
    let row = sqlx::query(sql).fetch_one(database.pool()).await.unwrap();
    row.try_get(0).unwrap()
}

async fn change(database: &Database, sql: &'static str) -> u64 {
    sqlx::query(sql).execute(database.pool()).await.unwrap().rows_affected()
}

#[tokio::test]
async fn an_event_goes_when_it_was_dispatched_told_and_read_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let keep = RecordRetention::default();
    let then_ms = ms("2024-01-01T00:00:00Z");
    let now_ms = ms("2026-01-01T00:00:00Z");
    let prune = async || {
        let before = preview(&database, &keep, now_ms).await.unwrap();
        let pruned = prune(&database, &keep, now_ms).await.unwrap();
        for (name, rows) in &pruned.rows {
            let told = before.iter().find(|(kind, _)| kind == name).unwrap().1;
            // What refers to an event hides it from the preview until that is gone.
            assert!(told >= 1 || *name == "events", "{name}: {told} told, {rows} removed");
        }
        pruned
    };

    // Never dispatched, however old: nothing of it goes.
    publish(&database, then_ms).await;
    assert_eq!(prune().await, Pruned::default());

    // Dispatched: its mail is still to be sent, and its notification unread.
    channel::dispatch(&database, then_ms).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM deliveries").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM notifications").await, 1);
    assert_eq!(prune().await, Pruned::default());

    // Claimed and to be retried, long overdue: it stays.
    change(
        &database,
        "UPDATE deliveries SET attempts = 3, next_at_ms = 1, error = 'answered 500'",
    )
    .await;
    assert_eq!(prune().await, Pruned::default());

    // Given up: the delivery goes. The event stays, because of its notification.
    change(&database, "UPDATE deliveries SET status = 'failed', next_at_ms = NULL").await;
    assert_eq!(prune().await.rows, [("deliveries", 1)]);
    assert_eq!(count(&database, "SELECT count(*) FROM events").await, 1);

    // Read just now: the notification stays half a year.
    let read = "UPDATE notifications SET read_at_ms = 1767225600000";
    assert_eq!(ms("2026-01-01T00:00:00Z"), 1_767_225_600_000);
    change(&database, read).await;
    assert_eq!(prune().await, Pruned::default());
    change(&database, "UPDATE notifications SET read_at_ms = 1704067200000").await;
    assert_eq!(prune().await.rows, [("notifications", 1), ("events", 1)]);
    assert_eq!(count(&database, "SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn what_is_young_stays_and_what_is_replayed_keeps_its_event() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let client = WebhookClient::new(true).unwrap();
    let url = client
        .vet(EndpointKind::Webhook, "http://127.0.0.1:9/hook")
        .await
        .unwrap();
    let then_ms = ms("2024-01-01T00:00:00Z");
    let now_ms = ms("2026-01-01T00:00:00Z");
    let id = publish(&database, then_ms).await;
    channel::dispatch(&database, then_ms).await.unwrap();
    change(
        &database,
        "UPDATE deliveries SET status = 'delivered', next_at_ms = NULL",
    )
    .await;
    change(&database, "UPDATE notifications SET read_at_ms = 1").await;
    let mut transaction = database.begin_write().await.unwrap();
    let new = endpoint::NewEndpoint {
        customer: Some(ADA),
        url: &url,
        event_types: &[],
    };
    let (added, _) = endpoint::add(&mut transaction, database.vault(), new, now_ms)
        .await
        .unwrap();
    let replay = channel::Replay {
        first: id,
        last: id,
        event_type: None,
    };
    let owner = endpoint::Owner::Customer(ADA);
    assert_eq!(
        channel::replay(&mut transaction, replay, added.endpoint.id, owner, now_ms)
            .await
            .unwrap()
            .0,
        1
    );
    transaction.commit().await.unwrap();
    let keep = RecordRetention::default();
    let pruned = prune(&database, &keep, now_ms).await.unwrap();
    assert_eq!(pruned.rows, [("deliveries", 1), ("notifications", 1)]);
    assert!(
        event::event(database.pool(), id).await.is_ok(),
        "it is still to be sent"
    );
}

#[tokio::test]
async fn a_gateways_text_goes_once_it_was_counted_and_its_row_stays() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    change(
        &database,
        "INSERT INTO gateway_events (gateway, event_id, event_type, payload, received_at_ms, processed_at_ms, error) VALUES \
         ('stripe', 'evt_1', 'x', '{\"card\":1}', 1, 2, ''), ('stripe', 'evt_2', 'x', '{\"card\":2}', 1, NULL, 'later'), \
         ('paypal', 'evt_2', 'x', '{\"card\":3}', 1, 1767225600000, '')",
    )
    .await;
    let keep = RecordRetention::default();
    let now_ms = ms("2026-01-31T00:00:00Z");
    assert_eq!(
        prune(&database, &keep, now_ms).await.unwrap().rows,
        [("gateway_payloads", 1)]
    );
    assert_eq!(count(&database, "SELECT count(*) FROM gateway_events").await, 3);
    assert_eq!(
        count(&database, "SELECT count(*) FROM gateway_events WHERE payload = ''").await,
        1
    );
}

#[tokio::test]
async fn what_signing_in_left_behind_goes_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let now_ms = ms("2026-01-31T00:00:00Z");
    let (attempt_ms, device_ms) = (now_ms - ATTEMPTS_KEPT_MS, now_ms - DEVICE_KNOWN_MS);
    change(
        &database,
        "INSERT INTO users (id, email, name, role, password_hash, created_at_ms) \
         VALUES (1, 'ops@example.net', 'ops', 'ops', 'x', 0)",
    )
    .await;
    for (sql, over_ms) in [
        (
            "INSERT INTO sign_in_attempts (id, at_ms, user_id, email, outcome, method, ip, user_agent, is_known_device) \
             VALUES (1, $1 - 1, 1, '', 'signed_in', 'password', '', '', 0), (2, $1, NULL, '', 'wrong_password', '', '', '', 0)",
            attempt_ms,
        ),
        (
            "INSERT INTO known_devices (token_hash, user_id, used_at_ms) VALUES ('a', 1, $1), ('b', 1, $1 + 1)",
            device_ms,
        ),
        (
            "INSERT INTO password_resets (token_hash, user_id, expires_at_ms) VALUES ('a', 1, $1), ('b', 1, $1 + 1)",
            now_ms,
        ),
    ] {
        sqlx::query(sql).bind(over_ms).execute(database.pool()).await.unwrap();
    }
    let keep = RecordRetention::default();
    let over: Vec<_> = preview(&database, &keep, now_ms).await.unwrap();
    let expected = [("password_links", 1), ("sign_in_attempts", 1), ("known_devices", 1)];
    assert_eq!(over[7..10], expected);
    let pruned = prune(&database, &keep, now_ms).await.unwrap();
    assert_eq!(pruned.rows, expected.map(|(name, rows)| (name, rows as u64)));
    assert_eq!(prune(&database, &keep, now_ms).await.unwrap(), Pruned::default());
}

#[tokio::test]
async fn many_go_in_batches_and_the_rest_with_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let rows = BATCH * i64::from(BATCHES_MAX) + 3;
    let series = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) \
                  INSERT INTO form_tokens (token, used_at_ms) SELECT 'token ' || i, 0 FROM n";
    sqlx::query(series).bind(rows).execute(database.pool()).await.unwrap();
    let keep = RecordRetention::default();
    let now_ms = ms("2026-01-01T00:00:00Z");
    let first = prune(&database, &keep, now_ms).await.unwrap();
    assert!(first.is_unfinished);
    assert_eq!(first.rows, [("form_tokens", rows as u64 - 3)]);
    let second = prune(&database, &keep, now_ms).await.unwrap();
    assert_eq!((second.rows, second.is_unfinished), (vec![("form_tokens", 3)], false));
}

#[tokio::test]
async fn postgresql_forgets_the_same() {
    let world = World::on_postgres().await;
    change(
        &world.database,
        "INSERT INTO form_tokens (token, used_at_ms) VALUES ('a', 0), ('b', 1767225600000)",
    )
    .await;
    let keep = RecordRetention::default();
    let now_ms = ms("2026-01-02T00:00:00Z");
    let over: Vec<_> = preview(&world.database, &keep, now_ms).await.unwrap();
    assert_eq!(over.last(), Some(&("form_tokens", 1)));
    assert_eq!(
        prune(&world.database, &keep, now_ms).await.unwrap().rows,
        [("form_tokens", 1)]
    );
    assert_eq!(prune(&world.database, &keep, now_ms).await.unwrap(), Pruned::default());
}

#[test]
fn days_that_would_remove_what_is_retried_are_refused() {
    assert_eq!(RecordRetention::default().validate(), Ok(()));
    let short = RecordRetention {
        deliveries_days: 3,
        ..RecordRetention::default()
    };
    let error = short.validate().unwrap_err().to_string();
    assert!(
        error.contains("retention.records.deliveries_days = 3") && error.contains("use 7 to"),
        "{error}"
    );
}

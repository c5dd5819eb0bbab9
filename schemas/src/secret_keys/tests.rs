use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlx::Row as _;

use super::*;
use crate::db::Database;
use crate::secret::{
    Column, Key, KeyFile, SecretError, TWO_FACTOR, WEBHOOK, WEBHOOK_PREVIOUS, make_current, recorded_keys,
};

const ENDPOINT: &str = "INSERT INTO webhook_endpoints (id, customer_id, url, secret, previous_secret, event_types, \
                        created_at_ms, failures) VALUES ($1, NULL, 'https://192.0.2.1/', $2, $3, '[]', 0, 0)";

async fn open(dir: &Path) -> Database {
    Database::open(&Database::default_url(dir)).await.unwrap()
}

fn key_file(dir: &Path) -> KeyFile {
    KeyFile::new(dir.join("secrets.key"))
}

/// Two endpoints and a user as an earlier version stored them.
async fn plain_rows(database: &Database) {
    for (id, secret, previous) in [(1, "whsec_one", None), (2, "whsec_two", Some("whsec_before"))] {
        sqlx::query(ENDPOINT)
            .bind(id)
            .bind(secret)
            .bind(previous)
            .execute(database.pool())
            .await
            .unwrap();
    }
    sqlx::query(
        "INSERT INTO users (id, email, name, role, password_hash, created_at_ms, two_factor_secret) \
         VALUES (7, 'root@example.net', 'Root', 'admin', 'x', 0, 'PLAINBASE32')",
    )
    .execute(database.pool())
    .await
    .unwrap();
}

async fn stored(database: &Database, column: Column, row: i64) -> String {
    let Column { table, column } = column;
    let sql = sqlx::AssertSqlSafe(format!("SELECT {column} FROM {table} WHERE id = $1"));
    let row = sqlx::query(sql).bind(row).fetch_one(database.pool()).await.unwrap();
    row.try_get(0).unwrap()
}

async fn opened(database: &Database, column: Column, row: i64) -> Result<String, SecretError> {
    let stored = stored(database, column, row).await;
    let plain = database.vault().open(column, row, &stored)?;
    Ok(plain.reveal().to_owned())
}

const ALL: [(Column, i64, &str); 4] = [
    (WEBHOOK, 1, "whsec_one"),
    (WEBHOOK, 2, "whsec_two"),
    (WEBHOOK_PREVIOUS, 2, "whsec_before"),
    (TWO_FACTOR, 7, "PLAINBASE32"),
];

async fn assert_all_open(database: &Database) {
    for (column, row, plain) in ALL {
        assert_eq!(opened(database, column, row).await.unwrap(), plain, "{column}");
    }
}

#[tokio::test]
async fn what_an_earlier_version_stored_is_sealed_and_gone_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    plain_rows(&database).await;
    let file = key_file(dir.path());
    let (database, done) = unlock(database, &file).await.unwrap();
    assert_eq!((done.is_new, done.sealed, done.remains), (true, 4, false));
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_all_open(&database).await;
    database.pool().close().await;
    for name in ["ezscale.db", "ezscale.db-wal"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for (_, _, plain) in ALL {
            assert!(!text.contains(plain), "{plain} is still in {name}");
        }
    }
    // And again: nothing more is to be done.
    let (database, done) = unlock(open(dir.path()).await, &file).await.unwrap();
    assert_eq!(done, Unlocked::default());
    assert_all_open(&database).await;
}

#[tokio::test]
async fn a_value_opens_in_its_own_place_alone() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    plain_rows(&database).await;
    let (database, _) = unlock(database, &key_file(dir.path())).await.unwrap();
    let one = stored(&database, WEBHOOK, 1).await;
    let vault = database.vault();
    for (column, row) in [(WEBHOOK, 2), (WEBHOOK_PREVIOUS, 1), (TWO_FACTOR, 1)] {
        let error = vault.open(column, row, &one).unwrap_err();
        assert!(matches!(error, SecretError::NotOpened { .. }), "{error}");
    }
    let cut = &one[..one.len() - 4];
    let changed = one.replace(&one[40..44], "AAAA");
    for bad in [cut, &changed, "sealed:1:0123:x", "sealed:1::"] {
        let error = vault.open(WEBHOOK, 1, bad).unwrap_err();
        assert!(matches!(error, SecretError::NotOpened { .. }), "{bad}: {error}");
    }
    let planted = vault.open(WEBHOOK, 1, "whsec_planted").unwrap_err();
    assert!(matches!(planted, SecretError::NotSealed { .. }), "{planted}");
    let mut transaction = database.begin_write().await.unwrap();
    let twice = [
        vault.seal(&mut transaction, WEBHOOK, 1, "x").await.unwrap(),
        vault.seal(&mut transaction, WEBHOOK, 1, "x").await.unwrap(),
    ];
    assert_ne!(twice[0], twice[1], "a nonce of its own for each");
}

#[tokio::test]
async fn a_missing_wrong_damaged_or_readable_key_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = key_file(dir.path());
    let (database, _) = unlock(open(dir.path()).await, &file).await.unwrap();
    let key = recorded_keys(database.pool()).await.unwrap().remove(0);
    let kept = std::fs::read(file.path()).unwrap();
    drop(database);

    std::fs::remove_file(file.path()).unwrap();
    let error = unlock(open(dir.path()).await, &file).await.unwrap_err();
    assert!(
        matches!(&error, SecretError::Missing { key: told, .. } if *told == key),
        "{error}"
    );
    assert!(!file.path().exists(), "no other key takes its place");

    let other = tempfile::tempdir().unwrap();
    let foreign = key_file(other.path());
    unlock(open(other.path()).await, &foreign).await.unwrap();
    std::fs::copy(foreign.path(), file.path()).unwrap();
    let error = unlock(open(dir.path()).await, &file).await.unwrap_err();
    assert!(
        matches!(&error, SecretError::UnknownKey { key: told, .. } if *told == key),
        "{error}"
    );

    let text = String::from_utf8(kept.clone()).unwrap();
    let at = text.rfind(' ').unwrap() + 3;
    let mut damaged = kept.clone();
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    std::fs::write(file.path(), damaged).unwrap();
    let error = unlock(open(dir.path()).await, &file).await.unwrap_err();
    assert!(matches!(error, SecretError::Damaged { line: 4, .. }), "{error}");

    // Of a program of the future, and of one before files said their format.
    assert_eq!(file.found_format().unwrap().unwrap().found, 1);
    std::fs::write(file.path(), text.replace("# format: 1", "# format: 2")).unwrap();
    let error = unlock(open(dir.path()).await, &file).await.unwrap_err();
    assert!(matches!(error, SecretError::Newer(_)), "{error}");
    assert!(
        error.to_string().contains("secrets.key is a key file of format 2"),
        "{error}"
    );
    assert!(file.found_format().unwrap().unwrap().is_newer());
    std::fs::write(file.path(), text.replace("# format: 1\n", "")).unwrap();
    unlock(open(dir.path()).await, &file).await.unwrap();

    std::fs::write(file.path(), &kept).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = unlock(open(dir.path()).await, &file).await.unwrap_err().to_string();
    assert!(error.contains("chmod go-rwx"), "{error}");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    unlock(open(dir.path()).await, &file).await.unwrap();
}

#[tokio::test]
async fn a_rotation_replaces_the_key_under_a_running_process_and_is_finished_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let file = key_file(dir.path());
    let database = open(dir.path()).await;
    plain_rows(&database).await;
    let (running, _) = unlock(database, &file).await.unwrap();
    let first = running.vault().newest().unwrap();
    let (other, _) = unlock(open(dir.path()).await, &file).await.unwrap();
    let done = rotate(&other, &file).await.unwrap();
    assert_eq!(
        (done.values, done.is_resumed, done.removed),
        (4, false, vec![first.clone()])
    );
    assert_ne!(done.key, first);
    assert_eq!(file.key_ids().unwrap().unwrap(), std::slice::from_ref(&done.key));
    // The process that knew the old key alone goes on: it opens, and what it seals is under the new one.
    assert_all_open(&running).await;
    let mut transaction = running.begin_write().await.unwrap();
    let sealed = running.vault().seal(&mut transaction, WEBHOOK, 1, "x").await.unwrap();
    assert!(sealed.starts_with(&format!("sealed:1:{}:", done.key)), "{sealed}");
    transaction.rollback().await.unwrap();

    // As after a crash in the middle: the new key is there and current, some values are sealed under it.
    let mut ring = file.read().unwrap().unwrap();
    ring.0.push(Key::random().unwrap());
    file.replace(&ring).unwrap();
    let second = ring.0[1].id.clone();
    let mut transaction = running.begin_write().await.unwrap();
    make_current(&mut transaction, &second).await.unwrap();
    let sealed = running
        .vault()
        .seal(&mut transaction, WEBHOOK, 1, "whsec_one")
        .await
        .unwrap();
    sqlx::query("UPDATE webhook_endpoints SET secret = $1 WHERE id = 1")
        .bind(sealed)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let (started, _) = unlock(open(dir.path()).await, &file).await.unwrap();
    assert_all_open(&started).await;
    let done = rotate(&started, &file).await.unwrap();
    assert_eq!((done.values, done.is_resumed, &done.key), (3, true, &second));
    assert_eq!(file.key_ids().unwrap().unwrap(), std::slice::from_ref(&second));
    assert_eq!(recorded_keys(started.pool()).await.unwrap(), [second]);
    assert_all_open(&running).await;
    assert_all_open(&started).await;

    let _held = file.lock().unwrap();
    assert!(matches!(rotate(&started, &file).await, Err(SecretError::Busy { .. })));
}

#[tokio::test]
async fn a_lost_key_is_given_up_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = key_file(dir.path());
    let database = open(dir.path()).await;
    plain_rows(&database).await;
    drop(unlock(database, &file).await.unwrap());
    std::fs::remove_file(file.path()).unwrap();
    let database = open(dir.path()).await;
    for is_dry in [true, false] {
        let mut transaction = database.begin_write().await.unwrap();
        let done = discard(&mut transaction, &file, 99, is_dry).await.unwrap();
        assert_eq!(
            (done.users, done.endpoints),
            (vec!["root@example.net".to_owned()], vec![1, 2])
        );
        transaction.commit().await.unwrap();
        assert_eq!(file.path().exists(), !is_dry);
    }
    let (database, _) = unlock(database, &file).await.unwrap();
    assert!(opened(&database, WEBHOOK, 1).await.unwrap().starts_with("whsec_"));
    let disabled: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoints WHERE disabled_at_ms = 99")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(disabled, 2);
    rotate(&database, &file).await.unwrap();
}

//! What is stored about those who sign in, on a database of its own.

use sqlx::AnyConnection;

use super::*;
use crate::db::Database;
use crate::ids::{CustomerId, UserId};

const NOW_MS: i64 = 1_790_812_800_000;
const HOUR_MS: i64 = 3_600_000;

async fn database(folder: &tempfile::TempDir) -> Database {
    let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
    sqlx::query(
        "INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms) \
         VALUES (1, 'Ada', 'ada@example.net', 'EUR', 'UTC', 'DE', '0', 0)",
    )
    .execute(database.pool())
    .await
    .unwrap();
    database
}

async fn add(connection: &mut AnyConnection, email: &str, role: Role) -> UserId {
    let customer = (role == Role::Customer).then_some(CustomerId(1));
    let new = NewUserRow {
        email,
        name: "Somebody",
        role,
        customer,
        password_hash: "hash",
    };
    add_user(connection, new, NOW_MS).await.unwrap()
}

async fn open(connection: &mut AnyConnection, user: UserId, token_hash: &str, at_ms: i64) {
    let new = NewSession {
        user,
        token_hash,
        csrf_token: "csrf",
        created_at_ms: at_ms,
        expires_at_ms: at_ms + 12 * HOUR_MS,
        user_agent: "Browser",
        ip: "192.0.2.7",
    };
    open_session(connection, new, None, at_ms - HOUR_MS, 3).await.unwrap();
}

#[test]
fn roles_are_read_as_they_are_written() {
    for role in [Role::Customer, Role::Ops, Role::Finance, Role::Network, Role::Admin] {
        assert_eq!(role.to_string().parse::<Role>(), Ok(role));
        assert_eq!(serde_json::json!(role), role.name());
    }
    let refused = "root".parse::<Role>().unwrap_err().to_string();
    assert_eq!(
        refused,
        "a role is one of customer, ops, finance, network, admin, not \"root\""
    );
}

#[tokio::test]
async fn users_are_found_until_they_are_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    assert!(!has_users(database.pool()).await.unwrap());
    let mut transaction = database.begin_write().await.unwrap();
    let ada = add(&mut transaction, "ada@example.net", Role::Customer).await;
    let root = add(&mut transaction, "root@example.net", Role::Admin).await;
    assert!(!has_other_admin(&mut *transaction, root).await.unwrap());
    let other = add(&mut transaction, "other@example.net", Role::Admin).await;
    assert!(email_is_taken(&mut transaction, "ada@example.net").await.unwrap());
    assert!(!email_is_taken(&mut transaction, "bob@example.net").await.unwrap());
    assert!(customer_exists(&mut transaction, CustomerId(1)).await.unwrap());
    assert!(!customer_exists(&mut transaction, CustomerId(2)).await.unwrap());
    transaction.commit().await.unwrap();

    let pool = database.pool();
    assert!(has_users(pool).await.unwrap());
    assert_eq!(user_named(pool, " ADA@example.net ").await.unwrap(), Some(ada));
    assert_eq!(user_named(pool, &root.to_string()).await.unwrap(), Some(root));
    assert_eq!(user_named(pool, "nobody").await.unwrap(), None);
    let found = user(pool, ada).await.unwrap().unwrap();
    assert_eq!((found.role, found.customer), (Role::Customer, Some(CustomerId(1))));
    assert_eq!(user(pool, UserId(99)).await.unwrap(), None);

    let mut transaction = database.begin_write().await.unwrap();
    assert_eq!(
        emails_of(&mut transaction, &[Role::Admin]).await.unwrap(),
        ["other@example.net", "root@example.net"]
    );
    open(&mut transaction, root, "of-root", NOW_MS).await;
    assert!(disable_admin(&mut transaction, root, NOW_MS).await.unwrap());
    assert!(!disable_admin(&mut transaction, root, NOW_MS).await.unwrap(), "once");
    assert!(sessions_of(&mut *transaction, root).await.unwrap().is_empty());
    assert!(
        has_other_admin(&mut *transaction, other).await.unwrap(),
        "disabled, and one"
    );
    assert!(!has_other_enabled_admin(&mut *transaction, other).await.unwrap());
    assert_eq!(
        disable_users_of(&mut transaction, CustomerId(1), NOW_MS).await.unwrap(),
        1
    );
    assert!(!hold_by_password(&mut transaction, ada, "hash").await.unwrap());
    set_disabled(&mut transaction, ada, None).await.unwrap();
    assert!(hold_by_password(&mut transaction, ada, "hash").await.unwrap());
    set_password_hash(&mut transaction, ada, "another", NOW_MS)
        .await
        .unwrap();
    assert!(!hold_by_password(&mut transaction, ada, "hash").await.unwrap());
    transaction.commit().await.unwrap();
    assert_eq!(password_hash(pool, ada).await.unwrap().as_deref(), Some("another"));
}

#[tokio::test]
async fn a_candidate_who_changes_meanwhile_is_not_who_was_checked() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let mut transaction = database.begin_write().await.unwrap();
    let ops = add(&mut transaction, "ops@example.net", Role::Ops).await;
    let candidate = find_candidate(&mut *transaction, "OPS@example.net ")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((candidate.user, candidate.has_second_factor()), (ops, false));
    assert!(candidate.still_holds(&mut transaction).await.unwrap());
    set_role(&mut transaction, ops, Role::Finance, None).await.unwrap();
    assert!(!candidate.still_holds(&mut transaction).await.unwrap());
    let nobody = find_candidate(&mut *transaction, "nobody@example.net").await.unwrap();
    assert!(nobody.is_none());
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_those_that_are_over_go() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let mut transaction = database.begin_write().await.unwrap();
    let user = add(&mut transaction, "ops@example.net", Role::Ops).await;
    let names =
        |sessions: Vec<StoredSession>| -> Vec<String> { sessions.into_iter().map(|session| session.name).collect() };
    for (number, hash) in (0..).zip(["one-hash-of-many-characters", "two", "three", "four"]) {
        open(&mut transaction, user, hash, NOW_MS + number).await;
    }
    let stored = names(sessions_of(&mut *transaction, user).await.unwrap());
    assert_eq!(stored, ["four", "three", "two"], "the oldest made room");

    note_session_used(&mut transaction, "two", NOW_MS + 100).await.unwrap();
    note_session_used(&mut transaction, "two", NOW_MS + 50).await.unwrap();
    let found = session_user(&mut *transaction, "two", NOW_MS + 200)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.user.id, found.times.last_seen_at_ms), (user, NOW_MS + 100));
    assert_eq!((found.unread, found.billing_stopped), (0, false));
    let after_the_end = NOW_MS + 13 * HOUR_MS;
    assert_eq!(
        session_user(&mut *transaction, "two", after_the_end).await.unwrap(),
        None
    );

    assert_eq!(session_name("one-hash-of-many-characters"), "one-hash-of-many");
    assert!(has_session(&mut transaction, user, "two").await.unwrap());
    assert!(!has_session(&mut transaction, user, "one").await.unwrap());
    assert_eq!(
        end_sessions(&mut transaction, user, SessionsToEnd::One("four"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        end_sessions(&mut transaction, user, SessionsToEnd::One("four"))
            .await
            .unwrap(),
        0
    );
    end_sessions_without(&mut transaction, user, "two").await.unwrap();
    assert_eq!(names(sessions_of(&mut *transaction, user).await.unwrap()), ["two"]);
    open(&mut transaction, user, "five", NOW_MS + 2 * HOUR_MS).await;
    let stored = names(sessions_of(&mut *transaction, user).await.unwrap());
    assert_eq!(stored, ["five"], "the other was not used for an hour");
    open(&mut transaction, user, "six", NOW_MS + 2 * HOUR_MS).await;
    assert_eq!(
        end_sessions(&mut transaction, user, SessionsToEnd::AllBut("six"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        end_sessions(&mut transaction, user, SessionsToEnd::All).await.unwrap(),
        1
    );

    open(&mut transaction, user, "seven", NOW_MS).await;
    close_session(&mut *transaction, "seven").await.unwrap();
    assert!(sessions_of(&mut *transaction, user).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_factor_is_confirmed_and_each_code_accepted_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let mut transaction = database.begin_write().await.unwrap();
    let ada = add(&mut transaction, "ada@example.net", Role::Customer).await;
    assert_eq!(
        users_with_second_factor(&mut transaction, CustomerId(1)).await.unwrap(),
        0
    );
    put_pending_secret(&mut transaction, ada, "sealed").await.unwrap();
    assert_eq!(confirmed_secret(&mut transaction, ada).await.unwrap(), None);
    assert_eq!(
        pending_secret(&mut transaction, ada).await.unwrap().as_deref(),
        Some("sealed")
    );
    assert!(cancel_second_factor(&mut transaction, ada).await.unwrap());
    assert!(!cancel_second_factor(&mut transaction, ada).await.unwrap());
    assert_eq!(pending_secret(&mut transaction, ada).await.unwrap(), None);
    put_pending_secret(&mut transaction, ada, "sealed").await.unwrap();
    assert!(
        !turn_on_second_factor(&mut transaction, ada, "another", 7, NOW_MS)
            .await
            .unwrap()
    );
    assert!(
        turn_on_second_factor(&mut transaction, ada, "sealed", 7, NOW_MS)
            .await
            .unwrap()
    );
    assert!(
        !turn_on_second_factor(&mut transaction, ada, "sealed", 7, NOW_MS)
            .await
            .unwrap()
    );
    assert!(
        !accept_code_step(&mut transaction, ada, "sealed", 7).await.unwrap(),
        "it confirmed"
    );
    assert!(accept_code_step(&mut transaction, ada, "sealed", 8).await.unwrap());
    assert!(!accept_code_step(&mut transaction, ada, "sealed", 8).await.unwrap());

    let codes = ["a", "b"].map(str::to_owned);
    replace_recovery_codes(&mut transaction, ada, &codes).await.unwrap();
    replace_recovery_codes(&mut transaction, ada, &codes).await.unwrap();
    assert!(use_recovery_code(&mut transaction, ada, "a").await.unwrap());
    assert!(!use_recovery_code(&mut transaction, ada, "a").await.unwrap());
    let stored = second_factor(&mut *transaction, ada).await.unwrap();
    assert_eq!((stored.since_ms, stored.recovery_codes), (Some(NOW_MS), 1));
    assert_eq!(
        users_with_second_factor(&mut transaction, CustomerId(1)).await.unwrap(),
        1
    );

    // Between the password and the code.
    let times = (NOW_MS, NOW_MS + 600_000);
    open_sign_in(&mut transaction, ada, "token", times, 10).await.unwrap();
    let pending = hold_sign_in(&mut transaction, "token", NOW_MS).await.unwrap().unwrap();
    assert_eq!((pending.user, pending.email.as_str()), (ada, "ada@example.net"));
    for _ in 0..2 {
        assert!(take_code_attempt(&mut *transaction, "token", NOW_MS, 2).await.unwrap());
    }
    assert!(!take_code_attempt(&mut *transaction, "token", NOW_MS, 2).await.unwrap());
    let found = pending_sign_in(&mut *transaction, "token", NOW_MS, 2).await.unwrap();
    assert_eq!(found, None, "no try is left");
    assert!(close_sign_in(&mut transaction, "token").await.unwrap());
    assert!(!close_sign_in(&mut transaction, "token").await.unwrap());

    turn_off_second_factor(&mut transaction, ada).await.unwrap();
    let stored = second_factor(&mut *transaction, ada).await.unwrap();
    assert_eq!((stored.since_ms, stored.secret, stored.recovery_codes), (None, None, 0));
}

#[tokio::test]
async fn browsers_links_and_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder).await;
    let mut transaction = database.begin_write().await.unwrap();
    let ada = add(&mut transaction, "ada@example.net", Role::Customer).await;
    for (number, (hash, before)) in (0..).zip([("1", None), ("2", Some("1")), ("3", None), ("4", None)]) {
        let at_ms = NOW_MS + number;
        remember_device(&mut transaction, ada, hash, before, at_ms, 2)
            .await
            .unwrap();
    }
    let mut known = Vec::new();
    for hash in ["1", "2", "3", "4"] {
        known.push(
            is_known_device(&mut *transaction, hash, "Ada@example.net", NOW_MS)
                .await
                .unwrap(),
        );
    }
    assert_eq!(
        known,
        [false, false, true, true],
        "renamed, then forgotten as the third"
    );
    let much_later = NOW_MS + DEVICE_KNOWN_MS + 5;
    assert!(
        !is_known_device(&mut *transaction, "4", "ada@example.net", much_later)
            .await
            .unwrap()
    );
    forget_devices(&mut transaction, ada).await.unwrap();
    assert!(
        !is_known_device(&mut *transaction, "4", "ada@example.net", NOW_MS)
            .await
            .unwrap()
    );

    let times = (NOW_MS, NOW_MS + HOUR_MS);
    let link = async |connection: &mut AnyConnection, address: &str, hash: &str| {
        add_password_link(connection, ada, address, hash, times).await.unwrap()
    };
    assert!(!link(&mut *transaction, "old@example.net", "x").await);
    assert!(link(&mut *transaction, "ada@example.net", "y").await);
    assert!(link(&mut *transaction, "ada@example.net", "z").await);
    assert_eq!(
        password_link_user(&mut *transaction, "y", NOW_MS).await.unwrap(),
        Some(ada)
    );
    assert_eq!(
        password_link_user(&mut *transaction, "y", NOW_MS + HOUR_MS)
            .await
            .unwrap(),
        None
    );
    assert!(take_password_link(&mut transaction, "y").await.unwrap());
    assert!(!take_password_link(&mut transaction, "y").await.unwrap());
    void_password_links(&mut transaction, ada).await.unwrap();
    assert_eq!(password_link_user(&mut *transaction, "z", NOW_MS).await.unwrap(), None);

    let made = NewAttempt {
        user: Some(ada),
        email: "ada@example.net",
        outcome: Outcome::WrongPassword,
        method: "",
        ip: "192.0.2.7",
        user_agent: "Browser",
        is_known_device: false,
    };
    note_attempt(&mut transaction, made, NOW_MS).await.unwrap();
    let stranger = NewAttempt {
        user: None,
        email: "",
        ..made
    };
    note_attempt(&mut transaction, stranger, NOW_MS + 1).await.unwrap();
    let of_all = recent_attempts(&mut *transaction, None, NOW_MS + 2, 10).await.unwrap();
    assert_eq!(
        of_all.iter().map(|attempt| attempt.user).collect::<Vec<_>>(),
        [None, Some(ada)]
    );
    let hers = recent_attempts(&mut *transaction, Some(ada), NOW_MS + 2, 10)
        .await
        .unwrap();
    assert_eq!((hers.len(), hers[0].outcome), (1, Outcome::WrongPassword));
    let forgotten = recent_attempts(&mut *transaction, None, NOW_MS + ATTEMPTS_KEPT_MS + 2, 10)
        .await
        .unwrap();
    assert!(forgotten.is_empty());
}

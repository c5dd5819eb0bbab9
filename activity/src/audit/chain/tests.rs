use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::act::{Act, By, Note};
use crate::audit::{self, AuditFilter, ERASED, Risk};
use crate::testing::World;

const ADA: &str = "ada@example.net";

async fn act(database: &Database, by: By, note: Note) {
    let act = Act::begin(database, by, 7).await.unwrap();
    act.commit(note).await.unwrap();
}

/// Six entries of two people, the second with something personal in it, the fifth through another account.
async fn log_of_six(database: &Database) {
    for number in 1..=6 {
        let by = match number {
            5 => By::operator("root", Some("ben")),
            _ => By::from(audit::Actor {
                name: ADA,
                user: None,
                ip: "192.0.2.7",
            }),
        };
        let note = Note::new("customer.email", format!("cus_{number}")).change(json!({"number": number}));
        let note = match number {
            2 => note.personal(json!({"before": "old@example.net", "after": "new@example.net"})),
            3 => note.risk(Risk::High),
            _ => note,
        };
        act(database, by, note).await;
    }
}

/// `LOG` is the log's name: no statement of the program changes it, and a test looks for such statements.
async fn run(database: &Database, statements: &[&str]) {
    for statement in statements {
        let sql = statement.replace("LOG", "audit_log");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(database.pool())
            .await
            .unwrap();
    }
}

async fn broken(database: &Database) -> Option<(AuditId, BreakKind)> {
    let verified = verify(database).await.unwrap();
    verified.broken.map(|broken| (broken.entry, broken.kind))
}

/// What is done to the log, how it is undone, and where the chain is broken by it.
const BREAKS: &[(&[&str], &[&str], i64, BreakKind)] = &[
    (
        &["UPDATE LOG SET change = '{\"number\":33}' WHERE id = 3"],
        &["UPDATE LOG SET change = '{\"number\":3}' WHERE id = 3"],
        3,
        BreakKind::Content,
    ),
    (
        &["UPDATE LOG SET at_ms = 8 WHERE id = 6"],
        &["UPDATE LOG SET at_ms = 7 WHERE id = 6"],
        6,
        BreakKind::Content,
    ),
    (
        &["UPDATE LOG SET risk = 'normal' WHERE id = 3"],
        &["UPDATE LOG SET risk = 'high' WHERE id = 3"],
        3,
        BreakKind::Content,
    ),
    (
        // Said to be somebody else's.
        &["UPDATE LOG SET actor_id = (SELECT actor_id FROM LOG WHERE id = 5) WHERE id = 4"],
        &["UPDATE LOG SET actor_id = (SELECT actor_id FROM LOG WHERE id = 3) WHERE id = 4"],
        4,
        BreakKind::Content,
    ),
    (
        &["UPDATE audit_actors SET name = 'eve@example.net' WHERE name = 'ada@example.net'"],
        &["UPDATE audit_actors SET name = 'ada@example.net' WHERE name = 'eve@example.net'"],
        1,
        BreakKind::Content,
    ),
    (
        &["UPDATE audit_actors SET name = 'os:eve' WHERE name = 'os:ben'"],
        &["UPDATE audit_actors SET name = 'os:ben' WHERE name = 'os:eve'"],
        5,
        BreakKind::Content,
    ),
    (
        &["UPDATE audit_personal SET text = text || ' ' WHERE entry_id = 2"],
        &["UPDATE audit_personal SET text = trim(text) WHERE entry_id = 2"],
        2,
        BreakKind::Content,
    ),
    (
        // Two change places.
        &[
            "UPDATE LOG SET id = 90 WHERE id = 3",
            "UPDATE LOG SET id = 3 WHERE id = 4",
            "UPDATE LOG SET id = 4 WHERE id = 90",
        ],
        &[
            "UPDATE LOG SET id = 90 WHERE id = 3",
            "UPDATE LOG SET id = 3 WHERE id = 4",
            "UPDATE LOG SET id = 4 WHERE id = 90",
        ],
        3,
        BreakKind::Order,
    ),
    (
        &["UPDATE LOG SET id = -3 WHERE id = 3"],
        &["UPDATE LOG SET id = 3 WHERE id = -3"],
        3,
        BreakKind::Missing,
    ),
    (
        &["UPDATE LOG SET id = -id WHERE id IN (1, 2)"],
        &["UPDATE LOG SET id = -id WHERE id IN (-1, -2)"],
        1,
        BreakKind::Missing,
    ),
    (
        &["UPDATE LOG SET id = -id WHERE id IN (5, 6)"],
        &["UPDATE LOG SET id = -id WHERE id IN (-5, -6)"],
        5,
        BreakKind::Missing,
    ),
    (
        &["UPDATE audit_head SET hash = 'other'"],
        &["UPDATE audit_head SET hash = (SELECT hash FROM LOG WHERE id = 6)"],
        6,
        BreakKind::Head,
    ),
    (
        // An older head: the entry after it is none of the chain's.
        &["UPDATE audit_head SET last_id = 5, hash = (SELECT hash FROM LOG WHERE id = 5)"],
        &["UPDATE audit_head SET last_id = 6, hash = (SELECT hash FROM LOG WHERE id = 6)"],
        6,
        BreakKind::Head,
    ),
    (
        // The end is cut off, and the head put back: the ids after it were given.
        &[
            "UPDATE LOG SET id = -id WHERE id IN (5, 6)",
            "UPDATE audit_head SET last_id = 4, hash = (SELECT hash FROM LOG WHERE id = 4)",
        ],
        &[
            "UPDATE LOG SET id = -id WHERE id IN (-5, -6)",
            "UPDATE audit_head SET last_id = 6, hash = (SELECT hash FROM LOG WHERE id = 6)",
        ],
        5,
        BreakKind::Missing,
    ),
    (
        // An id would be given twice.
        &["UPDATE sequences SET next_value = 6 WHERE name = 'audit'"],
        &["UPDATE sequences SET next_value = 7 WHERE name = 'audit'"],
        6,
        BreakKind::Head,
    ),
    (
        // Chained entries are said to be of before the chain.
        &["UPDATE audit_head SET sealed_id = 3, sealed_hash = (SELECT hash FROM LOG WHERE id = 3)"],
        &["UPDATE audit_head SET sealed_id = 0, sealed_hash = (SELECT previous_hash FROM LOG WHERE id = 1)"],
        1,
        BreakKind::Content,
    ),
    (&["DELETE FROM audit_head"], &[], 1, BreakKind::Head),
];

async fn every_break_is_found(world: &World) {
    let database = &world.database;
    assert_eq!(verify(database).await.unwrap().head, None);
    log_of_six(database).await;
    let whole = verify(database).await.unwrap();
    assert_eq!((whole.entries, whole.sealed, &whole.broken), (6, None, &None));
    let last = audit::list(database.pool(), AuditFilter::default(), 1).await.unwrap();
    assert_eq!(whole.head, Some((AuditId(6), last[0].hash.clone())));
    for (breaking, mending, entry, kind) in BREAKS {
        run(database, breaking).await;
        assert_eq!(broken(database).await, Some((AuditId(*entry), *kind)), "{breaking:?}");
        run(database, mending).await;
        if !mending.is_empty() {
            assert_eq!(broken(database).await, None, "{mending:?}");
        }
    }
    // What is done goes on being recorded, and the break stays.
    act(database, By::operator("ada", None), Note::new("plan.stock", "pln_1")).await;
    assert_eq!(broken(database).await, Some((AuditId(1), BreakKind::Head)));
}

/// Without its head and its hashes a log looked like one of before the chain, and the next entry sealed what it said by then.
async fn a_forged_log_is_not_sealed_again(world: &World) {
    let database = &world.database;
    log_of_six(database).await;
    run(
        database,
        &[
            "DELETE FROM audit_head",
            "UPDATE LOG SET hash = '', previous_hash = ''",
            "DELETE FROM LOG WHERE id = 5",
            "UPDATE LOG SET change = '{}' WHERE id = 3",
        ],
    )
    .await;
    let head_is_gone = Some((AuditId(1), BreakKind::Head));
    assert_eq!(broken(database).await, head_is_gone);
    act(database, By::operator("ada", None), Note::new("plan.stock", "pln_1")).await;
    let verified = verify(database).await.unwrap();
    assert_eq!((verified.sealed, verified.head), (None, None));
    assert_eq!(broken(database).await, head_is_gone);
    // Whoever makes a head has to compute it, and the entry that is gone is missed all the same.
    run(
        database,
        &["INSERT INTO audit_head (id, sealed_id, sealed_hash, last_id, hash) \
             SELECT 1, 6, 'computed', id, hash FROM LOG WHERE id = 7"],
    )
    .await;
    assert_eq!(broken(database).await, Some((AuditId(5), BreakKind::Missing)));
}

#[tokio::test]
async fn a_forged_log_is_not_sealed_again_on_sqlite() {
    a_forged_log_is_not_sealed_again(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_log_is_not_sealed_again_on_postgresql() {
    a_forged_log_is_not_sealed_again(&World::on_postgres().await).await;
}

#[tokio::test]
async fn every_break_is_found_on_sqlite() {
    every_break_is_found(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_break_is_found_on_postgresql() {
    every_break_is_found(&World::on_postgres().await).await;
}

#[tokio::test]
async fn what_is_personal_is_erased_without_breaking_the_chain() {
    let world = World::new().await;
    let database = &world.database;
    log_of_six(database).await;
    let entry = |id: i64| async move {
        let filter = AuditFilter {
            before: Some(AuditId(id + 1)),
            ..AuditFilter::default()
        };
        let found = audit::list(database.pool(), filter, 1).await.unwrap();
        found[0].clone()
    };
    assert_eq!(verify(database).await.unwrap().erased, 0);
    let before = entry(2).await;
    assert_eq!(
        before.change,
        json!({"number": 2, "before": "old@example.net", "after": "new@example.net"})
    );
    run(
        database,
        &[
            "UPDATE audit_actors SET name = NULL, salt = NULL WHERE name = 'ada@example.net' OR name = 'os:ben'",
            "DELETE FROM audit_personal WHERE entry_id = 2",
        ],
    )
    .await;
    let verified = verify(database).await.unwrap();
    assert_eq!((verified.broken, verified.erased), (None, 3));
    let after = entry(2).await;
    assert_eq!(after.actor, ERASED);
    assert_eq!(after.change, json!({"number": 2, "personal": ERASED}));
    let through = entry(5).await;
    assert_eq!(
        (through.actor.as_str(), through.claimed_by.as_deref()),
        ("os:root", Some(ERASED))
    );
    // Who comes back is somebody new.
    log_of_six(database).await;
    let verified = verify(database).await.unwrap();
    assert_eq!((verified.entries, verified.broken), (12, None));
    let texts: Vec<String> = sqlx::query_scalar("SELECT commitment FROM audit_actors ORDER BY id")
        .fetch_all(database.pool())
        .await
        .unwrap();
    assert_ne!(texts[0], texts[3], "the same name twice has two commitments");
}

/// As migration 27 leaves entries of before.
async fn log_of_before(database: &Database, entries: i64) {
    let head = "INSERT INTO LOG (id, at_ms, actor_id, ip, action, subject, change, risk) VALUES";
    let rows = (1..=entries).map(|id| {
        format!(
            "({id}, {id}, {}, '', 'plan.edit', 'pln_{id}', '{{}}', 'normal')",
            id % 2 + 1
        )
    });
    let rows: Vec<String> = rows.collect();
    run(
        database,
        &[
            "INSERT INTO audit_actors (id, name, commitment) VALUES (1, 'command line', ''), (2, 'ada@example.net', '')",
            "UPDATE sequences SET next_value = 3 WHERE name = 'audit_actor'",
            &format!("INSERT INTO sequences (name, next_value) VALUES ('audit', {})", entries + 1),
            &format!("{head} {}", rows.join(", ")),
        ],
    )
    .await;
}

#[tokio::test]
async fn entries_of_before_are_sealed_by_the_upgrade() {
    // More than one page.
    let world = World::upgraded(27, async |database| log_of_before(database, 1_003).await).await;
    let database = &world.database;
    let before = verify(database).await.unwrap();
    assert_eq!((before.entries, &before.broken), (1_003, &None));
    assert_eq!(before.sealed, Some(AuditId(1_003)));
    assert_eq!(before.head.map(|(last, _)| last), Some(AuditId(1_003)));
    act(database, By::operator("ada", None), Note::new("plan.stock", "pln_1")).await;
    let after = verify(database).await.unwrap();
    assert_eq!((after.entries, &after.broken), (1_004, &None));
    assert_eq!(after.sealed, Some(AuditId(1_003)));
    let filter = AuditFilter {
        actor: Some("command line"),
        ..AuditFilter::default()
    };
    assert_eq!(audit::list(database.pool(), filter, 500).await.unwrap().len(), 500);
    for (breaking, mending, entry, kind) in [
        (
            "UPDATE LOG SET subject = 'pln_9' WHERE id = 500",
            "UPDATE LOG SET subject = 'pln_500' WHERE id = 500",
            1_003,
            BreakKind::Content,
        ),
        (
            "UPDATE LOG SET id = -id WHERE id = 2",
            "UPDATE LOG SET id = -id WHERE id = -2",
            2,
            BreakKind::Missing,
        ),
        (
            "UPDATE LOG SET id = -id WHERE id = 1003",
            "UPDATE LOG SET id = -id WHERE id = -1003",
            1_003,
            BreakKind::Missing,
        ),
        (
            "UPDATE LOG SET actor_id = 1 WHERE id = 1001",
            "UPDATE LOG SET actor_id = 2 WHERE id = 1001",
            1_003,
            BreakKind::Content,
        ),
        (
            "UPDATE LOG SET hash = 'other' WHERE id = 7",
            "UPDATE LOG SET hash = '' WHERE id = 7",
            7,
            BreakKind::Content,
        ),
    ] {
        run(database, &[breaking]).await;
        assert_eq!(broken(database).await, Some((AuditId(entry), kind)), "{breaking}");
        run(database, &[mending]).await;
        assert_eq!(broken(database).await, None, "{mending}");
    }
    run(
        database,
        &["UPDATE audit_actors SET name = NULL, salt = NULL WHERE id = 2"],
    )
    .await;
    assert_eq!(broken(database).await, None);
}

/// Of a log whose head was taken away before the upgrade that seals, too.
#[tokio::test]
async fn a_log_with_hashes_and_no_head_is_not_sealed_by_the_upgrade() {
    let world = World::upgraded(27, async |database| {
        log_of_before(database, 2).await;
        run(database, &["UPDATE LOG SET hash = 'of the chain' WHERE id = 2"]).await;
    })
    .await;
    assert_eq!(broken(&world.database).await, Some((AuditId(1), BreakKind::Head)));
}

fn texts() -> impl Strategy<Value = (String, String, String, Option<String>, bool)> {
    (
        "[a-z]{1,8}@example.net",
        "[a-z.]{1,12}",
        "[^\\x00]{0,40}",
        proptest::option::of("[^\\x00]{1,20}"),
        any::<bool>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_recorded_is_verified(
        entries in proptest::collection::vec(texts(), 1..12),
        altered in 0..12_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            for (name, action, text, personal, is_high) in &entries {
                let note = Note::new(format!("x{action}"), "x")
                    .change(json!({"after": text}))
                    .personal(personal.as_ref().map_or(serde_json::Value::Null, |text| json!({"name": text})))
                    .risk(if *is_high { Risk::High } else { Risk::Normal });
                let by = By::operator(name, personal.as_deref());
                act(&world.database, by, note).await;
            }
            let verified = verify(&world.database).await.unwrap();
            assert_eq!((verified.entries, verified.broken), (entries.len() as u64, None));
            let id = altered % entries.len() + 1;
            run(&world.database, &[&format!("UPDATE LOG SET subject = 'y' WHERE id = {id}")]).await;
            let found = broken(&world.database).await;
            assert_eq!(found, Some((AuditId(id as i64), BreakKind::Content)));
        });
    }
}

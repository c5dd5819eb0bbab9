use serde_json::json;

use super::*;
use crate::audit::AuditFilter;

const ADA: UserId = UserId(1);
const BEN: UserId = UserId(2);
const FAY: UserId = UserId(3);
const GONE: UserId = UserId(4);

struct World {
    database: Database,
    _folder: tempfile::TempDir,
}

/// Two admins, somebody of finance, and an admin who may no longer sign in.
async fn world() -> World {
    let folder = fixtures::in_memory_folder();
    crate::testing::migrated(folder.path()).await;
    let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
    let people = [
        (ADA, "admin", None),
        (BEN, "admin", None),
        (FAY, "finance", None),
        (GONE, "admin", Some(5)),
    ];
    for (id, role, disabled_at_ms) in people {
        sqlx::query(
            "INSERT INTO users (id, email, name, role, password_hash, created_at_ms, disabled_at_ms) \
             VALUES ($1, $2, 'x', $3, 'x', 0, $4)",
        )
        .bind(id.0)
        .bind(format!("user{}@example.net", id.0))
        .bind(role)
        .bind::<Option<i64>>(disabled_at_ms)
        .execute(database.pool())
        .await
        .unwrap();
    }
    World {
        database,
        _folder: folder,
    }
}

fn admin(user: UserId) -> Admin<'static> {
    Admin { user, ip: "192.0.2.1" }
}

/// A user as who asks.
fn by(user: UserId) -> By {
    By::user(format!("user{}@example.net", user.0), user, "192.0.2.1")
}

/// An action that only admins may ask for.
fn termination() -> NewApproval<'static> {
    NewApproval {
        kind: HighRisk::BulkTermination,
        size: 6,
        action: json!({"action": "bulk_termination", "subscriptions": ["sub_1", "sub_2"], "reason": "abuse"}),
        subject: "cus_1",
        summary: "end all subscriptions of cus_1",
    }
}

async fn asked(world: &World) -> ApprovalId {
    let mut transaction = world.database.begin_write().await.unwrap();
    let requested = request(&mut transaction, termination(), &by(ADA), 10).await.unwrap();
    transaction.commit().await.unwrap();
    requested.id
}

#[tokio::test]
async fn f60_a_second_admin_decides_and_the_action_is_handed_out_once() {
    let world = world().await;
    let id = asked(&world).await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    for (user, words) in [
        (ADA, "requested it: another admin decides"),
        (FAY, "not an active admin"),
        (GONE, "not an active admin"),
        (UserId(99), "not an active admin"),
    ] {
        let error = approve(&mut connection, id, admin(user), 20)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{user}: {error}");
    }
    assert_eq!(approval(&mut *connection, id).await.unwrap().status, Status::Pending);
    let (approved, note) = approve(&mut connection, id, admin(BEN), 20).await.unwrap();
    assert_eq!(approved.action, termination().action);
    assert_eq!((note.action.as_str(), note.risk), ("approval.approve", Risk::High));
    let error = approve(&mut connection, id, admin(BEN), 21)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is approved already"), "{error}");
    let error = reject(&mut connection, id, admin(BEN), "no", 21)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is approved already"), "{error}");

    let log = audit::list(&mut *connection, AuditFilter::default(), 10).await.unwrap();
    let said: Vec<_> = log
        .iter()
        .map(|entry| (entry.actor.as_str(), entry.action.as_str()))
        .collect();
    assert_eq!(said, [("user1@example.net", "approval.request")]);
    assert_eq!(log[0].change["parameters"]["subscriptions"][1], "sub_2");
}

#[tokio::test]
async fn f60_a_rejection_has_a_reason_and_is_final() {
    let world = world().await;
    let id = asked(&world).await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    assert!(matches!(
        reject(&mut connection, id, admin(BEN), "  ", 20).await,
        Err(ApprovalError::Text { field: "reason" })
    ));
    let note = reject(&mut connection, id, admin(BEN), "they paid", 20).await.unwrap();
    assert_eq!(note.change["reason"], "they paid");
    let decided = approval(&mut *connection, id).await.unwrap();
    assert_eq!(
        (decided.status, decided.reason.as_str()),
        (Status::Rejected, "they paid")
    );
    assert_eq!((decided.decided_by, decided.decided_at_ms), (Some(BEN), Some(20)));
    assert!(matches!(
        approve(&mut connection, id, admin(BEN), 30).await,
        Err(ApprovalError::Decided { status: "rejected", .. })
    ));
    let pending = list(&mut *connection, Some(Status::Pending), None, 10).await.unwrap();
    assert_eq!(pending, []);
}

#[tokio::test]
async fn f60_of_many_deciders_at_once_one_wins() {
    let world = world().await;
    let deciders: Vec<UserId> = (10..18).map(UserId).collect();
    for user in &deciders {
        sqlx::query("INSERT INTO users (id, email, name, role, password_hash, created_at_ms) VALUES ($1, $2, 'x', 'admin', 'x', 0)")
            .bind(user.0)
            .bind(format!("user{}@example.net", user.0))
            .execute(world.database.pool())
            .await
            .unwrap();
    }
    let id = asked(&world).await;
    let tasks = deciders.into_iter().map(|user| {
        let database = world.database.clone();
        tokio::spawn(async move {
            let mut transaction = database.begin_write().await.unwrap();
            let won = match user.0 % 2 {
                0 => approve(&mut transaction, id, admin(user), 20).await.is_ok(),
                _ => reject(&mut transaction, id, admin(user), "no", 20).await.is_ok(),
            };
            transaction.commit().await.unwrap();
            won
        })
    });
    let mut won = 0;
    for task in tasks.collect::<Vec<_>>() {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn nobody_asks_in_vain() {
    let world = world().await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    for (new, user, words) in [
        (termination(), FAY, "not an active admin"),
        (termination(), GONE, "not an active admin"),
        (
            NewApproval {
                summary: " ",
                ..termination()
            },
            ADA,
            "summary",
        ),
    ] {
        let error = request(&mut connection, new, &by(user), 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    assert_eq!(list(&mut *connection, None, None, 10).await.unwrap(), []);
    // Some actions are for another role to ask for; an admin decides all the same.
    let refund = NewApproval {
        kind: HighRisk::Refund,
        ..termination()
    };
    let id = request(&mut connection, refund, &by(FAY), 1).await.unwrap().id;
    assert!(approve(&mut connection, id, admin(FAY), 2).await.is_err());
    let pending = pending_of(&mut *connection, HighRisk::Refund).await.unwrap();
    assert_eq!(pending.iter().map(|one| one.id).collect::<Vec<_>>(), [id]);
    assert_eq!(
        pending_of(&mut *connection, HighRisk::BulkTermination).await.unwrap(),
        []
    );
    sqlx::query("UPDATE users SET disabled_at_ms = 1 WHERE id = 2")
        .execute(&mut *connection)
        .await
        .unwrap();
    let error = request(&mut connection, termination(), &by(ADA), 1).await.unwrap_err();
    assert!(matches!(error, ApprovalError::NoSecondAdmin), "{error}");
}

/// One admin who makes a second one, or lets one in again, does not decide through them.
#[tokio::test]
async fn f60_who_became_an_admin_after_the_request_does_not_approve_it() {
    let World { database, _folder } = world().await;
    let mut transaction = database.begin_write().await.unwrap();
    let note = async |transaction: &mut AnyConnection, action| {
        // Whoever adds users may go by another clock.
        let note = Note::new(action, BEN);
        audit::enter(transaction, &by(ADA), note, 1_000).await.unwrap();
    };
    let ask =
        async |transaction: &mut AnyConnection| request(transaction, termination(), &by(ADA), 10).await.unwrap().id;
    note(&mut transaction, "user.set_role").await;
    let first = ask(&mut transaction).await;
    note(&mut transaction, "user.password_reset_request").await;
    let _ = approve(&mut transaction, first, admin(BEN), 20).await.unwrap();
    for action in [
        "user.add",
        "user.set_role",
        "user.enable",
        "approval.approve",
        "user.set_password",
        "user.two_factor_reset",
    ] {
        let id = ask(&mut transaction).await;
        note(&mut transaction, action).await;
        let refused = approve(&mut transaction, id, admin(BEN), 20).await.unwrap_err();
        assert!(
            matches!(refused, ApprovalError::NewAdmin { user: BEN, .. }),
            "{refused}"
        );
        // Who may not approve may still say no.
        let _ = reject(&mut transaction, id, admin(BEN), "not by me", 20).await.unwrap();
    }
}

/// Who gave somebody a password knows it, and could have done so just before asking.
#[tokio::test]
async fn f60_who_got_a_password_from_somebody_else_shortly_before_does_not_approve() {
    let World { database, _folder } = world().await;
    let mut transaction = database.begin_write().await.unwrap();
    let at_ms = 10 * NEW_ACCESS_MS;
    for (since_ms, is_refused) in [(0, true), (NEW_ACCESS_MS - 1, true), (NEW_ACCESS_MS, false)] {
        let note = Note::new("user.set_password", BEN);
        audit::enter(&mut transaction, &by(ADA), note, at_ms).await.unwrap();
        let asked_ms = at_ms + since_ms;
        let id = request(&mut transaction, termination(), &by(ADA), asked_ms)
            .await
            .unwrap()
            .id;
        let decided = approve(&mut transaction, id, admin(BEN), asked_ms).await;
        let is_new = matches!(decided, Err(ApprovalError::NewAdmin { .. }));
        assert_eq!(is_new, is_refused, "{since_ms} ms later: {decided:?}");
        if is_refused {
            let _ = reject(&mut transaction, id, admin(BEN), "no", asked_ms).await.unwrap();
        }
        sqlx::query(concat!("UPDATE ", "audit_log", " SET at_ms = 0"))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn f60_below_its_threshold_it_passes_and_above_it_waits() {
    let World { database, _folder } = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let small = NewApproval {
        size: 5,
        ..termination()
    };
    let gate_of = async |connection: &mut AnyConnection, new| gate(connection, new, &by(ADA), 1).await;
    assert_eq!(
        gate_of(&mut connection, small.clone()).await.unwrap(),
        Gate::Passes(Risk::Normal)
    );
    assert_eq!(list(&mut *connection, None, None, 10).await.unwrap(), []);
    let Gate::Waits(requested) = gate_of(&mut connection, termination()).await.unwrap() else {
        panic!("six wait");
    };
    let found = approval(&mut *connection, requested.id).await.unwrap();
    assert_eq!(found.request_entry, Some(requested.entered.id()));
    // Whoever sets the thresholds sets them for everybody.
    let strict = risk::Thresholds {
        termination_over_subscriptions: 4,
        ..risk::Thresholds::DEFAULT
    };
    let _ = risk::set_thresholds(&mut connection, &strict).await.unwrap();
    let waits = gate_of(
        &mut connection,
        NewApproval {
            subject: "cus_2",
            ..small
        },
    )
    .await;
    assert!(matches!(waits, Ok(Gate::Waits(_))), "{waits:?}");
}

#[tokio::test]
async fn f60_the_same_is_asked_for_once_while_it_waits() {
    let world = world().await;
    let first = asked(&world).await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    for user in [ADA, BEN] {
        let again = request(&mut connection, termination(), &by(user), 11)
            .await
            .unwrap_err();
        assert!(matches!(again, ApprovalError::Waits(id) if id == first), "{again}");
    }
    let _ = reject(&mut connection, first, admin(BEN), "not now", 12).await.unwrap();
    let second = request(&mut connection, termination(), &by(ADA), 13).await.unwrap().id;
    // What was rejected stays so, and the new request is decided by itself.
    assert!(approve(&mut connection, first, admin(BEN), 14).await.is_err());
    let _ = approve(&mut connection, second, admin(BEN), 14).await.unwrap();
}

#[tokio::test]
async fn f60_what_nobody_decided_in_time_expires() {
    let world = world().await;
    let id = asked(&world).await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    let expires_at_ms = approval(&mut *connection, id).await.unwrap().expires_at_ms;
    assert_eq!(expires_at_ms, 10 + 14 * DAY_MS);
    assert_eq!(expire(&mut connection, expires_at_ms - 1).await.unwrap(), 0);
    for is_swept in [false, true] {
        for decided in [
            approve(&mut connection, id, admin(BEN), expires_at_ms).await.map(drop),
            reject(&mut connection, id, admin(BEN), "late", expires_at_ms)
                .await
                .map(drop),
        ] {
            assert!(
                matches!(decided, Err(ApprovalError::Expired(_))),
                "{is_swept}: {decided:?}"
            );
        }
        let _ = expire(&mut connection, expires_at_ms).await.unwrap();
        assert_eq!(approval(&mut *connection, id).await.unwrap().status, Status::Expired);
    }
    // It can be asked for again.
    request(&mut connection, termination(), &by(ADA), expires_at_ms)
        .await
        .unwrap();
}

#[tokio::test]
async fn f60_an_account_of_the_machine_asks_and_an_admin_decides() {
    let World { database, _folder } = world().await;
    let operator = By::operator("alice", Some("bob"));
    let mut act = Act::begin(&database, operator, 10).await.unwrap();
    let (connection, who) = act.asking();
    let requested = request(connection, termination(), who, 10).await.unwrap();
    act.commit_entered(requested.entered).await.unwrap();
    let mut act = Act::begin(&database, by(BEN), 20).await.unwrap();
    let found = approval(act.connection(), requested.id).await.unwrap();
    assert_eq!(found.requested_by, None);
    assert_eq!(requester(act.connection(), &found).await.unwrap(), "os:alice");
    let (_, note) = approve(act.connection(), requested.id, admin(BEN), 20).await.unwrap();
    let entered = commit_decision(act, requested.id, note).await.unwrap();
    let decided = approval(database.pool(), requested.id).await.unwrap();
    assert_eq!(decided.decision_entry, Some(entered.id()));
    let log = audit::list(database.pool(), AuditFilter::default(), 10).await.unwrap();
    assert_eq!(log.len(), 2);
    for entry in &log {
        assert_eq!(entry.change["approval"], requested.id.to_string(), "{entry:?}");
    }
    assert_eq!(log[1].claimed_by.as_deref(), Some("os:bob"));
}

fn new_admin(subject: &str) -> NewApproval<'_> {
    NewApproval {
        kind: HighRisk::AdminRole,
        size: 1,
        action: json!({"action": "admin_role", "user": subject}),
        subject,
        summary: "an admin",
    }
}

#[tokio::test]
async fn f60_a_second_admin_decides_on_admins_once_there_are_two() {
    let World { database, _folder } = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let fay = FAY.to_string();
    let Gate::Waits(requested) = gate(&mut connection, new_admin(&fay), &by(ADA), 1).await.unwrap() else {
        panic!("there are two");
    };
    // Whom it is about does not decide, and cannot keep the other from acting.
    let (ada, ben) = (ADA.to_string(), BEN.to_string());
    let alone = gate(&mut connection, new_admin(&ben), &by(ADA), 1).await.unwrap();
    assert_eq!(alone, Gate::Passes(Risk::High));
    let operator = By::operator("root", None);
    let Gate::Waits(about) = gate(&mut connection, new_admin(&ada), &operator, 1).await.unwrap() else {
        panic!("ben decides");
    };
    for decided in [
        approve(&mut connection, about.id, admin(ADA), 2).await.map(drop),
        reject(&mut connection, about.id, admin(ADA), "no", 2).await.map(drop),
    ] {
        assert!(matches!(decided, Err(ApprovalError::AboutOneself(ADA))), "{decided:?}");
    }
    let _ = approve(&mut connection, about.id, admin(BEN), 2).await.unwrap();
    let _ = approve(&mut connection, requested.id, admin(BEN), 2).await.unwrap();
    sqlx::query("UPDATE users SET disabled_at_ms = 1 WHERE id = 2")
        .execute(&mut *connection)
        .await
        .unwrap();
    let one = gate(&mut connection, new_admin("usr_9"), &operator, 1).await.unwrap();
    assert_eq!(one, Gate::Passes(Risk::High));
}

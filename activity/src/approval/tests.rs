use schemas::db::Database;
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

/// An action that only admins may ask for.
fn termination() -> NewApproval<'static> {
    NewApproval {
        kind: "bulk_termination",
        action: json!({"action": "bulk_termination", "subscriptions": ["sub_1", "sub_2"], "reason": "abuse"}),
        requester_role: Role::Admin,
        subject: "cus_1",
        summary: "end all subscriptions of cus_1",
    }
}

async fn asked(world: &World) -> ApprovalId {
    let mut transaction = world.database.begin_write().await.unwrap();
    let requested = request(&mut transaction, termination(), admin(ADA), 10).await.unwrap();
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
        let error = request(&mut connection, new, admin(user), 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    assert_eq!(list(&mut *connection, None, None, 10).await.unwrap(), []);
    // Some actions are for another role to ask for; an admin decides all the same.
    let refund = NewApproval {
        kind: "refund",
        requester_role: Role::Finance,
        ..termination()
    };
    let id = request(&mut connection, refund, admin(FAY), 1).await.unwrap().id;
    assert!(approve(&mut connection, id, admin(FAY), 2).await.is_err());
    let pending = pending_of(&mut *connection, "refund").await.unwrap();
    assert_eq!(pending.iter().map(|one| one.id).collect::<Vec<_>>(), [id]);
    assert_eq!(pending_of(&mut *connection, "bulk_termination").await.unwrap(), []);
    sqlx::query("UPDATE users SET disabled_at_ms = 1 WHERE id = 2")
        .execute(&mut *connection)
        .await
        .unwrap();
    let error = request(&mut connection, termination(), admin(ADA), 1)
        .await
        .unwrap_err();
    assert!(matches!(error, ApprovalError::NoSecondAdmin), "{error}");
}

/// One admin who makes a second one, or lets one in again, does not decide through them.
#[tokio::test]
async fn f60_who_became_an_admin_after_the_request_does_not_approve_it() {
    let World { database, _folder } = world().await;
    let mut transaction = database.begin_write().await.unwrap();
    let note = async |transaction: &mut AnyConnection, action| {
        let entry = Entry {
            actor: Actor {
                name: "ada@example.net",
                user: Some(ADA),
                ip: "",
            },
            action,
            subject: &BEN.to_string(),
            change: serde_json::json!({}),
            risk: Risk::Normal,
        };
        // Whoever adds users may go by another clock.
        audit::record(transaction, entry, 1_000).await.unwrap();
    };
    let ask =
        async |transaction: &mut AnyConnection| request(transaction, termination(), admin(ADA), 10).await.unwrap().id;
    note(&mut transaction, "user.set_role").await;
    let first = ask(&mut transaction).await;
    note(&mut transaction, "user.password_reset_request").await;
    let _ = approve(&mut transaction, first, admin(BEN), 20).await.unwrap();
    for action in ["user.add", "user.set_role", "user.enable"] {
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

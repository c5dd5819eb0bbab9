use activity::act::By;
use activity::approval::{Approval, ApprovalError};
use activity::risk::{self, Thresholds};
use schemas::db::Database;
use schemas::ids::{CustomerId, SubscriptionId, UserId};
use schemas::money::{Currency, Money};
use schemas::window::DAY_MS;
use sqlx::Row as _;

use super::*;
use crate::action::{NewRequest, PriceVersion, request};
use crate::invoice::add_item;
use crate::testing::{DEAL, ms};
use crate::top_up;

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
    let folder = tempfile::tempdir().unwrap();
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

fn by(user: UserId) -> By {
    By::user(format!("user{}@example.net", user.0), user, "192.0.2.1")
}

fn termination(count: i64) -> NewRequest {
    NewRequest {
        action: Action::BulkTermination {
            subscriptions: (1..=count).map(SubscriptionId).collect(),
            counted_subscriptions: 0,
            reason: "abuse".to_owned(),
        },
        subject: "cus_1".to_owned(),
        summary: "end all subscriptions of cus_1".to_owned(),
    }
}

async fn asked(world: &World) -> ApprovalId {
    let mut transaction = world.database.begin_write().await.unwrap();
    let id = request(&mut transaction, &termination(6), &by(ADA), 10)
        .await
        .unwrap()
        .id;
    transaction.commit().await.unwrap();
    id
}

#[tokio::test]
async fn nobody_asks_for_what_needs_no_approval() {
    let world = world().await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    for (new, user, words) in [
        (termination(5), ADA, "needs no approval"),
        (termination(0), ADA, "between 1 and"),
        (termination(6), FAY, "not an active admin"),
    ] {
        let error = request(&mut connection, &new, &by(user), 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    assert_eq!(approval::list(&mut *connection, None, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn f60_what_is_approved_is_what_was_asked_for() {
    let world = world().await;
    let id = asked(&world).await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    let found = approval::approval(&mut *connection, id).await.unwrap();
    assert_eq!(found.kind, "bulk_termination");
    assert_eq!(Action::of(&found).unwrap(), termination(6).action);
    let (action, _) = approve(&mut connection, id, admin(BEN), 20).await.unwrap();
    assert_eq!(action, termination(6).action);
    let unknown = Approval {
        action: serde_json::json!({"action": "nothing_known"}),
        ..found
    };
    let error = Action::of(&unknown).unwrap_err().to_string();
    assert!(error.contains(&id.to_string()), "{error}");
}

const BEN_ACTS: &str = "user2@example.net";

/// Asks as ada, approves as ben, and does it.
async fn approved(database: &Database, action: Action) -> (ExecutionOutcome, serde_json::Value) {
    let mut transaction = database.begin_write().await.unwrap();
    let new = NewRequest {
        action,
        subject: "x".to_owned(),
        summary: "what it does".to_owned(),
    };
    let id = request(&mut transaction, &new, &by(ADA), 10).await.unwrap().id;
    let (action, _) = approve(&mut transaction, id, admin(BEN), 20).await.unwrap();
    let done = execute(&mut transaction, &action, BEN_ACTS, ms("2026-01-20T12:00:00Z")).await;
    let done = done.unwrap();
    transaction.commit().await.unwrap();
    done
}

async fn count(database: &Database, sql: &'static str) -> i64 {
    let row = sqlx::query(sql).fetch_one(database.pool()).await.unwrap();
    row.try_get(0).unwrap()
}

#[tokio::test]
async fn f60_a_deleted_account_pays_for_nothing_more_and_nobody_signs_in_for_it() {
    let admins = world().await;
    let world = crate::testing::World::new().await;
    // The same admins, in the world that has customers.
    for (id, role) in [(ADA, "admin"), (BEN, "admin")] {
        insert_user(&world.database, id, role, None).await;
    }
    let customer = world.customer("USD", "UTC", "0").await;
    let other = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    let stays = world.subscribe(other, DEAL).await;
    insert_user(&world.database, UserId(10), "customer", Some(customer)).await;
    insert_user(&world.database, UserId(11), "customer", Some(other)).await;
    for user in [10, 11] {
        sqlx::query("INSERT INTO sessions (token_hash, user_id, csrf_token, created_at_ms, last_seen_at_ms, expires_at_ms, user_agent, ip) VALUES ($1, $2, 'x', 0, 0, 9, '', '')")
            .bind(format!("t{user}"))
            .bind(user)
            .execute(world.database.pool())
            .await
            .unwrap();
    }
    let (done, _) = approved(&world.database, Action::AccountDeletion { customer }).await;
    let ExecutionOutcome::Executed(said) = done else {
        panic!("billing does it: {done:?}")
    };
    assert!(
        said.contains("1 subscription ended, 1 user signed out for good"),
        "{said}"
    );
    let mut connection = world.database.pool().acquire().await.unwrap();
    let ended = crate::subscription::subscription(&mut *connection, contract.subscription.id).await;
    assert_eq!(ended.unwrap().state, crate::subscription::SubscriptionState::Ended);
    let goes_on = crate::subscription::subscription(&mut *connection, stays.subscription.id).await;
    assert_eq!(goes_on.unwrap().state, crate::subscription::SubscriptionState::Active);
    drop(connection);
    let users = "SELECT count(*) FROM users WHERE disabled_at_ms IS NOT NULL";
    assert_eq!(count(&world.database, users).await, 1);
    assert_eq!(count(&world.database, "SELECT min(user_id) FROM sessions").await, 11);

    // It is marked, and nothing is sold, charged or granted any more.
    let mut transaction = world.database.begin_write().await.unwrap();
    let deleted = schemas::inventory::customer(&mut *transaction, customer).await.unwrap();
    assert!(deleted.deleted_at_ms.is_some());
    let usd = Money::new(5_00, Currency::USD);
    let granted = crate::settlement::grant_credit(&mut transaction, customer, usd, "x", "sorry", 30).await;
    assert!(granted.unwrap_err().to_string().contains("was deleted on"));
    let charged = add_item(&mut transaction, customer, None, "work", usd, "fin", 30).await;
    assert!(matches!(
        charged.unwrap_err(),
        BillingError::Inventory(schemas::inventory::InventoryError::Deleted { .. })
    ));
    let service = schemas::inventory::NewService {
        customer,
        name: "more",
        service_type: "vps",
        site: None,
    };
    let more = schemas::inventory::create_service(&mut transaction, service, 30).await;
    assert!(more.unwrap_err().to_string().contains("was deleted on"));
    drop(transaction);

    // Its days and what it used until then are charged, and asked for and done once more nothing changes.
    crate::invoice::close(&world.database, &world.usage, customer, ms("2026-01-21T12:00:00Z"))
        .await
        .unwrap();
    assert_eq!(count(&world.database, "SELECT count(*) FROM invoices").await, 2);
    let (again, _) = approved(&world.database, Action::AccountDeletion { customer }).await;
    assert!(
        matches!(&again, ExecutionOutcome::Executed(said) if said.contains("0 subscriptions ended, 0 users")),
        "{again:?}"
    );
    // An account that there is not is not approved.
    let mut transaction = admins.database.begin_write().await.unwrap();
    let nobody = Action::AccountDeletion {
        customer: CustomerId(99),
    };
    assert!(execute(&mut transaction, &nobody, BEN_ACTS, 30).await.is_err());
}

#[tokio::test]
async fn f60_what_takes_off_an_invoice_counts_with_what_is_granted() {
    let world = crate::testing::World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let now_ms = ms("2026-01-20T12:00:00Z");
    let usd = |minor| Money::new(minor, Currency::USD);
    let mut transaction = world.database.begin_write().await.unwrap();
    let (_, _) = top_up::grant(&mut transaction, customer, usd(60_000), "t:1", "sorry", now_ms)
        .await
        .unwrap();
    let item = wanted::credit_item(&mut transaction, customer, "sorry", usd(-50_000), now_ms).await;
    let item = item.unwrap().action;
    assert_eq!(item.size(), 110_000);
    assert!(item.waits(&Thresholds::DEFAULT));
    add_item(&mut transaction, customer, None, "sorry", usd(-30_000), "fin", now_ms)
        .await
        .unwrap();
    // What is charged takes nothing back of it.
    add_item(&mut transaction, customer, None, "work", usd(90_000), "fin", now_ms)
        .await
        .unwrap();
    for (at_ms, counted) in [(now_ms + 1, 110_000), (now_ms + DAY_MS, 20_000)] {
        let grant = wanted::credit_grant(&mut transaction, customer, usd(20_000), "t:2", "sorry", at_ms).await;
        assert_eq!(grant.unwrap().action.size(), counted);
    }
    // What is asked for counts with it too, but for itself.
    let asking = wanted::credit_item(&mut transaction, customer, "more", usd(-20_000), now_ms).await;
    let asking = asking.unwrap();
    request(&mut transaction, &asking, &by(ADA), now_ms).await.unwrap_err();
    let zero = Thresholds {
        credit_grant_over_minor: 0,
        ..Thresholds::DEFAULT
    };
    let _ = risk::set_thresholds(&mut transaction, &zero).await.unwrap();
    for id in [ADA, BEN] {
        sqlx::query("INSERT INTO users (id, email, name, role, password_hash, created_at_ms) VALUES ($1, $2, 'x', 'admin', 'x', 0)")
            .bind(id.0)
            .bind(format!("user{}@example.net", id.0))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    request(&mut transaction, &asking, &by(ADA), now_ms).await.unwrap();
    let same = wanted::credit_item(&mut transaction, customer, "more", usd(-20_000), now_ms).await;
    assert_eq!(same.unwrap().action.size(), 110_000);
    let other = wanted::credit_item(&mut transaction, customer, "other", usd(-20_000), now_ms).await;
    assert_eq!(other.unwrap().action.size(), 130_000);
}

#[tokio::test]
async fn f60_subscriptions_that_end_one_by_one_count_together() {
    let world = crate::testing::World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    insert_user(&world.database, UserId(10), "customer", Some(customer)).await;
    let now_ms = ms("2026-01-20T12:00:00Z");
    let mut subscriptions = Vec::new();
    for _ in 0..8 {
        subscriptions.push(world.subscribe(customer, DEAL).await.subscription.id);
    }
    let mut transaction = world.database.begin_write().await.unwrap();
    // By their customer, by the calendar, and five by staff.
    let actors = [
        "user10@example.net",
        "billing",
        "root",
        "root",
        "root",
        "fin@example.net",
        "root",
    ];
    for (id, actor) in subscriptions.iter().zip(actors) {
        let end = crate::subscription::change::CancellationTime::Now;
        crate::subscription::change::cancel(&mut transaction, *id, end, "abuse", actor, now_ms)
            .await
            .unwrap();
    }
    let last = subscriptions[7];
    for (at_ms, counted) in [(now_ms + 1, 6), (now_ms + DAY_MS, 1)] {
        let one = wanted::termination(&mut transaction, customer, vec![last], ("sub_8", "abuse"), at_ms).await;
        let one = one.unwrap().action;
        assert_eq!(one.size(), counted);
        assert_eq!(one.waits(&Thresholds::DEFAULT), counted > 5);
    }
}

#[tokio::test]
async fn f60_an_approved_price_is_checked_and_recorded_as_any_other() {
    let world = crate::testing::World::new().await;
    for id in [ADA, BEN] {
        insert_user(&world.database, id, "admin", None).await;
    }
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    let price = &contract.phases[0].price;
    let wanted = Action::PriceChange {
        plan: price.plan,
        currency: "USD".to_owned(),
        prices: vec![PriceVersion {
            cycle_months: price.cycle_months,
            base_minor: 4_200,
            usage_price: serde_json::to_value(&price.usage).unwrap(),
            // Approved later than it was to hold from.
            valid_from_ms: ms("2026-01-10T00:00:00Z"),
        }],
        customers: 101,
    };
    let (done, change) = approved(&world.database, wanted).await;
    assert!(
        matches!(&done, ExecutionOutcome::Executed(said) if said.contains("1 subscriptions change")),
        "{done:?}"
    );
    assert_eq!(change["after"]["base"], "USD 42.00");
    assert_eq!(change["after"]["valid_from"], "2026-01-20T12:00:00Z");
    assert_eq!(change["after"]["at_renewal"]["scheduled"], 1);
}

async fn insert_user(database: &Database, id: UserId, role: &str, customer: Option<CustomerId>) {
    sqlx::query(
        "INSERT INTO users (id, email, name, role, customer_id, password_hash, created_at_ms) \
         VALUES ($1, $2, 'x', $3, $4, 'x', 0)",
    )
    .bind(id.0)
    .bind(format!("user{}@example.net", id.0))
    .bind(role)
    .bind(customer.map(|customer| customer.0))
    .execute(database.pool())
    .await
    .unwrap();
}

#[tokio::test]
async fn f60_an_admin_who_was_deleted_decides_nothing_any_more() {
    let world = world().await;
    insert_user(&world.database, UserId(7), "admin", None).await;
    let (done, _) = approved(&world.database, Action::AdminDeleted { user: UserId(7) }).await;
    assert_eq!(
        done,
        ExecutionOutcome::Executed("usr_7 cannot sign in any more".to_owned())
    );
    let id = asked(&world).await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    let refused = approve(&mut connection, id, admin(UserId(7)), 40).await.unwrap_err();
    assert!(
        matches!(refused, ActionError::Approval(ApprovalError::NotAdmin(_))),
        "{refused}"
    );
    drop(connection);
    // Finance is no admin: that is not what was approved.
    let done = approved(&world.database, Action::AdminDeleted { user: FAY }).await;
    assert!(matches!(done, (ExecutionOutcome::Executed(said), _) if said.contains("was no admin")));
    let enabled = "SELECT count(*) FROM users WHERE id = 3 AND disabled_at_ms IS NULL";
    assert_eq!(count(&world.database, enabled).await, 1);
}

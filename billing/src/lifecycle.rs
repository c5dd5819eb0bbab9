//! What comes with time: trials end, scheduled changes are made, cancelled subscriptions end, free plans that nobody uses
//! end too.
//!
//! [`advance`] does all of it up to an instant, each in a transaction of its own, in the order of the instants they were due
//! at: a program that was off for a week catches up to the same books. What cannot be done is told and does not keep the
//! rest from being done. Doing it again does nothing.

use activity::event::{EventType, NewEvent};
use schemas::db::Database;
use schemas::ids::SubscriptionId;
use schemas::usage::UsageMode;
use schemas::window::DAY_MS;
use serde_json::json;
use sqlx::{AnyConnection, Row as _};

use crate::event;
use crate::subscription::change::{self, CancellationTime};
use crate::subscription::schedule::{self, ScheduledChange};
use crate::subscription::{ITSELF, SubscriptionState};
use crate::{BillingError, guard};
use schemas::usage::UsageQuery;

/// A free plan ends after so long without anybody signing in or any traffic (F-26).
pub const FREE_PLAN_IDLE_MS: i64 = 90 * DAY_MS;
/// The customer is warned so long before.
pub const FREE_PLAN_WARNING_MS: i64 = 14 * DAY_MS;
/// How many things of a kind one call does at most; the next call does the rest.
const AT_ONCE: i64 = 1_000;

/// What was done.
#[derive(Debug, Default)]
pub struct Advanced {
    pub trials_ended: usize,
    pub reminders: usize,
    pub changes_executed: usize,
    pub changes_failed: usize,
    pub subscriptions_ended: usize,
    /// What could not be done, and why.
    pub failed: Vec<(SubscriptionId, BillingError)>,
}

/// Does what is due by `now_ms`.
///
/// # Errors
/// When the database cannot be read at all.
pub async fn advance(database: &Database, now_ms: i64) -> Result<Advanced, BillingError> {
    guard::check(database.pool()).await?;
    let mut done = Advanced::default();
    for id in due(database, "SELECT id FROM subscriptions WHERE status = 'trial' AND trial_ends_at_ms <= $1 ORDER BY trial_ends_at_ms, id LIMIT $2", now_ms).await? {
        let mut transaction = database.begin_write().await?;
        match change::end_trial(&mut transaction, id, now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                done.trials_ended += 1;
            }
            // Another worker was first.
            Err(BillingError::NoTransition { state, .. }) if state != SubscriptionState::Trial => {}
            Err(error) => done.failed.push((id, error)),
        }
    }
    for change in schedule::to_remind(database.pool(), now_ms).await? {
        let mut transaction = database.begin_write().await?;
        match schedule::remind(&mut transaction, &change, now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                done.reminders += 1;
            }
            Err(error) => done.failed.push((change.subscription, error)),
        }
    }
    for change in schedule::due(database.pool(), now_ms).await? {
        execute(database, &change, now_ms, &mut done).await?;
    }
    for id in due(database, "SELECT id FROM subscriptions WHERE status <> 'ended' AND cancel_at_ms <= $1 ORDER BY cancel_at_ms, id LIMIT $2", now_ms).await? {
        let mut transaction = database.begin_write().await?;
        match change::reach_end(&mut transaction, id, ITSELF, now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                done.subscriptions_ended += 1;
            }
            // Another worker was first, or somebody resumed it meanwhile.
            Err(BillingError::Refused { .. }) => {}
            Err(error) => done.failed.push((id, error)),
        }
    }
    Ok(done)
}

/// A change that cannot be made is noted as failed, with the reason, so that it is not tried for ever.
async fn execute(
    database: &Database,
    change: &ScheduledChange,
    now_ms: i64,
    done: &mut Advanced,
) -> Result<(), BillingError> {
    let mut transaction = database.begin_write().await?;
    let refused = match schedule::execute(&mut transaction, change, now_ms).await {
        Ok(()) => {
            transaction.commit().await?;
            done.changes_executed += 1;
            return Ok(());
        }
        // Another worker was first.
        Err(BillingError::ChangeSettled(_)) => return Ok(()),
        // It stays pending.
        Err(BillingError::NotChargedNow(_)) => return Ok(()),
        // The database's trouble is not the change's: it is tried again.
        Err(BillingError::Database(error)) => return Err(error.into()),
        Err(refused) => refused,
    };
    transaction.rollback().await?;
    let mut transaction = database.begin_write().await?;
    match schedule::fail(&mut transaction, change, &refused.to_string(), now_ms).await {
        Ok(()) => {
            transaction.commit().await?;
            done.changes_failed += 1;
        }
        Err(BillingError::ChangeSettled(_)) => {}
        Err(error) => done.failed.push((change.subscription, error)),
    }
    Ok(())
}

/// What a look at free plans did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdleFreePlans {
    pub warned: usize,
    pub ended: usize,
}

/// Warns the customers of free plans who have not signed in, and whose services have not sent or received anything, for
/// [`FREE_PLAN_IDLE_MS`] but [`FREE_PLAN_WARNING_MS`], and ends the plan when that has passed since the warning: nobody loses
/// one unwarned, even where billing was off meanwhile.
///
/// # Errors
/// When the database or usage cannot be read.
pub async fn end_idle_free_plans(
    database: &Database,
    usage: &dyn schemas::usage::UsageSource,
    now_ms: i64,
) -> Result<IdleFreePlans, BillingError> {
    let since_ms = now_ms - (FREE_PLAN_IDLE_MS - FREE_PLAN_WARNING_MS);
    let idle = due(
        database,
        "SELECT s.id FROM subscriptions s JOIN phases p ON p.subscription_id = s.id JOIN plans l ON l.id = p.plan_id \
         WHERE l.is_free = 1 AND s.status NOT IN ('ended', 'cancelled') AND s.started_at_ms <= $1 \
         AND NOT EXISTS (SELECT 1 FROM users u WHERE u.customer_id = s.customer_id AND u.last_seen_at_ms > $1) \
         ORDER BY s.id LIMIT $2",
        since_ms,
    );
    let mut done = IdleFreePlans::default();
    for id in idle.await? {
        let mut connection = database.pool().acquire().await?;
        let contract = crate::subscription::contract(&mut connection, id).await?;
        // Of this idle stretch: whoever was back after a warning is idle for longer than that before the next.
        let warned_at_ms = warned_at_ms(&mut connection, id, now_ms - FREE_PLAN_IDLE_MS).await?;
        drop(connection);
        let is_over = warned_at_ms.is_some_and(|warned_at_ms| warned_at_ms + FREE_PLAN_WARNING_MS <= now_ms);
        if warned_at_ms.is_some() && !is_over {
            continue;
        }
        let from_ms = if is_over { now_ms - FREE_PLAN_IDLE_MS } else { since_ms };
        // Usage stays when retention has removed its flows.
        let query = UsageQuery {
            service: (*contract.service).clone(),
            from_ms,
            to_ms: now_ms,
            mode: UsageMode::Sum,
            excluded: Vec::new(),
        };
        let used = usage.period_usage(std::slice::from_ref(&query), now_ms).await?;
        if used.iter().any(|used| used.billed_bytes > 0) {
            continue;
        }
        let mut transaction = database.begin_write().await?;
        if is_over {
            let reason = "the free plan was not used for 90 days";
            change::cancel(&mut transaction, id, CancellationTime::Now, reason, ITSELF, now_ms).await?;
            done.ended += 1;
        } else {
            let subscription = &contract.subscription;
            let warning = NewEvent {
                event_type: EventType::FreeTierInactive,
                customer: Some(subscription.customer),
                subject: id.to_string(),
                payload: json!({
                    "service": subscription.service, "service_name": contract.service.name,
                    "ends_at_ms": now_ms + FREE_PLAN_WARNING_MS,
                }),
            };
            event::publish(&mut transaction, warning, now_ms).await?;
            done.warned += 1;
        }
        transaction.commit().await?;
    }
    Ok(done)
}

/// When the customer was last warned, after `after_ms`.
async fn warned_at_ms(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    after_ms: i64,
) -> Result<Option<i64>, BillingError> {
    let row = sqlx::query(
        "SELECT max(created_at_ms) FROM events WHERE event_type = $1 AND subject = $2 AND created_at_ms > $3",
    )
    .bind(EventType::FreeTierInactive.name())
    .bind(id.to_string())
    .bind(after_ms)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

async fn due(database: &Database, sql: &'static str, now_ms: i64) -> Result<Vec<SubscriptionId>, BillingError> {
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
    rows.iter().map(|row| Ok(SubscriptionId(row.try_get(0)?))).collect()
}

#[cfg(test)]
mod tests {
    use activity::event::{self, EventFilter};
    use schemas::money::{Currency, Money};

    use super::*;
    use crate::catalog::{self, NewPlan, NewPrice, Terms};
    use crate::subscription::{NewSubscription, subscribe, subscription};
    use crate::testing::{World, ms};

    #[tokio::test]
    async fn a_free_plan_needs_a_verified_customer_and_ends_when_nobody_uses_it() {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let service = world.service(customer, "dev").await;
        let mut transaction = world.database.begin_write().await.unwrap();
        let plan = NewPlan {
            is_free: true,
            ..NewPlan::new("Development", "vps", Terms::Flat)
        };
        let plan = catalog::create_plan(&mut transaction, plan, 0).await.unwrap();
        let price = NewPrice {
            plan: plan.id,
            cycle_months: 1,
            base: Money::zero(Currency::USD),
            usage: "0".parse().unwrap(),
            valid_from_ms: 0,
        };
        let price = catalog::add_price(&mut transaction, price).await.unwrap();
        transaction.commit().await.unwrap();
        let start_ms = ms("2026-01-01T00:00:00Z");
        let new = NewSubscription::new(service.id, price.id, start_ms);
        let begin = async || {
            let mut transaction = world.database.begin_write().await.unwrap();
            let made = subscribe(&mut transaction, new, "test", start_ms).await?;
            transaction.commit().await.unwrap();
            Ok::<_, BillingError>(made.id)
        };
        let told = begin().await.unwrap_err().to_string();
        assert_eq!(told, "cus_1 cannot have a free plan: its email address is not verified");
        let pool = world.database.pool();
        sqlx::query("UPDATE customers SET email_verified_at_ms = 1")
            .execute(pool)
            .await
            .unwrap();
        let told = begin().await.unwrap_err().to_string();
        assert_eq!(
            told,
            "cus_1 cannot have a free plan: none of its users has a second factor"
        );
        sqlx::query(
            "INSERT INTO users (id, email, name, role, customer_id, password_hash, created_at_ms, two_factor_at_ms, \
             last_seen_at_ms) VALUES (1, 'a@example.net', 'A', 'customer', 1, '', 0, 1, $1)",
        )
        .bind(ms("2026-02-01T00:00:00Z"))
        .execute(pool)
        .await
        .unwrap();
        let id = begin().await.unwrap();

        // Signed in on 1 February, and something was sent on 1 March and, after a warning, on 20 May: 76 days from then on
        // is warned again, and 14 days after that it ends.
        world.usage.add(service.id, "2026-03-01T00:00:00Z", 0, 1);
        world.usage.add(service.id, "2026-05-20T00:00:00Z", 0, 1);
        for (now, warned, ended) in [
            ("2026-04-15T00:00:00Z", 0, 0),
            ("2026-05-17T00:00:00Z", 1, 0),
            ("2026-05-18T00:00:00Z", 0, 0),
            ("2026-05-31T00:00:00Z", 0, 0),
            ("2026-08-03T00:00:00Z", 0, 0),
            // Billing was off for a while: late, but with all the days of the warning.
            ("2026-08-25T00:00:00Z", 1, 0),
            ("2026-09-07T23:59:00Z", 0, 0),
            ("2026-09-08T00:00:00Z", 0, 1),
            ("2026-10-30T00:00:00Z", 0, 0),
        ] {
            let done = end_idle_free_plans(&world.database, &world.usage, ms(now))
                .await
                .unwrap();
            assert_eq!((done.warned, done.ended), (warned, ended), "{now}");
        }
        let warnings = event::list(pool, EventFilter::default(), 50).await.unwrap();
        let warnings: Vec<_> = warnings
            .iter()
            .filter(|event| event.event_type == EventType::FreeTierInactive)
            .map(|event| event.payload["ends_at_ms"].as_i64().unwrap())
            .collect();
        assert_eq!(warnings, [ms("2026-09-08T00:00:00Z"), ms("2026-05-31T00:00:00Z")]);
        assert_eq!(subscription(pool, id).await.unwrap().state, SubscriptionState::Ended);
    }
}

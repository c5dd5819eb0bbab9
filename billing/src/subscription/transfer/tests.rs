use super::*;
use schemas::money::{Currency, Money};

use crate::catalog::{NewPlan, NewPrice, PlanKind, Terms};
use crate::invoice;
use crate::testing::{DEAL, World, ms};

/// Moves a service between customers of two time zones at an instant, and gives what each was charged for, in bytes.
async fn moved(from_zone: &str, to_zone: &str, at: &str) -> (World, [CustomerId; 2], ServiceId) {
    let world = World::new().await;
    let old = world.customer("USD", from_zone, "0").await;
    let new = world.customer("USD", to_zone, "0").await;
    let contract = world.subscribe(old, DEAL).await;
    let service = contract.service.id;
    // One megabyte in each hour of the month.
    for day in 1..=31 {
        for hour in 0..24 {
            let at = format!("2026-01-{day:02}T{hour:02}:30:00Z");
            world.usage.add(service, &at, 1_000_000, 0);
        }
    }
    let mut transaction = world.database.begin_write().await.unwrap();
    let id = request(&mut transaction, service, new, "T-1", ms(at)).await.unwrap();
    approve(&mut transaction, id, "admin", ms(at)).await.unwrap();
    complete(&mut transaction, id, "admin", ms(at)).await.unwrap();
    transaction.commit().await.unwrap();
    (world, [old, new], service)
}

/// Times that a customer was charged usage for until spring.
async fn charged(world: &World, customer: CustomerId) -> Vec<(i64, i64)> {
    let now_ms = ms("2026-03-01T12:00:00Z");
    invoice::close(&world.database, &world.usage, customer, now_ms)
        .await
        .unwrap();
    let mut times = Vec::new();
    for one in invoice::list_of(world.database.pool(), customer).await.unwrap() {
        let lines = invoice::get(&world.database, one.id).await.unwrap().lines;
        let usage = lines.iter().filter(|line| line.kind.is_usage());
        times.extend(usage.map(|line| (line.period_start_ms, line.period_end_ms)));
    }
    times.sort_unstable();
    times
}

#[tokio::test]
async fn f27_an_hour_is_charged_to_one_owner_at_most_whatever_their_time_zones() {
    for (from_zone, to_zone, at) in [
        ("UTC", "UTC", "2026-01-16T10:00:00Z"),
        // The new owner's day began six hours before the old owner's.
        ("America/New_York", "Europe/Berlin", "2026-01-16T10:00:00Z"),
        ("Europe/Berlin", "America/New_York", "2026-01-16T10:00:00Z"),
        // It is the day before in New York.
        ("Europe/Berlin", "America/New_York", "2026-01-16T02:00:00Z"),
        ("Pacific/Kiritimati", "Pacific/Niue", "2026-01-16T10:30:00Z"),
        ("Pacific/Niue", "Pacific/Kiritimati", "2026-01-16T10:30:00Z"),
    ] {
        let (world, [old, new], service) = moved(from_zone, to_zone, at).await;
        let owned_from_ms = inventory::service(world.database.pool(), service)
            .await
            .unwrap()
            .owned_from_ms;
        assert_eq!(
            owned_from_ms,
            ms(at),
            "{from_zone} → {to_zone}: the hour is the start of a window"
        );
        let of_old = charged(&world, old).await;
        let of_new = charged(&world, new).await;
        assert!(!of_old.is_empty() && !of_new.is_empty(), "{from_zone} → {to_zone}");
        let last = of_old.iter().map(|(_, to_ms)| *to_ms).max().unwrap();
        assert_eq!(last, owned_from_ms, "the old owner pays until it is another's");
        assert_eq!(of_new[0].0, owned_from_ms, "{from_zone} → {to_zone}: no hour is free");
        for pair in of_old.windows(2).chain(of_new.windows(2)) {
            assert_eq!(pair[0].1, pair[1].0, "{from_zone} → {to_zone}: nor within");
        }
    }
}

#[tokio::test]
async fn f27_the_old_owner_s_lines_stay_explained_in_the_zone_they_were_charged_in() {
    let (world, [old, _], _) = moved("America/New_York", "Asia/Tokyo", "2026-01-16T10:00:00Z").await;
    charged(&world, old).await;
    let invoice = invoice::list_of(world.database.pool(), old).await.unwrap();
    let lines = invoice::get(&world.database, invoice[0].id).await.unwrap().lines;
    let usage = lines.iter().find(|line| line.kind.is_usage()).unwrap();
    let explained = invoice::explain(&world.database, &world.usage, usage.id).await.unwrap();
    let days: Vec<(i64, i64)> = explained.days.iter().map(|day| (day.start_ms, day.end_ms)).collect();
    // Midnights of New York.
    assert!(
        days.iter()
            .skip(1)
            .all(|(start_ms, _)| start_ms % 86_400_000 == 5 * 3_600_000),
        "{days:?}"
    );
    assert_eq!(days.last().unwrap().1, usage.period_end_ms);
    let bytes: u64 = explained.days.iter().map(|day| day.billed_bytes).sum();
    assert_eq!(bytes, explained.measured.billed_bytes);
}

#[tokio::test]
async fn f27_each_side_is_told_every_step_with_the_other_s_name() {
    let (world, [old, new], service) = moved("UTC", "UTC", "2026-01-16T10:00:00Z").await;
    for event_type in [
        "service.transfer_requested",
        "service.transfer_approved",
        "service.transfer_completed",
    ] {
        let rows = sqlx::query("SELECT customer_id, payload FROM events WHERE event_type = $1 ORDER BY id")
            .bind(event_type)
            .fetch_all(world.database.pool())
            .await
            .unwrap();
        let told: Vec<(i64, serde_json::Value)> = rows
            .iter()
            .map(|row| {
                let payload: String = row.try_get(1).unwrap();
                (row.try_get(0).unwrap(), serde_json::from_str(&payload).unwrap())
            })
            .collect();
        assert_eq!(told.len(), 2, "{event_type}");
        for ((customer, facts), (expected, side)) in told.iter().zip([(old, "giver"), (new, "receiver")]) {
            assert_eq!(
                (*customer, facts["side"].as_str()),
                (expected.0, Some(side)),
                "{event_type}"
            );
            assert_eq!(facts["service"], service.to_string(), "{facts}");
            assert_eq!(
                (&facts["service_name"], &facts["transfer"]),
                (&"web-1".into(), &"trf_1".into())
            );
            assert_eq!(facts["other_name"], "Ada Hosting");
        }
    }
}

#[tokio::test]
async fn f27_a_move_begins_no_trial_brings_what_is_left_of_one_along_and_leaves_cancelled_add_ons() {
    let world = World::new().await;
    let (old, new) = (
        world.customer("USD", "UTC", "0").await,
        world.customer("USD", "UTC", "0").await,
    );
    let mut transaction = world.database.begin_write().await.unwrap();
    let mut made = Vec::new();
    for (name, kind, trial_days) in [
        ("tried", PlanKind::Plan, 10),
        ("backup", PlanKind::Addon, 0),
        ("address", PlanKind::Addon, 0),
    ] {
        let plan = NewPlan {
            kind,
            trial_days,
            ..NewPlan::new(name, "vps", Terms::Flat)
        };
        let plan = catalog::create_plan(&mut transaction, plan, 0).await.unwrap();
        let price = NewPrice {
            plan: plan.id,
            cycle_months: 1,
            base: Money::new(3100, Currency::USD),
            usage: "0".parse().unwrap(),
            valid_from_ms: 0,
        };
        made.push(catalog::add_price(&mut transaction, price).await.unwrap().id);
    }
    transaction.commit().await.unwrap();
    let service = world.service(old, "web-1").await.id;
    let start_ms = ms("2026-01-01T00:00:00Z");
    let mut transaction = world.database.begin_write().await.unwrap();
    let own = subscribe(
        &mut transaction,
        NewSubscription::new(service, made[0], start_ms),
        "test",
        start_ms,
    )
    .await
    .unwrap();
    let mut beside = Vec::new();
    for price in &made[1..] {
        let addon = NewSubscription {
            parent: Some(own.id),
            ..NewSubscription::new(service, *price, start_ms)
        };
        beside.push(subscribe(&mut transaction, addon, "test", start_ms).await.unwrap().id);
    }
    change::cancel(
        &mut transaction,
        beside[1],
        CancellationTime::CycleEnd,
        "not needed",
        "test",
        start_ms,
    )
    .await
    .unwrap();
    let mut owners = (old, new);
    for (at, ends) in [
        // Six days of the trial are left.
        ("2026-01-05T00:00:00Z", Some("2026-01-11T00:00:00Z")),
        // It is over: it does not begin again, with whomever.
        ("2026-01-20T00:00:00Z", None),
        ("2026-01-25T00:00:00Z", None),
    ] {
        let id = request(&mut transaction, service, owners.1, "T-1", ms(at))
            .await
            .unwrap();
        approve(&mut transaction, id, "admin", ms(at)).await.unwrap();
        let begun = complete(&mut transaction, id, "admin", ms(at)).await.unwrap().unwrap();
        let moved = contract(&mut transaction, begun).await.unwrap().subscription;
        assert_eq!(moved.trial_ends_at_ms, ends.map(ms), "{at}");
        let addons = addons_of(&mut *transaction, begun).await.unwrap();
        assert_eq!(addons.len(), 1, "the one that was cancelled is left behind: {at}");
        assert_eq!(addons[0].customer, owners.1);
        owners = (owners.1, owners.0);
    }
}

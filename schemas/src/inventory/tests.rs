use super::*;
use crate::assignment::Assignments;
use crate::db::Database;
use crate::metering::correction::{Correction, CorrectionSettings};

const NOW_MS: i64 = 1_700_000_000_000;

struct World {
    database: Database,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
    World {
        database,
        _folder: folder,
    }
}

fn typed<'a>(name: &'a str, email: &'a str) -> NewCustomer<'a> {
    NewCustomer {
        name,
        email,
        currency: "USD",
        time_zone: "Europe/Berlin",
        country: "DE",
        tax_rate_percent: "19",
    }
}

async fn two_services(database: &Database) -> (Service, Service) {
    let mut transaction = database.begin_write().await.unwrap();
    let owner = create_customer(&mut transaction, typed("Ada Hosting", "ada@example.net"), NOW_MS)
        .await
        .unwrap();
    let mut made = Vec::new();
    for name in ["web-1", "db-1"] {
        let new = NewService {
            customer: owner.id,
            name,
            service_type: "vps",
            site: Some("NYC1"),
        };
        made.push(create_service(&mut transaction, new, NOW_MS).await.unwrap());
    }
    transaction.commit().await.unwrap();
    let second = made.pop().unwrap();
    (made.pop().unwrap(), second)
}

fn prefix(text: &str) -> Target {
    Target::Prefix(text.parse().unwrap())
}

#[tokio::test]
async fn what_was_created_reads_back() {
    let world = world().await;
    let (web, db) = two_services(&world.database).await;
    let pool = world.database.pool();
    let owner = customer(pool, web.customer).await.unwrap();
    assert_eq!(owner.time_zone_name(), "Europe/Berlin");
    assert_eq!(owner.tax_rate.to_string(), "19 %");
    assert_eq!(customers(pool).await.unwrap(), std::slice::from_ref(&owner));
    assert_eq!(
        customer_by_email(pool, " ADA@example.net").await.unwrap(),
        Some(owner.clone())
    );
    assert_eq!(services_of(pool, owner.id).await.unwrap(), [web.clone(), db.clone()]);
    assert_eq!(service(pool, db.id).await.unwrap(), db);
    assert!(matches!(
        service(pool, ServiceId(99)).await,
        Err(InventoryError::NoService(ServiceId(99)))
    ));
    assert_eq!(services_of(pool, CustomerId(2)).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_not_valid_is_refused_and_leaves_nothing() {
    let world = world().await;
    two_services(&world.database).await;
    let good = typed("Bob", "bob@example.net");
    let long = "x".repeat(MAX_NAME_CHARS + 1);
    for (bad, words) in [
        (NewCustomer { name: "  ", ..good }, "customer name"),
        (NewCustomer { name: &long, ..good }, "customer name"),
        (NewCustomer { name: "a\nb", ..good }, "control"),
        (
            NewCustomer {
                name: "ACME \u{202e}dtL",
                ..good
            },
            "invisible",
        ),
        (
            NewCustomer {
                email: "b\u{200b}ob@b.net",
                ..good
            },
            "name@example.net",
        ),
        (NewCustomer { email: "bob", ..good }, "name@example.net"),
        (
            NewCustomer {
                email: "bob@host",
                ..good
            },
            "name@example.net",
        ),
        (
            NewCustomer {
                email: "bob@a@b.net",
                ..good
            },
            "name@example.net",
        ),
        (
            NewCustomer {
                email: "b ob@b.net",
                ..good
            },
            "name@example.net",
        ),
        (
            NewCustomer {
                email: "Ada@Example.net",
                ..good
            },
            "belongs to cus_1",
        ),
        (
            NewCustomer {
                currency: "usd",
                ..good
            },
            "currency",
        ),
        (
            NewCustomer {
                currency: "XXQ",
                ..good
            },
            "currency",
        ),
        (
            NewCustomer {
                time_zone: "Mars/Olympus",
                ..good
            },
            "Mars/Olympus",
        ),
        (
            NewCustomer {
                country: "Germany",
                ..good
            },
            "two capital letters",
        ),
        (NewCustomer { country: "QX", ..good }, "QX"),
        (
            NewCustomer {
                tax_rate_percent: "x",
                ..good
            },
            "decimal",
        ),
        (
            NewCustomer {
                tax_rate_percent: "101",
                ..good
            },
            "range",
        ),
    ] {
        let mut transaction = world.database.begin_write().await.unwrap();
        let error = create_customer(&mut transaction, bad, NOW_MS)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
        transaction.rollback().await.unwrap();
    }
    assert_eq!(customers(world.database.pool()).await.unwrap().len(), 1);
    let mut transaction = world.database.begin_write().await.unwrap();
    let new = NewService {
        customer: CustomerId(7),
        name: "web",
        service_type: "vps",
        site: None,
    };
    let error = create_service(&mut transaction, new, NOW_MS).await.unwrap_err();
    assert!(matches!(error, InventoryError::NoCustomer(CustomerId(7))), "{error}");
}

#[tokio::test]
async fn a_target_has_one_service_at_one_time() {
    let world = world().await;
    let (web, db) = two_services(&world.database).await;
    let exporter: Address = "192.0.2.1".parse().unwrap();
    let port = |vlan| Target::Interface {
        exporter,
        if_index: 7,
        vlan,
    };
    let vlan = Target::Vlan { exporter, vlan: 7 };
    let mut transaction = world.database.begin_write().await.unwrap();
    let later_ms = NOW_MS + 1000;
    for (service, target) in [
        (&web, prefix("10.0.0.9/24")),
        (&db, prefix("10.0.0.0/25")),
        (&web, port(None)),
        (&db, port(Some(30))),
        (&db, vlan),
    ] {
        assign(&mut transaction, service.id, target, NOW_MS, Some(later_ms), NOW_MS)
            .await
            .unwrap();
    }
    for (target, holder) in [
        (prefix("10.0.0.0/24"), "svc_1 (web-1)"),
        (prefix("::ffff:10.0.0.0/120"), "svc_1 (web-1)"),
        (port(None), "svc_1 (web-1)"),
        (port(Some(30)), "svc_2 (db-1)"),
        (vlan, "svc_2 (db-1)"),
    ] {
        let error = assign(&mut transaction, web.id, target, later_ms - 1, None, NOW_MS)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(holder), "{error:?} does not name {holder:?}");
    }
    for target in [prefix("10.0.0.0/24"), port(None), port(Some(30)), vlan] {
        assign(&mut transaction, web.id, target, later_ms, None, NOW_MS)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let stored = load_assignments(world.database.pool()).await.unwrap();
    let snapshot = Assignments::new(stored).unwrap();
    assert_eq!(snapshot.len(), 9);
    assert_eq!(
        snapshot.service_of_address("10.0.0.1".parse().unwrap(), NOW_MS),
        Some(2)
    );
    assert_eq!(
        snapshot.service_of_address("10.0.0.1".parse().unwrap(), later_ms),
        Some(1)
    );
    assert_eq!(snapshot.service_of_interface(exporter, 7, 30, NOW_MS), Some(2));
    assert_eq!(assignments_of(world.database.pool(), db.id).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_prefix_that_is_too_wide_for_one_service_is_refused() {
    let world = world().await;
    let (web, _) = two_services(&world.database).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    for text in [
        "0.0.0.0/0",
        "8.0.0.0/7",
        "::ffff:0.0.0.0/96",
        "::/0",
        "2000::/3",
        "2000::/15",
    ] {
        let target = prefix(text);
        let one = assign(&mut transaction, web.id, target, NOW_MS, None, NOW_MS).await;
        let listed = NewAssignment {
            service: web.id,
            target,
            from_ms: NOW_MS,
            to_ms: None,
        };
        let all = assign_all(&mut transaction, &[listed], NOW_MS).await.map(|()| None);
        for refused in [one.map(Some), all] {
            let error = refused.unwrap_err();
            assert!(matches!(error, InventoryError::WidePrefix { .. }), "{text}: {error}");
            assert!(
                error.to_string().contains("too wide for one service"),
                "{text}: {error}"
            );
        }
    }
    assert_eq!(assignments(&mut *transaction).await.unwrap(), []);
    for text in ["10.0.0.0/8", "2000::/16"] {
        assign(&mut transaction, web.id, prefix(text), NOW_MS, None, NOW_MS)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn every_change_of_an_assignment_is_a_new_revision() {
    let world = world().await;
    let (web, db) = two_services(&world.database).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let now = &mut *transaction;
    let mut revisions = vec![assignments_revision(&mut *now).await.unwrap()];
    let held = assign(now, web.id, prefix("10.0.0.0/24"), NOW_MS, None, NOW_MS)
        .await
        .unwrap();
    revisions.push(assignments_revision(&mut *now).await.unwrap());
    let list = [NewAssignment {
        service: db.id,
        target: prefix("10.0.1.0/24"),
        from_ms: NOW_MS,
        to_ms: None,
    }];
    assign_all(now, &list, NOW_MS).await.unwrap();
    revisions.push(assignments_revision(&mut *now).await.unwrap());
    end_assignment(now, held.id, NOW_MS + 5_000, NOW_MS).await.unwrap();
    revisions.push(assignments_revision(&mut *now).await.unwrap());
    assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    assignments(&mut *now).await.unwrap();
    assert_eq!(assignments_revision(&mut *now).await.unwrap(), revisions[3]);
}

#[tokio::test]
async fn only_a_change_of_the_past_asks_for_attribution_anew() {
    let world = world().await;
    let (web, _) = two_services(&world.database).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let now = &mut *transaction;
    let ahead = assign(now, web.id, prefix("10.0.0.0/24"), NOW_MS, None, NOW_MS)
        .await
        .unwrap();
    end_assignment(now, ahead.id, NOW_MS + 5000, NOW_MS).await.unwrap();
    assert_eq!(pending_attribution_changes(&mut *now).await.unwrap(), []);

    let backdated = assign(now, web.id, prefix("10.0.1.0/24"), NOW_MS - 5000, None, NOW_MS)
        .await
        .unwrap();
    end_assignment(now, backdated.id, NOW_MS - 1000, NOW_MS).await.unwrap();
    assign(
        now,
        web.id,
        prefix("10.0.2.0/24"),
        NOW_MS - 900,
        Some(NOW_MS - 800),
        NOW_MS,
    )
    .await
    .unwrap();
    let pending = pending_attribution_changes(&mut *now).await.unwrap();
    let ranges: Vec<_> = pending.iter().map(|change| (change.from_ms, change.to_ms)).collect();
    assert_eq!(
        ranges,
        [
            (NOW_MS - 5000, None),
            (NOW_MS - 1000, None),
            (NOW_MS - 900, Some(NOW_MS - 800))
        ]
    );
    mark_attribution_change_applied(&mut *now, pending[0].id, NOW_MS)
        .await
        .unwrap();
    assert_eq!(pending_attribution_changes(&mut *now).await.unwrap(), pending[1..]);

    let error = end_assignment(now, backdated.id, NOW_MS, NOW_MS).await.unwrap_err();
    assert!(matches!(error, InventoryError::AlreadyEnded { .. }), "{error}");
    let error = end_assignment(now, ahead.id, NOW_MS, NOW_MS).await.unwrap_err();
    assert!(matches!(error, InventoryError::EndsBeforeStart { .. }), "{error}");
}

#[tokio::test]
async fn a_correction_counts_what_was_rehearsed_whoever_writes_it() {
    let world = world().await;
    let correction = Correction {
        exporter: "192.0.2.1".parse().unwrap(),
        from_ms: NOW_MS - 5_000,
        to_ms: NOW_MS,
        settings: CorrectionSettings {
            sampling_rate: Some("1000".parse().unwrap()),
            ..CorrectionSettings::default()
        },
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    // Another process had written most of it, all of it, and flows had arrived meanwhile.
    for (written, kept) in [((14, 17), (15, 68)), ((0, 0), (15, 68)), ((15, 70), (15, 70))] {
        let row = add_correction(&mut transaction, &correction, "wrong rate", "os:ada", (15, 68), NOW_MS)
            .await
            .unwrap();
        assert_eq!((row.files_rewritten, row.flows_changed), (15, 68));
        let pending = pending_corrections(&mut *transaction).await.unwrap();
        assert_eq!(pending, std::slice::from_ref(&row));
        for now_ms in [NOW_MS + 1, NOW_MS + 2] {
            mark_correction_applied(&mut *transaction, row.id, written, now_ms)
                .await
                .unwrap();
        }
        let all = corrections(&mut *transaction).await.unwrap();
        let applied = all.iter().find(|applied| applied.id == row.id).unwrap();
        assert_eq!((applied.files_rewritten, applied.flows_changed), kept);
        assert_eq!(applied.applied_at_ms, Some(NOW_MS + 1));
    }
}

#[tokio::test]
async fn a_list_of_assignments_is_taken_whole_or_not_at_all() {
    let world = world().await;
    let (web, db) = two_services(&world.database).await;
    let held = |service: &Service, text: &str, from_ms| NewAssignment {
        service: service.id,
        target: prefix(text),
        from_ms,
        to_ms: None,
    };
    // More than one statement takes.
    let mut list: Vec<NewAssignment> = (0..1_201)
        .map(|n| held(&web, &format!("10.{}.{}.9/30", n / 250, n % 250), NOW_MS))
        .collect();
    list.push(held(&db, "2001:db8::/64", NOW_MS - 5_000));
    list.push(NewAssignment {
        to_ms: Some(NOW_MS - 1_000),
        ..held(&db, "192.0.2.0/24", NOW_MS - 9_000)
    });
    let mut transaction = world.database.begin_write().await.unwrap();
    let first = assign(&mut transaction, web.id, prefix("172.16.0.0/24"), NOW_MS, None, NOW_MS)
        .await
        .unwrap();
    assign_all(&mut transaction, &list, NOW_MS).await.unwrap();
    let last = assign(&mut transaction, web.id, prefix("172.16.1.0/24"), NOW_MS, None, NOW_MS)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(last.id.0, first.id.0 + list.len() as i64 + 1, "no id is used twice");

    let pool = world.database.pool();
    let rows = assignments(pool).await.unwrap();
    assert_eq!(rows.len(), list.len() + 2);
    assert_eq!(rows[1].target, prefix("10.0.0.8/30"), "host bits are cut off");
    let snapshot = Assignments::new(load_assignments(pool).await.unwrap()).unwrap();
    assert_eq!(
        snapshot.service_of_address("10.4.200.9".parse().unwrap(), NOW_MS),
        Some(web.id.number())
    );
    let pending = pending_attribution_changes(pool).await.unwrap();
    let ranges: Vec<_> = pending.iter().map(|change| (change.from_ms, change.to_ms)).collect();
    assert_eq!(ranges, [(NOW_MS - 9_000, None)], "one change covers the list");

    for (list, words) in [
        (vec![held(&db, "10.0.0.8/30", NOW_MS)], "svc_1 (web-1)"),
        (
            vec![held(&db, "10.9.0.0/30", NOW_MS), held(&web, "10.9.0.0/30", NOW_MS)],
            "svc_2 (db-1)",
        ),
        (
            vec![NewAssignment {
                service: ServiceId(99),
                ..held(&db, "10.9.0.0/30", NOW_MS)
            }],
            "svc_99",
        ),
        (
            vec![NewAssignment {
                to_ms: Some(NOW_MS),
                ..held(&db, "10.9.0.0/30", NOW_MS)
            }],
            "before it starts",
        ),
    ] {
        let mut transaction = world.database.begin_write().await.unwrap();
        let error = assign_all(&mut transaction, &list, NOW_MS)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
        transaction.rollback().await.unwrap();
    }
    assert_eq!(assignments(pool).await.unwrap(), rows);
}

#[tokio::test]
async fn billing_profiles_and_entities_are_checked_and_kept() {
    let world = world().await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let first = entity(&mut *transaction, FIRST_ENTITY).await.unwrap();
    assert_eq!(first.profile.name, "Hosting company");
    let profile = EntityProfile {
        name: "Hosting GmbH".to_owned(),
        country: "DE".to_owned(),
        vat_id: "de 136.695.976".to_owned(),
        payment_instructions: "IBAN DE00\nBIC X".to_owned(),
        number_prefix: "DE".to_owned(),
        ..EntityProfile::default()
    };
    let made = create_entity(&mut transaction, profile.clone(), 7).await.unwrap();
    assert_eq!((made.id, made.profile.vat_id.as_str()), (EntityId(2), "DE136695976"));
    assert_eq!(entity(&mut *transaction, made.id).await.unwrap(), made);
    let taken = create_entity(&mut transaction, profile.clone(), 7).await.unwrap_err();
    assert_eq!(
        taken.to_string(),
        "the prefix \"DE\" of invoice numbers is that of ent_2"
    );
    let unnamed = EntityProfile {
        name: " ".to_owned(),
        ..profile
    };
    assert!(change_entity(&mut transaction, made.id, unnamed).await.is_err());

    let new = NewCustomer {
        name: "Ada",
        email: "ada@example.net",
        currency: "EUR",
        time_zone: "Europe/Berlin",
        country: "FR",
        tax_rate_percent: "0",
    };
    let ada = create_customer(&mut transaction, new, 0).await.unwrap();
    assert_eq!(ada.billing, BillingProfile::default());
    let billing = BillingProfile {
        entity: made.id,
        city: "Paris".to_owned(),
        vat_id: "fr 40 303265045".to_owned(),
        prices_include_tax: true,
        ..BillingProfile::default()
    };
    change_billing_profile(&mut transaction, ada.id, &billing)
        .await
        .unwrap();
    let kept = customer(&mut *transaction, ada.id).await.unwrap().billing;
    assert_eq!(
        kept,
        BillingProfile {
            vat_id: "FR40303265045".to_owned(),
            ..billing.clone()
        }
    );
    for bad in [
        BillingProfile {
            vat_id: "12345".to_owned(),
            ..billing.clone()
        },
        BillingProfile {
            entity: EntityId(9),
            ..billing.clone()
        },
        BillingProfile {
            city: "x".repeat(201),
            ..billing
        },
    ] {
        assert!(
            change_billing_profile(&mut transaction, ada.id, &bad).await.is_err(),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_service_that_is_handed_over_has_an_owner_since_then() {
    let world = world().await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let mut owners = Vec::new();
    for email in ["a@example.net", "b@example.net"] {
        let new = NewCustomer {
            name: "Ada",
            email,
            currency: "EUR",
            time_zone: "UTC",
            country: "DE",
            tax_rate_percent: "0",
        };
        owners.push(create_customer(&mut transaction, new, 0).await.unwrap().id);
    }
    let new = NewService {
        customer: owners[0],
        name: "web-1",
        service_type: "vps",
        site: None,
    };
    let web = create_service(&mut transaction, new, 0).await.unwrap();
    hand_over(&mut transaction, web.id, owners[1], 1000).await.unwrap();
    let kept = service(&mut *transaction, web.id).await.unwrap();
    assert_eq!((kept.customer, kept.owned_from_ms), (owners[1], 1000));
    assert!(hand_over(&mut transaction, web.id, CustomerId(99), 1000).await.is_err());
}

#[tokio::test]
async fn a_new_address_is_not_verified_and_not_anothers() {
    let world = world().await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let ada = create_customer(&mut transaction, typed("Ada", "ada@example.net"), NOW_MS)
        .await
        .unwrap();
    let ben = create_customer(&mut transaction, typed("Ben", "ben@example.net"), NOW_MS)
        .await
        .unwrap();
    for sql in [
        "UPDATE customers SET email_verified_at_ms = 1",
        "INSERT INTO email_verifications VALUES ('a', 1, 'ada@example.net', 0, 1), ('b', 2, 'ben@example.net', 0, 1)",
    ] {
        sqlx::query(sql).execute(&mut *transaction).await.unwrap();
    }
    let taken = change_email(&mut transaction, ada.id, "Ben@example.net")
        .await
        .unwrap_err();
    assert!(matches!(taken, InventoryError::EmailTaken { holder, .. } if holder == ben.id));
    assert!(
        !change_email(&mut transaction, ada.id, " ADA@example.net")
            .await
            .unwrap()
    );
    let same = customer(&mut *transaction, ada.id).await.unwrap();
    assert_eq!(same.email_verified_at_ms, Some(1), "nothing has changed");

    assert!(
        change_email(&mut transaction, ada.id, "Billing@ada.example")
            .await
            .unwrap()
    );
    let changed = customer(&mut *transaction, ada.id).await.unwrap();
    assert_eq!(changed.email, "billing@ada.example");
    assert_eq!(changed.email_verified_at_ms, None);
    let ben = customer(&mut *transaction, ben.id).await.unwrap();
    assert_eq!(ben.email_verified_at_ms, Some(1));
    let links: Vec<i64> = sqlx::query_scalar("SELECT customer_id FROM email_verifications")
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(links, [ben.id.0], "links to the old address are void");
    let next = create_customer(&mut transaction, typed("Cyd", "cyd@example.net"), NOW_MS)
        .await
        .unwrap();
    assert_eq!(next.id, CustomerId(3), "no number is used up");
}

use billing::catalog::{NewPrice, add_price, plans, prices_of};
use billing::ledger;
use billing::subscription::schedule::{ScheduledAction, scheduled_of};
use billing::subscription::subscriptions_of;
use schemas::money::{Currency, Money};
use sqlx::Row as _;

use crate::auth::Role;
use crate::testing::world::World;
use crate::testing::{Answer, Browser};

async fn count(world: &World, sql: &'static str) -> i64 {
    let row = sqlx::query(sql)
        .fetch_one(world.portal.state.db().pool())
        .await
        .unwrap();
    row.try_get(0).unwrap()
}

async fn admins(world: &World) -> (Browser, Browser) {
    world.portal.user("root", Role::Admin, None).await;
    world.portal.user("second", Role::Admin, None).await;
    (
        world.portal.signed_in("root").await,
        world.portal.signed_in("second").await,
    )
}

const PAGES: [&str; 9] = [
    "/admin/plans",
    "/admin/coupons",
    "/admin/approvals",
    "/admin/transfers",
    "/admin/deals",
    "/admin/taxes",
    "/admin/entities",
    "/admin/audit",
    "/admin/clock",
];

#[tokio::test]
async fn s1_admin_pages_are_for_admins_alone() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let (mut admin, _) = admins(&world).await;
    let mut finance = world.portal.signed_in("fin").await;
    let mut customer = world.portal.signed_in("ada").await;
    for page in PAGES.into_iter().chain(["/admin/plans/pln_1"]) {
        assert_eq!(admin.get(page).await.status, 200, "{page}");
        assert_eq!(finance.get(page).await.status, 403, "{page}");
        assert_eq!(customer.get(page).await.status, 403, "{page}");
    }
    let token = finance.get("/account").await.csrf_token();
    for action in [
        "/admin/plans",
        "/admin/plans/pln_1/archive",
        "/admin/approvals/apr_1/approve",
        "/admin/taxes",
        "/admin/deals",
        "/admin/plans/free",
        "/admin/clock/confirm",
    ] {
        let refused = finance.post(action, &[("csrf_token", &token)]).await;
        assert_eq!(refused.status, 403, "{action}");
    }
    for unknown in ["/admin/plans/pln_99", "/admin/plans/99", "/admin/nothing"] {
        assert_eq!(admin.get(unknown).await.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn a_plan_is_made_with_a_price_for_each_cycle_and_once_however_often_it_is_sent() {
    let world = World::new().await;
    let (mut admin, _) = admins(&world).await;
    let shown = admin.get("/admin/plans").await;
    let (csrf, token) = (shown.csrf_token(), shown.form_token());
    let form = [
        ("csrf_token", csrf.as_str()),
        ("form_token", token.as_str()),
        ("name", "VPS Pro"),
        ("service_type", "vps"),
        ("kind", "plan"),
        ("model", "transfer"),
        ("included", "2000"),
        ("unit", "GiB"),
        ("mode", "sum"),
        ("timing", "advance"),
        ("badge", "popular"),
        ("attributes", "vcpu = 4"),
    ];
    assert_eq!(admin.post("/admin/plans", &form).await.status, 303);
    assert_eq!(admin.post("/admin/plans", &form).await.status, 303);
    let pool = world.portal.state.db().pool();
    let made: Vec<_> = plans(pool).await.unwrap();
    let made: Vec<_> = made.iter().filter(|plan| plan.name == "VPS Pro").collect();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].attributes["vcpu"], "4");

    let page = format!("/admin/plans/{}", made[0].id);
    let price = [
        ("currency", "USD"),
        ("base", "10.00"),
        ("cycle", "all"),
        ("usage", "0.05"),
        ("who", "new"),
    ];
    let done = admin.send_form(&page, &format!("{page}/price"), &price).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let bases: Vec<(i64, i64)> = prices_of(pool, made[0].id)
        .await
        .unwrap()
        .iter()
        .map(|price| (price.cycle_months, price.base.minor))
        .collect();
    assert_eq!(bases, [(1, 1000), (3, 2850), (6, 5400), (12, 10_200), (24, 19_200)]);

    let wrong = [("currency", "USD"), ("base", "ten"), ("cycle", "1"), ("who", "new")];
    let refused = admin.send_form(&page, &format!("{page}/price"), &wrong).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("An amount is like 123.45"), "{}", refused.body);
    assert!(refused.body.contains("value=\"ten\""));
    assert_eq!(
        count(
            &world,
            "SELECT count(*) FROM audit_log WHERE action IN ('plan.create', 'price.add')"
        )
        .await,
        2
    );
}

#[tokio::test]
async fn a_new_price_waits_for_the_renewal_of_who_pays_the_one_before() {
    let world = World::new().await;
    let (mut admin, _) = admins(&world).await;
    let pool = world.portal.state.db().pool();
    let plan = plans(pool).await.unwrap()[0].id;
    let page = format!("/admin/plans/{plan}");
    let price = [
        ("currency", "USD"),
        ("base", "59.00"),
        ("cycle", "1"),
        ("usage", "0.05"),
        ("who", "renewal"),
    ];
    let done = move_price(&mut admin, &page, &price, &["USD 59.00"]).await;
    assert_eq!(done.header("location"), format!("{page}?done=reprice"));
    let planned = scheduled_of(pool, world.ada).await.unwrap();
    assert_eq!(planned.len(), 1);
    // The world is on 15 June and its periods start on the first.
    assert_eq!(schemas::window::instant_text(planned[0].at_ms), "2025-07-01T00:00:00Z");
    assert!(matches!(planned[0].planned, ScheduledAction::Change(_)) && planned[0].from_price.is_some());
}

#[tokio::test]
async fn a_price_for_more_than_a_hundred_customers_needs_a_second_admin() {
    let world = World::new().await;
    let (mut admin, mut second) = admins(&world).await;
    let pool = world.portal.state.db().pool();
    let plan = plans(pool).await.unwrap()[0].id;
    many_customers(&world, plan).await;
    let page = format!("/admin/plans/{plan}");
    let before = prices_of(pool, plan).await.unwrap().len();
    let price = [
        ("currency", "USD"),
        ("base", "59.00"),
        ("cycle", "1"),
        ("usage", "0.05"),
        ("who", "renewal"),
    ];
    let done = move_price(&mut admin, &page, &price, &["a second admin decides"]).await;
    assert_eq!(done.header("location"), format!("{page}?done=approval"));
    assert_eq!(prices_of(pool, plan).await.unwrap().len(), before);

    let own = admin
        .send_form("/admin/plans", "/admin/approvals/apr_1/approve", &[])
        .await;
    assert_eq!(own.status, 422);
    assert!(
        admin
            .get("/admin/approvals")
            .await
            .body
            .contains("another admin decides")
    );
    let approved = second
        .send_form("/admin/approvals", "/admin/approvals/apr_1/approve", &[])
        .await;
    assert_eq!(
        approved.header("location"),
        "/admin/approvals?done=approved",
        "{}",
        approved.body
    );
    assert_eq!(prices_of(pool, plan).await.unwrap().len(), before + 1);
    assert!(
        count(
            &world,
            "SELECT count(*) FROM scheduled_changes WHERE status = 'pending'"
        )
        .await
            > 100
    );
}

/// Sends the form of a price that moves subscriptions, and confirms its preview, which has these texts.
async fn move_price(browser: &mut Browser, page: &str, price: &[(&str, &str)], texts: &[&str]) -> Answer {
    let address = format!("{page}/price");
    let previewed = browser.send_form(page, &address, price).await;
    assert_eq!(previewed.status, 200, "{}", previewed.body);
    for text in texts {
        assert!(previewed.body.contains(text), "{text}: {}", previewed.body);
    }
    let (csrf, token) = (previewed.csrf_token(), previewed.form_token());
    let (usage, shown) = (previewed.hidden("usage"), previewed.hidden("shown"));
    let mut form = vec![
        ("csrf_token", csrf.as_str()),
        ("form_token", token.as_str()),
        ("usage", usage.as_str()),
        ("shown", shown.as_str()),
        ("do", "add"),
    ];
    form.extend(price.iter().filter(|(name, _)| *name != "usage"));
    browser.post(&address, &form).await
}

#[tokio::test]
async fn usage_is_made_free_by_typing_0_alone() {
    let world = World::new().await;
    let (mut admin, _) = admins(&world).await;
    let pool = world.portal.state.db().pool();
    let plan = plans(pool).await.unwrap()[0].id;
    let page = format!("/admin/plans/{plan}");
    // The form begins with the current version.
    let shown = admin.get(&page).await.body;
    assert!(shown.contains("name=\"usage\" value=\"0.05\""), "{shown}");
    let before = prices_of(pool, plan).await.unwrap();
    let price = [
        ("currency", "USD"),
        ("base", "59.00"),
        ("cycle", "1"),
        ("who", "renewal"),
    ];
    // Nothing is done before it is confirmed as it was shown.
    let unseen = [price[0], price[1], price[2], price[3], ("shown", "x"), ("do", "add")];
    let refused = admin.send_form(&page, &format!("{page}/price"), &unseen).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("Preview the price again"), "{}", refused.body);
    assert_eq!(prices_of(pool, plan).await.unwrap().len(), before.len());
    let texts = ["USD 59.00", "USD 0.05 per GB", "Customers affected"];
    let done = move_price(&mut admin, &page, &price, &texts).await;
    assert_eq!(done.header("location"), format!("{page}?done=reprice"), "{}", done.body);
    let after = prices_of(pool, plan).await.unwrap();
    let newest = after.iter().max_by_key(|price| price.id).unwrap();
    assert_eq!((newest.base.minor, newest.usage.typed().as_str()), (5_900, "0.05"));
    // A cycle that has no version yet needs one.
    let yearly = [("currency", "USD"), ("base", "500"), ("cycle", "12"), ("who", "new")];
    let refused = admin.send_form(&page, &format!("{page}/price"), &yearly).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("0 charges nothing"), "{}", refused.body);
    world.portal.advance_ms(1_000);
    let free = [price[0], price[1], price[2], price[3], ("usage", "0")];
    let warned = admin.send_form(&page, &format!("{page}/price"), &free).await;
    assert!(warned.body.contains("does not charge usage"), "{}", warned.body);
}

/// Subscribes 101 customers to a plan, by copies of one subscription.
async fn many_customers(world: &World, plan: schemas::ids::PlanId) {
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    for number in 1000..1101i64 {
        for sql in [
            "INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms) \
             SELECT $1, name, 'c' || CAST($1 AS TEXT) || '@example.net', currency, time_zone, country, '0', 0 FROM customers WHERE id = 1",
            "INSERT INTO services (id, customer_id, name, service_type, status, created_at_ms) \
             SELECT $1, $1, name, service_type, status, 0 FROM services WHERE id = 1",
            "INSERT INTO subscriptions (id, customer_id, service_id, status, time_zone, started_at_ms, created_at_ms) \
             SELECT $1, $1, $1, status, time_zone, started_at_ms, 0 FROM subscriptions WHERE service_id = 1",
            "INSERT INTO phases (id, subscription_id, plan_id, price_id, quantity, anchor_day, cycle_from, from_date, created_at_ms) \
             SELECT $1, $1, plan_id, price_id, 1, anchor_day, cycle_from, from_date, 0 FROM phases WHERE plan_id = 1 AND id < 1000 LIMIT 1",
        ] {
            sqlx::query(sql).bind(number).execute(&mut *transaction).await.unwrap();
        }
    }
    transaction.commit().await.unwrap();
    assert_eq!(plan.0, 1);
}

#[tokio::test]
async fn a_deal_makes_what_bills_it() {
    let world = World::new().await;
    let (mut admin, _) = admins(&world).await;
    let fields = [
        ("customer", "cus_2"),
        ("name", "Cluster for Bob"),
        ("service_type", "cluster"),
        ("cycle", "1"),
        ("agreement", "Contract 2025-17"),
        ("kind_1", "load_balancer"),
        ("description_1", "HAProxy pair"),
        ("quantity_1", "2"),
        ("price_1", "50.00"),
        ("kind_2", "server"),
        ("description_2", "32 cores, 256 GB"),
        ("quantity_2", "3"),
        ("price_2", "400.00"),
    ];
    let done = admin.send_form("/admin/deals", "/admin/deals", &fields).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let page = admin.get("/admin/deals").await;
    assert!(page.body.contains("USD 1,300.00"), "{}", page.body);
    let base = count(
        &world,
        "SELECT r.base_minor FROM deals d JOIN phases p ON p.subscription_id = d.subscription_id \
         JOIN prices r ON r.id = p.price_id JOIN plans l ON l.id = r.plan_id AND l.kind = 'private'",
    )
    .await;
    assert_eq!(base, 130_000);
}

#[tokio::test]
async fn taxes_coupons_and_transfers_are_made_and_ended_by_forms() {
    let world = World::new().await;
    let (mut admin, _) = admins(&world).await;
    let rate = [
        ("country", "DE"),
        ("name", "VAT"),
        ("rate", "19"),
        ("from", "2025-01-01"),
    ];
    assert_eq!(admin.send_form("/admin/taxes", "/admin/taxes", &rate).await.status, 303);
    let again = admin.send_form("/admin/taxes", "/admin/taxes", &rate).await;
    assert_eq!(again.status, 422);
    assert!(again.body.contains("end it first"), "{}", again.body);
    let end = admin
        .send_form("/admin/taxes", "/admin/taxes/tax_1/end", &[("to", "2026-01-01")])
        .await;
    assert_eq!(end.status, 303, "{}", end.body);

    let coupon = [("code", "summer"), ("off", "15"), ("months", "3")];
    assert_eq!(
        admin
            .send_form("/admin/coupons", "/admin/coupons", &coupon)
            .await
            .status,
        303
    );
    assert!(admin.get("/admin/coupons").await.body.contains("SUMMER"));

    let wanted = [("service", "svc_3"), ("to", "cus_1"), ("ticket", "T-9")];
    assert_eq!(
        admin
            .send_form("/admin/transfers", "/admin/transfers", &wanted)
            .await
            .status,
        303
    );
    for step in ["approve", "complete"] {
        let done = admin
            .send_form("/admin/transfers", &format!("/admin/transfers/trf_1/{step}"), &[])
            .await;
        assert_eq!(done.status, 303, "{step}: {}", done.body);
    }
    assert_eq!(
        count(&world, "SELECT customer_id FROM services WHERE id = 3").await,
        world.ada.0
    );
    let log = admin.get("/admin/audit?subject=trf_1").await;
    assert!(
        log.body.contains("transfer.complete") && log.body.contains("<del>approved</del>"),
        "{}",
        log.body
    );
}

#[tokio::test]
async fn books_stay_consistent_through_what_finance_does() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;
    let pool = world.portal.state.db().pool();
    let (ada, bob) = (world.invoice_of_ada, world.invoice_of_bob);
    let page = format!("/finance/invoices/{ada}");
    let transfer = [("amount", "10.00"), ("reference", "bank 4711"), ("note", "")];
    let done = browser.send_form(&page, &format!("{page}/transfer"), &transfer).await;
    assert_eq!(
        done.header("location"),
        format!("{page}?done=transfer"),
        "{}",
        done.body
    );
    let repeated = browser.send_form(&page, &format!("{page}/transfer"), &transfer).await;
    assert_eq!(repeated.status, 422);
    assert!(repeated.body.contains("was recorded before"), "{}", repeated.body);
    let credit = [("amount", "5.00"), ("reason", "an outage")];
    // The amount is gross; it is shown before it is issued, and issued as it was shown.
    let address = format!("{page}/credit");
    let previewed = browser.send_form(&page, &address, &credit).await;
    assert_eq!(previewed.status, 200, "{}", previewed.body);
    assert!(
        previewed.body.contains("Issue credit note for USD 5.00"),
        "{}",
        previewed.body
    );
    let unseen = [credit[0], credit[1], ("shown", "1:0:1"), ("do", "issue")];
    assert_eq!(browser.send_form(&page, &address, &unseen).await.status, 422);
    let issue = [credit[0], credit[1], ("shown", "500:0:500"), ("do", "issue")];
    let done = browser.send_form(&page, &address, &issue).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let recorded =
        "SELECT count(*) FROM audit_log WHERE action = 'invoice.credit' AND change LIKE '%gross_:_USD 5.00%'";
    assert_eq!(count(&world, recorded).await, 1);
    let void = browser
        .send_form(
            &page,
            &format!("{page}/credit"),
            &[("amount", "999999"), ("reason", "x")],
        )
        .await;
    assert_eq!(void.status, 422);
    assert!(
        void.body.contains("is left to give back, not USD 999,999.00"),
        "{}",
        void.body
    );
    // A write-off is shown before it is done, and done as it was shown.
    let address = format!("{page}/write-off");
    let previewed = browser.send_form(&page, &address, &[("reason", "gone")]).await;
    assert_eq!(previewed.status, 200, "{}", previewed.body);
    assert!(
        previewed.body.contains("Written off to bad debt") && previewed.body.contains("Reason: gone"),
        "{}",
        previewed.body
    );
    let shown = previewed.hidden("shown");
    let unseen = [("reason", "gone"), ("shown", "1:1"), ("do", "write_off")];
    assert_eq!(browser.send_form(&page, &address, &unseen).await.status, 422);
    let confirmed = [("reason", "gone"), ("shown", shown.as_str()), ("do", "write_off")];
    let off = browser.send_form(&page, &address, &confirmed).await;
    assert_eq!(off.status, 303, "{}", off.body);
    // The address of the form leads to the invoice.
    let again = browser.get(&address).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (303, page.as_str()));
    // Money for what was written off is recorded on its page too.
    assert!(browser.get(&page).await.body.contains("Record a bank transfer"));
    let page = format!("/finance/invoices/{bob}");
    let address = format!("{page}/void");
    let wanted = [("reason", "wrong"), ("rebill", "on")];
    let preview = browser.send_form(&page, &address, &wanted).await;
    assert!(
        preview
            .body
            .contains("Its items are charged again on the next invoice."),
        "{}",
        preview.body
    );
    assert!(!browser.get(&page).await.body.contains(">void<"), "only shown");
    let confirmed = [("reason", "wrong"), ("rebill", "on"), ("do", "void")];
    let void = browser.send_form(&page, &address, &confirmed).await;
    assert_eq!(void.header("location"), format!("{page}?done=void"), "{}", void.body);
    assert!(browser.get(&page).await.body.contains(">void<"));

    let customer = "/finance/customers/cus_1";
    let charge = [("description", "Remote hands"), ("amount", "25.00")];
    assert_eq!(
        browser
            .send_form(customer, &format!("{customer}/charge"), &charge)
            .await
            .status,
        303
    );
    let grant = [("amount", "7.50"), ("reason", "sorry")];
    assert_eq!(
        browser
            .send_form(customer, &format!("{customer}/grant"), &grant)
            .await
            .status,
        303
    );
    let profile = [("entity", "ent_1"), ("city", "Ulm"), ("vat_id", "FRnonsense")];
    let refused = browser
        .send_form(customer, &format!("{customer}/profile"), &profile)
        .await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("value=\"Ulm\""));
    assert!(refused.body.contains("not a VAT number of FR"), "{}", refused.body);
    let profile = [
        ("entity", "ent_1"),
        ("city", "Ulm"),
        ("vat_id", "DE136695976"),
        ("pools_usage", "on"),
    ];
    assert_eq!(
        browser
            .send_form(customer, &format!("{customer}/profile"), &profile)
            .await
            .status,
        303
    );
    let evidence = [("reason", "extract of the register")];
    let accepted = browser.send_form(customer, &format!("{customer}/vat"), &evidence).await;
    assert_eq!(accepted.status, 303);
    assert_eq!(
        browser
            .send_form(customer, &format!("{customer}/close"), &[])
            .await
            .status,
        303
    );

    let shown = browser.get(customer).await;
    for text in [
        "Ulm",
        "USD 7.50",
        "written off",
        "credit granted: sorry",
        "extract of the register",
    ] {
        assert!(shown.body.contains(text), "{text}");
    }
    let statement = ledger::statement(pool, world.ada, None, 100).await.unwrap();
    let owed = ledger::owed(pool, Some(world.ada)).await.unwrap()[0];
    let balance = Money::new(owed.receivable.minor - owed.credit.minor, Currency::USD);
    assert_eq!(statement[0].balance, balance);
    let report = ledger::check(world.portal.state.db()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.violations);
    // Closing has an entry before it begins and one with its result.
    let entries =
        "SELECT count(*) FROM audit_log l JOIN audit_actors a ON a.id = l.actor_id WHERE a.name = 'fin@example.net'";
    assert_eq!(count(&world, entries).await, 10);
}

#[tokio::test]
async fn s1_finance_pages_answer_finance_and_admins_alone() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    world.portal.user("ops", Role::Ops, None).await;
    let (mut admin, _) = admins(&world).await;
    let mut finance = world.portal.signed_in("fin").await;
    let mut ops = world.portal.signed_in("ops").await;
    let mut customer = world.portal.signed_in("ada").await;
    let invoice = world.invoice_of_ada;
    let pages = [
        "/finance/customers".to_owned(),
        "/finance/customers?search=ada".to_owned(),
        "/finance/customers/cus_1".to_owned(),
        "/finance/payments".to_owned(),
        "/finance/transactions?account=receivable:cus_1:USD".to_owned(),
        "/finance/aging".to_owned(),
        "/finance/held".to_owned(),
        "/finance/export".to_owned(),
        "/finance/export/month.xlsx?month=2025-06".to_owned(),
        "/finance/export/taxes.csv?month=2025-06".to_owned(),
        format!("/finance/invoices/{invoice}/pdf"),
        "/api/v1/finance/aging".to_owned(),
        "/api/v1/finance/held".to_owned(),
        "/api/v1/finance/balances".to_owned(),
        "/api/v1/finance/transactions?account=receivable:cus_1:USD".to_owned(),
        "/api/v1/finance/customers/cus_1/statement".to_owned(),
        "/finance?month=all&kind=credit_note&status=paid&from=2025-01-01&to=2025-12-31".to_owned(),
    ];
    for page in &pages {
        for (browser, status) in [
            (&mut admin, 200),
            (&mut finance, 200),
            (&mut ops, 403),
            (&mut customer, 403),
        ] {
            let answer = browser.get(page).await;
            assert_eq!(answer.status, status, "{page}: {}", answer.body);
        }
    }
    for unknown in [
        "/finance/customers/cus_99",
        "/finance/payments/pay_99",
        "/finance/export/users.csv?month=2025-06",
        "/finance/invoices/inv_99/pdf",
        "/api/v1/finance/customers/cus_99/statement",
    ] {
        assert_eq!(finance.get(unknown).await.status, 404, "{unknown}");
    }
    assert_eq!(finance.get("/finance?status=lost").await.status, 400);
    let xml = finance.get(&format!("/finance/invoices/{invoice}/xml")).await;
    assert_eq!(xml.status, 200);
    assert!(xml.body.contains("urn:cen.eu:en16931:2017"), "{}", xml.body);
    let lines = finance.get("/finance/export/lines.csv?month=2025-06").await;
    let stored = count(&world, "SELECT count(*) FROM invoice_lines").await;
    assert_eq!(i64::try_from(lines.body.lines().count()).unwrap(), stored + 1);
}

#[tokio::test]
async fn a_changed_price_leaves_alone_who_has_moved_on() {
    let world = World::new().await;
    let pool = world.portal.state.db().pool();
    let subscription = subscriptions_of(pool, world.ada).await.unwrap()[0].id;
    let plan = plans(pool).await.unwrap()[0].id;
    let now_ms = crate::testing::NOW_MS;
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    let price = |base: i64, cycle_months: i64, at_ms: i64| NewPrice {
        plan,
        cycle_months,
        base: Money::new(base, Currency::USD),
        usage: "0.05".parse().unwrap(),
        valid_from_ms: at_ms,
    };
    let dearer = add_price(&mut transaction, price(5900, 1, now_ms)).await.unwrap();
    billing::subscription::reprice::reprice(&mut transaction, dearer.id, "root", now_ms)
        .await
        .unwrap();
    let year = add_price(&mut transaction, price(50_000, 12, now_ms)).await.unwrap();
    let change = billing::subscription::change::Change {
        price: year.id,
        quantity: 1,
    };
    billing::subscription::change::change(&mut transaction, subscription, change, now_ms, "ada", now_ms)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let later_ms = now_ms + 30 * schemas::window::DAY_MS;
    billing::lifecycle::advance(world.portal.state.db(), later_ms)
        .await
        .unwrap();
    let planned = scheduled_of(pool, world.ada).await.unwrap();
    assert_eq!(planned[0].status.name(), "cancelled");
    assert_eq!(planned[0].reason, "its terms were changed before");
}

#[tokio::test]
async fn f60_an_account_is_deleted_when_a_second_admin_approves_it() {
    let world = World::new().await;
    let (mut admin, mut second) = admins(&world).await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let page = format!("/finance/customers/{}", world.ada);
    let delete = format!("{page}/delete");
    let reason = [("reason", "asked for by letter")];
    // Finance sees the customer, and neither the form nor its address is theirs.
    assert!(!finance.get(&page).await.body.contains("Delete the account"));
    assert_eq!(finance.send_form(&page, &delete, &reason).await.status, 403);
    let refused = admin.send_form(&page, &delete, &[("reason", " ")]).await;
    assert_eq!(refused.status, 422);
    let asked = admin.send_form(&page, &delete, &reason).await;
    assert_eq!(asked.header("location"), format!("{page}?done=asked"), "{}", asked.body);
    let running = "SELECT count(*) FROM subscriptions WHERE customer_id = 1 AND status <> 'ended'";
    assert_eq!(count(&world, running).await, 2, "nothing happens before it is approved");

    let waiting = second.get("/admin/approvals").await.body;
    assert!(
        waiting.contains("asked for by letter") && waiting.contains("2 subscriptions end"),
        "{waiting}"
    );
    // What is owed and what ends, before it is decided.
    assert!(
        waiting.contains("<dt>Owes</dt>") && waiting.contains("db-primary: "),
        "{waiting}"
    );
    assert!(
        waiting.contains("Manual steps afterwards") && waiting.contains("at the gateway"),
        "{waiting}"
    );
    let approved = second
        .send_form("/admin/approvals", "/admin/approvals/apr_1/approve", &[])
        .await;
    assert_eq!(
        approved.header("location"),
        "/admin/approvals?done=approved",
        "{}",
        approved.body
    );
    assert_eq!(count(&world, running).await, 0);
    let deleted = admin.get(&page).await.body;
    assert!(deleted.contains("This account was deleted on"), "{deleted}");
    assert!(
        !deleted.contains("Grant credit") && !deleted.contains("Request deletion"),
        "{deleted}"
    );
    let grant = [("amount", "7.50"), ("reason", "sorry")];
    let granted = admin.send_form(&page, &format!("{page}/grant"), &grant).await;
    assert_eq!(granted.status, 422);
    assert!(granted.body.contains("was deleted on"), "{}", granted.body);
    let list = admin.get("/finance/customers").await.body;
    assert!(list.contains(">deleted</span>"), "{list}");
    let mut ada = world.portal.browser();
    let answer = ada.sign_in("ada@example.net", crate::testing::PASSWORD).await;
    assert_ne!(answer.status, 303, "nobody signs in for a deleted account");
    let audit = admin.get(&format!("/admin/audit?subject={}", world.ada)).await.body;
    assert!(
        audit.contains("approval.approve") && audit.contains("documents and postings are kept"),
        "{audit}"
    );
}

#[tokio::test]
async fn f60_a_few_subscriptions_end_at_once_and_many_when_a_second_admin_approves() {
    let world = World::new().await;
    let (mut admin, mut second) = admins(&world).await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let page = format!("/finance/customers/{}", world.ada);
    let terminate = format!("{page}/terminate");
    let reason = [("reason", "the contract was given notice of")];
    let running = "SELECT count(*) FROM subscriptions WHERE customer_id = 1 AND status <> 'ended'";
    assert_eq!(finance.send_form(&page, &terminate, &reason).await.status, 403);
    assert_eq!(admin.send_form(&page, &terminate, &[]).await.status, 422);
    assert_eq!(count(&world, running).await, 2);
    let done = admin.send_form(&page, &terminate, &reason).await;
    assert_eq!(
        done.header("location"),
        format!("{page}?done=terminated"),
        "{}",
        done.body
    );
    assert_eq!(count(&world, running).await, 0);
    let nothing = admin.send_form(&page, &terminate, &reason).await;
    assert_eq!(nothing.status, 422, "there is nothing left to end");

    // Six of them are many.
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    for number in 2000..2006i64 {
        for sql in [
            "INSERT INTO services (id, customer_id, name, service_type, status, created_at_ms) \
             SELECT $1, 1, name, service_type, status, 0 FROM services WHERE id = 1",
            "INSERT INTO subscriptions (id, customer_id, service_id, status, time_zone, started_at_ms, created_at_ms) \
             SELECT $1, 1, $1, 'active', time_zone, started_at_ms, 0 FROM subscriptions WHERE service_id = 1",
            "INSERT INTO phases (id, subscription_id, plan_id, price_id, quantity, anchor_day, cycle_from, from_date, created_at_ms) \
             SELECT $1, $1, plan_id, price_id, 1, anchor_day, cycle_from, from_date, 0 FROM phases WHERE plan_id = 1 AND id < 1000 LIMIT 1",
        ] {
            sqlx::query(sql).bind(number).execute(&mut *transaction).await.unwrap();
        }
    }
    transaction.commit().await.unwrap();
    let asked = admin.send_form(&page, &terminate, &reason).await;
    assert_eq!(asked.header("location"), format!("{page}?done=asked"), "{}", asked.body);
    assert_eq!(count(&world, running).await, 6);
    assert!(
        second
            .get("/admin/approvals")
            .await
            .body
            .contains("End all 6 subscriptions")
    );
    let approved = second
        .send_form("/admin/approvals", "/admin/approvals/apr_1/approve", &[])
        .await;
    assert_eq!(
        approved.header("location"),
        "/admin/approvals?done=approved",
        "{}",
        approved.body
    );
    assert_eq!(count(&world, running).await, 0);
}

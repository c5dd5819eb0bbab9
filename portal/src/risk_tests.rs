//! F-60 in the portal: a form above a threshold waits for a second admin, leaves one entry when it is sent and one when it is decided,
//! and is done by the decision. The same for commands: `tests/risk.rs`. Refunds: `pages/finance/refund/tests.rs`.

use activity::audit::{self, AuditFilter, AuditRecord, Risk, chain};
use activity::risk::{self, Thresholds};
use sqlx::Row as _;

use crate::auth::Role;
use crate::testing::world::World;
use crate::testing::{Answer, Browser};

/// Everything waits.
const STRICT: Thresholds = Thresholds {
    refund_over_minor: 0,
    credit_grant_over_minor: 0,
    write_off_over_minor: 0,
    credit_note_over_minor: 0,
    usage_exclusion_over_hours: 0,
    transfer_over_services: 0,
    price_change_over_customers: 0,
    termination_over_subscriptions: 0,
    valid_days: 14,
};

const ADMINS: &str = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at_ms IS NULL";

/// A form above its threshold.
struct Case {
    who: &'static str,
    page: &'static str,
    address: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// What confirms its preview; empty where it has none.
    confirm: &'static str,
    kind: &'static str,
    /// What being done adds one to, or takes one from.
    counts: &'static str,
}

/// In order, in one world. OPS is the operator's id.
#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { who: "finance", page: "/finance/customers/cus_1", address: "/finance/customers/cus_1/grant",
        fields: &[("amount", "0.01"), ("reason", "sorry")], confirm: "", kind: "credit_grant",
        counts: "SELECT count(*) FROM ledger_transactions WHERE idempotency_key LIKE 'grant:%'" },
    Case { who: "finance", page: "/finance/customers/cus_1", address: "/finance/customers/cus_1/charge",
        fields: &[("amount", "-0.01"), ("description", "sorry")], confirm: "", kind: "credit_item",
        counts: "SELECT count(*) FROM charge_items" },
    Case { who: "finance", page: "/finance/invoices/inv_1", address: "/finance/invoices/inv_1/write-off",
        fields: &[("reason", "gone")], confirm: "write_off", kind: "write_off",
        counts: "SELECT count(*) FROM allocations WHERE source = 'write_off'" },
    Case { who: "ops", page: "/ops/services/svc_1", address: "/ops/services/svc_1/attacks",
        fields: &[("from", "2025-06-01T04:00"), ("to", "2025-06-01T04:30"), ("reason", "flood")], confirm: "",
        kind: "usage_exclusion", counts: "SELECT count(*) FROM usage_exclusions" },
    Case { who: "admin", page: "/admin/transfers", address: "/admin/transfers/trf_1/approve", fields: &[], confirm: "",
        kind: "service_transfer", counts: "SELECT count(*) FROM service_transfers WHERE status = 'approved'" },
    Case { who: "admin", page: "/admin/plans/pln_1", address: "/admin/plans/pln_1/price",
        fields: &[("currency", "USD"), ("base", "59.00"), ("cycle", "1"), ("usage", "0.05"), ("who", "renewal")],
        confirm: "add", kind: "price_change", counts: "SELECT count(*) FROM prices" },
    Case { who: "admin", page: "/finance/customers/cus_2", address: "/finance/customers/cus_2/terminate",
        fields: &[("reason", "abuse")], confirm: "", kind: "bulk_termination",
        counts: "SELECT count(*) FROM subscriptions WHERE status = 'ended'" },
    Case { who: "admin", page: "/finance/customers/cus_2", address: "/finance/customers/cus_2/delete",
        fields: &[("reason", "asked for")], confirm: "", kind: "account_deletion",
        counts: "SELECT count(*) FROM users WHERE disabled_at_ms IS NOT NULL" },
    Case { who: "admin", page: "/admin/users/OPS", address: "/admin/users/OPS/role", fields: &[("role", "admin")], confirm: "",
        kind: "admin_role", counts: ADMINS },
    Case { who: "admin", page: "/admin/users/OPS", address: "/admin/users/OPS/disable", fields: &[], confirm: "",
        kind: "admin_deleted", counts: ADMINS },
    Case { who: "admin", page: "/admin/users/OPS", address: "/admin/users/OPS/enable", fields: &[], confirm: "",
        kind: "admin_created", counts: ADMINS },
];

/// Sends a form, and confirms its preview.
async fn send(browser: &mut Browser, case: &Case, ops: &str) -> Answer {
    let (page, address) = (case.page.replace("OPS", ops), case.address.replace("OPS", ops));
    let sent = browser.send_form(&page, &address, case.fields).await;
    if case.confirm.is_empty() {
        return sent;
    }
    assert_eq!(sent.status, 200, "{address}: {}", sent.body);
    let shown = sent.hidden("shown");
    let mut fields = case.fields.to_vec();
    fields.extend([("shown", shown.as_str()), ("do", case.confirm)]);
    browser.send_form(&page, &address, &fields).await
}

/// The entries after one, oldest first.
async fn after(world: &World, known: i64) -> Vec<AuditRecord> {
    let pool = world.portal.state.db().pool();
    let listed = audit::list(pool, AuditFilter::default(), audit::MAX_PAGE).await;
    let mut entries = listed.unwrap();
    entries.retain(|entry| entry.id.0 > known);
    entries.reverse();
    entries
}

async fn number(world: &World, query: &'static str) -> i64 {
    let row = sqlx::query(query).fetch_one(world.portal.state.db().pool()).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn f60_every_form_above_a_threshold_waits_and_is_done_by_the_decision() {
    let world = World::new().await;
    let portal = &world.portal;
    for (name, role) in [
        ("ops", Role::Ops),
        ("finance", Role::Finance),
        ("admin", Role::Admin),
        ("second", Role::Admin),
    ] {
        portal.user(name, role, None).await;
    }
    let ops = number(&world, "SELECT id FROM users WHERE email = 'ops@example.net'").await;
    let ops = format!("usr_{ops}");
    let mut admin = portal.signed_in("admin").await;
    let transfer = [("service", "svc_3"), ("to", "cus_1"), ("ticket", "T-9")];
    let asked = admin.send_form("/admin/transfers", "/admin/transfers", &transfer).await;
    assert_eq!(asked.status, 303, "{}", asked.body);
    let mut connection = portal.state.db().pool().acquire().await.unwrap();
    let _ = risk::set_thresholds(&mut connection, &STRICT).await.unwrap();
    drop(connection);
    for (position, case) in CASES.iter().enumerate() {
        let address = case.address;
        let known = after(&world, 0).await.last().unwrap().id.0;
        let before = number(&world, case.counts).await;
        let mut browser = portal.signed_in(case.who).await;
        let sent = send(&mut browser, case, &ops).await;
        assert_eq!(sent.status, 303, "{address}: {}", sent.body);
        // The page says that somebody else decides.
        let page = browser.get(sent.header("location")).await;
        assert!(page.body.contains("A second admin decides"), "{address}: {}", page.body);
        let left = after(&world, known).await;
        let [entry] = &left[..] else {
            panic!("{address} left {left:?}")
        };
        assert_eq!(entry.action, "approval.request", "{address}");
        assert_eq!(entry.actor, format!("{}@example.net", case.who));
        assert_eq!(entry.change["parameters"]["action"], case.kind, "{address}");
        assert_eq!(
            number(&world, case.counts).await,
            before,
            "{address} was done before anybody decided"
        );

        // Credit is granted once for each form that is sent; anything else waits once.
        let known = entry.id.0;
        if case.kind != "credit_grant" {
            let again = send(&mut browser, case, &ops).await;
            assert_eq!(again.status, 422, "{address}: {}", again.body);
        }
        let decide = format!("/admin/approvals/apr_{}/approve", position + 1);
        if case.who == "admin" {
            let own = browser.send_form("/admin/plans", &decide, &[]).await;
            assert_eq!(own.status, 422, "{address}: {}", own.body);
        }
        assert_eq!(after(&world, known).await, [], "{address}");
        let mut second = portal.signed_in("second").await;
        let decided = second.send_form("/admin/approvals", &decide, &[]).await;
        assert_eq!(decided.status, 303, "{address}: {}", decided.body);
        let left = after(&world, known).await;
        let [decision] = &left[..] else {
            panic!("approving {address} left {left:?}")
        };
        assert_eq!(
            (decision.action.as_str(), decision.actor.as_str()),
            ("approval.approve", "second@example.net")
        );
        let changed = (number(&world, case.counts).await - before).abs();
        assert_eq!(changed, 1, "{address}: {:?}", decision.change);
        let kept = activity::approval::list(portal.state.db().pool(), None, None, 1)
            .await
            .unwrap();
        assert_eq!(
            (kept[0].request_entry, kept[0].decision_entry),
            (Some(entry.id), Some(decision.id))
        );
    }
    assert_eq!(chain::verify(portal.state.db()).await.unwrap().broken, None);
}

/// What puts a charge right waits for nobody, and does not pass unseen in the place of a write-off.
#[tokio::test]
async fn f60_large_credit_notes_are_reported() {
    const SMALL: &[(&str, &str)] = &[("amount", "1.00"), ("reason", "wrong")];
    const REST: &[(&str, &str)] = &[("amount", ""), ("reason", "wrong")];
    let world = World::new().await;
    let portal = &world.portal;
    portal.user("finance", Role::Finance, None).await;
    let mut finance = portal.signed_in("finance").await;
    let form = |fields| Case {
        who: "finance",
        page: "/finance/invoices/inv_1",
        address: "/finance/invoices/inv_1/credit",
        fields,
        confirm: "issue",
        kind: "credit_note",
        counts: "",
    };
    for (thresholds, fields, risk) in [(Thresholds::DEFAULT, SMALL, Risk::Normal), (STRICT, REST, Risk::High)] {
        let mut connection = portal.state.db().pool().acquire().await.unwrap();
        let _ = risk::set_thresholds(&mut connection, &thresholds).await.unwrap();
        drop(connection);
        let known = after(&world, 0).await.last().unwrap().id.0;
        let sent = send(&mut finance, &form(fields), "").await;
        assert_eq!(sent.status, 303, "{}", sent.body);
        let left = after(&world, known).await;
        let [entry] = &left[..] else {
            panic!("a credit note left {left:?}")
        };
        assert_eq!((entry.action.as_str(), entry.risk), ("invoice.credit", risk));
    }
}

/// What a request is about may be something else by the time it is decided.
#[tokio::test]
async fn f60_what_changed_since_it_was_asked_for_is_not_done() {
    let world = World::new().await;
    let portal = &world.portal;
    for (name, role) in [
        ("finance", Role::Finance),
        ("admin", Role::Admin),
        ("second", Role::Admin),
    ] {
        portal.user(name, role, None).await;
    }
    let mut admin = portal.signed_in("admin").await;
    let transfer = [("service", "svc_3"), ("to", "cus_1"), ("ticket", "T-9")];
    admin.send_form("/admin/transfers", "/admin/transfers", &transfer).await;
    let mut connection = portal.state.db().pool().acquire().await.unwrap();
    let _ = risk::set_thresholds(&mut connection, &STRICT).await.unwrap();
    drop(connection);
    let case = |kind: &str| CASES.iter().find(|case| case.kind == kind).unwrap();
    let mut finance = portal.signed_in("finance").await;
    assert_eq!(send(&mut finance, case("write_off"), "").await.status, 303);
    assert_eq!(send(&mut admin, case("service_transfer"), "").await.status, 303);
    // Voided and given up meanwhile.
    let void = [("reason", "wrong"), ("do", "void")];
    let voided = finance
        .send_form("/finance/invoices/inv_1", "/finance/invoices/inv_1/void", &void)
        .await;
    assert_eq!(voided.status, 303, "{}", voided.body);
    let cancel = [("reason", "not any more")];
    let cancelled = admin
        .send_form("/admin/transfers", "/admin/transfers/trf_1/cancel", &cancel)
        .await;
    assert_eq!(cancelled.status, 303, "{}", cancelled.body);
    let known = after(&world, 0).await.last().unwrap().id.0;
    let mut second = portal.signed_in("second").await;
    for id in ["apr_1", "apr_2"] {
        let address = format!("/admin/approvals/{id}/approve");
        let refused = second.send_form("/admin/approvals", &address, &[]).await;
        assert_eq!(refused.status, 422, "{id}: {}", refused.body);
    }
    assert_eq!(after(&world, known).await, [], "what cannot be done is not approved");
    // It can be rejected, which is final.
    let reject = [("reason", "gone")];
    let rejected = second
        .send_form("/admin/approvals", "/admin/approvals/apr_1/reject", &reject)
        .await;
    assert_eq!(rejected.status, 303, "{}", rejected.body);
    let refused = second
        .send_form("/admin/approvals", "/admin/approvals/apr_1/approve", &[])
        .await;
    assert!(refused.body.contains("is rejected already"), "{}", refused.body);
}

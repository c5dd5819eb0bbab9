//! Every form of the table of endpoints says what it leaves in the audit log; what is driven here leaves exactly that, in the name
//! of who sent it, and the chain holds.

use std::collections::BTreeSet;

use activity::audit::chain;
use activity::audit::{self, AuditFilter, AuditRecord};
use sqlx::Row as _;

use crate::auth::Role;
use crate::endpoints::ENDPOINTS;
use crate::testing::world::World;
use crate::testing::{Browser, PASSWORD};

/// What a form leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaves {
    /// One entry of this action, or of one that begins so.
    Entry(&'static str),
    /// One before it begins, and `.done` or `.failed` after it: it takes several transactions.
    Steps(&'static str),
    /// None, and why.
    Nothing(&'static str),
}
use Leaves::{Entry, Nothing, Steps};

const SIGNING_IN: &str = "who signs in and who tries has a list of its own, /account/sessions and `user sign-ins`";
const PROVIDER: &str = "the test gateway's side, as a payment provider keeps it";

#[rustfmt::skip]
const LEAVES: &[(&str, Leaves)] = &[
    ("/hooks/{gateway}", Nothing("what a gateway says is kept with its payment")),
    ("/signin", Nothing(SIGNING_IN)),
    ("/signin/code", Nothing(SIGNING_IN)),
    ("/signout", Nothing(SIGNING_IN)),
    ("/forgot-password", Entry("user.password_reset_request")),
    ("/reset-password/{token}", Entry("user.password_reset")),
    ("/verify-email/{token}", Entry("customer.email_verified")),
    ("/account/password", Entry("user.password_change")),
    ("/account/sessions/others", Entry("user.end_sessions")),
    ("/account/sessions/{session}/end", Entry("user.end_sessions")),
    ("/account/tokens", Entry("user.token_add")),
    ("/account/tokens/{api_token}/revoke", Entry("user.token_revoke")),
    ("/account/two-factor/begin", Entry("two_factor.begin")),
    ("/account/two-factor/cancel", Entry("two_factor.cancel")),
    ("/account/two-factor/confirm", Entry("two_factor.on")),
    ("/account/two-factor/recovery-codes", Entry("two_factor.recovery_codes")),
    ("/account/two-factor/off", Entry("two_factor.off")),
    ("/account/address", Entry("customer.email")),
    ("/account/address/verify", Entry("customer.email_link_request")),
    ("/invoices/{invoice}/pay", Steps("payment.charge")),
    ("/invoices/{invoice}/pay-from-credit", Entry("invoice.apply_credit")),
    ("/payments/{payment}/give-up", Steps("payment.cancel")),
    ("/payments/{payment}/confirm", Steps("payment.charge")),
    ("/payment-methods/add", Nothing("a page at the gateway; what is saved there comes back")),
    ("/payment-methods/finish", Steps("payment_method.add")),
    ("/payment-methods/return", Steps("payment_method.add")),
    ("/payment-methods/{method}/default", Entry("payment_method.default")),
    ("/payment-methods/{method}/remove", Steps("payment_method.remove")),
    ("/test-gateway/setups/{setup}", Nothing(PROVIDER)),
    ("/test-gateway/charges/{charge}", Nothing(PROVIDER)),
    ("/credit/buy", Steps("payment.top_up")),
    ("/credit/top-up", Entry("top_up.set")),
    ("/credit/top-up/off", Entry("top_up.disable")),
    ("/budget", Entry("budget.set")),
    ("/budget/clear", Entry("budget.clear")),
    ("/budget/services", Entry("budget.")),
    ("/budget/unlock", Steps("payment.top_up")),
    ("/plans/{plan}/checkout", Entry("subscription.")),
    ("/subscriptions/{subscription}/change", Entry("subscription.")),
    ("/subscriptions/{subscription}/addon", Entry("subscription.")),
    ("/subscriptions/{subscription}/cancel", Entry("subscription.cancel")),
    ("/subscriptions/{subscription}/resume", Entry("subscription.resume")),
    ("/subscriptions/{subscription}/changes/{change}/cancel", Entry("subscription.unschedule")),
    ("/notifications/read", Nothing("what a customer has read")),
    ("/webhooks", Entry("webhook.add")),
    ("/webhooks/{endpoint}/rotate", Entry("webhook.rotate")),
    ("/webhooks/{endpoint}/enable", Entry("webhook.enable")),
    ("/webhooks/{endpoint}/remove", Entry("webhook.remove")),
    ("/webhooks/{endpoint}/replay", Entry("event.replay")),
    ("/ops/jobs/{job}/run", Entry("job.run")),
    ("/ops/services/{service}/attacks", Entry("usage.exclude")),
    ("/ops/services/{service}/attacks/{exclusion}/revoke", Entry("usage.include")),
    ("/finance/invoices/{invoice}/credit", Entry("invoice.credit")),
    ("/finance/invoices/{invoice}/void", Entry("invoice.void")),
    ("/finance/invoices/{invoice}/write-off", Entry("invoice.write_off")),
    ("/finance/invoices/{invoice}/transfer", Entry("payment.record_transfer")),
    ("/finance/customers/{customer}/profile", Entry("customer.billing_profile")),
    ("/finance/customers/{customer}/vat", Entry("customer.vat_accept")),
    ("/finance/customers/{customer}/charge", Entry("customer.charge")),
    ("/finance/customers/{customer}/grant", Entry("credit.grant")),
    ("/finance/customers/{customer}/transfer", Entry("payment.record_transfer")),
    ("/finance/customers/{customer}/close", Steps("customer.close")),
    ("/finance/customers/{customer}/terminate", Entry("customer.terminate")),
    ("/finance/customers/{customer}/delete", Entry("approval.request")),
    ("/finance/payments/{payment}/refund", Entry("payment.refund")),
    ("/finance/payments/{payment}/reverse", Entry("payment.reverse")),
    ("/finance/unmeasured/{customer}", Entry("invoice.confirm_coverage")),
    ("/admin/plans", Entry("plan.create")),
    ("/admin/plans/free", Entry("plan.create")),
    ("/admin/plans/{plan}/edit", Entry("plan.edit")),
    ("/admin/plans/{plan}/price", Entry("price.add")),
    ("/admin/plans/{plan}/stock", Entry("plan.stock")),
    ("/admin/plans/{plan}/archive", Entry("plan.archive")),
    ("/admin/coupons", Entry("coupon.create")),
    ("/admin/coupons/{coupon}/archive", Entry("coupon.archive")),
    ("/admin/approvals/{approval}/approve", Entry("approval.approve")),
    ("/admin/approvals/{approval}/reject", Entry("approval.reject")),
    ("/admin/transfers", Entry("transfer.request")),
    ("/admin/transfers/{transfer}/{step}", Entry("transfer.")),
    ("/admin/deals", Entry("deal.record")),
    ("/admin/taxes", Entry("tax.add")),
    ("/admin/taxes/{rate}/end", Entry("tax.end")),
    ("/admin/entities", Entry("entity.create")),
    ("/admin/entities/{entity}", Entry("entity.change")),
    ("/admin/clock/confirm", Entry("billing.confirm_clock")),
    ("/admin/users/{user}/{act}", Entry("user.")),
];

#[test]
fn every_form_says_what_it_leaves() {
    let forms = ENDPOINTS.iter().filter(|endpoint| endpoint.method != "GET");
    let forms: BTreeSet<&str> = forms.map(|endpoint| endpoint.path).collect();
    let told: BTreeSet<&str> = LEAVES.iter().map(|(path, _)| *path).collect();
    assert_eq!(forms, told, "each form has a line in LEAVES");
    for (path, leaves) in LEAVES {
        let (Entry(text) | Steps(text) | Nothing(text)) = leaves;
        assert!(!text.is_empty(), "{path}");
    }
}

/// Who sends what where. Addresses have things in the place of names.
struct Case {
    who: &'static str,
    form: &'static str,
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const fn case(
    who: &'static str,
    form: &'static str,
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        who,
        form,
        path,
        fields,
    }
}

/// In order, in one world.
#[rustfmt::skip]
const CASES: &[Case] = &[
    case("ada", "/webhooks", "/webhooks", &[("url", "https://93.184.215.14/hook"), ("type:invoice.paid", "on")]),
    case("ada", "/webhooks/{endpoint}/rotate", "/webhooks/whk_1/rotate", &[]),
    case("ada", "/webhooks/{endpoint}/enable", "/webhooks/whk_1/enable", &[]),
    case("ada", "/webhooks/{endpoint}/remove", "/webhooks/whk_1/remove", &[]),
    case("ada", "/webhooks", "/webhooks", &[("kind", "discord"), ("url", "http://127.0.0.1:9/api/webhooks/7/x")]),
    case("ada", "/payment-methods/{method}/default", "/payment-methods/pmt_1/default", &[]),
    case("ada", "/credit/top-up", "/credit/top-up", &[("threshold", "10.00"), ("amount", "50.00")]),
    case("ada", "/credit/top-up/off", "/credit/top-up/off", &[]),
    case("ada", "/budget", "/budget", &[("amount", "5000"), ("thresholds", "50"), ("reset_day", "")]),
    case("ada", "/budget/services", "/budget/services", &[("service", "svc_1"), ("counts", "no")]),
    case("ada", "/budget/clear", "/budget/clear", &[]),
    case("ada", "/account/sessions/others", "/account/sessions/others", &[]),
    case("ada", "/account/tokens", "/account/tokens", &[("name", "billing export"), ("days", "30"), ("password", PASSWORD)]),
    case("ada", "/account/tokens/{api_token}/revoke", "/account/tokens/tok_1/revoke", &[]),
    case("ada", "/account/two-factor/begin", "/account/two-factor/begin", &[("password", PASSWORD)]),
    case("ada", "/account/two-factor/cancel", "/account/two-factor/cancel", &[]),
    case("ops", "/ops/jobs/{job}/run", "/ops/jobs/nightly/run", &[]),
    case("ops", "/ops/services/{service}/attacks", "/ops/services/svc_1/attacks",
        &[("from", "2025-06-01T04:00"), ("to", "2025-06-01T04:30"), ("reason", "flood")]),
    case("ops", "/ops/services/{service}/attacks/{exclusion}/revoke", "/ops/services/svc_1/attacks/exc_1/revoke", &[]),
    case("finance", "/finance/customers/{customer}/charge", "/finance/customers/cus_1/charge",
        &[("description", "Remote hands"), ("amount", "25.00")]),
    case("finance", "/finance/customers/{customer}/grant", "/finance/customers/cus_1/grant",
        &[("amount", "7.50"), ("reason", "sorry")]),
    case("finance", "/finance/customers/{customer}/profile", "/finance/customers/cus_1/profile",
        &[("entity", "ent_1"), ("city", "Ulm"), ("vat_id", "DE136695976")]),
    case("finance", "/finance/customers/{customer}/vat", "/finance/customers/cus_1/vat", &[("reason", "register")]),
    case("finance", "/finance/customers/{customer}/transfer", "/finance/customers/cus_1/transfer",
        &[("amount", "5.00"), ("reference", "T-1")]),
    case("finance", "/finance/payments/{payment}/reverse", "/finance/payments/pay_1/reverse", &[("reason", "mistaken")]),
    case("finance", "/finance/customers/{customer}/close", "/finance/customers/cus_1/close", &[]),
    case("finance", "/finance/invoices/{invoice}/void", "/finance/invoices/inv_1/void", &[("reason", "wrong"), ("rebill", "on"), ("do", "void")]),
    case("admin", "/admin/plans", "/admin/plans", &[("name", "VPS Pro"), ("service_type", "vps"), ("kind", "plan"),
        ("model", "transfer"), ("included", "2000"), ("unit", "GiB"), ("mode", "sum"), ("timing", "advance"),
        ("badge", "popular"), ("attributes", "vcpu = 4")]),
    case("admin", "/admin/plans/{plan}/stock", "/admin/plans/pln_1/stock", &[("stock", "5")]),
    case("admin", "/admin/plans/{plan}/archive", "/admin/plans/pln_1/archive", &[]),
    case("admin", "/admin/coupons", "/admin/coupons", &[("code", "summer"), ("off", "15"), ("months", "3")]),
    case("admin", "/admin/coupons/{coupon}/archive", "/admin/coupons/cpn_1/archive", &[]),
    case("admin", "/admin/taxes", "/admin/taxes", &[("country", "DE"), ("name", "VAT"), ("rate", "19"), ("from", "2025-01-01")]),
    case("admin", "/admin/taxes/{rate}/end", "/admin/taxes/tax_1/end", &[("to", "2026-01-01")]),
    case("admin", "/admin/transfers", "/admin/transfers", &[("service", "svc_3"), ("to", "cus_1"), ("ticket", "T-9")]),
    case("admin", "/admin/transfers/{transfer}/{step}", "/admin/transfers/trf_1/approve", &[]),
    case("admin", "/finance/customers/{customer}/delete", "/finance/customers/cus_2/delete", &[("reason", "asked for")]),
    case("second", "/admin/approvals/{approval}/approve", "/admin/approvals/apr_1/approve", &[]),
    case("admin", "/admin/users/{user}/{act}", "/admin/users/OPS/disable", &[]),
    case("admin", "/admin/users/{user}/{act}", "/admin/users/OPS/enable", &[]),
];

/// As of a process that runs a job, far into the future.
const RUNS_A_JOB: [&str; 2] = [
    "INSERT INTO job_leases (name, owner, process, token, until_ms) VALUES ('nightly', 'host:1', 'boot:1', 1, 9000000000000)",
    "INSERT INTO jobs (name, instance, lease, description, schedule, waits_for, owner, progress_done, progress_total, \
     progress_text, hold, last_outcome, last_text, failures_in_a_row, requested, served, seen_at_ms) VALUES \
     ('nightly', '', 'nightly', 'a job', 'every 10 min', '', 'host:1', 0, 0, '', '', '', '', 0, 0, 0, 0)",
];

/// The entries after one, oldest first.
async fn after(world: &World, known: i64) -> Vec<AuditRecord> {
    let pool = world.portal.state.db().pool();
    let mut entries = audit::list(pool, AuditFilter::default(), audit::MAX_PAGE)
        .await
        .unwrap();
    entries.retain(|entry| entry.id.0 > known);
    entries.reverse();
    entries
}

#[tokio::test]
async fn each_form_leaves_its_entry_and_the_chain_holds() {
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
    portal.card(world.ada, "pm_1").await;
    for statement in RUNS_A_JOB {
        let pool = portal.state.db().pool();
        sqlx::query(statement).execute(pool).await.unwrap();
    }
    let ops = sqlx::query("SELECT id FROM users WHERE email = 'ops@example.net'")
        .fetch_one(portal.state.db().pool())
        .await
        .unwrap();
    let ops = format!("usr_{}", ops.get::<i64, _>(0));
    // A second browser of hers, to be signed out.
    let _other = portal.signed_in("ada").await;
    let mut known = after(&world, 0).await.last().unwrap().id.0;
    for (number, case) in CASES.iter().enumerate() {
        let mut browser: Browser = portal.signed_in(case.who).await;
        let csrf = browser.get("/account").await.csrf_token();
        let form_token = format!("{number:064x}");
        let mut form = vec![("csrf_token", csrf.as_str()), ("form_token", form_token.as_str())];
        form.extend_from_slice(case.fields);
        let path = case.path.replace("OPS", &ops);
        let answer = browser.post(&path, &form).await;
        // What shows a secret once is a page.
        let status = answer.status.as_u16();
        assert!([200, 303].contains(&status), "{path}: {status} {}", answer.body);

        let (_, leaves) = LEAVES.iter().find(|(form, _)| *form == case.form).unwrap();
        let left = after(&world, known).await;
        let actions: Vec<&str> = left.iter().map(|entry| entry.action.as_str()).collect();
        match leaves {
            Entry(action) => assert!(
                matches!(actions[..], [only] if only.starts_with(action)),
                "{path} left {actions:?}: {}",
                answer.body
            ),
            Steps(action) => assert_eq!(actions, [(*action).to_owned(), format!("{action}.done")], "{path}"),
            Nothing(_) => assert!(actions.is_empty(), "{path} left {actions:?}"),
        }
        for entry in &left {
            assert_eq!(entry.actor, format!("{}@example.net", case.who), "{path}");
            assert!(entry.user.is_some() && !entry.ip.is_empty(), "{path}: {entry:?}");
            known = entry.id.0;
        }
        let verified = chain::verify(portal.state.db()).await.unwrap();
        assert_eq!(verified.broken, None, "after {path}");
    }
}

use billing::ledger;
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

/// Previews a refund and confirms what was shown.
async fn refund(browser: &mut Browser, page: &str, amount: &str, reference: &str) -> Answer {
    let fields = [("amount", amount), ("reason", "paid twice"), ("reference", reference)];
    let shown = browser.send_form(page, page, &fields).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    let preview = hidden(&shown.body, "shown");
    let confirmed = [
        ("amount", amount),
        ("reason", "paid twice"),
        ("reference", reference),
        ("shown", preview.as_str()),
        ("do", "refund"),
    ];
    browser.send_form(page, page, &confirmed).await
}

/// The value of a hidden field.
fn hidden(body: &str, name: &str) -> String {
    let after = body.split(&format!("name=\"{name}\" value=\"")).nth(1);
    let value = after.and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

#[tokio::test]
async fn a_refund_is_previewed_issues_its_credit_note_and_shows_everywhere() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let invoice = format!("/finance/invoices/{}", world.invoice_of_bob);
    let paid = [("amount", "49.00"), ("reference", "MT-1")];
    let done = finance.send_form(&invoice, &format!("{invoice}/transfer"), &paid).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let page = "/finance/payments/pay_1/refund";
    let fields = [("amount", "20.00"), ("reason", "a bad day"), ("reference", "MT-2")];
    let preview = finance.send_form(page, page, &fields).await;
    for text in [
        "Credit note, gross",
        "of which becomes credit",
        "USD 29.00",
        "Refund USD 20.00",
    ] {
        assert!(preview.body.contains(text), "{text} in {}", preview.body);
    }
    // What was not shown is not done.
    let unseen = [
        fields[0],
        fields[1],
        fields[2],
        ("shown", "something else"),
        ("do", "refund"),
    ];
    let refused = finance.send_form(page, page, &unseen).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.body.contains("has changed since it was shown"),
        "{}",
        refused.body
    );
    let done = refund(&mut finance, page, "20.00", "MT-2").await;
    assert_eq!(done.status, 303, "{}", done.body);
    let notes =
        "SELECT count(*) FROM invoices WHERE kind = 'credit_note' AND total_minor = -2000 AND reason = 'paid twice'";
    assert_eq!(count(&world, notes).await, 1);
    for shown in [invoice.as_str(), "/finance/payments/pay_1", "/finance/customers/cus_2"] {
        let body = finance.get(shown).await.body;
        assert!(
            body.contains("USD 20.00") && body.contains("USD 29.00"),
            "{shown}: {body}"
        );
    }
    let mut bob = world.portal.signed_in("bob").await;
    let body = bob.get(&format!("/invoices/{}", world.invoice_of_bob)).await.body;
    assert!(
        body.contains("Refunds") && body.contains("Paid and not refunded"),
        "{body}"
    );
    let report = ledger::check(world.portal.state.db()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.violations);
}

#[tokio::test]
async fn f60_a_large_refund_is_requested_by_finance_and_made_when_an_admin_approves() {
    let world = World::new().await;
    world.portal.user("root", Role::Admin, None).await;
    let mut admin = world.portal.signed_in("root").await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let invoice = format!("/finance/invoices/{}", world.invoice_of_bob);
    let paid = [("amount", "2000.00"), ("reference", "MT-1")];
    let done = finance.send_form(&invoice, &format!("{invoice}/transfer"), &paid).await;
    assert_eq!(done.status, 303, "{}", done.body);
    let page = "/finance/payments/pay_1/refund";
    let asked = refund(&mut finance, page, "1500.00", "MT-2").await;
    assert_eq!(
        asked.header("location"),
        "/finance/payments/pay_1?done=asked",
        "{}",
        asked.body
    );
    let refunds = "SELECT count(*) FROM refunds";
    assert_eq!(count(&world, refunds).await, 0, "nothing happens before it is approved");
    let approved = admin
        .send_form("/admin/approvals", "/admin/approvals/apr_1/approve", &[])
        .await;
    assert_eq!(
        approved.header("location"),
        "/admin/approvals?done=approved",
        "{}",
        approved.body
    );
    assert_eq!(
        count(
            &world,
            "SELECT count(*) FROM refunds WHERE state = 'succeeded' AND amount_minor = 150000"
        )
        .await,
        1
    );
    // The next part of the same payment counts with it, and what is requested is not there for another request.
    let asked = refund(&mut finance, page, "450.00", "MT-3").await;
    assert_eq!(asked.header("location"), "/finance/payments/pay_1?done=asked");
    let shown = finance.get("/finance/payments/pay_1").await.body;
    assert!(
        shown.contains("Waits for a second admin") && shown.contains("USD 450.00"),
        "{shown}"
    );
    let fields = [("amount", "100.00"), ("reason", "paid twice"), ("reference", "MT-4")];
    let refused = finance.send_form(page, page, &fields).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("waits for a second admin"), "{}", refused.body);
    // What the deciding page showed is what is confirmed.
    let decide = admin.get("/admin/approvals").await.body;
    let confirmed = hidden(&decide, "shown");
    let unseen = [("shown", "something else")];
    let approve = "/admin/approvals/apr_2/approve";
    let refused = admin.send_form("/admin/approvals", approve, &unseen).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let done = admin
        .send_form("/admin/approvals", approve, &[("shown", confirmed.as_str())])
        .await;
    assert_eq!(
        done.header("location"),
        "/admin/approvals?done=approved",
        "{}",
        done.body
    );
    let report = ledger::check(world.portal.state.db()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.violations);
}

#[tokio::test]
async fn money_that_came_by_bank_transfer_is_recorded_as_sent_back_once() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let invoice = format!("/finance/invoices/{}", world.invoice_of_bob);
    let paid = [("amount", "100.00"), ("reference", "MT-1")];
    let done = finance.send_form(&invoice, &format!("{invoice}/transfer"), &paid).await;
    assert_eq!(done.status, 303, "{}", done.body);
    // 49.00 settled the invoice, 51.00 became credit, which can go back without a credit note.
    let page = "/finance/payments/pay_1/refund";
    assert!(finance.get(page).await.body.contains("send it at the bank first"));
    let too_much = [("amount", "100.01"), ("reason", "paid twice"), ("reference", "MT-2")];
    assert_eq!(finance.send_form(page, page, &too_much).await.status, 422);
    let nameless = [("amount", "30.00"), ("reason", "paid twice")];
    assert_eq!(finance.send_form(page, page, &nameless).await.status, 422);
    let done = refund(&mut finance, page, "30.00", "MT-2").await;
    assert_eq!(
        done.header("location"),
        "/finance/payments/pay_1?done=refund",
        "{}",
        done.body
    );
    let shown = finance.get("/finance/payments/pay_1").await.body;
    assert!(shown.contains(">INV-2025-"), "the invoice by its number: {shown}");
    let again = refund(&mut finance, page, "10.00", "MT-2").await;
    assert_eq!(again.status, 422, "a reference is recorded once");
    assert_eq!(
        count(
            &world,
            "SELECT CAST(sum(amount_minor) AS BIGINT) FROM refunds WHERE state = 'succeeded'"
        )
        .await,
        3000
    );
    let cash = "SELECT CAST(sum(p.amount_minor) AS BIGINT) FROM ledger_postings p JOIN ledger_accounts a ON a.id = p.account_id \
                WHERE a.name = 'cash:manual:USD'";
    assert_eq!(count(&world, cash).await, 7000);
    let report = ledger::check(world.portal.state.db()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.violations);
    // Ada owes, bob has 21.00 ahead: two lines of the trial balance, not one.
    let trial = finance.get("/finance/ledger").await.body;
    assert!(trial.contains("receivables of 1 customer<"), "{trial}");
    assert!(
        trial.contains("credit of 1 customer<") && trial.contains(">21.00<"),
        "{trial}"
    );
}

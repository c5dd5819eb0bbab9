use jiff::Timestamp;

use super::*;
use crate::auth::Role;
use crate::testing::world::World;

fn bounds(text: &str) -> (String, String) {
    let (from_ms, to_ms) = Month::parse(text).unwrap().bounds_ms().unwrap();
    let instant = |ms| Timestamp::from_millisecond(ms).unwrap().to_string();
    (instant(from_ms), instant(to_ms))
}

#[test]
fn months_are_those_of_the_calendar_in_utc() {
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(bounds("2026-12"), pair("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"));
    assert_eq!(bounds("2024-02"), pair("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"));
    assert_eq!(Month::parse("2026-03").unwrap().label(), "March 2026");
    assert_eq!(Month::parse("2026-01").unwrap().previous(), Month::parse("2025-12"));
    for bad in ["2026", "2026-13", "26-1", "2026-1", "-026-01", "2026-01-01"] {
        assert_eq!(Month::parse(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn finance_sees_the_invoices_of_everybody_and_sums_that_match() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;

    let all = browser.get("/finance?month=all").await;
    assert_eq!(all.status, 200);
    let invoices = list_all(world.portal.state.db().pool(), InvoiceFilter::default())
        .await
        .unwrap();
    let mut total = Money::zero(Currency::USD);
    for invoice in &invoices {
        assert!(all.body.contains(&invoice.number), "{}", invoice.number);
        total = total.checked_add(invoice.total).unwrap();
    }
    assert!(all.body.contains(&total.to_string()), "{total}");

    let of_bob = browser
        .get(&format!(
            "/finance?month=all&customer={}",
            invoices_customer(&invoices, world.invoice_of_bob)
        ))
        .await;
    assert!(
        of_bob
            .body
            .contains(&format!("/finance/invoices/{}\"", world.invoice_of_bob))
    );
    assert!(
        !of_bob
            .body
            .contains(&format!("/finance/invoices/{}\"", world.invoice_of_ada))
    );

    // The filter has the words of the rows.
    let number = |body: &str| body.matches("/finance/invoices/inv_").count();
    let mut by_status = 0;
    for status in ["open", "overdue", "paid", "void", "written_off"] {
        let answer = browser.get(&format!("/finance?month=all&status={status}")).await;
        assert_eq!(answer.status, 200, "{status}");
        by_status += number(&answer.body);
    }
    assert_eq!(by_status, number(&all.body), "each invoice has one status");
    assert_eq!(browser.get("/finance?status=finalised").await.status, 400);

    let empty_month = browser.get("/finance?month=1999-01").await;
    assert_eq!(empty_month.status, 200);
    assert!(empty_month.body.contains("No invoices match"));
    assert_eq!(browser.get("/finance?month=soon").await.status, 400);
    assert_eq!(browser.get("/finance?customer=7").await.status, 400);

    let csv = browser.get("/finance/invoices.csv?month=all").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(
        csv.header("content-disposition"),
        "attachment; filename=\"invoices-month-all.csv\""
    );
    assert_eq!(csv.body.lines().count(), invoices.len() + 1);
}

fn invoices_customer(invoices: &[Invoice], id: InvoiceId) -> CustomerId {
    invoices.iter().find(|invoice| invoice.id == id).unwrap().customer
}

#[tokio::test]
async fn an_invoice_shows_its_lines_and_postings_and_the_books_balance() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;

    let found = billing::invoice::get(world.portal.state.db(), world.invoice_of_ada)
        .await
        .unwrap();
    let answer = browser
        .get(&format!("/finance/invoices/{}", world.invoice_of_ada))
        .await;
    assert_eq!(answer.status, 200);
    for line in &found.lines {
        assert!(answer.body.contains(&line.amount.to_string()), "{}", line.description);
    }
    assert!(answer.body.contains("receivable:<wbr>cus_1:<wbr>USD"));
    assert_eq!(browser.get("/finance/invoices/inv_999").await.status, 404);
    assert_eq!(browser.get("/finance/invoices/999").await.status, 404);

    let ledger = browser.get("/finance/ledger").await;
    assert_eq!(ledger.status, 200);
    assert!(ledger.body.contains("Sum USD 0.00"));
    assert!(ledger.body.contains("Books are consistent"));
    assert!(ledger.body.contains("receivables of 2 customers"));
}

#[tokio::test]
async fn books_that_do_not_balance_are_told() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    sqlx::query("UPDATE ledger_postings SET amount_minor = amount_minor + 1 WHERE position = 1")
        .execute(world.portal.state.db().pool())
        .await
        .unwrap();
    let mut browser = world.portal.signed_in("fin").await;
    let ledger = browser.get("/finance/ledger").await;
    assert!(ledger.body.contains("The books are not consistent"));
    assert!(ledger.body.contains("Out of balance by USD 0.0"));
}

#[tokio::test]
async fn a_document_has_the_dates_that_are_printed_on_it_everywhere() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let db = world.portal.state.db();
    // Issued at noon of 15 June UTC, when it is the 16th on Kiritimati; due 14 days later.
    sqlx::query("UPDATE invoices SET time_zone = 'Pacific/Kiritimati'")
        .execute(db.pool())
        .await
        .unwrap();
    let printed = billing::invoice::document(db, world.invoice_of_ada).await.unwrap();
    assert_eq!(printed.issued_on.to_string(), "2025-06-16");
    assert_eq!(printed.due_on.unwrap().to_string(), "2025-06-30");
    let mut finance = world.portal.signed_in("fin").await;
    let mut ada = world.portal.signed_in("ada").await;
    let id = world.invoice_of_ada;
    for path in [
        "/finance?month=2025-06".to_owned(),
        format!("/finance/invoices/{id}"),
        format!("/finance/customers/{}", world.ada),
        "/invoices".to_owned(),
        format!("/invoices/{id}"),
    ] {
        let is_staff = path.starts_with("/finance");
        let browser = if is_staff { &mut finance } else { &mut ada };
        let page = browser.get(&path).await.body;
        assert!(
            page.contains("16 Jun 2025") && page.contains("30 Jun 2025"),
            "{path}: {page}"
        );
        // When it was finalised is told in UTC, and said to be; when it was posted with the time.
        let days = page.matches("15 Jun 2025").count();
        let in_utc = page.matches("15 Jun 2025 1").count() + page.matches("finalised 15 Jun 2025 UTC").count();
        assert_eq!(days, in_utc, "{path}: {page}");
    }
    for path in [
        "/finance/export/documents.csv?month=2025-06",
        "/finance/invoices.csv?month=all",
        "/invoices/invoices.csv",
    ] {
        let is_staff = path.starts_with("/finance");
        let browser = if is_staff { &mut finance } else { &mut ada };
        let csv = browser.get(path).await.body;
        assert!(
            csv.contains(",2025-06-16,") && csv.contains(",2025-06-30,"),
            "{path}: {csv}"
        );
    }
}

#[tokio::test]
async fn every_line_has_a_page_that_says_why_for_its_customer_and_for_finance_alone() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let mut ada = world.portal.signed_in("ada").await;
    let mut bob = world.portal.signed_in("bob").await;
    let invoice = world.invoice_of_ada;
    let found = billing::invoice::get(world.portal.state.db(), invoice).await.unwrap();
    assert!(found.lines.iter().any(|line| !line.kind.is_usage()));
    for line in &found.lines {
        let (own, staff) = (
            format!("/invoices/{invoice}/lines/{}", line.id),
            format!("/finance/invoices/{invoice}/lines/{}", line.id),
        );
        for page in [ada.get(&own).await, finance.get(&staff).await] {
            assert_eq!(page.status, 200, "{}", line.description);
            assert!(page.body.contains("How this was computed"), "{}", page.body);
            assert!(page.body.contains(&line.amount.to_string()), "{}", page.body);
        }
        assert_eq!(bob.get(&own).await.status, 404, "S1: {}", line.description);
        assert_eq!(bob.get(&staff).await.status, 403, "S1: {}", line.description);
        let mixed = format!("/invoices/{}/lines/{}", world.invoice_of_bob, line.id);
        assert_eq!(bob.get(&mixed).await.status, 404, "S1: {}", line.description);
    }
    // The tax is explained beside the lines.
    let page = finance.get(&format!("/finance/invoices/{invoice}")).await.body;
    assert!(
        page.contains("Why ") && page.contains("Seller in") && page.contains("Charged on"),
        "{page}"
    );
}

#[tokio::test]
async fn a_transfer_that_never_came_in_is_reversed_on_the_page_of_its_payment() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;
    let invoice = world.invoice_of_ada;
    let page = format!("/finance/invoices/{invoice}");
    let open = async || {
        let found = billing::invoice::get(world.portal.state.db(), invoice).await.unwrap();
        found.invoice.outstanding()
    };
    let before = open().await;
    let amount = before.to_major().to_string();
    let transfer = [("amount", amount.as_str()), ("reference", "bank 1"), ("note", "")];
    let done = browser.send_form(&page, &format!("{page}/transfer"), &transfer).await;
    assert_eq!(done.status, 303, "{}", done.body);
    assert_eq!(open().await.minor, 0);

    let payment = "/finance/payments/pay_1";
    let shown = browser.get(payment).await.body;
    assert!(
        shown.contains("Reverse transfer") && shown.contains(">succeeded<"),
        "{shown}"
    );
    let reverse = format!("{payment}/reverse");
    let refused = browser.send_form(payment, &reverse, &[("reason", " ")]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("Enter a reason"), "{}", refused.body);
    let done = browser
        .send_form(payment, &reverse, &[("reason", "returned by the bank")])
        .await;
    assert_eq!(
        done.header("location"),
        format!("{payment}?done=reverse"),
        "{}",
        done.body
    );
    assert_eq!(open().await, before);
    let shown = browser.get(payment).await.body;
    for text in ["returned by the bank", ">reversed<", "bank transfer pay_1 reversed"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains(&reverse), "there is nothing left to reverse");
    assert!(browser.get("/finance/payments").await.body.contains(">reversed<"));
    let log: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_log WHERE action = 'payment.reverse' AND subject = 'pay_1'")
            .fetch_one(world.portal.state.db().pool())
            .await
            .unwrap();
    assert_eq!(log, 1);
}

#[tokio::test]
async fn what_waits_for_a_tax_rate_is_on_a_page_of_its_own() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;
    let nothing = browser.get("/finance/held").await;
    assert!(nothing.body.contains("Nothing is held"), "{}", nothing.body);

    let db = world.portal.state.db();
    for sql in [
        "UPDATE entities SET country = 'DE'",
        "UPDATE customers SET country = 'FR', tax_rate_percent = '0' WHERE id = 1",
    ] {
        sqlx::query(sql).execute(db.pool()).await.unwrap();
    }
    let customer = "/finance/customers/cus_1";
    let item = [("amount", "5"), ("description", "set-up")];
    let charged = browser.send_form(customer, &format!("{customer}/charge"), &item).await;
    assert_eq!(charged.status, 303);
    let before = list_all(db.pool(), InvoiceFilter::default()).await.unwrap().len();
    let closed = browser.send_form(customer, &format!("{customer}/close"), &[]).await;
    assert_eq!(closed.status, 303);
    assert_eq!(
        list_all(db.pool(), InvoiceFilter::default()).await.unwrap().len(),
        before
    );
    let held = browser.get("/finance/held").await;
    assert!(held.body.contains("no tax rate is known for FR"), "{}", held.body);
    let answer = browser.get("/api/v1/finance/held").await;
    let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["invoices"][0]["reason"]["country"], "FR", "{answer}");
    assert_eq!(answer["invoices"][0]["customer"], "cus_1");
}

#[tokio::test]
async fn a_gross_amount_that_a_tax_rate_cannot_reach_is_named_in_the_preview() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;
    let pool = world.portal.state.db().pool();
    sqlx::query("UPDATE customers SET tax_rate_percent = '19' WHERE id = 2")
        .execute(pool)
        .await
        .unwrap();
    let customer = "/finance/customers/cus_2";
    let item = [("amount", "100"), ("description", "set-up")];
    for (action, fields) in [("charge", &item[..]), ("close", &[])] {
        let done = browser
            .send_form(customer, &format!("{customer}/{action}"), fields)
            .await;
        assert_eq!(done.status, 303, "{action}: {}", done.body);
    }
    let of_bob = InvoiceFilter {
        customer: Some(CustomerId(2)),
        ..InvoiceFilter::default()
    };
    let newest = list_all(pool, of_bob).await.unwrap().remove(0);
    assert_eq!(newest.total.minor, 11_900);
    // 19 % of 0.02 rounds to 0.00, and of 0.03 to 0.01.
    let page = format!("/finance/invoices/{}", newest.id);
    let asked = [("amount", "0.03"), ("reason", "rounding")];
    let preview = browser.send_form(&page, &format!("{page}/credit"), &asked).await;
    assert_eq!(preview.status, 200, "{}", preview.body);
    for text in [
        "USD 0.03 cannot be reached at this tax rate: USD 0.04",
        "Issue credit note for USD 0.04",
        "value=\"rounding\"",
    ] {
        assert!(preview.body.contains(text), "{text}: {}", preview.body);
    }
    // The rate is the customer's own, and is said so.
    let body = browser.get(&page).await.body;
    assert!(body.contains("the customer’s own rate"), "{body}");
}

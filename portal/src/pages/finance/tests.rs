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
    assert!(answer.body.contains("receivable:cus_1:USD"));
    assert_eq!(browser.get("/finance/invoices/inv_999").await.status, 404);
    assert_eq!(browser.get("/finance/invoices/999").await.status, 404);

    let ledger = browser.get("/finance/ledger").await;
    assert_eq!(ledger.status, 200);
    assert!(ledger.body.contains("Sum 0.00 USD"));
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
    assert!(ledger.body.contains("Out of balance by 0.0"));
}

//! The product's books, checked by themselves and against the model's.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::Row as _;

use crate::ledger;
use crate::model::{Books, ComparedDocument, ComparedLine};
use crate::testing::World;

/// The books are right by themselves (B1 to B4, B6).
pub(super) async fn assert_right(world: &World) {
    let report = ledger::check(&world.database).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.violations);
    for trial in ledger::trial_balance(world.database.pool()).await.unwrap() {
        assert!(trial.is_balanced(), "{trial:?}");
    }
    // B3: no day of a phase is charged twice. What was given back is not charged any more.
    let rows = sqlx::query(
        "SELECT phase_id, kind, start_ms, end_ms FROM charged WHERE kind <> 'unused' ORDER BY phase_id, kind, start_ms",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    let mut last: Option<(i64, String, i64)> = None;
    for row in rows {
        let (phase, kind): (i64, String) = (row.get(0), row.get(1));
        let (start_ms, end_ms): (i64, i64) = (row.get(2), row.get(3));
        if let Some((last_phase, last_kind, last_end_ms)) = &last
            && (*last_phase, last_kind) == (phase, &kind)
        {
            assert!(
                *last_end_ms <= start_ms,
                "B3: {kind} of phs_{phase} is charged twice from {start_ms} on"
            );
        }
        last = Some((phase, kind, end_ms));
    }
    assert_nothing_stays(world).await;
}

/// When nothing is left of what was charged once, with everything that corrected it since or charged more for it, nothing is
/// left of its net and of its tax either. Credits among the charges are left out: with them less than nothing can be left.
async fn assert_nothing_stays(world: &World) {
    let rows = sqlx::query(
        "WITH RECURSIVE tree (root_id, root_group, invoice_id, tax_group) AS ( \
           SELECT DISTINCT t.invoice_id, t.tax_group, t.invoice_id, t.tax_group FROM invoice_taxes t \
             WHERE t.corrects_invoice_id IS NULL AND NOT EXISTS (SELECT 1 FROM invoice_lines l \
               WHERE l.invoice_id = t.invoice_id AND l.tax_group = t.tax_group AND l.priced_minor < 0 AND l.kind <> 'discount') \
           UNION SELECT r.root_id, r.root_group, t.invoice_id, t.tax_group FROM tree r \
             JOIN invoice_taxes t ON t.corrects_invoice_id = r.invoice_id AND t.corrects_group = r.tax_group) \
         SELECT number, root_group, CAST(net AS BIGINT), CAST(tax AS BIGINT) FROM ( \
           SELECT i.number AS number, r.root_group AS root_group, \
             sum((SELECT coalesce(sum(l.priced_minor), 0) FROM invoice_lines l \
               WHERE l.invoice_id = r.invoice_id AND l.tax_group = r.tax_group)) AS priced, \
             sum((SELECT coalesce(sum(l.amount_minor), 0) FROM invoice_lines l \
               WHERE l.invoice_id = r.invoice_id AND l.tax_group = r.tax_group)) AS net, \
             sum((SELECT coalesce(sum(t.tax_minor), 0) FROM invoice_taxes t \
               WHERE t.invoice_id = r.invoice_id AND t.tax_group = r.tax_group)) AS tax \
           FROM tree r JOIN invoices i ON i.id = r.root_id GROUP BY r.root_id, i.number, r.root_group) AS left_of \
         WHERE priced = 0 AND (net <> 0 OR tax <> 0)",
    );
    let rows = rows.fetch_all(world.database.pool()).await.unwrap();
    if let Some(row) = rows.first() {
        let (number, group): (String, i64) = (row.get(0), row.get(1));
        let (net, tax): (i64, i64) = (row.get(2), row.get(3));
        panic!("nothing is left of group {group} of {number}, but net {net} and tax {tax}");
    }
}

/// What the product's books say. Lines of documents that are known already never change, and are not read again.
pub(super) async fn books(world: &World, known: &[ComparedDocument]) -> Books {
    let pool = world.database.pool();
    let balances = ledger::balances(pool).await.unwrap().into_iter();
    let balances = balances.map(|balance| (balance.account.name, balance.balance.minor));
    let mut lines: BTreeMap<i64, Vec<ComparedLine>> = BTreeMap::new();
    let rows = sqlx::query(
        "SELECT invoice_id, kind, priced_minor, amount_minor, period_start_ms, period_end_ms FROM invoice_lines \
             WHERE invoice_id > $1 ORDER BY invoice_id, position",
    )
    .bind(i64::try_from(known.len()).unwrap());
    for row in rows.fetch_all(pool).await.unwrap() {
        lines.entry(row.get(0)).or_default().push(ComparedLine {
            kind: row.get(1),
            priced: row.get(2),
            net: row.get(3),
            from_ms: row.get(4),
            to_ms: row.get(5),
        });
    }
    let rows = sqlx::query(
        "SELECT i.id, i.number, i.customer_id, i.subtotal_minor, i.tax_minor, i.total_minor, i.status, \
             i.total_minor - CAST(coalesce((SELECT sum(a.amount_minor) FROM allocations a WHERE a.invoice_id = i.id), 0) \
             AS BIGINT) FROM invoices i ORDER BY i.id",
    );
    let rows = rows.fetch_all(pool).await.unwrap().into_iter().enumerate();
    let documents = rows.map(|(at, row)| ComparedDocument {
        number: row.get(1),
        customer: usize::try_from(row.get::<i64, _>(2)).unwrap() - 1,
        net: row.get(3),
        tax: row.get(4),
        total: row.get(5),
        open: row.get(7),
        status: row.get(6),
        lines: match known.get(at) {
            Some(known) => known.lines.clone(),
            None => lines.remove(&row.get(0)).unwrap_or_default(),
        },
    });
    Books {
        balances: balances.filter(|(_, cents)| *cents != 0).collect(),
        documents: documents.collect(),
    }
}

/// Names what the product and the model disagree on.
pub(super) fn assert_same(product: &Books, model: &Books) {
    if product == model {
        return;
    }
    let mut report = String::from("the books differ (product, then model)\n");
    let mut say = |text: String| {
        report.push_str(&text);
        report.push('\n');
    };
    for at in 0..product.documents.len().max(model.documents.len()) {
        let (ours, theirs) = (product.documents.get(at), model.documents.get(at));
        if ours != theirs {
            say(format!("document {}:\n  {}\n  {}", at + 1, told(ours), told(theirs)));
        }
    }
    let names: BTreeSet<&String> = product.balances.keys().chain(model.balances.keys()).collect();
    for name in names {
        let (ours, theirs) = (product.balances.get(name), model.balances.get(name));
        if ours != theirs {
            say(format!("{name}: {} {}", ours.unwrap_or(&0), theirs.unwrap_or(&0)));
        }
    }
    panic!("{report}");
}

fn told(document: Option<&ComparedDocument>) -> String {
    let Some(document) = document else {
        return "none".to_owned();
    };
    let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
    let mut text = format!(
        "{} of customer {}: net {} tax {} total {} open {} {}",
        document.number, document.customer, document.net, document.tax, document.total, document.open, document.status
    );
    for line in &document.lines {
        let ComparedLine { kind, priced, net, .. } = line;
        text.push_str(&format!(
            "\n    {kind} {priced} net {net} {} – {}",
            at(line.from_ms),
            at(line.to_ms)
        ));
    }
    text
}

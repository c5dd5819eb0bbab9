//! B6: what is given back for a line never exceeds that line, whoever gives it back, for whatever cause and in whatever order.
//!
//! ```text
//! charged            base +310.00                                     left 310.00
//! discount                          −10.00  row (discount → base)     left 300.00
//! unused days                      −150.00  row (unused → base)       left 150.00
//! credit note                      −100.00  row (reversal → base)     left  50.00
//! the invoice with the unused days is credited as a whole:
//!                    +150.00                row (reversal → unused)   the unused days' line: left 0
//!                                           row (reversal → base)     left 200.00
//! ```
//!
//! Table `line_credits` has a row for each line that gives a part of an earlier line back, written with its document by
//! [`record`], which refuses a document that would give back more than is left: whatever computed it, and whoever else wrote
//! meanwhile. Nothing else writes the table. Amounts are as priced; what the taxes of a part are is for `tax` to say.
//! What gives back asks [`UncreditedAmounts`] first and takes no more; `ledger check` reads the same rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::bulk;
use schemas::ids::{InvoiceId, InvoiceLineId};
use schemas::money::{Currency, Money};
use sqlx::{AnyConnection, Row as _};

use super::new_document::{CreditCause, NewDocument, Written};
use crate::BillingError;
use crate::evidence::Evidence;
use crate::rating::DraftLine;

/// What was not given back yet of some lines. Taking from it plans what a draft gives back.
#[derive(Clone, Default, Debug)]
pub(super) struct UncreditedAmounts {
    minor: HashMap<InvoiceLineId, i64>,
    /// Before the first take.
    before: BTreeMap<InvoiceLineId, i64>,
}

impl UncreditedAmounts {
    /// Of these lines.
    ///
    /// # Errors
    /// As the database answers.
    pub(super) async fn of(
        connection: &mut AnyConnection,
        lines: impl IntoIterator<Item = InvoiceLineId>,
    ) -> Result<UncreditedAmounts, BillingError> {
        let lines: BTreeSet<InvoiceLineId> = lines.into_iter().collect();
        let lines: Vec<InvoiceLineId> = lines.into_iter().collect();
        let sql = "SELECT l.id, l.priced_minor - CAST(coalesce((SELECT sum(b.priced_minor) FROM line_credits b \
                   WHERE b.credited_line_id = l.id), 0) AS BIGINT) FROM invoice_lines l WHERE l.id IN ({values})";
        let rows = bulk::rows_of_values(connection, sql, &lines, |query, line| query.bind(line.0)).await?;
        let mut left = UncreditedAmounts::default();
        for row in &rows {
            left.minor.insert(InvoiceLineId(row.try_get(0)?), row.try_get(1)?);
        }
        Ok(left)
    }

    /// Of a line whose rest is known.
    pub(super) fn insert(&mut self, line: InvoiceLineId, left_minor: i64) {
        self.minor.insert(line, left_minor);
    }

    /// What of a line was not given back: below zero for a line that gives back and was not taken back itself.
    pub(super) fn minor(&self, line: InvoiceLineId) -> i64 {
        self.minor.get(&line).copied().unwrap_or(0)
    }

    /// Takes what is left of a charge, `wanted_minor` at most, and says how much that was.
    pub(super) fn take(&mut self, line: InvoiceLineId, wanted_minor: i64) -> i64 {
        let Some(left) = self.minor.get_mut(&line) else {
            return 0;
        };
        let taken = wanted_minor.min(*left).max(0);
        if taken > 0 {
            self.before.entry(line).or_insert(*left);
        }
        *left -= taken;
        taken
    }

    /// The lines that something was taken from, with what was left of each before.
    pub(super) fn taken_from(self) -> BTreeMap<InvoiceLineId, i64> {
        self.before
    }

    /// Whether of these lines as much is left as is said.
    ///
    /// # Errors
    /// As the database answers.
    pub(super) async fn is_still(
        connection: &mut AnyConnection,
        said: &BTreeMap<InvoiceLineId, i64>,
    ) -> Result<bool, BillingError> {
        let now = UncreditedAmounts::of(connection, said.keys().copied()).await?;
        Ok(said.iter().all(|(&line, &left_minor)| now.minor(line) == left_minor))
    }
}

/// Divides an amount among charges in proportion to what is left of each, to the minor unit: largest remainder, of equal ones the
/// first. The amount is at most the sum, so no share is more than what is left.
pub(super) fn shares(amount_minor: i64, left: &[i64]) -> Vec<i64> {
    let sum: i128 = left.iter().map(|&left| i128::from(left)).sum();
    if sum <= 0 {
        return vec![0; left.len()];
    }
    let exact = |left: i64| i128::from(amount_minor) * i128::from(left);
    let mut shares: Vec<i128> = left.iter().map(|&left| exact(left) / sum).collect();
    let mut missing = i128::from(amount_minor) - shares.iter().sum::<i128>();
    let mut order: Vec<usize> = (0..left.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(exact(left[at]) % sum), at));
    for at in order {
        if missing <= 0 {
            break;
        }
        shares[at] += 1;
        missing -= 1;
    }
    // Each is at most the amount, which was 64 bits.
    shares
        .into_iter()
        .map(|share| i64::try_from(share).unwrap_or(i64::MAX))
        .collect()
}

/// A row of the table.
struct LineCredit {
    line: InvoiceLineId,
    of_line: InvoiceLineId,
    cause: CreditCause,
    priced_minor: i64,
}

/// Which line a line of a document gives back, and why; `before` is the line before it on the same document.
fn directly(
    line: &DraftLine,
    before: Option<InvoiceLineId>,
    cause: CreditCause,
) -> Option<(InvoiceLineId, CreditCause)> {
    match &line.evidence {
        // A discount follows the line that it is taken off.
        Evidence::Discount { .. } => before.map(|before| (before, CreditCause::Discount)),
        // Of a discount that is not had for unused days the line is taken back that gave it.
        Evidence::Unused { corrects_line, .. } | Evidence::DiscountUnused { corrects_line, .. } => {
            Some((*corrects_line, CreditCause::Unused))
        }
        // More usage is a charge of its own.
        Evidence::Adjustment { corrects_line, .. } if line.priced.minor < 0 => {
            Some((*corrects_line, CreditCause::Adjustment))
        }
        Evidence::Reversal {
            corrects_line: Some(corrects_line),
            ..
        } => Some((*corrects_line, cause)),
        Evidence::Base(_)
        | Evidence::Usage { .. }
        | Evidence::Adjustment { .. }
        | Evidence::Item { .. }
        | Evidence::Reversal { .. } => None,
    }
}

/// Notes what the lines of written documents give back.
///
/// # Errors
/// [`BillingError::GivenBackTwice`] when more would be given back than is left of a line: then the caller's transaction is to be
/// given up.
pub(super) async fn record(
    connection: &mut AnyConnection,
    documents: &[NewDocument<'_>],
    written: &[Written],
) -> Result<(), BillingError> {
    let mut rows = Vec::new();
    for (document, written) in documents.iter().zip(written) {
        let cause = document.corrects.cause;
        let mut before = None;
        for (line, id) in document
            .draft
            .lines
            .iter()
            .zip((written.first_line.0..).map(InvoiceLineId))
        {
            if let Some((of_line, cause)) = directly(line, before, cause)
                && line.priced.minor != 0
            {
                rows.push(LineCredit {
                    line: id,
                    of_line,
                    cause,
                    priced_minor: line.priced.checked_neg()?.minor,
                });
            }
            before = Some(id);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let behind = charges_behind(connection, &rows).await?;
    rows.extend(behind);
    let sql = "INSERT INTO line_credits (line_id, credited_line_id, cause, priced_minor) VALUES {rows}";
    bulk::for_rows(connection, sql, 4, &rows, |query, row| {
        query
            .bind(row.line.0)
            .bind(row.of_line.0)
            .bind(row.cause.name())
            .bind(row.priced_minor)
    })
    .await?;
    refuse_too_much(connection, &rows).await
}

/// Who takes back a line that gives back, charges again what that gave back; and the other way round.
async fn charges_behind(connection: &mut AnyConnection, rows: &[LineCredit]) -> Result<Vec<LineCredit>, BillingError> {
    let is_of_charge = |row: &&LineCredit| {
        row.priced_minor > 0
            && matches!(
                row.cause,
                CreditCause::Discount | CreditCause::Unused | CreditCause::Adjustment
            )
    };
    let reversals: Vec<&LineCredit> = rows.iter().filter(|row| !is_of_charge(row)).collect();
    if reversals.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT line_id, credited_line_id FROM line_credits WHERE line_id IN ({values}) ORDER BY line_id, credited_line_id";
    let found = bulk::rows_of_values(connection, sql, &reversals, |query, row| query.bind(row.of_line.0)).await?;
    let mut behind: HashMap<InvoiceLineId, Vec<InvoiceLineId>> = HashMap::new();
    for row in &found {
        let charges = behind.entry(InvoiceLineId(row.try_get(0)?)).or_default();
        charges.push(InvoiceLineId(row.try_get(1)?));
    }
    let mut more = Vec::new();
    for row in reversals {
        for &of_line in behind.get(&row.of_line).map_or(&[][..], Vec::as_slice) {
            more.push(LineCredit { of_line, ..*row });
        }
    }
    Ok(more)
}

async fn refuse_too_much(connection: &mut AnyConnection, rows: &[LineCredit]) -> Result<(), BillingError> {
    let lines: BTreeSet<InvoiceLineId> = rows.iter().map(|row| row.of_line).collect();
    let lines: Vec<InvoiceLineId> = lines.into_iter().collect();
    let sql = "SELECT l.id, l.priced_minor, CAST(sum(b.priced_minor) AS BIGINT), i.number, i.currency FROM invoice_lines l \
               JOIN invoices i ON i.id = l.invoice_id JOIN line_credits b ON b.credited_line_id = l.id WHERE l.id IN ({values}) \
               GROUP BY l.id, l.priced_minor, i.number, i.currency";
    for row in bulk::rows_of_values(connection, sql, &lines, |query, line| query.bind(line.0)).await? {
        let (charged, given): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        if given < charged.min(0) || given > charged.max(0) {
            let currency: Currency = row.try_get::<String, _>(4)?.parse()?;
            return Err(BillingError::GivenBackTwice {
                line: InvoiceLineId(row.try_get(0)?),
                number: row.try_get(3)?,
                charged: Money::new(charged, currency),
                given: Money::new(given, currency),
            });
        }
    }
    Ok(())
}

/// What gives a part of an invoice back that was not written to correct that invoice alone, such as unused days on a later one:
/// the numbers of those documents.
///
/// # Errors
/// As the database answers.
pub(super) async fn elsewhere(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<Vec<String>, BillingError> {
    let rows = sqlx::query(
        "SELECT DISTINCT n.number FROM invoice_lines l JOIN line_credits b ON b.credited_line_id = l.id \
         JOIN invoice_lines g ON g.id = b.line_id JOIN invoices n ON n.id = g.invoice_id \
         WHERE l.invoice_id = $1 AND g.invoice_id <> $1 ORDER BY n.number",
    )
    .bind(invoice.0)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_is_divided_by_what_is_left() {
        assert_eq!(shares(100, &[310]), [100]);
        assert_eq!(shares(100, &[300, 100]), [75, 25]);
        assert_eq!(shares(100, &[1, 1, 1]), [34, 33, 33]);
        assert_eq!(shares(3, &[1, 1, 1]), [1, 1, 1]);
        assert_eq!(shares(0, &[5, 5]), [0, 0]);
        assert_eq!(shares(5, &[0, 5]), [0, 5]);
        assert_eq!(shares(5, &[]), [0i64; 0]);
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_amount_and_none_exceeds_what_is_left(
            left in prop::collection::vec(0i64..1_000_000, 1..20),
            permille in 0i64..=1000,
        ) {
            let sum: i64 = left.iter().sum();
            let amount = sum * permille / 1000;
            let found = shares(amount, &left);
            prop_assert_eq!(found.iter().sum::<i64>(), amount);
            for (share, left) in found.iter().zip(&left) {
                prop_assert!((0..=*left).contains(share));
            }
        }
    }
}

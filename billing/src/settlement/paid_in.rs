//! What of a customer's credit was paid in: only that may leave as money.
//!
//! Credit is one balance ([`super::credit_balance`]) of two kinds. Where it came from says which: payments and what they left
//! over were paid in; what staff granted or credited by hand was not. Both pay invoices, granted credit first, so that what a
//! customer paid stays refundable. What a credit note gives back is of the kind that had paid its invoice, granted credit
//! first: so nothing that was granted becomes money by way of an invoice, or of several, where one gave another back.
//!
//! Nothing is stored: the customer's wallet is replayed from the ledger, in the order in which it was posted.

use std::collections::{HashMap, VecDeque};

use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::{Currency, Money};
use sqlx::{AnyConnection, Row as _};

use super::SettlementError;
use crate::ledger::Account;

/// A customer's wallet, by where its money came from.
#[derive(Default, Debug)]
struct Wallet {
    granted_minor: i64,
    /// Below zero when a payment that was spent was taken back.
    paid_in_minor: i64,
    /// What was granted by the invoice that it paid, as far as no credit note gave it back.
    spent_granted: HashMap<InvoiceId, i64>,
    /// What paid for invoices without going through the wallet and was not counted yet, by invoice.
    beside: VecDeque<LineSettlement>,
}

/// What paid a part of an invoice as a line of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LineSettlement {
    on: InvoiceId,
    /// The invoice that it gave back, as unused days do; `None` for what was credited by hand.
    gives_back: Option<InvoiceId>,
    minor: i64,
}

/// Something that moved a wallet: above zero into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Movement {
    /// By a payment: in, or taken back.
    Paid(i64),
    /// Spent on an invoice, above zero.
    Spent { on: InvoiceId, minor: i64 },
    /// Credit of a credit note; `manual_minor` is what its items say, which nobody paid.
    Returned {
        of: Option<InvoiceId>,
        minor: i64,
        manual_minor: i64,
    },
    /// Granted, or anything else that no payment is behind.
    Granted(i64),
}

impl Wallet {
    /// Counts what lines of the invoices up to `invoice` paid: what was granted stays so on the invoice that it goes to.
    fn count_up_to(&mut self, invoice: InvoiceId) {
        while let Some(beside) = self.beside.pop_front_if(|beside| beside.on <= invoice) {
            let granted = match beside.gives_back {
                None => beside.minor,
                Some(source) => {
                    let spent = self.spent_granted.entry(source).or_default();
                    let moved = beside.minor.min(*spent);
                    *spent -= moved;
                    moved
                }
            };
            *self.spent_granted.entry(beside.on).or_default() += granted;
        }
    }

    fn apply(&mut self, movement: Movement) {
        match movement {
            Movement::Paid(minor) => self.paid_in_minor += minor,
            Movement::Granted(minor) => self.granted_minor += minor,
            Movement::Spent { on, minor } => {
                let granted = minor.min(self.granted_minor).max(0);
                self.granted_minor -= granted;
                self.paid_in_minor -= minor - granted;
                *self.spent_granted.entry(on).or_default() += granted;
            }
            Movement::Returned {
                of,
                minor,
                manual_minor,
            } => {
                if let Some(invoice) = of {
                    self.count_up_to(invoice);
                }
                let by_hand = manual_minor.min(minor);
                let spent = of.and_then(|invoice| self.spent_granted.get_mut(&invoice));
                let again = spent.map_or(0, |spent| {
                    let again = (minor - by_hand).min(*spent);
                    *spent -= again;
                    again
                });
                self.granted_minor += by_hand + again;
                self.paid_in_minor += minor - by_hand - again;
            }
        }
    }
}

/// What of a customer's credit was paid in; at most all of it, and never below zero.
///
/// # Errors
/// As the database answers.
pub async fn paid_in(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
) -> Result<Money, SettlementError> {
    paid_in_after(connection, customer, currency, None).await
}

/// As [`paid_in`], as if a credit note of an invoice had become so much credit.
///
/// # Errors
/// As the database answers.
pub(super) async fn paid_in_after(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
    note: Option<(InvoiceId, Money)>,
) -> Result<Money, SettlementError> {
    let rows = sqlx::query(
        "SELECT -p.amount_minor AS minor, t.payment_id, t.invoice_id, i.kind, i.corrects_invoice_id, i.subtotal_minor, \
         i.total_minor, CASE WHEN i.kind = 'credit_note' THEN (SELECT CAST(coalesce(sum(-l.amount_minor), 0) AS BIGINT) \
         FROM invoice_lines l WHERE l.invoice_id = i.id AND l.kind = 'item' AND l.amount_minor < 0 \
         AND NOT EXISTS (SELECT 1 FROM line_credits b WHERE b.line_id = l.id)) ELSE 0 END AS manual_minor \
         FROM ledger_accounts a JOIN ledger_postings p ON p.account_id = a.id JOIN ledger_transactions t ON t.id = p.transaction_id \
         LEFT JOIN invoices i ON i.id = t.invoice_id WHERE a.name = $1 ORDER BY t.id, p.position",
    )
    .bind(Account::credit(customer, currency).name)
    .fetch_all(&mut *connection)
    .await?;
    let mut wallet = Wallet {
        beside: beside(connection, customer).await?,
        ..Wallet::default()
    };
    for row in &rows {
        let minor: i64 = row.try_get("minor")?;
        let payment: Option<i64> = row.try_get("payment_id")?;
        let invoice = row.try_get::<Option<i64>, _>("invoice_id")?.map(InvoiceId);
        let kind: Option<String> = row.try_get("kind")?;
        let movement = match (payment, invoice, kind.as_deref()) {
            (Some(_), _, _) => Movement::Paid(minor),
            (None, Some(_), Some("credit_note")) if minor > 0 => {
                let (net, total): (i64, i64) = (row.try_get("subtotal_minor")?, row.try_get("total_minor")?);
                Movement::Returned {
                    of: row.try_get::<Option<i64>, _>("corrects_invoice_id")?.map(InvoiceId),
                    minor,
                    manual_minor: with_tax(row.try_get("manual_minor")?, net, total),
                }
            }
            // It had paid an invoice that is open again, because what was paid in was taken back (`claim.rs`).
            (None, Some(_), Some("invoice")) if minor > 0 => Movement::Paid(minor),
            (None, Some(on), _) if minor < 0 => Movement::Spent { on, minor: -minor },
            _ => Movement::Granted(minor),
        };
        wallet.apply(movement);
    }
    if let Some((invoice, to_credit)) = note {
        wallet.apply(Movement::Returned {
            of: Some(invoice),
            minor: to_credit.minor,
            manual_minor: 0,
        });
    }
    let balance = wallet.paid_in_minor + wallet.granted_minor;
    Ok(Money::new(wallet.paid_in_minor.min(balance).max(0), currency))
}

/// What lines of a customer's invoices paid, by invoice.
async fn beside(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> Result<VecDeque<LineSettlement>, SettlementError> {
    let rows = sqlx::query(
        "SELECT g.invoice_id, l.invoice_id AS source_id, CAST(sum(-g.amount_minor) AS BIGINT) AS minor, s.subtotal_minor, \
         s.total_minor FROM invoices d JOIN invoice_lines g ON g.invoice_id = d.id JOIN line_credits b ON b.line_id = g.id \
         JOIN invoice_lines l ON l.id = b.credited_line_id JOIN invoices s ON s.id = l.invoice_id \
         WHERE d.customer_id = $1 AND d.kind = 'invoice' AND s.id <> d.id AND g.amount_minor < 0 \
         GROUP BY g.invoice_id, l.invoice_id, s.subtotal_minor, s.total_minor \
         UNION ALL SELECT d.id, NULL, CAST(sum(-l.amount_minor) AS BIGINT), d.subtotal_minor, d.total_minor FROM invoices d \
         JOIN invoice_lines l ON l.invoice_id = d.id WHERE d.customer_id = $1 AND d.kind = 'invoice' AND l.kind = 'item' \
         AND l.amount_minor < 0 GROUP BY d.id, d.subtotal_minor, d.total_minor ORDER BY 1, 2",
    )
    .bind(customer.0)
    .fetch_all(connection)
    .await?;
    let mut found = VecDeque::with_capacity(rows.len());
    for row in &rows {
        let (net, total): (i64, i64) = (row.try_get("subtotal_minor")?, row.try_get("total_minor")?);
        found.push_back(LineSettlement {
            on: InvoiceId(row.try_get(0)?),
            gives_back: row.try_get::<Option<i64>, _>(1)?.map(InvoiceId),
            minor: with_tax(row.try_get("minor")?, net, total),
        });
    }
    Ok(found)
}

/// A net amount with its share of a document's tax, rounded up: rather too little is refunded than too much.
fn with_tax(net_minor: i64, document_net: i64, document_total: i64) -> i64 {
    if document_net == 0 {
        return net_minor;
    }
    let (net, total) = (i128::from(document_net).abs(), i128::from(document_total).abs());
    let with_tax = (i128::from(net_minor) * total + net - 1) / net;
    i64::try_from(with_tax).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(movements: &[Movement]) -> (i64, i64) {
        let mut wallet = Wallet::default();
        for movement in movements {
            wallet.apply(*movement);
        }
        (wallet.paid_in_minor, wallet.granted_minor)
    }

    #[test]
    fn granted_credit_is_spent_first_and_comes_back_as_what_it_was() {
        let on = InvoiceId(7);
        let spent = |minor| Movement::Spent { on, minor };
        let returned = |minor, manual_minor| Movement::Returned {
            of: Some(on),
            minor,
            manual_minor,
        };
        for (movements, left) in [
            (vec![Movement::Granted(100)], (0, 100)),
            (vec![Movement::Paid(50), Movement::Granted(100), spent(120)], (30, 0)),
            // What came after it was spent was not spent.
            (vec![Movement::Paid(100), spent(100), Movement::Granted(100)], (0, 100)),
            // An invoice paid with both: what was granted comes back first, and once.
            (
                vec![Movement::Paid(50), Movement::Granted(70), spent(120), returned(80, 0)],
                (10, 70),
            ),
            (
                vec![
                    Movement::Granted(70),
                    spent(70),
                    returned(70, 0),
                    spent(70),
                    returned(30, 0),
                    returned(40, 0),
                ],
                (0, 70),
            ),
            // Credited by hand, beside unused days.
            (vec![returned(100, 30)], (70, 30)),
            (vec![returned(20, 30)], (0, 20)),
            // A payment that was spent was taken back.
            (
                vec![
                    Movement::Paid(50),
                    spent(50),
                    Movement::Paid(-50),
                    Movement::Granted(60),
                ],
                (-50, 60),
            ),
        ] {
            assert_eq!(after(&movements), left, "{movements:?}");
        }
    }

    #[test]
    fn what_was_granted_stays_so_from_invoice_to_invoice() {
        let (first, second) = (InvoiceId(1), InvoiceId(2));
        let returned = |minor| Movement::Returned {
            of: Some(second),
            minor,
            manual_minor: 0,
        };
        for (beside, movements, left) in [
            // 310.00 granted for the first; its unused days are 210.00 of the second, for which 110.00 were paid.
            (
                LineSettlement {
                    on: second,
                    gives_back: Some(first),
                    minor: 210,
                },
                vec![
                    Movement::Granted(310),
                    Movement::Spent { on: first, minor: 310 },
                    returned(300),
                ],
                (90, 210),
            ),
            // Goodwill on the invoice itself: not more than what was paid for it comes back as money.
            (
                LineSettlement {
                    on: second,
                    gives_back: None,
                    minor: 50,
                },
                vec![returned(60), returned(40)],
                (50, 50),
            ),
        ] {
            let mut wallet = Wallet {
                beside: [beside].into(),
                ..Wallet::default()
            };
            for movement in movements {
                wallet.apply(movement);
            }
            assert_eq!((wallet.paid_in_minor, wallet.granted_minor), left, "{beside:?}");
        }
    }

    #[test]
    fn tax_of_a_share_is_rounded_up() {
        assert_eq!(with_tax(500, -500, -595), 595);
        assert_eq!(with_tax(1, -300, -357), 2);
        assert_eq!(with_tax(500, 0, 0), 500);
    }
}

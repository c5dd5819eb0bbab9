//! Which taxes the lines of a document bear.
//!
//! | line | bears |
//! |---|---|
//! | charged in advance | the taxes that hold as its period begins |
//! | charged in arrears, usage | those of the last moment of its period, not of the day after, on which it is invoiced |
//! | charged or credited by hand | those of when that was said |
//! | gives back unused days, corrects usage | those of what it corrects, as they were charged ([`ChargedTax`]) |
//! | charges more usage of a month that was charged | the same; it is a charge of its own, and gives back its own tax |
//!
//! Lines that bear the same taxes are a group; each group's taxes are computed once, on the sum of its lines (B2). Groups
//! share a document unless no document can say them together ([`DocumentGroup`]): what is out of scope stands alone (EN 16931,
//! BR-O-11), so does reverse charge, for which the document names both VAT numbers, and so do prices with and without tax.
//! What gives back of an invoice that was written off is a document of its own too: it was never paid, so it lowers what was
//! given up, not what is charged beside it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::bulk;
use schemas::ids::{InvoiceId, InvoiceLineId};
use schemas::inventory::{Customer, EntityProfile};
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::Buyer;
use super::read::{TAX_COLUMNS, read_json, read_tax};
use crate::BillingError;
use crate::evidence::Evidence;
use crate::rating::DraftLine;
use crate::tax::{self, ChargedTax, HoldReason, TaxAmount, TaxCategory, TaxGroup, TaxRate, TaxRule, VatNumberStatus};

/// What was charged, as far as drafts correct it.
#[derive(Debug, Default)]
pub(super) struct ChargedDocuments {
    lines: HashMap<InvoiceLineId, TaxGroup>,
    groups: HashMap<TaxGroup, ChargedTax>,
    /// What a group that corrects corrects.
    corrected: HashMap<TaxGroup, Corrected>,
    invoices: HashMap<InvoiceId, ChargedInvoice>,
}

/// What a group corrects, and whether it charges more for it, which is a charge beside it, or gives back of it.
#[derive(Clone, Copy, Debug)]
struct Corrected {
    group: TaxGroup,
    charges_more: bool,
}

#[derive(Debug)]
struct ChargedInvoice {
    prices_include_tax: bool,
    is_written_off: bool,
    buyer: Buyer,
}

impl ChargedDocuments {
    /// Reads the taxes of the groups that some lines are of, with what corrected them since.
    ///
    /// # Errors
    /// As the database answers, or when a stored value is not understood.
    pub(super) async fn of_lines(
        connection: &mut AnyConnection,
        lines: &[InvoiceLineId],
    ) -> Result<ChargedDocuments, BillingError> {
        let mut charged = ChargedDocuments::default();
        let sql = "SELECT id, invoice_id, tax_group FROM invoice_lines WHERE id IN ({values})";
        for row in &bulk::rows_of_values(&mut *connection, sql, lines, |query, line| query.bind(line.0)).await? {
            let group = TaxGroup {
                invoice: InvoiceId(row.try_get("invoice_id")?),
                group: row.try_get("tax_group")?,
            };
            charged.lines.insert(InvoiceLineId(row.try_get("id")?), group);
        }
        let mut invoices: Vec<InvoiceId> = charged.lines.values().map(|group| group.invoice).collect();
        invoices.sort_unstable();
        invoices.dedup();
        charged.read_invoices(connection, &invoices).await?;
        Ok(charged)
    }

    /// Reads the taxes of an invoice, by group, with what corrected them since.
    ///
    /// # Errors
    /// As the database answers, or when a stored value is not understood.
    pub(super) async fn of_invoice(
        connection: &mut AnyConnection,
        invoice: InvoiceId,
    ) -> Result<BTreeMap<i64, ChargedTax>, BillingError> {
        let mut charged = ChargedDocuments::default();
        charged.read_invoices(connection, &[invoice]).await?;
        let groups = charged.groups.into_iter();
        Ok(groups.map(|(group, charged)| (group.group, charged)).collect())
    }

    async fn read_invoices(
        &mut self,
        connection: &mut AnyConnection,
        invoices: &[InvoiceId],
    ) -> Result<(), BillingError> {
        let sql = format!(
            "SELECT {TAX_COLUMNS}, i.prices_include_tax, i.buyer, CAST(coalesce((SELECT sum(a.amount_minor) FROM allocations a \
             WHERE a.invoice_id = i.id AND a.source = 'write_off'), 0) AS BIGINT) AS written_off_minor FROM invoice_taxes t \
             JOIN invoices i ON i.id = t.invoice_id WHERE i.id IN ({{values}}) ORDER BY i.id, t.position"
        );
        let rows =
            bulk::rows_of_values(&mut *connection, &sql, invoices, |query, invoice| query.bind(invoice.0)).await?;
        for row in &rows {
            let amount = read_tax(row)?;
            let invoice = InvoiceId(row.try_get("invoice_id")?);
            let group = TaxGroup {
                invoice,
                group: amount.group,
            };
            let currency = amount.net.currency;
            let charged = self.groups.entry(group).or_insert_with(|| ChargedTax::new(currency));
            charged.charge(amount);
            if let Entry::Vacant(entry) = self.invoices.entry(invoice) {
                entry.insert(ChargedInvoice {
                    prices_include_tax: row.try_get::<i64, _>("prices_include_tax")? != 0,
                    is_written_off: row.try_get::<i64, _>("written_off_minor")? > 0,
                    buyer: read_json("buyer", row, "buyer")?,
                });
            }
        }

        let mut corrections: BTreeMap<TaxGroup, (Corrected, Vec<TaxAmount>)> = BTreeMap::new();
        let mut asked: BTreeSet<InvoiceId> = invoices.iter().copied().collect();
        let mut next: Vec<InvoiceId> = invoices.to_vec();
        // Who takes a correction back charges again what that gave back, so corrections of corrections are looked for until
        // there are none.
        while !next.is_empty() {
            let mut correcting = BTreeSet::new();
            for row in &corrections_of(&mut *connection, &next).await? {
                let amount = read_tax(row)?;
                let Some(group) = amount.corrects else { continue };
                let own = TaxGroup {
                    invoice: InvoiceId(row.try_get("invoice_id")?),
                    group: amount.group,
                };
                let corrected = Corrected {
                    group,
                    charges_more: row.try_get::<i64, _>("lines_more")? > 0
                        && row.try_get::<i64, _>("line_credits")? == 0,
                };
                let (_, amounts) = corrections.entry(own).or_insert_with(|| (corrected, Vec::new()));
                amounts.push(amount);
                correcting.insert(own.invoice);
            }
            next = correcting
                .into_iter()
                .filter(|invoice| asked.insert(*invoice))
                .collect();
        }
        for (&own, (corrected, _)) in &corrections {
            self.corrected.insert(own, *corrected);
        }
        for (corrected, amounts) in corrections.into_values() {
            self.correct(corrected, &amounts)?;
        }
        Ok(())
    }

    /// Takes note of a correction, for what it corrects and for what that corrects in turn: behind a charge that stands beside
    /// another, for the one as its own, for the other as beside it.
    ///
    /// # Errors
    /// When a sum does not fit.
    fn correct(&mut self, corrected: Corrected, amounts: &[TaxAmount]) -> Result<(), BillingError> {
        let mut next = Some(corrected);
        let mut is_beside = false;
        while let Some(Corrected { group, charges_more }) = next {
            is_beside |= charges_more;
            match self.groups.get_mut(&group) {
                Some(charged) if is_beside => charged.add_beside(amounts)?,
                Some(charged) => charged.add(amounts)?,
                None => {}
            }
            next = self.corrected.get(&group).copied();
        }
        Ok(())
    }

    /// Takes note of what a draft corrects, for the drafts after it.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub(super) fn note(&mut self, sheet: &DocumentGroup, taxes: &[TaxAmount]) -> Result<(), BillingError> {
        for (number, group) in (0i64..).zip(&sheet.groups) {
            let (corrected, charges_more) = match group.basis {
                Basis::Rules(_) => continue,
                Basis::Charged(corrected) => (corrected, false),
                Basis::More(corrected) => (corrected, true),
            };
            let amounts = taxes.iter().filter(|amount| amount.group == number);
            let amounts: Vec<TaxAmount> = amounts.cloned().collect();
            let corrected = Corrected {
                group: corrected,
                charges_more,
            };
            self.correct(corrected, &amounts)?;
        }
        Ok(())
    }

    fn group(&self, group: TaxGroup) -> Result<(&ChargedTax, &ChargedInvoice), BillingError> {
        let charged = self.groups.get(&group).zip(self.invoices.get(&group.invoice));
        charged.ok_or_else(|| {
            BillingError::corrupt(
                "taxes of an invoice",
                format!("{} group {}", group.invoice, group.group),
            )
        })
    }

    fn group_of(&self, line: InvoiceLineId) -> Result<TaxGroup, BillingError> {
        let group = self.lines.get(&line).copied();
        group.ok_or_else(|| BillingError::corrupt("line that is corrected", line.to_string()))
    }
}

/// The taxes of what corrects some invoices, document by document, with how many lines of the group charge more and how many
/// parts of lines it gives back. A document that is void corrects nothing: what took it back took its corrections back too.
async fn corrections_of(connection: &mut AnyConnection, invoices: &[InvoiceId]) -> Result<Vec<AnyRow>, BillingError> {
    let sql = format!(
        "SELECT {TAX_COLUMNS}, (SELECT count(*) FROM invoice_lines l WHERE l.invoice_id = t.invoice_id \
         AND l.tax_group = t.tax_group AND l.kind = 'adjustment' AND l.priced_minor > 0) AS lines_more, \
         (SELECT count(*) FROM invoice_lines l JOIN line_credits b ON b.line_id = l.id WHERE l.invoice_id = t.invoice_id \
         AND l.tax_group = t.tax_group) AS line_credits FROM invoice_taxes t JOIN invoices i ON i.id = t.invoice_id \
         WHERE t.corrects_invoice_id IN ({{values}}) AND i.status <> 'void' ORDER BY i.id, t.position"
    );
    Ok(bulk::rows_of_values(connection, &sql, invoices, |query, invoice| query.bind(invoice.0)).await?)
}

/// Whether a line charges more for what was charged before, which is a charge of its own.
fn charges_more(line: &DraftLine) -> bool {
    matches!(line.evidence, Evidence::Adjustment { .. }) && line.priced.minor > 0
}

/// The line whose taxes a line bears, where it corrects one.
pub(super) fn corrected_line(line: &DraftLine) -> Option<InvoiceLineId> {
    match &line.evidence {
        Evidence::Unused { corrects_line, .. }
        | Evidence::DiscountUnused { corrects_line, .. }
        | Evidence::Adjustment { corrects_line, .. } => Some(*corrects_line),
        Evidence::Reversal { corrects_line, .. } => *corrects_line,
        Evidence::Base(_) | Evidence::Discount { .. } | Evidence::Usage { .. } | Evidence::Item { .. } => None,
    }
}

/// The instant whose taxes a line bears that is due at `due_ms`: of a period that is over then, its last moment.
pub(super) fn tax_point_ms(line: &DraftLine, due_ms: i64) -> i64 {
    if line.period_start_ms < line.period_end_ms && line.period_end_ms <= due_ms {
        line.period_end_ms - 1
    } else {
        due_ms
    }
}

/// What the taxes of drafts are found by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taxation<'a> {
    pub(super) seller: &'a EntityProfile,
    pub(super) customer: &'a Customer,
    pub(super) vat: VatNumberStatus,
    pub(super) rates: &'a [TaxRate],
    pub(super) charged: &'a ChargedDocuments,
}

/// What of the lines that are due together is one document.
#[derive(Debug)]
pub(super) struct DocumentGroup {
    pub(super) prices_include_tax: bool,
    /// Its lines, by position among all.
    pub(super) lines: Vec<usize>,
    groups: Vec<Group>,
    /// Where the customer is not any more who the document is about: to whom it was charged.
    pub(super) buyer: Option<Buyer>,
    /// What a person must settle before it is an invoice.
    pub(super) unsettled: Option<HoldReason>,
}

#[derive(Debug)]
struct Group {
    basis: Basis,
    lines: Vec<usize>,
}

/// Why lines bear the taxes that they bear.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Basis {
    Rules(Vec<TaxRule>),
    /// They give back of this group.
    Charged(TaxGroup),
    /// They charge more for what this group charges.
    More(TaxGroup),
}

/// What keeps groups on documents of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct DocumentKey {
    /// The document that bears today's taxes comes last, so that what others give back is there to pay it.
    is_current: bool,
    prices_include_tax: bool,
    apart: DocumentSplit,
    /// What gives back of this invoice, which was written off, stands alone.
    written_off: Option<InvoiceId>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum DocumentSplit {
    Together,
    ReverseCharge,
    OutOfScope,
}

impl DocumentSplit {
    fn of(rules: &[TaxRule]) -> DocumentSplit {
        match rules.first().map(|rule| rule.category) {
            Some(TaxCategory::ReverseCharge) => DocumentSplit::ReverseCharge,
            Some(TaxCategory::OutOfScope) => DocumentSplit::OutOfScope,
            _ => DocumentSplit::Together,
        }
    }
}

impl Taxation<'_> {
    /// Sorts lines into documents; each comes with the instant whose taxes it bears where it corrects nothing.
    ///
    /// # Errors
    /// When a line corrects one that is not known.
    pub(super) fn sheets(&self, lines: &[(&DraftLine, i64)], due_ms: i64) -> Result<Vec<DocumentGroup>, BillingError> {
        let includes_tax = self.customer.billing.prices_include_tax;
        let now = self.rules(due_ms);
        let current = DocumentKey {
            is_current: true,
            prices_include_tax: includes_tax,
            apart: DocumentSplit::of(now.as_deref().unwrap_or(&[])),
            written_off: None,
        };
        let mut sheets: BTreeMap<DocumentKey, DocumentGroup> = BTreeMap::new();
        let mut at: HashMap<i64, Result<Vec<TaxRule>, HoldReason>> = HashMap::new();
        for (position, &(line, point_ms)) in lines.iter().enumerate() {
            let mut unsettled = None;
            let mut written_off = None;
            let (basis, prices_include_tax, apart) = match corrected_line(line) {
                Some(corrected) => {
                    let group = self.charged.group_of(corrected)?;
                    let (charged, invoice) = self.charged.group(group)?;
                    let rules: Vec<TaxRule> = charged.taxes.iter().map(|amount| amount.rule.clone()).collect();
                    // Nothing left to give back stays with what is charged: a document of 0 would say nothing.
                    // A discount that is not had for unused days goes with them.
                    let gives_back = line.priced.minor < 0 || matches!(line.evidence, Evidence::DiscountUnused { .. });
                    written_off = (invoice.is_written_off && gives_back).then_some(group.invoice);
                    let basis = if charges_more(line) {
                        Basis::More(group)
                    } else {
                        Basis::Charged(group)
                    };
                    (basis, invoice.prices_include_tax, DocumentSplit::of(&rules))
                }
                None => {
                    let rules = at.entry(point_ms).or_insert_with(|| self.rules(point_ms));
                    let rules = rules.clone().unwrap_or_else(|unknown| {
                        unsettled = Some(unknown);
                        vec![TaxRule::unknown()]
                    });
                    let apart = DocumentSplit::of(&rules);
                    (Basis::Rules(rules), includes_tax, apart)
                }
            };
            let kind = DocumentKey {
                is_current: prices_include_tax == includes_tax && apart == current.apart && written_off.is_none(),
                prices_include_tax,
                apart,
                written_off,
            };
            let sheet = sheets
                .entry(kind)
                .or_insert_with(|| DocumentGroup::empty(prices_include_tax));
            sheet.lines.push(position);
            sheet.unsettled = sheet.unsettled.take().or(unsettled);
            match sheet.groups.iter_mut().find(|group| group.basis == basis) {
                Some(group) => group.lines.push(position),
                None => sheet.groups.push(Group {
                    basis,
                    lines: vec![position],
                }),
            }
        }
        if sheets.is_empty() {
            let mut sheet = DocumentGroup::empty(includes_tax);
            sheet.unsettled = now.as_ref().err().cloned();
            sheet.groups.push(Group {
                basis: Basis::Rules(now.unwrap_or_else(|_| vec![TaxRule::unknown()])),
                lines: Vec::new(),
            });
            sheets.insert(current, sheet);
        }
        for (kind, sheet) in &mut sheets {
            if !kind.is_current {
                sheet.buyer = self.buyer_then(sheet);
            }
        }
        Ok(sheets.into_values().collect())
    }

    fn rules(&self, at_ms: i64) -> Result<Vec<TaxRule>, HoldReason> {
        tax::rules(self.seller, self.customer, self.vat, self.rates, at_ms)
    }

    /// To whom everything on a sheet was charged, as it was printed last; `None` where something on it is new.
    fn buyer_then(&self, sheet: &DocumentGroup) -> Option<Buyer> {
        let mut last = None;
        for group in &sheet.groups {
            match group.basis {
                Basis::Rules(_) => return None,
                Basis::Charged(charged) | Basis::More(charged) => last = last.max(Some(charged.invoice)),
            }
        }
        let invoice = self.charged.invoices.get(&last?)?;
        Some(invoice.buyer.clone())
    }

    /// Computes the taxes of a sheet, and writes net amounts and groups into its lines.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub(super) fn totals(
        &self,
        sheet: &DocumentGroup,
        lines: &mut [DraftLine],
        currency: Currency,
    ) -> Result<DocumentTotals, BillingError> {
        let mut totals = DocumentTotals::zero(currency);
        for (number, group) in (0i64..).zip(&sheet.groups) {
            let priced: Vec<Money> = group.lines.iter().map(|&at| lines[at].priced).collect();
            let (taxed, corrects) = match &group.basis {
                Basis::Rules(rules) => (tax::apply(&priced, rules, sheet.prices_include_tax, currency)?, None),
                Basis::Charged(key) => {
                    let (charged, _) = self.charged.group(*key)?;
                    (
                        charged.correct(&priced, sheet.prices_include_tax, currency)?,
                        Some(*key),
                    )
                }
                Basis::More(key) => {
                    let (charged, _) = self.charged.group(*key)?;
                    (
                        charged.charge_more(&priced, sheet.prices_include_tax, currency)?,
                        Some(*key),
                    )
                }
            };
            for (&at, net) in group.lines.iter().zip(&taxed.lines_net) {
                lines[at].amount = *net;
                lines[at].tax_group = number;
            }
            totals.add(number, corrects, taxed)?;
        }
        Ok(totals)
    }
}

impl DocumentGroup {
    fn empty(prices_include_tax: bool) -> DocumentGroup {
        DocumentGroup {
            prices_include_tax,
            lines: Vec::new(),
            groups: Vec::new(),
            buyer: None,
            unsettled: None,
        }
    }
}

/// The sums of a document.
#[derive(Debug)]
pub(super) struct DocumentTotals {
    pub(super) taxes: Vec<TaxAmount>,
    pub(super) subtotal: Money,
    pub(super) tax: Money,
    pub(super) total: Money,
}

impl DocumentTotals {
    pub(super) fn zero(currency: Currency) -> DocumentTotals {
        let zero = Money::zero(currency);
        DocumentTotals {
            taxes: Vec::new(),
            subtotal: zero,
            tax: zero,
            total: zero,
        }
    }

    /// Adds a group.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub(super) fn add(
        &mut self,
        group: i64,
        corrects: Option<TaxGroup>,
        taxed: tax::Taxed,
    ) -> Result<(), BillingError> {
        self.subtotal = self.subtotal.checked_add(taxed.subtotal)?;
        self.tax = self.tax.checked_add(taxed.tax)?;
        self.total = self.total.checked_add(taxed.total)?;
        self.taxes.extend(taxed.taxes.into_iter().map(|amount| TaxAmount {
            group,
            corrects,
            ..amount
        }));
        Ok(())
    }
}

//! Finalising.
//!
//! Usage is read before the write transaction starts, so that no lock is held while flows are scanned. Inside it, the
//! first statement takes the invoice sequence's row lock: closers take turns from there on, and each looks again whether
//! the customer's phases are what its drafts were made from. What was charged or changed meanwhile is drafted anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::civil::Date;
use schemas::bulk;
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, InvoiceId, PhaseId};
use schemas::inventory::{self, Customer};
use sqlx::{AnyConnection, Row as _};

use super::draft::{Charge, Drafts, Prepared, Snapshot, prepare};
use super::due::{ChargeKind, DueCharge, OpenPeriods};
use super::held;
use super::history::ChargedKey;
use super::items;
use super::line_credits::UncreditedAmounts;
use super::new_document::{Corrects, NewDocument, Parties, Written};
use super::unmeasured;
use super::write::write;
use super::{Draft, Horizon, InvoiceKind, InvoiceWithLines, OpenReason};
use crate::evidence::Evidence;
use crate::tax::HoldReason;
use crate::{BillingError, exclusion, guard, settlement, subscription};
use schemas::usage::UsageSource;

/// How often a closer that lost a race looks again for what is left.
const MAX_CLOSE_ATTEMPTS: usize = 5;
/// Customers that are drafted at once: what they used is asked for in one scan.
const CUSTOMERS_AT_ONCE: usize = 2_000;
/// Customers whose invoices are one transaction: a commit waits for the disk.
const CUSTOMERS_PER_TRANSACTION: usize = 200;

/// A period that cannot be charged yet.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OpenPeriod {
    pub reason: OpenReason,
    pub customer: CustomerId,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// Windows are closed up to here.
    pub measured_to_ms: i64,
    /// What a person must settle, where that holds it.
    pub unsettled: Option<HoldReason>,
}

/// What closing did.
#[derive(Debug, Default)]
pub struct Closing {
    /// Finalised by this call, by customer, oldest first.
    pub invoices: Vec<InvoiceId>,
    /// Over, but with usage that may still change: refused until it cannot.
    pub refused: Vec<OpenPeriod>,
    /// Customers whose periods could not be closed, and why.
    pub failed: Vec<(CustomerId, BillingError)>,
}

impl Closing {
    /// What was finalised, with lines.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn read(&self, database: &Database) -> Result<Vec<InvoiceWithLines>, BillingError> {
        let mut invoices = Vec::with_capacity(self.invoices.len());
        for id in &self.invoices {
            invoices.push(super::get(database, *id).await?);
        }
        Ok(invoices)
    }
}

/// What a customer's invoices would say now: one draft for each instant at which something is due that is not charged yet,
/// and one for each current period, oldest first.
///
/// # Errors
/// When the customer does not exist or usage cannot be measured.
pub async fn preview(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Vec<Draft>, BillingError> {
    let mut connection = database.pool().acquire().await?;
    let prospect = super::prospect(&mut connection, usage, customer, Horizon::Current { now_ms }).await?;
    drop(connection);
    prospect.drafts(usage, now_ms).await
}

/// Drafts of several customers, as [`preview`] makes them, with one scan of usage.
#[derive(Debug, Default)]
pub(crate) struct Previews {
    pub(crate) drafts: HashMap<CustomerId, Vec<Draft>>,
    pub(crate) failed: Vec<(CustomerId, BillingError)>,
}

/// [`preview`] of the customers with ids from `first` to `last`. Who has nothing due is in neither list.
///
/// # Errors
/// When usage cannot be measured at all.
pub(crate) async fn preview_between(
    database: &Database,
    usage: &dyn UsageSource,
    (first, last): (CustomerId, CustomerId),
    now_ms: i64,
) -> Result<Previews, BillingError> {
    let preparation = prepare(database, usage, (first, last), now_ms, OpenPeriods::Included).await?;
    let of_customer = |drafts: Drafts| {
        let made = drafts.drafts.into_iter().map(|prepared| prepared.draft);
        (drafts.customer.id, made.collect())
    };
    Ok(Previews {
        drafts: preparation.drafts.into_iter().map(of_customer).collect(),
        failed: preparation.failed,
    })
}

/// Finalises what is due for one customer. Closing again finds nothing to do (B3).
///
/// # Errors
/// When the customer does not exist, usage cannot be measured, or an invariant does not hold; then nothing of the invoice
/// in question is written.
pub async fn close(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Closing, BillingError> {
    inventory::customer(database.pool(), customer).await?;
    guard::check(database.pool()).await?;
    let mut closing = Closing::default();
    close_between(database, usage, (customer, customer), now_ms, &mut closing).await?;
    match closing.failed.pop() {
        Some((_, error)) => Err(error),
        None => Ok(closing),
    }
}

/// Finalises what is due for every customer. One who fails is named and does not keep the others from their invoices.
///
/// # Errors
/// When the database or usage cannot be read at all.
pub async fn close_all(database: &Database, usage: &dyn UsageSource, now_ms: i64) -> Result<Closing, BillingError> {
    close_all_with_progress(database, usage, now_ms, &|_, _| {}).await
}

/// [`close_all`], which tells `progress` how many customers it has looked at, and how many there are.
///
/// # Errors
/// As [`close_all`].
pub async fn close_all_with_progress(
    database: &Database,
    usage: &dyn UsageSource,
    now_ms: i64,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Closing, BillingError> {
    guard::check(database.pool()).await?;
    let rows = sqlx::query("SELECT id FROM customers ORDER BY id")
        .fetch_all(database.pool())
        .await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(CustomerId(row.try_get(0)?));
    }
    let mut closing = Closing::default();
    for (chunk, some) in ids.chunks(CUSTOMERS_AT_ONCE).enumerate() {
        progress(chunk * CUSTOMERS_AT_ONCE, ids.len());
        if let (Some(&first), Some(&last)) = (some.first(), some.last()) {
            close_between(database, usage, (first, last), now_ms, &mut closing).await?;
        }
    }
    Ok(closing)
}

async fn close_between(
    database: &Database,
    usage: &dyn UsageSource,
    between: (CustomerId, CustomerId),
    now_ms: i64,
    closing: &mut Closing,
) -> Result<(), BillingError> {
    let mut between = between;
    for _ in 0..MAX_CLOSE_ATTEMPTS {
        let preparation = prepare(database, usage, between, now_ms, OpenPeriods::Excluded).await?;
        let failed: HashSet<CustomerId> = preparation.failed.iter().map(|(customer, _)| *customer).collect();
        closing.failed.extend(preparation.failed);
        let drafts = preparation.drafts.iter().flat_map(|drafts| &drafts.drafts);
        let drafts: Vec<&Draft> = drafts.map(|prepared| &prepared.draft).collect();
        held::note(database, between, &drafts, &failed, now_ms).await?;
        let mut complete = Vec::new();
        for mut drafts in preparation.drafts {
            // Charges are made in their order: behind one that waits the customer's later ones wait too.
            let waits = drafts.drafts.iter().position(|prepared| prepared.draft.open.is_some());
            if let Some(waits) = waits {
                let draft = &drafts.drafts[waits].draft;
                if let Some(reason) = draft.open {
                    if reason.waits_for_a_person() {
                        let mut transaction = database.begin_write().await?;
                        unmeasured::hold(&mut transaction, draft, reason, now_ms).await?;
                        transaction.commit().await?;
                    }
                    closing.refused.push(OpenPeriod {
                        reason,
                        customer: draft.customer,
                        period_start_ms: draft.period_start_ms,
                        period_end_ms: draft.period_end_ms,
                        measured_to_ms: draft.measured_to_ms,
                        unsettled: draft.unsettled.clone(),
                    });
                }
                // Months whose correction waits stay to be looked at.
                let waiting = drafts.drafts[waits..].iter().flat_map(|prepared| &prepared.draft.lines);
                let corrected: Vec<_> = waiting
                    .filter(|line| matches!(line.evidence, Evidence::Adjustment { .. }))
                    .map(|line| (line.subscription, line.period_start_ms))
                    .collect();
                drafts
                    .checked
                    .retain(|month| !corrected.contains(&(Some(month.subscription), month.from_ms)));
                drafts.drafts.truncate(waits);
                if waits == 0 {
                    continue;
                }
            }
            // Without a draft it is found that charged months cost what they did.
            if !drafts.drafts.is_empty() || !drafts.checked.is_empty() {
                complete.push(drafts);
            }
        }
        let mut lost = Vec::new();
        for some in complete.chunks(CUSTOMERS_PER_TRANSACTION) {
            finalise(database, some, now_ms, closing, &mut lost).await?;
        }
        // Another closer was first, or something changed; what is left is drafted anew.
        let (Some(&first), Some(&last)) = (lost.iter().min(), lost.iter().max()) else {
            return Ok(());
        };
        closing
            .refused
            .retain(|open| open.customer < first || open.customer > last);
        between = (first, last);
    }
    Ok(())
}

/// Writes the drafts of some customers in one transaction; when one fails, those of each in its own.
async fn finalise(
    database: &Database,
    some: &[Drafts],
    now_ms: i64,
    closing: &mut Closing,
    lost: &mut Vec<CustomerId>,
) -> Result<(), BillingError> {
    match finalise_together(database, some, now_ms).await {
        Ok(done) => {
            closing.invoices.extend(done.invoices);
            lost.extend(done.lost);
            return Ok(());
        }
        Err(error) if some.len() == 1 => {
            closing.failed.push((some[0].customer.id, error));
            return Ok(());
        }
        Err(error) => tracing::debug!(%error, customers = some.len(), "invoices are written one by one"),
    }
    for drafts in some {
        match finalise_together(database, std::slice::from_ref(drafts), now_ms).await {
            Ok(done) => {
                closing.invoices.extend(done.invoices);
                lost.extend(done.lost);
            }
            Err(error) => closing.failed.push((drafts.customer.id, error)),
        }
    }
    Ok(())
}

/// What one transaction did.
struct CloseOutcome {
    invoices: Vec<InvoiceId>,
    lost: Vec<CustomerId>,
}

async fn finalise_together(database: &Database, some: &[Drafts], now_ms: i64) -> Result<CloseOutcome, BillingError> {
    let mut done = CloseOutcome {
        invoices: Vec::new(),
        lost: Vec::new(),
    };
    let mut transaction = database.begin_write().await?;
    // The sequence's row lock: from here on closers take turns.
    next_id(&mut transaction, "closing").await?;
    let ids = some.iter().map(|drafts| drafts.customer.id);
    let (Some(first), Some(last)) = (ids.clone().min(), ids.max()) else {
        return Ok(done);
    };
    let mut now_is = snapshots(&mut transaction, first, last).await?;
    let exclusions = exclusion::revision(&mut *transaction).await?;
    let marks = marks_of(&mut transaction, some).await?;
    let mut unchanged = Vec::with_capacity(some.len());
    for drafts in some {
        let is = now_is.remove(&drafts.customer.id).unwrap_or_default();
        let is_marked = |month: &ChargedKey| marks.get(&month.key) == Some(&month.mark);
        let is_same = is == drafts.snapshot && exclusions == drafts.exclusions && drafts.checked.iter().all(is_marked);
        if is_same && UncreditedAmounts::is_still(&mut transaction, &drafts.left).await? {
            unchanged.push(drafts);
        } else {
            done.lost.push(drafts.customer.id);
        }
    }
    let reserved = held::reserved(&mut *transaction, first, last).await?;
    done.invoices = write_drafts(&mut transaction, &unchanged, reserved, now_ms).await?;
    mark_checked(&mut transaction, &unchanged).await?;
    transaction.commit().await?;
    for invoice in &done.invoices {
        tracing::debug!(%invoice, "invoice finalised");
    }
    Ok(done)
}

/// A draft that is written, with whose it is.
struct Finalised<'a> {
    customer: &'a Customer,
    prepared: &'a Prepared,
    written: Written,
}

async fn write_drafts(
    connection: &mut AnyConnection,
    some: &[&Drafts],
    mut reserved: HashMap<(CustomerId, i64), InvoiceId>,
    now_ms: i64,
) -> Result<Vec<InvoiceId>, BillingError> {
    let drafts: Vec<(&Drafts, &Prepared, Corrects)> = some
        .iter()
        .flat_map(|drafts| {
            drafts
                .drafts
                .iter()
                .map(|prepared| (*drafts, prepared, corrects(&prepared.draft)))
        })
        .collect();
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    // Of what taxes keep apart the last is charged anew, which is what was held; the others only give back.
    let mut last_due = HashMap::new();
    for (at, (drafts, prepared, _)) in drafts.iter().enumerate() {
        last_due.insert((drafts.customer.id, prepared.draft.due_ms), at);
    }
    let mut held_id = |at: usize, customer: CustomerId, due_ms: i64| {
        let key = (customer, due_ms);
        last_due.get(&key).filter(|&&last| last == at)?;
        reserved.remove(&key)
    };
    let documents: Vec<NewDocument<'_>> = drafts
        .iter()
        .enumerate()
        .map(|(at, (drafts, prepared, corrects))| NewDocument {
            parties: Parties {
                entity: drafts.customer.billing.entity,
                seller: &drafts.entity,
                customer: &drafts.customer,
            },
            draft: &prepared.draft,
            corrects,
            id: held_id(at, drafts.customer.id, prepared.draft.due_ms),
        })
        .collect();
    let written = write(connection, &documents, now_ms).await?;
    let finalised: Vec<Finalised<'_>> = drafts
        .iter()
        .zip(written)
        .map(|((drafts, prepared, _), written)| Finalised {
            customer: &drafts.customer,
            prepared,
            written,
        })
        .collect();
    mark_charged(connection, &finalised).await?;
    for Finalised {
        customer,
        prepared,
        written,
    } in &finalised
    {
        if prepared.draft.coverage_percent.is_some() {
            unmeasured::finalised(connection, customer.id, prepared.draft.due_ms).await?;
        }
        for item in &prepared.items {
            if !items::take(connection, item.id, written.id).await? {
                return Err(BillingError::ItemCharged(item.id));
            }
        }
    }
    settle(connection, &finalised, now_ms).await?;
    Ok(finalised.into_iter().map(|finalised| finalised.written.id).collect())
}

/// What a draft corrects, where it gives back more than it charges.
fn corrects(draft: &Draft) -> Corrects {
    match draft.kind {
        InvoiceKind::Invoice => Corrects::default(),
        InvoiceKind::CreditNote => Corrects {
            invoice: draft.lines.iter().find_map(|line| match &line.evidence {
                Evidence::Unused { corrects_invoice, .. }
                | Evidence::DiscountUnused { corrects_invoice, .. }
                | Evidence::Adjustment { corrects_invoice, .. } => Some(*corrects_invoice),
                _ => None,
            }),
            reason: "more was credited than charged".to_owned(),
            ..Corrects::default()
        },
    }
}

/// Applies credit notes, and customers' credit to invoices, in the order of the documents.
async fn settle(connection: &mut AnyConnection, finalised: &[Finalised<'_>], now_ms: i64) -> Result<(), BillingError> {
    // Most customers have no credit, and are not asked one by one.
    let customers = finalised.iter().map(|finalised| finalised.customer);
    let mut with_credit = settlement::customers_with_credit(connection, customers).await?;
    for Finalised {
        customer,
        prepared,
        written,
    } in finalised
    {
        match prepared.draft.kind {
            InvoiceKind::CreditNote => {
                settlement::apply_credit_note(connection, written.id, now_ms).await?;
                with_credit.insert(customer.id);
            }
            InvoiceKind::Invoice if with_credit.contains(&customer.id) => {
                settlement::apply_credit(connection, written.id, now_ms).await?;
            }
            InvoiceKind::Invoice => {}
        }
    }
    Ok(())
}

/// Notes what was charged, so that it is not charged again (B3), and how far each phase has come.
async fn mark_charged(connection: &mut AnyConnection, finalised: &[Finalised<'_>]) -> Result<(), BillingError> {
    let mut charged = Vec::new();
    let mut reached: BTreeMap<PhaseId, PhaseAdvance> = BTreeMap::new();
    for finalised in finalised {
        for charge in &finalised.prepared.charges {
            let line = finalised.written.first_line.0 + i64::try_from(charge.line).unwrap_or(0);
            charged.push((charge, finalised.written.id, line));
            reached.entry(charge.due.phase_id).or_default().charge(&charge.due);
        }
    }
    let sql = "INSERT INTO charged (charge_key, kind, subscription_id, phase_id, start_date, end_date, start_ms, end_ms, invoice_id, \
               line_id, usage_mark) VALUES {rows}";
    bulk::for_rows(connection, sql, 11, &charged, |query, (charge, invoice, line)| {
        let Charge { due, mark, .. } = charge;
        let period = due.charged.period;
        query
            .bind(&due.key)
            .bind(due.what.name())
            .bind(due.subscription.0)
            .bind(due.phase_id.0)
            .bind(period.start_date.to_string())
            .bind(period.end_date.to_string())
            .bind(period.start_ms)
            .bind(period.end_ms)
            .bind(invoice.0)
            .bind(line)
            .bind(mark)
    })
    .await?;
    let usage: Vec<(PhaseId, i64)> = reached
        .iter()
        .filter_map(|(phase, reached)| Some((*phase, reached.usage_to_ms?)))
        .collect();
    let sql = "UPDATE phases SET usage_charged_to_ms = v.column2 FROM (VALUES {rows}) AS v WHERE phases.id = v.column1";
    bulk::for_rows(connection, sql, 2, &usage, |query, (phase, to_ms)| {
        query.bind(phase.0).bind(to_ms)
    })
    .await?;
    let column = |of: fn(&PhaseAdvance) -> Option<Date>| -> Vec<(PhaseId, Date)> {
        let reached = reached
            .iter()
            .filter_map(|(phase, reached)| Some((*phase, of(reached)?)));
        reached.collect()
    };
    for (sql, phases) in [
        (
            "UPDATE phases SET base_to = v.column2 FROM (VALUES {rows}) AS v WHERE phases.id = v.column1",
            column(|reached| reached.base_to),
        ),
        (
            "UPDATE phases SET usage_to = v.column2 FROM (VALUES {rows}) AS v WHERE phases.id = v.column1",
            column(|reached| reached.usage_to),
        ),
        // What was given back is not charged any more.
        (
            "UPDATE phases SET base_to = v.column2 FROM (VALUES {rows}) AS v \
             WHERE phases.id = v.column1 AND phases.base_to > v.column2",
            column(|reached| reached.given_back_to),
        ),
    ] {
        bulk::for_rows(connection, sql, 2, &phases, |query, (phase, to)| {
            query.bind(phase.0).bind(to.to_string())
        })
        .await?;
    }
    Ok(())
}

/// Up to where charges bring a phase.
#[derive(Clone, Copy, Debug, Default)]
struct PhaseAdvance {
    base_to: Option<Date>,
    usage_to: Option<Date>,
    usage_to_ms: Option<i64>,
    given_back_to: Option<Date>,
}

impl PhaseAdvance {
    /// Takes over a charge; later ones come after earlier ones.
    fn charge(&mut self, due: &DueCharge) {
        let period = due.charged.period;
        match due.what {
            ChargeKind::Base => {
                self.base_to = Some(period.end_date);
                self.given_back_to = None;
            }
            ChargeKind::Usage => {
                self.usage_to = Some(period.end_date);
                self.usage_to_ms = Some(period.end_ms);
            }
            // The first of several reaches furthest back.
            ChargeKind::Unused => {
                let earlier = self.given_back_to.unwrap_or(period.start_date);
                self.given_back_to = Some(earlier.min(period.start_date));
            }
        }
    }
}

/// What customers' drafts would be made from now.
async fn snapshots(
    connection: &mut AnyConnection,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<CustomerId, Snapshot>, BillingError> {
    let rows = sqlx::query(
        "SELECT s.customer_id, s.time_zone, p.id, p.from_date, p.to_date, p.base_to, p.usage_to, p.usage_from_ms, \
         p.usage_to_ms, p.usage_charged_to_ms FROM phases p \
         JOIN subscriptions s ON s.id = p.subscription_id WHERE s.customer_id BETWEEN $1 AND $2 ORDER BY s.id, p.id",
    )
    .bind(first.0)
    .bind(last.0)
    .fetch_all(&mut *connection)
    .await?;
    let mut snapshots: HashMap<CustomerId, Snapshot> = HashMap::new();
    for row in &rows {
        let phase = subscription::reached(row)?;
        let customer = CustomerId(row.try_get("customer_id")?);
        snapshots.entry(customer).or_default().phases.push(phase);
    }
    for (customer, items) in items::open_items(connection, first, last).await? {
        let snapshot = snapshots.entry(customer).or_default();
        snapshot.items = items.iter().map(|item| item.id).collect();
    }
    Ok(snapshots)
}

/// The marks, by charge, of what was measured again for some drafts.
async fn marks_of(connection: &mut AnyConnection, some: &[Drafts]) -> Result<HashMap<String, String>, BillingError> {
    let checked: Vec<&ChargedKey> = some.iter().flat_map(|drafts| &drafts.checked).collect();
    let sql = "SELECT charge_key, usage_mark FROM charged WHERE charge_key IN ({values})";
    let rows = bulk::rows_of_values(connection, sql, &checked, |query, month| query.bind(&month.key)).await?;
    let mut marks = HashMap::with_capacity(rows.len());
    for row in &rows {
        marks.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(marks)
}

/// Notes what charged months were measured from this time. One that was marked anew meanwhile stays to be looked at.
async fn mark_checked(connection: &mut AnyConnection, some: &[&Drafts]) -> Result<(), BillingError> {
    let checked: Vec<&ChargedKey> = some.iter().flat_map(|drafts| &drafts.checked).collect();
    let sql = "UPDATE charged SET usage_mark = v.column3 FROM (VALUES {rows}) AS v \
               WHERE charged.charge_key = v.column1 AND charged.usage_mark = v.column2";
    bulk::for_rows(connection, sql, 3, &checked, |query, month| {
        query.bind(&month.key).bind(&month.mark).bind(&month.mark_now)
    })
    .await?;
    Ok(())
}

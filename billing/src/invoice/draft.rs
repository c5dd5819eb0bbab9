//! Drafting: what is due, what was used, what it costs.
//!
//! Everything that usage is needed for, charged periods that late data may have changed too, is asked in one batch, for
//! any number of customers: a month of all customers costs one scan.
//!
//! What is due is found by walking the phases of each subscription ([`due`]). Charges that are due at the same instant are
//! one document: an invoice, or a credit note where more is given back than charged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::civil::Date;
use schemas::db::Database;
use schemas::ids::{ChargeItemId, CustomerId, EntityId, InvoiceId, InvoiceLineId, PhaseId, ServiceId, SubscriptionId};
use schemas::inventory::{self, AttributionChange, Customer, EntityProfile};
use schemas::usage::{PeriodUsage, UsageMode};
use sqlx::AnyConnection;

use super::corrections::{self, Months};
use super::due::{self, ChargeKind, DueCharge, OpenPeriods};
use super::history::{ChargedKey, ChargedUsage, charged_bases, charged_usage, pool_lines};
use super::items::{ChargeItem, open_items};
use super::line_credits::UncreditedAmounts;
use super::pool::{self, PoolLine, Share};
use super::taxes::{ChargedDocuments, DocumentGroup, DocumentTotals, Taxation, tax_point_ms};
use super::unmeasured;
use super::{Draft, InvoiceKind, OpenReason};
use crate::BillingError;
use crate::evidence::{Measured, UsageCharge};
use crate::exclusion::{self, Exclusion};
use crate::line_kind::LineKind;
use crate::price::UsagePrice;
use crate::rating::{self, ChargedBase, DraftLine};
use crate::subscription::{Catalog, Contract, contracts_between};
use crate::tax::{self, HoldReason, TaxRate, VatNumberStatus};
use crate::vat;
use schemas::usage::{UsageQuery, UsageSource};

/// A draft with what finalising needs beside it.
pub(super) struct Prepared {
    pub(super) draft: Draft,
    pub(super) charges: Vec<Charge>,
    pub(super) items: Vec<ChargeItem>,
}

/// What a line of a draft charges, so that it is charged once (B3).
pub(super) struct Charge {
    pub(super) due: DueCharge,
    /// Its line, by position from 0.
    pub(super) line: usize,
    /// What its usage was measured from ([`UsageSource::marks`]).
    pub(super) mark: String,
}

/// What a customer's drafts were made from. When it is not so any more as they are finalised, they are made anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) phases: Vec<PhaseProgress>,
    /// What waits to be charged once.
    pub(super) items: Vec<ChargeItemId>,
}

/// A phase's end, up to where its base price was charged, and the end of its usage and up to where that was charged.
pub(super) type PhaseProgress = (PhaseId, Option<Date>, Option<Date>, Option<i64>, Option<i64>);

/// One customer's drafts, oldest first.
pub(super) struct Drafts {
    pub(super) customer: Arc<Customer>,
    pub(super) entity: Arc<EntityProfile>,
    pub(super) snapshot: Snapshot,
    /// The lines that the drafts give a part of back, with what was left of each: when it is less by now, they are made anew.
    pub(super) left: BTreeMap<InvoiceLineId, i64>,
    pub(super) drafts: Vec<Prepared>,
    /// Charged months that were measured again. What they differ by is on the first draft; without drafts it is nothing.
    pub(super) checked: Vec<ChargedKey>,
    /// What was not billed as they were drafted.
    pub(super) exclusions: exclusion::Revision,
}

/// Drafts, and the customers who could not be drafted: one who cannot does not keep the others from their invoices.
pub(super) struct Preparation {
    pub(super) drafts: Vec<Drafts>,
    pub(super) failed: Vec<(CustomerId, BillingError)>,
}

/// A customer with what is due.
struct Account {
    customer: Arc<Customer>,
    entity: Arc<EntityProfile>,
    /// Whether the entity can issue it.
    has_issuer: bool,
    contracts: Vec<Contract>,
    due: Vec<DueCharge>,
    items: Vec<ChargeItem>,
    /// Charged months whose usage may have changed since, with the position of their contract.
    charged: Vec<(usize, ChargedUsage)>,
    /// The lines of the pools that those months are of, invoice by invoice, with the position of their contract.
    pools: Vec<Vec<(usize, PoolLine)>>,
    /// What was charged in advance and is not used, by what gives it back.
    bases: HashMap<String, ChargedBase>,
}

/// Names a measured period: phase and start.
type PeriodKey = (PhaseId, i64);
/// What the usage of times is measured from; nothing of those that cannot be measured any more.
type Marks = HashMap<(i64, i64), String>;
/// What was used in it, and which parts of it are not billed.
type MeasuredUsage = (PeriodUsage, Vec<(i64, i64)>);

/// What drafting needs of the database, before usage is asked for.
pub(super) struct Loaded {
    accounts: Vec<Account>,
    pending: Vec<AttributionChange>,
    rates: Vec<TaxRate>,
    /// What is known of customers' VAT numbers.
    vat: HashMap<CustomerId, VatNumberStatus>,
    /// The taxes of what may be given back or corrected.
    taxes: ChargedDocuments,
    exclusions: HashMap<ServiceId, Vec<Exclusion>>,
    /// What somebody said is to be finalised as it was measured.
    confirmed: HashSet<(CustomerId, i64)>,
    revision: exclusion::Revision,
    marks: Marks,
    failed: Vec<(CustomerId, BillingError)>,
}

/// Drafts what is due for the customers with ids from `first` to `last`, by id, oldest first.
///
/// # Errors
/// When usage cannot be measured at all.
pub(super) async fn prepare(
    database: &Database,
    usage: &dyn UsageSource,
    between: (CustomerId, CustomerId),
    now_ms: i64,
    current: OpenPeriods,
) -> Result<Preparation, BillingError> {
    // Before anything is read: marks say what is measured from what is stored by now.
    if current == OpenPeriods::Excluded {
        usage.settle().await?;
    }
    let mut connection = database.pool().acquire().await?;
    let loaded = load_all(&mut connection, usage, between, now_ms, current).await?;
    drop(connection);
    draft_all(loaded, usage, now_ms).await
}

/// Reads what is due by `until_ms`, in the caller's transaction where there is one.
///
/// # Errors
/// As the database answers, or when it cannot be told what usage is measured from.
pub(super) async fn load_all(
    connection: &mut AnyConnection,
    usage: &dyn UsageSource,
    between: (CustomerId, CustomerId),
    until_ms: i64,
    current: OpenPeriods,
) -> Result<Loaded, BillingError> {
    let mut failed = Vec::new();
    // Before the exclusions: one that is made meanwhile is found by comparing.
    let revision = exclusion::revision(&mut *connection).await?;
    let pending = inventory::pending_attribution_changes(&mut *connection).await?;
    let months = Months::changed(connection, usage, between, until_ms, &pending).await?;
    let accounts = load(&mut *connection, between, until_ms, (current, months), &mut failed).await?;
    let rates = tax::rates(&mut *connection).await?;
    let usage_lines = accounts.iter().flat_map(|account| &account.charged);
    let base_lines = accounts.iter().flat_map(|account| account.bases.values());
    let correctable: Vec<InvoiceLineId> = usage_lines
        .flat_map(|(_, usage)| usage.charges.iter().map(|charge| charge.line))
        .chain(base_lines.flat_map(|base| {
            let discount = base.discount.iter().map(|discount| discount.line);
            discount.chain([base.line])
        }))
        .collect();
    let taxes = ChargedDocuments::of_lines(&mut *connection, &correctable).await?;
    let vat = vat::vat_number_statuses(&mut *connection, between.0, between.1).await?;
    let exclusions = exclusion::in_force(&mut *connection).await?;
    let confirmed = unmeasured::confirmed(&mut *connection, between.0, between.1).await?;
    let due = accounts.iter().flat_map(|account| &account.due);
    let usages = due.filter(|due| due.what == ChargeKind::Usage);
    let times = usages.map(|due| (due.charged.period.start_ms, due.charged.period.end_ms));
    let marks = corrections::marks(usage, times.collect()).await?;
    Ok(Loaded {
        confirmed,
        accounts,
        pending,
        rates,
        vat,
        taxes,
        exclusions,
        revision,
        marks,
        failed,
    })
}

/// Drafts what was loaded, by usage as far as it is known at `now_ms`.
///
/// # Errors
/// When usage cannot be measured at all.
pub(super) async fn draft_all(
    loaded: Loaded,
    usage: &dyn UsageSource,
    now_ms: i64,
) -> Result<Preparation, BillingError> {
    let Loaded {
        accounts,
        pending,
        rates,
        vat,
        mut taxes,
        exclusions,
        confirmed,
        revision,
        marks,
        mut failed,
    } = loaded;
    let excluded = |service: ServiceId, from_ms: i64, to_ms: i64| -> Vec<(i64, i64)> {
        let of_service = exclusions.get(&service).map_or(&[][..], Vec::as_slice);
        exclusion::touching(of_service, from_ms, to_ms)
    };
    let mut keys: Vec<PeriodKey> = Vec::new();
    let mut queries = Vec::new();
    for account in &accounts {
        let mut ask = |contract: usize, phase: PhaseId, from_ms, to_ms, mode: UsageMode| {
            keys.push((phase, from_ms));
            queries.push(UsageQuery {
                service: (*account.contracts[contract].service).clone(),
                from_ms,
                to_ms,
                mode,
                excluded: excluded(account.contracts[contract].service.id, from_ms, to_ms),
            });
        };
        for due in account.due.iter().filter(|due| due.what == ChargeKind::Usage) {
            let phase = &account.contracts[due.contract].phases[due.phase];
            if let Some(mode) = phase.plan.terms.mode() {
                ask(
                    due.contract,
                    phase.id,
                    due.charged.period.start_ms,
                    due.charged.period.end_ms,
                    mode,
                );
            }
        }
        for (contract, before) in &account.charged {
            ask(
                *contract,
                before.phase,
                before.from_ms,
                before.to_ms,
                before.measured.mode,
            );
        }
        // What the others of a pool used says what there is to share.
        let asked: HashSet<PeriodKey> = account
            .charged
            .iter()
            .map(|(_, month)| (month.phase, month.from_ms))
            .collect();
        for (contract, line) in account.pools.iter().flatten() {
            if !asked.contains(&(line.phase, line.from_ms)) {
                ask(*contract, line.phase, line.from_ms, line.to_ms, line.measured.mode);
            }
        }
    }
    let answers = usage.period_usage(&queries, now_ms).await?;
    let guards = usage.guards();
    let heard_until_ms = match guards.holds_beyond_measured && !queries.is_empty() {
        true => usage.heard_until().await?.unwrap_or(i64::MIN),
        false => i64::MAX,
    };
    let left_out = queries.into_iter().map(|query| query.excluded);
    let used: HashMap<PeriodKey, MeasuredUsage> = keys.into_iter().zip(answers.into_iter().zip(left_out)).collect();

    let mut drafts = Vec::new();
    for account in accounts {
        let facts = Facts {
            used: &used,
            marks: &marks,
            pending: &pending,
            rates: &rates,
            confirmed: &confirmed,
            min_coverage_percent: guards.min_coverage_percent,
            heard_until_ms,
            vat: &vat,
            now_ms,
        };
        if corrections::is_too_soon(&account.due, &account.items, &account.charged, now_ms) {
            continue;
        }
        match draft(&account, &facts, &mut taxes) {
            Ok((prepared, left)) => drafts.push(Drafts {
                left: left.taken_from(),
                snapshot: Snapshot {
                    phases: account
                        .contracts
                        .iter()
                        .flat_map(|contract| &contract.phases)
                        .map(|phase| {
                            let usage = (phase.usage_to_ms, phase.usage_charged_to_ms);
                            (phase.id, phase.to, phase.base_to, usage.0, usage.1)
                        })
                        .collect(),
                    items: account.items.iter().map(|item| item.id).collect(),
                },
                customer: account.customer,
                entity: account.entity,
                drafts: prepared,
                checked: account.charged.into_iter().map(|(_, month)| month.key).collect(),
                exclusions: revision,
            }),
            Err(error) => failed.push((account.customer.id, error)),
        }
    }
    Ok(Preparation { drafts, failed })
}

/// The customers that have something due, and what.
async fn load(
    connection: &mut AnyConnection,
    (first, last): (CustomerId, CustomerId),
    now_ms: i64,
    (current, mut months): (OpenPeriods, Months),
    failed: &mut Vec<(CustomerId, BillingError)>,
) -> Result<Vec<Account>, BillingError> {
    let entities: HashMap<EntityId, (Arc<EntityProfile>, bool)> = inventory::entities(&mut *connection)
        .await?
        .into_iter()
        .map(|entity| {
            let is_issuer = entity.is_issuer();
            (entity.id, (Arc::new(entity.profile), is_issuer))
        })
        .collect();
    let mut items = open_items(&mut *connection, first, last).await?;
    let mut accounts = Vec::new();
    let mut again = Vec::new();
    for (customer, contracts) in contracts_between(connection, &mut Catalog::default(), first, last).await? {
        let id = customer.id;
        let found = contracts.and_then(|contracts| {
            let due = due::find(&contracts, now_ms, current)?;
            Ok((contracts, due))
        });
        let (contracts, due) = match found {
            Ok(found) => found,
            Err(error) => {
                failed.push((id, error));
                continue;
            }
        };
        let items = items.remove(&id).unwrap_or_default();
        let changed = months.take(&contracts, !due.is_empty() || !items.is_empty());
        if due.is_empty() && items.is_empty() && changed.is_empty() {
            continue;
        }
        let Some((entity, is_issuer)) = entities.get(&customer.billing.entity) else {
            failed.push((id, inventory::InventoryError::NoEntity(customer.billing.entity).into()));
            continue;
        };
        again.extend(changed);
        let bases = charged_bases(connection, due.iter().filter(|due| due.what == ChargeKind::Unused)).await?;
        accounts.push(Account {
            entity: Arc::clone(entity),
            has_issuer: *is_issuer,
            customer,
            contracts,
            due,
            items,
            charged: Vec::new(),
            pools: Vec::new(),
            bases,
        });
    }
    let months = charged_usage(connection, again).await?;
    let mut lines = pool_lines(connection, &months).await?;
    let mut charged: HashMap<SubscriptionId, Vec<ChargedUsage>> = HashMap::new();
    for month in months {
        charged.entry(month.key.subscription).or_default().push(month);
    }
    for account in &mut accounts {
        for (position, contract) in account.contracts.iter().enumerate() {
            let months = charged.remove(&contract.subscription.id).unwrap_or_default();
            account
                .charged
                .extend(months.into_iter().map(|month| (position, month)));
        }
        account.pools = pools_of(account, &mut lines)?;
    }
    Ok(accounts)
}

/// The pools that a customer's charged months are of: those of invoices whose usage was pooled as they were closed.
fn pools_of(
    account: &Account,
    lines: &mut HashMap<InvoiceId, Vec<PoolLine>>,
) -> Result<Vec<Vec<(usize, PoolLine)>>, BillingError> {
    let invoices: BTreeSet<InvoiceId> = account.charged.iter().map(|(_, month)| month.invoice).collect();
    let positions: HashMap<SubscriptionId, usize> = account
        .contracts
        .iter()
        .enumerate()
        .map(|(position, contract)| (contract.subscription.id, position))
        .collect();
    let mut pools = Vec::new();
    for invoice in invoices {
        let Some(of_invoice) = lines.remove(&invoice) else {
            continue;
        };
        if pool::was_pooled(&of_invoice, account.customer.billing.pools_usage)? {
            // A subscription stays its customer's, ended or not, so that none of them is missing.
            let with_contract = |line: PoolLine| Some((*positions.get(&line.subscription)?, line));
            pools.push(of_invoice.into_iter().filter_map(with_contract).collect());
        }
    }
    Ok(pools)
}

/// What all drafts are made by.
struct Facts<'a> {
    used: &'a HashMap<PeriodKey, MeasuredUsage>,
    marks: &'a Marks,
    pending: &'a [AttributionChange],
    rates: &'a [TaxRate],
    confirmed: &'a HashSet<(CustomerId, i64)>,
    /// Usage of which less was measured waits for a person.
    min_coverage_percent: u32,
    /// Usage that ends later waits for a person.
    heard_until_ms: i64,
    vat: &'a HashMap<CustomerId, VatNumberStatus>,
    now_ms: i64,
}

/// What may be given back of a customer's charges.
fn left_of(account: &Account) -> UncreditedAmounts {
    let mut left = UncreditedAmounts::default();
    for base in account.bases.values() {
        left.insert(base.line, base.left_minor);
    }
    for charge in account.charged.iter().flat_map(|(_, charged)| &charged.charges) {
        left.insert(charge.line, charge.left_minor);
    }
    left
}

/// The drafts of one customer, one for each instant at which something is due, and what they leave to be given back.
fn draft(
    account: &Account,
    facts: &Facts<'_>,
    taxes: &mut ChargedDocuments,
) -> Result<(Vec<Prepared>, UncreditedAmounts), BillingError> {
    let mut by_instant: BTreeMap<i64, Vec<DueCharge>> = BTreeMap::new();
    for due in &account.due {
        by_instant.entry(due.due_ms).or_default().push(due.clone());
    }
    // What was charged by hand and what corrects charged months goes with the first invoice; without one it is an invoice
    // of its own.
    let mut items = account.items.clone();
    let mut left = left_of(account);
    let from_pools = granted_now(account, facts)?;
    let mut corrections = Vec::new();
    let mut corrected_from_ms = None;
    for (contract, before) in &account.charged {
        if let Some((usage, excluded)) = facts.used.get(&(before.phase, before.from_ms)) {
            corrected_from_ms = earlier(corrected_from_ms, usage.from_ms);
            corrections.extend(corrections::correction(
                &account.contracts[*contract],
                before,
                from_pools.get(&before.key.key).copied().unwrap_or(0),
                (usage, excluded.as_slice()),
                &mut left,
            )?);
        }
    }
    if by_instant.is_empty() && !(items.is_empty() && corrections.is_empty()) {
        by_instant.insert(facts.now_ms, Vec::new());
    }
    let mut prepared = Vec::with_capacity(by_instant.len());
    for (due_ms, group) in by_instant {
        let pooled = pool::grants(&shares(account, &group, facts)?)?;
        let mut lines = Vec::new();
        let mut charges = Vec::with_capacity(group.len());
        let mut measured_to_ms = facts.now_ms.min(due_ms);
        // Start of the earliest usage that this invoice depends on, corrected periods included.
        let mut usage_from_ms = corrected_from_ms.take();
        let mut coverage_percent = None;
        for due in group {
            let contract = &account.contracts[due.contract];
            let phase = &contract.phases[due.phase];
            let first_line = lines.len();
            match due.what {
                ChargeKind::Unused => {
                    let before = account
                        .bases
                        .get(&due.key)
                        .ok_or_else(|| BillingError::corrupt("charge in advance", due.key.clone()))?;
                    let before = ChargedBase {
                        left_minor: left.minor(before.line),
                        ..before.clone()
                    };
                    let unused = rating::unused_lines(contract, phase, &before, &due.charged)?;
                    left.take(before.line, unused.iter().map(|line| -line.priced.minor).sum());
                    lines.extend(unused);
                }
                ChargeKind::Base => lines.extend(rating::base_lines(contract, phase, &due.charged)?),
                ChargeKind::Usage => {
                    let usage = facts.used.get(&(phase.id, due.charged.period.start_ms));
                    if let Some((usage, excluded)) = usage {
                        measured_to_ms = measured_to_ms.min(usage.measured_to_ms);
                        usage_from_ms = earlier(usage_from_ms, usage.from_ms);
                        // What costs nothing is not charged wrongly.
                        if phase.price.usage != UsagePrice::FREE {
                            let of_line = coverage(usage);
                            let least = coverage_percent.map_or(of_line, |least: u32| least.min(of_line));
                            coverage_percent = Some(least);
                        }
                        let is_pooled = account.customer.billing.pools_usage;
                        let from_pool = is_pooled.then(|| pooled.get(&due.key).copied().unwrap_or(0));
                        let line = rating::usage_line(contract, phase, &due.charged, usage, excluded, from_pool)?;
                        lines.extend(line);
                    }
                }
            }
            if lines.len() > first_line {
                let time = (due.charged.period.start_ms, due.charged.period.end_ms);
                charges.push(Charge {
                    line: first_line,
                    mark: facts.marks.get(&time).cloned().unwrap_or_default(),
                    due,
                });
            }
        }
        lines.extend(std::mem::take(&mut corrections));
        let given_before = |line: &DraftLine| line.kind == LineKind::Unused && line.priced.minor == 0;
        if !lines.is_empty() && items.is_empty() && lines.iter().all(given_before) {
            // All of it was given back before: there is nothing to say.
            continue;
        }
        let together = DueGroup {
            due_ms,
            measured_to_ms,
            usage_from_ms,
            coverage_percent,
            lines,
            charges,
            items: std::mem::take(&mut items),
        };
        prepared.extend(together.into_drafts(account, facts, taxes)?);
    }
    Ok((prepared, left))
}

/// What the taxes of a customer's lines are found by.
fn taxation<'a>(account: &'a Account, facts: &Facts<'a>, taxes: &'a ChargedDocuments) -> Taxation<'a> {
    Taxation {
        seller: &account.entity,
        customer: &account.customer,
        vat: facts.vat.get(&account.customer.id).copied().unwrap_or_default(),
        rates: facts.rates,
        charged: taxes,
    }
}

/// What is due at one instant: mostly one document, and several where their taxes keep them apart.
struct DueGroup {
    due_ms: i64,
    measured_to_ms: i64,
    usage_from_ms: Option<i64>,
    coverage_percent: Option<u32>,
    lines: Vec<DraftLine>,
    charges: Vec<Charge>,
    items: Vec<ChargeItem>,
}

impl DueGroup {
    fn into_drafts(
        self,
        account: &Account,
        facts: &Facts<'_>,
        taxes: &mut ChargedDocuments,
    ) -> Result<Vec<Prepared>, BillingError> {
        let due_ms = self.due_ms;
        let by_item: Vec<DraftLine> = self.items.iter().map(|item| item.line(due_ms)).collect();
        let first_item = self.lines.len();
        let points = self.lines.iter().map(|line| (line, tax_point_ms(line, due_ms)));
        let item_points = by_item.iter().zip(&self.items);
        let points: Vec<(&DraftLine, i64)> = points
            .chain(item_points.map(|(line, item)| (line, item.created_at_ms)))
            .collect();
        let mut sheets = taxation(account, facts, taxes).sheets(&points, due_ms)?;
        let mut lines: Vec<DraftLine> = self.lines.into_iter().chain(by_item).collect();
        let mut prepared = Vec::with_capacity(sheets.len());
        // Where a line of all is on its sheet.
        let mut place: HashMap<usize, (usize, usize)> = HashMap::new();
        for (number, sheet) in sheets.iter_mut().enumerate() {
            let totals = taxation(account, facts, taxes).totals(sheet, &mut lines, account.customer.currency)?;
            taxes.note(sheet, &totals.taxes)?;
            let of_sheet = sheet.lines.iter().map(|&at| lines[at].clone()).collect();
            for (position, &at) in sheet.lines.iter().enumerate() {
                place.insert(at, (number, position));
            }
            let mut draft = total_up(account, due_ms, of_sheet, self.measured_to_ms, sheet, totals);
            draft.coverage_percent = self.coverage_percent;
            draft.open = open_reason(&draft, self.usage_from_ms, facts).or_else(|| unmeasured_reason(&draft, facts));
            prepared.push(Prepared {
                draft,
                charges: Vec::new(),
                items: Vec::new(),
            });
        }
        for charge in self.charges {
            if let Some(&(sheet, line)) = place.get(&charge.line) {
                prepared[sheet].charges.push(Charge { line, ..charge });
            }
        }
        for (at, item) in (first_item..).zip(self.items) {
            if let Some(&(sheet, _)) = place.get(&at) {
                prepared[sheet].items.push(item);
            }
        }
        Ok(prepared)
    }
}

/// The usage of an invoice that is pooled; none where the customer did not agree to it.
fn shares(account: &Account, group: &[DueCharge], facts: &Facts<'_>) -> Result<Vec<Share>, BillingError> {
    let mut shares = Vec::new();
    if !account.customer.billing.pools_usage {
        return Ok(shares);
    }
    for due in group.iter().filter(|due| due.what == ChargeKind::Usage) {
        let phase = &account.contracts[due.contract].phases[due.phase];
        let period = due.charged.period;
        let used = facts.used.get(&(phase.id, period.start_ms));
        let (Some((usage, _)), Some(charge)) = (used, rating::usage_charge(phase, &due.charged)?) else {
            continue;
        };
        let used = match &charge {
            UsageCharge::Transfer { .. } => Some(usage.billed_bytes),
            UsageCharge::Percentile { .. } => usage.percentile_95_bps,
        };
        shares.push(Share::new(due.key.clone(), phase, period, charge, used));
    }
    Ok(shares)
}

/// What the pools that a customer's charged months are of give each of their lines by what is known now, by the key of its
/// charge; nothing for those that need none.
fn granted_now(account: &Account, facts: &Facts<'_>) -> Result<HashMap<String, u64>, BillingError> {
    let mut granted = HashMap::new();
    for lines in &account.pools {
        let mut shares = Vec::with_capacity(lines.len());
        for (_, line) in lines {
            let (usage, excluded) = facts
                .used
                .get(&(line.phase, line.from_ms))
                .ok_or_else(|| BillingError::corrupt("usage of a pool", line.key.clone()))?;
            let measured = Measured::new(usage, line.measured.mode, excluded);
            shares.push(line.share(line.charge.used(&measured)));
        }
        granted.extend(pool::grants(&shares)?);
    }
    Ok(granted)
}

fn total_up(
    account: &Account,
    due_ms: i64,
    lines: Vec<DraftLine>,
    measured_to_ms: i64,
    sheet: &mut DocumentGroup,
    totals: DocumentTotals,
) -> Draft {
    let customer = &account.customer;
    let starts = lines.iter().map(|line| line.period_start_ms);
    let ends = lines.iter().map(|line| line.period_end_ms);
    let zone = account
        .contracts
        .first()
        .map(|contract| contract.subscription.time_zone_name());
    Draft {
        kind: if totals.total.minor < 0 {
            InvoiceKind::CreditNote
        } else {
            InvoiceKind::Invoice
        },
        customer: customer.id,
        customer_name: customer.name.clone(),
        currency: customer.currency,
        time_zone: zone.unwrap_or(customer.time_zone_name()).to_owned(),
        period_start_ms: starts.min().unwrap_or(due_ms),
        period_end_ms: ends.max().unwrap_or(due_ms),
        due_ms,
        measured_to_ms,
        coverage_percent: None,
        open: None,
        prices_include_tax: sheet.prices_include_tax,
        buyer: sheet.buyer.take(),
        // Before anything else: what its taxes are depends on where the seller is.
        unsettled: (!account.has_issuer)
            .then_some(HoldReason::Issuer)
            .or_else(|| sheet.unsettled.take()),
        lines,
        subtotal: totals.subtotal,
        taxes: totals.taxes,
        tax: totals.tax,
        total: totals.total,
    }
}

/// Percent of the windows that were measured, rounded down; attack traffic was measured, if not counted.
fn coverage(usage: &PeriodUsage) -> u32 {
    let known = usage.windows_measured.saturating_add(usage.windows_excluded);
    match known.saturating_mul(100).checked_div(usage.windows_expected) {
        Some(percent) => u32::try_from(percent).unwrap_or(100).min(100),
        None => 100,
    }
}

/// Why a draft that could be finalised waits for a person's word, if it does.
fn unmeasured_reason(draft: &Draft, facts: &Facts<'_>) -> Option<OpenReason> {
    let coverage_percent = draft.coverage_percent?;
    if facts.confirmed.contains(&(draft.customer, draft.due_ms)) {
        return None;
    }
    if facts.heard_until_ms < draft.due_ms {
        return Some(OpenReason::BeyondMeasured);
    }
    (coverage_percent < facts.min_coverage_percent).then_some(OpenReason::LowCoverage)
}

fn earlier(known_ms: Option<i64>, at_ms: i64) -> Option<i64> {
    Some(known_ms.map_or(at_ms, |known_ms| known_ms.min(at_ms)))
}

/// Why a draft cannot be finalised yet. What a person must settle holds it. Usage holds it until its windows are closed; a change of assignments holds it when
/// it touches usage from `usage_from_ms` on; without usage nothing does.
fn open_reason(draft: &Draft, usage_from_ms: Option<i64>, facts: &Facts<'_>) -> Option<OpenReason> {
    if facts.now_ms < draft.due_ms {
        return Some(OpenReason::NotOver);
    }
    match draft.unsettled {
        Some(HoldReason::Rate(_)) => return Some(OpenReason::TaxRateMissing),
        Some(HoldReason::VatNumber { .. }) => return Some(OpenReason::VatNumberUnconfirmed),
        Some(HoldReason::Issuer) => return Some(OpenReason::IssuerIncomplete),
        None => {}
    }
    let usage_from_ms = usage_from_ms?;
    if draft.measured_to_ms < draft.due_ms {
        return Some(OpenReason::WindowsOpen);
    }
    let touches = |change: &AttributionChange| {
        change.from_ms < draft.due_ms && change.to_ms.is_none_or(|to_ms| to_ms > usage_from_ms)
    };
    facts
        .pending
        .iter()
        .any(touches)
        .then_some(OpenReason::AttributionPending)
}

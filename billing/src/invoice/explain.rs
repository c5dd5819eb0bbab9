//! Why a line says what it says (B5): recomputed from stored flows, and taken apart into days and peers.

use std::collections::HashMap;

use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId};
use schemas::inventory::{self, Service};
use schemas::money::Money;
use schemas::usage::{Peer, UsageMode, WindowUsage};
use schemas::usage::{percentile_95_bps, rank_95};
use schemas::window::{WINDOW_MS, windows};
use sqlx::AnyConnection;

use super::history::{ChargedUsage, charged_lines, charged_month, pool_lines};
use super::pool::{self, PoolLine};
use super::read::time_zone_of;
use super::{InvoiceLine, get, line};
use crate::evidence::{Evidence, Measured, MeasuredGap, UsageCharge};
use crate::{BillingError, exclusion, rating};
use schemas::usage::UsageSource;

/// Peers that an explanation names.
pub const TOP_PEERS: usize = 10;

/// A usage line beside what stored flows say now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineCheck {
    pub line: InvoiceLineId,
    pub position: i64,
    pub description: String,
    /// Measured usage, quantity and amount are the same to the last byte.
    pub equal: bool,
    pub invoiced: Measured,
    pub recomputed: Measured,
    pub invoiced_amount: Money,
    /// Of the flows as they are now, without what is excluded now where they differ from the line.
    pub recomputed_amount: Money,
    /// Later documents have adjusted what differs, or it comes to the same amount, or all that it would give back was given
    /// back by other causes (B6): nothing is left to charge or give back for the month by the flows as they are now. Of a void
    /// invoice nothing is.
    pub is_adjusted: bool,
}

impl LineCheck {
    /// Whether flows say something that no document has charged or given back.
    pub fn is_open(&self) -> bool {
        !self.equal && !self.is_adjusted
    }
}

/// What a service used on one local day of a line's period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DayUsage {
    pub start_ms: i64,
    pub end_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes that count by the plan's mode; for the larger of two directions, those of the direction that was charged.
    pub billed_bytes: u64,
    pub windows_measured: u32,
    pub windows: u32,
    /// Sampling error of both directions together in 95 of 100 cases, in parts per million; 0 = every packet was counted.
    pub error_bound_ppm: u32,
}

/// A usage line taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub line: InvoiceLine,
    pub service: Service,
    pub charge: UsageCharge,
    /// What the line was computed from.
    pub measured: Measured,
    pub days: Vec<DayUsage>,
    /// The remote addresses with most traffic in the period, largest first.
    pub peers: Vec<Peer>,
}

/// Recomputes every usage line of an invoice from stored flows alone. A line that differs is a finding, not an error:
/// late data may have changed the flows since (then the next invoice adjusts it).
///
/// # Errors
/// When the invoice does not exist or the flows cannot be read.
pub async fn recompute(
    database: &Database,
    usage: &dyn UsageSource,
    invoice: InvoiceId,
) -> Result<Vec<LineCheck>, BillingError> {
    let mut checks = Vec::new();
    let found = get(database, invoice).await?;
    let customer = found.invoice.customer;
    let mut pools = Pools::new();
    let mut connection = database.pool().acquire().await?;
    let exclusions = exclusion::in_force(&mut *connection).await?;
    drop(connection);
    for line in found.lines {
        let (charge, invoiced, already_charged_minor) = match &line.evidence {
            Evidence::Usage { charge, measured, .. } => (charge, measured, 0),
            Evidence::Adjustment {
                charge,
                measured,
                charged_minor,
                given_elsewhere_minor,
                ..
            } => (charge, measured, charged_minor - given_elsewhere_minor),
            _ => continue,
        };
        let service = service_of(database, &line).await?;
        let windows = usage
            .windows_from_flows(&service, line.period_start_ms, line.period_end_ms)
            .await?;
        let recomputed = measure(&windows, invoiced);
        let already_charged = Money::new(already_charged_minor, line.amount.currency);
        let amount_of = |measured: &Measured| -> Result<Money, BillingError> {
            let due = rating::rate_usage(charge, measured, line.amount.currency)?.amount;
            Ok(due.checked_add(already_charged.checked_neg()?)?)
        };
        let mut recomputed_amount = amount_of(&recomputed)?;
        let equal = recomputed == *invoiced && recomputed_amount == line.priced;
        let mut is_adjusted = false;
        if !equal {
            // By what is not billed now: that is what the next invoice goes by.
            let of_service = exclusions.get(&service.id).map_or(&[][..], Vec::as_slice);
            let time = (line.period_start_ms, line.period_end_ms);
            let excluded = exclusion::touching(of_service, time.0, time.1);
            recomputed_amount = amount_of(&measure(&windows, &counting(invoiced, time, &excluded)))?;
            let known = MeasuredWindows {
                windows: &windows,
                excluded: &excluded,
            };
            is_adjusted = self::is_adjusted(database, usage, customer, (&line, known), &mut pools).await?;
        }
        checks.push(LineCheck {
            is_adjusted,
            line: line.id,
            position: line.position,
            equal,
            invoiced: invoiced.clone(),
            recomputed,
            invoiced_amount: line.priced,
            recomputed_amount,
            description: line.description,
        });
    }
    Ok(checks)
}

/// Takes a usage line apart into local days and top peers.
///
/// # Errors
/// [`BillingError::NoUsage`] for a line that does not come from usage; when the line does not exist.
pub async fn explain(
    database: &Database,
    usage: &dyn UsageSource,
    line_id: InvoiceLineId,
) -> Result<Explanation, BillingError> {
    let line = line(database.pool(), line_id).await?;
    let (charge, measured) = match &line.evidence {
        Evidence::Usage { charge, measured, .. } | Evidence::Adjustment { charge, measured, .. } => {
            (charge.clone(), measured.clone())
        }
        _ => return Err(BillingError::NoUsage(line_id)),
    };
    let service = service_of(database, &line).await?;
    // The document's zone: the service may be another customer's by now.
    let zone = inventory::zone_named(&time_zone_of(database.pool(), line.invoice).await?)?;
    let (from_ms, to_ms) = (line.period_start_ms, line.period_end_ms);
    let points = usage.days(&service, from_ms, to_ms, &zone).await?;
    let days = points.iter().map(|point| DayUsage {
        start_ms: point.start_ms,
        end_ms: point.end_ms,
        bytes_in: point.bytes_in,
        bytes_out: point.bytes_out,
        billed_bytes: match measured.mode {
            UsageMode::Sum => point.bytes_in.saturating_add(point.bytes_out),
            UsageMode::In => point.bytes_in,
            UsageMode::Out => point.bytes_out,
            UsageMode::Max if measured.bytes_in >= measured.bytes_out => point.bytes_in,
            UsageMode::Max => point.bytes_out,
        },
        windows_measured: point.windows_measured,
        windows: point.windows,
        error_bound_ppm: point.error_bound_ppm,
    });
    let days = days.collect();
    let peers = usage.top_peers(&service, from_ms, to_ms, TOP_PEERS).await?;
    Ok(Explanation {
        line,
        service,
        charge,
        measured,
        days,
        peers,
    })
}

/// Which pools, by invoice and time, were adjusted: each is looked at once.
type Pools = HashMap<(InvoiceId, i64, i64), bool>;

/// What is known of a line's time now.
#[derive(Clone, Copy)]
struct MeasuredWindows<'a> {
    windows: &'a [WindowUsage],
    /// What of it is not billed.
    excluded: &'a [(i64, i64)],
}

/// Whether nothing is left to charge or give back of a month that comes to `due` now: it was charged and adjusted so, or it
/// comes to less, of which nothing is left because credit notes gave it back (B6).
fn is_settled(month: &ChargedUsage, due: Money) -> bool {
    let nothing_left = || month.charges.iter().all(|charge| charge.left_minor == 0);
    due == month.charged_so_far || (due.minor < month.charged_so_far.minor && nothing_left())
}

/// Whether what was charged for a line's month, with its adjustments and what took those back, is what flows come to
/// now; where it was pooled, for all who shared.
async fn is_adjusted(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    (line, known): (&InvoiceLine, MeasuredWindows<'_>),
    pools: &mut Pools,
) -> Result<bool, BillingError> {
    let Some(subscription) = line.subscription else {
        return Ok(false);
    };
    let mut connection = database.pool().acquire().await?;
    let Some(month) = charged_month(&mut connection, subscription, line.period_start_ms).await? else {
        return Ok(true);
    };
    let key = (month.invoice, month.from_ms, month.to_ms);
    if let Some(&is_adjusted) = pools.get(&key) {
        return Ok(is_adjusted);
    }
    let lines = pool_lines(&mut connection, std::slice::from_ref(&month)).await?;
    let lines = lines.into_values().next().unwrap_or_default();
    let pools_now = inventory::customer(&mut *connection, customer)
        .await?
        .billing
        .pools_usage;
    if !pool::was_pooled(&lines, pools_now)? {
        let time = (month.from_ms, month.to_ms);
        let measured = measure(known.windows, &counting(&month.last_measured, time, known.excluded));
        let due = rating::rate_usage(&month.charge, &measured, line.amount.currency)?.amount;
        return Ok(is_settled(&month, due));
    }
    let shared = Shared::load(&mut connection, lines).await?;
    drop(connection);
    let is_adjusted = shared.is_adjusted(usage).await?;
    pools.insert(key, is_adjusted);
    Ok(is_adjusted)
}

/// The lines of a pool, and what is needed to compute it anew.
struct Shared(Vec<SharedLine>);

struct SharedLine {
    line: PoolLine,
    month: ChargedUsage,
    service: Service,
    /// What of it is not billed by now.
    excluded: Vec<(i64, i64)>,
}

impl Shared {
    async fn load(connection: &mut AnyConnection, lines: Vec<PoolLine>) -> Result<Shared, BillingError> {
        let months = charged_lines(&mut *connection, &lines).await?;
        let exclusions = exclusion::in_force(&mut *connection).await?;
        let mut shared = Vec::with_capacity(lines.len());
        for (line, month) in lines.into_iter().zip(months) {
            let of_service = exclusions.get(&line.service).map_or(&[][..], Vec::as_slice);
            shared.push(SharedLine {
                service: inventory::service(&mut *connection, line.service).await?,
                excluded: exclusion::touching(of_service, line.from_ms, line.to_ms),
                line,
                month,
            });
        }
        Ok(Shared(shared))
    }

    /// Whether of each of its lines nothing is left to charge or give back by what the pool comes to now.
    async fn is_adjusted(&self, usage: &dyn UsageSource) -> Result<bool, BillingError> {
        let mut measured = Vec::with_capacity(self.0.len());
        let mut shares = Vec::with_capacity(self.0.len());
        for SharedLine {
            line,
            month,
            service,
            excluded,
        } in &self.0
        {
            let windows = usage.windows_from_flows(service, line.from_ms, line.to_ms).await?;
            let known = measure(
                &windows,
                &counting(&month.last_measured, (month.from_ms, month.to_ms), excluded),
            );
            shares.push(line.share(line.charge.used(&known)));
            measured.push(known);
        }
        let granted = pool::grants(&shares)?;
        for (SharedLine { line, month, .. }, known) in self.0.iter().zip(&measured) {
            let from_pool = granted.get(&line.key).copied().unwrap_or(0);
            let charge = line.charge.clone().with_pool(from_pool);
            let due = rating::rate_usage(&charge, known, month.charged_so_far.currency)?.amount;
            if !is_settled(month, due) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a time was measured as before, with what is not billed by now: a flag that changed no amount is on no line.
fn counting(before: &Measured, (from_ms, to_ms): (i64, i64), excluded: &[(i64, i64)]) -> Measured {
    if before.excluded == excluded {
        return before.clone();
    }
    let is_excluded = |start_ms: i64| {
        let mut excluded = excluded.iter();
        excluded.any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&start_ms))
    };
    let all = windows(from_ms, to_ms);
    let windows_excluded = all.filter(|window| is_excluded(window.start_ms())).count() as u64;
    let known = before.windows_measured.saturating_add(before.windows_excluded);
    Measured {
        excluded: excluded.to_vec(),
        windows_excluded,
        windows_measured: known.saturating_sub(windows_excluded),
        ..before.clone()
    }
}

async fn service_of(database: &Database, line: &InvoiceLine) -> Result<Service, BillingError> {
    let id = line.service.ok_or(BillingError::NoUsage(line.id))?;
    Ok(inventory::service(database.pool(), id).await?)
}

/// What the windows of a period add up to, with the coverage that the invoice states: which windows count is a fact about
/// exporters, not about the service's flows.
fn measure(windows: &[WindowUsage], invoiced: &Measured) -> Measured {
    let is_excluded = |window: &&WindowUsage| {
        let start_ms = window.window_start_ms;
        invoiced
            .excluded
            .iter()
            .any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&start_ms))
    };
    let (left_out, windows): (Vec<&WindowUsage>, Vec<&WindowUsage>) = windows.iter().partition(is_excluded);
    let sum = |of_windows: &[&WindowUsage], bytes: fn(&WindowUsage) -> u64| {
        of_windows
            .iter()
            .map(|window| bytes(window))
            .fold(0, u64::saturating_add)
    };
    let bytes_in = sum(&windows, |window| window.bytes_in);
    let bytes_out = sum(&windows, |window| window.bytes_out);
    let in_gap = |window: &&&WindowUsage| {
        let end_ms = window.window_start_ms + WINDOW_MS;
        let overlaps = |gap: &MeasuredGap| gap.from_ms < end_ms && window.window_start_ms < gap.to_ms;
        invoiced.gaps.iter().any(overlaps)
    };
    // Measured windows without flows count as 0.
    let mut ranked = vec![(0, 0); usize::try_from(invoiced.windows_measured).unwrap_or(0)];
    for (slot, window) in ranked.iter_mut().zip(windows.iter().filter(|window| !in_gap(window))) {
        *slot = (window.bytes_in, window.bytes_out);
    }
    Measured {
        mode: invoiced.mode,
        bytes_in,
        bytes_out,
        billed_bytes: match invoiced.mode {
            UsageMode::Sum => bytes_in.saturating_add(bytes_out),
            UsageMode::In => bytes_in,
            UsageMode::Out => bytes_out,
            UsageMode::Max => bytes_in.max(bytes_out),
        },
        percentile_95_bps: percentile_95_bps(&ranked, invoiced.mode),
        percentile_rank: rank_95(invoiced.windows_measured),
        windows_measured: invoiced.windows_measured,
        windows_expected: invoiced.windows_expected,
        gaps: invoiced.gaps.clone(),
        excluded: invoiced.excluded.clone(),
        windows_excluded: invoiced.windows_excluded,
        excluded_bytes_in: sum(&left_out, |window| window.bytes_in),
        excluded_bytes_out: sum(&left_out, |window| window.bytes_out),
    }
}

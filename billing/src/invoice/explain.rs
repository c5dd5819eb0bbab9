//! Why a line says what it says (B5): recomputed from stored flows, and taken apart into days and peers.

use analytics::percentile::{percentile_95_bps, rank_95};
use analytics::{Peer, UsageMode, WindowUsage};
use schemas::db::Database;
use schemas::ids::{InvoiceId, InvoiceLineId};
use schemas::inventory::{self, Service};
use schemas::money::Money;
use schemas::window::WINDOW_MS;

use super::history::charged_month;
use super::read::time_zone_of;
use super::{InvoiceLine, get, line};
use crate::evidence::{Evidence, Measured, MeasuredGap, UsageCharge};
use crate::rating;
use crate::{BillingError, UsageSource};

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
    pub recomputed_amount: Money,
    /// Later documents have adjusted what differs, or it comes to the same amount: nothing is left to charge or give
    /// back for
    /// the month by the flows as they are now. Of a void invoice nothing is.
    pub is_adjusted: bool,
}

impl LineCheck {
    /// Whether flows say something that no document has charged or given back.
    pub fn is_open(&self) -> bool {
        !self.equal && !self.is_adjusted
    }
}

/// What a service used on one local day of a line's period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct DayUsage {
    pub start_ms: i64,
    pub end_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes that count by the plan's mode; for the larger of two directions, those of the direction that was charged.
    pub billed_bytes: u64,
    pub windows_measured: u32,
    pub windows: u32,
    /// Sampling error of both directions together, as [`analytics::SeriesPoint`] has it.
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
pub async fn recompute<U: UsageSource>(
    database: &Database,
    usage: &U,
    invoice: InvoiceId,
) -> Result<Vec<LineCheck>, BillingError> {
    let mut checks = Vec::new();
    for line in get(database, invoice).await?.lines {
        let (charge, invoiced, already_charged_minor) = match &line.evidence {
            Evidence::Usage { charge, measured } => (charge, measured, 0),
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
        let due = rating::rate_usage(charge, &recomputed, line.amount.currency)?.amount;
        let already_charged = Money::new(already_charged_minor, line.amount.currency);
        let recomputed_amount = due.checked_add(already_charged.checked_neg()?)?;
        let equal = recomputed == *invoiced && recomputed_amount == line.priced;
        let is_adjusted = !equal && is_adjusted(database, &line, &windows).await?;
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
pub async fn explain<U: UsageSource>(
    database: &Database,
    usage: &U,
    line_id: InvoiceLineId,
) -> Result<Explanation, BillingError> {
    let line = line(database.pool(), line_id).await?;
    let (charge, measured) = match &line.evidence {
        Evidence::Usage { charge, measured } | Evidence::Adjustment { charge, measured, .. } => {
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

/// Whether what was charged for a line's month, with its adjustments and what took those back, is what flows come to
/// now.
async fn is_adjusted(database: &Database, line: &InvoiceLine, windows: &[WindowUsage]) -> Result<bool, BillingError> {
    let Some(subscription) = line.subscription else {
        return Ok(false);
    };
    let mut connection = database.pool().acquire().await?;
    let Some(month) = charged_month(&mut connection, subscription, line.period_start_ms).await? else {
        return Ok(true);
    };
    let measured = measure(windows, &month.last_measured);
    let due = rating::rate_usage(&month.charge, &measured, line.amount.currency)?.amount;
    Ok(due == month.charged_so_far)
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
    let bytes_in = windows.iter().map(|window| window.bytes_in).sum();
    let bytes_out = windows.iter().map(|window| window.bytes_out).sum();
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
            UsageMode::Sum => bytes_in + bytes_out,
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
        excluded_bytes_in: left_out.iter().map(|window| window.bytes_in).sum(),
        excluded_bytes_out: left_out.iter().map(|window| window.bytes_out).sum(),
    }
}

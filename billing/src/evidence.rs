//! What a line was computed from, kept with the line as JSON (B5).
//!
//! Evidence holds every input of the amount, so that a line can be rated again years later without asking the catalog,
//! and compared with what the flows say then.

use schemas::address::Address;
use schemas::ids::{ChargeItemId, InvoiceId, InvoiceLineId};
use schemas::usage::{PeriodUsage, UsageMode};
use serde::{Deserialize, Serialize};

use crate::catalog::QuotaUnit;
use crate::line_kind::LineKind;
use crate::price::UsagePrice;

/// What an invoice line was computed from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "a line has one, and few lines are in memory at once"
)]
pub enum Evidence {
    /// The price of a cycle, for its days.
    Base(BaseCharge),
    /// What a coupon takes off the base price of a cycle.
    Discount {
        code: String,
        /// The base price, for its days, that it is taken off.
        off_minor: i64,
        /// `None` for a coupon of an amount.
        percent: Option<String>,
        /// For the months that it is for; `None` for a coupon of a percentage.
        amount_minor: Option<i64>,
        /// The months that an amount is for; 0 on lines from before this was kept: for the cycle.
        #[serde(default)]
        amount_months: i64,
        /// Where it does not cover the period as a whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        covered: Option<Covered>,
    },
    /// Days that were charged in advance and are not used, because the terms changed or the subscription ended.
    Unused {
        corrects_invoice: InvoiceId,
        corrects_number: String,
        corrects_line: InvoiceLineId,
        /// As it was charged.
        charged: BaseCharge,
        /// What a coupon took off it, negative, where the line gives that back too; 0 where another line does.
        discount_minor: i64,
        unused_days: i64,
        /// What of these days had been given back before, so that it is not given back again (B6).
        #[serde(default)]
        given_before_minor: i64,
        /// The code of the coupon that had taken off all that these days cost, so that nothing is left to give back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        free_by: Option<String>,
    },
    /// The discount of days that were charged in advance and are not used: it is not had for them.
    DiscountUnused {
        corrects_invoice: InvoiceId,
        corrects_number: String,
        corrects_line: InvoiceLineId,
        code: String,
        /// What the coupon took off, negative.
        discount_minor: i64,
        /// Days that it covered, and those of them that are not used.
        covered_days: i64,
        unused_days: i64,
        /// The same in months, where the coupon covered a part of the period: then the share is that of months.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        months: Option<UnusedMonths>,
    },
    /// Usage at the terms that held.
    Usage {
        charge: UsageCharge,
        measured: Measured,
        /// Whether the customer's services shared what is included as it was charged: its corrections share it too. Lines from
        /// before this was kept do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_pooled: Option<bool>,
    },
    /// The usage of a period that was charged already has changed: late data, flows that were put right, attack traffic that is
    /// left out or counted again (B3).
    Adjustment {
        corrects_invoice: InvoiceId,
        corrects_number: String,
        corrects_line: InvoiceLineId,
        /// The usage as it was charged at first.
        charged: Measured,
        /// The number of the document that charged it, where that is another than the one that is corrected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        charged_on: Option<String>,
        /// Charged for that period so far, by the first line and earlier adjustments.
        charged_minor: i64,
        /// What the period costs by the usage known now.
        due_minor: i64,
        /// What of the difference had been given back before or is on another line, so that it is not given back here (B6).
        #[serde(default)]
        given_elsewhere_minor: i64,
        charge: UsageCharge,
        measured: Measured,
    },
    /// What somebody charged or credited by hand.
    Item { item: ChargeItemId, created_by: String },
    /// A credit note takes a line back, or a part of an invoice.
    Reversal {
        corrects_invoice: InvoiceId,
        corrects_number: String,
        corrects_line: Option<InvoiceLineId>,
        /// Of a part: what the line that is taken back charged, whose revenue is taken back. Older documents have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of_kind: Option<LineKind>,
    },
}

/// What a coupon covers of a charged period that it does not cover as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Covered {
    /// The first local day that is not covered, as YYYY-MM-DD.
    pub until: String,
    #[serde(flatten)]
    pub time: MonthCount,
    /// What a percentage is taken off: a unit for so many months costs so much.
    pub price_minor: i64,
    pub price_months: i64,
}

/// A time in months of the period that is charged: days of the first month where it is in part, whole months, days of the last.
/// Lines of older versions counted from the first day of the terms, so they have no first part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MonthCount {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<PartOfMonth>,
    pub months: i64,
    pub days: i64,
    /// Of the month that the days are of.
    pub month_days: i64,
}

/// Days out of a month's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PartOfMonth {
    pub days: i64,
    pub month_days: i64,
}

/// The time that a discount covered, and what of it is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UnusedMonths {
    pub covered: MonthCount,
    pub unused: MonthCount,
}

/// The price of a cycle, for its days.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BaseCharge {
    /// Of one unit and a whole cycle.
    pub base_minor: i64,
    pub quantity: i64,
    pub days: i64,
    pub nominal_days: i64,
}

/// What is charged per unit over what is included, in one period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum UsageCharge {
    Transfer {
        unit: QuotaUnit,
        /// Included in this period, prorated.
        included_bytes: u64,
        /// What other services of the customer leave of theirs.
        #[serde(default)]
        from_pool_bytes: u64,
        /// Of a quota unit.
        price: UsagePrice,
    },
    Percentile {
        commit_bps: u64,
        /// What other services of the customer leave of theirs.
        #[serde(default)]
        from_pool_bps: u64,
        /// Of an Mbit/s (10⁶ bit/s) and a whole month.
        price: UsagePrice,
        /// Paid for by the base price.
        days: i64,
        nominal_days: i64,
        /// How long the terms held, where they began or ended within a day: then this share of the month is charged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<PartialMonth>,
    },
}

/// A part of a month that is not whole days.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PartialMonth)]
pub struct PartialMonth {
    pub ms: i64,
    /// Of the whole month.
    pub nominal_ms: i64,
}

impl UsageCharge {
    /// The same with `grant`, in bytes or bits per second, from the pool.
    #[must_use]
    pub fn with_pool(mut self, grant: u64) -> UsageCharge {
        match &mut self {
            UsageCharge::Transfer { from_pool_bytes, .. } => *from_pool_bytes = grant,
            UsageCharge::Percentile { from_pool_bps, .. } => *from_pool_bps = grant,
        }
        self
    }

    /// What it got from the pool, in bytes or bits per second.
    pub fn from_pool(&self) -> u64 {
        match self {
            UsageCharge::Transfer { from_pool_bytes, .. } => *from_pool_bytes,
            UsageCharge::Percentile { from_pool_bps, .. } => *from_pool_bps,
        }
    }

    /// What of a measurement counts against what is included: bytes, or bits per second; `None` where nothing was measured.
    pub fn used(&self, measured: &Measured) -> Option<u64> {
        match self {
            UsageCharge::Transfer { .. } => Some(measured.billed_bytes),
            UsageCharge::Percentile { .. } => measured.percentile_95_bps,
        }
    }

    /// Of a unit over what is included.
    pub fn price(&self) -> &UsagePrice {
        match self {
            UsageCharge::Transfer { price, .. } | UsageCharge::Percentile { price, .. } => price,
        }
    }
}

/// What was measured in one period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Measured {
    pub mode: UsageMode,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes that count by the mode.
    pub billed_bytes: u64,
    /// `None` when no window was measured.
    pub percentile_95_bps: Option<u64>,
    /// Nearest rank used, 1-based, of `windows_measured` windows ascending.
    pub percentile_rank: u64,
    pub windows_measured: u64,
    pub windows_expected: u64,
    pub gaps: Vec<MeasuredGap>,
    /// Times that are not billed, by decision of ops, and what their windows hold: in none of the other sums.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<i64>>)]
    pub excluded: Vec<(i64, i64)>,
    #[serde(default)]
    pub windows_excluded: u64,
    #[serde(default)]
    pub excluded_bytes_in: u64,
    #[serde(default)]
    pub excluded_bytes_out: u64,
}

/// A time in which an exporter that meters the service was not heard: not counted, and never estimated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MeasuredGap {
    pub from_ms: i64,
    pub to_ms: i64,
    pub exporter: Address,
}

impl Measured {
    pub fn new(usage: &PeriodUsage, mode: UsageMode, excluded: &[(i64, i64)]) -> Measured {
        let gap = |gap: &schemas::usage::Gap| MeasuredGap {
            from_ms: gap.from_ms,
            to_ms: gap.to_ms,
            exporter: gap.exporter,
        };
        Measured {
            mode,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            billed_bytes: usage.billed_bytes,
            percentile_95_bps: usage.percentile_95_bps,
            percentile_rank: usage.percentile_rank,
            windows_measured: usage.windows_measured,
            windows_expected: usage.windows_expected,
            gaps: usage.gaps.iter().map(gap).collect(),
            excluded: excluded.to_vec(),
            windows_excluded: usage.windows_excluded,
            excluded_bytes_in: usage.excluded_bytes_in,
            excluded_bytes_out: usage.excluded_bytes_out,
        }
    }
}

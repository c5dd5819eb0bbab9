//! What a line was computed from, kept with the line as JSON (B5).
//!
//! Evidence holds every input of the amount, so that a line can be rated again years later without asking the catalog,
//! and compared with what the flows say then.

use analytics::{PeriodUsage, UsageMode};
use rust_decimal::Decimal;
use schemas::address::Address;
use schemas::ids::{InvoiceId, InvoiceLineId};
use serde::{Deserialize, Serialize};

use crate::catalog::QuotaUnit;

/// What an invoice line was computed from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// The price of a cycle, for its days.
    Base {
        base_minor: i64,
        days: i64,
        nominal_days: i64,
    },
    /// Usage at the terms that held.
    Usage { charge: UsageCharge, measured: Measured },
    /// Late data changed the usage of a period that was charged already (B3).
    Adjustment {
        corrects_invoice: InvoiceId,
        corrects_number: String,
        corrects_line: InvoiceLineId,
        /// The usage as it was charged on that line.
        charged: Measured,
        /// Charged for that period so far, by that line and earlier adjustments.
        charged_minor: i64,
        /// What the period costs by the usage known now.
        due_minor: i64,
        charge: UsageCharge,
        measured: Measured,
    },
}

/// What is charged per unit over what is included, in one period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum UsageCharge {
    Transfer {
        unit: QuotaUnit,
        /// Included in this period, prorated.
        included_bytes: u64,
        /// Major units per quota unit.
        #[serde(with = "decimal_text")]
        rate: Decimal,
    },
    Percentile {
        commit_bps: u64,
        /// Major units per Mbps (10⁶ bit/s) and nominal period.
        #[serde(with = "decimal_text")]
        rate: Decimal,
        days: i64,
        nominal_days: i64,
    },
}

impl UsageCharge {
    /// Major units per unit over what is included.
    pub fn rate(&self) -> Decimal {
        match self {
            UsageCharge::Transfer { rate, .. } | UsageCharge::Percentile { rate, .. } => *rate,
        }
    }
}

/// What was measured in one period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
}

/// A time in which an exporter that meters the service was not heard: not counted, and never estimated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MeasuredGap {
    pub from_ms: i64,
    pub to_ms: i64,
    pub exporter: Address,
}

impl Measured {
    pub fn new(usage: &PeriodUsage, mode: UsageMode) -> Measured {
        let gap = |gap: &analytics::Gap| MeasuredGap {
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
        }
    }
}

/// Exact decimals are text in JSON, whose numbers many readers take for floats.
mod decimal_text {
    use rust_decimal::Decimal;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

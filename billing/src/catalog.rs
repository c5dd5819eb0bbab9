//! Plans and their prices (F-4, F-20).
//!
//! A plan says what is included and how usage is counted; a price says what that costs in one currency and cycle. A plan
//! is one of three kinds, and only the fields of its kind exist ([`Terms`]). A change of price is a new price with a later
//! `valid_from`; subscriptions keep the price they were made with.

use analytics::UsageMode;
use rust_decimal::Decimal;
use schemas::db::next_id;
use schemas::ids::{PlanId, PriceId};
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;

/// Characters in the name of a plan at most.
pub const MAX_PLAN_NAME_CHARS: usize = 120;
/// Characters in the name of a service type at most.
pub const MAX_SERVICE_TYPE_CHARS: usize = 40;
/// Quota units a plan can include at most: a million terabytes.
pub const MAX_INCLUDED_UNITS: i64 = 1_000_000_000;
/// Mbps a plan can commit at most: 100 Tbps.
pub const MAX_COMMIT_MBPS: i64 = 100_000_000;
/// Major units that a quota unit or an Mbps can cost at most.
pub const MAX_USAGE_RATE: i64 = 1_000_000;
/// Decimal places of a usage rate at most. With the limits above, rating fits 128-bit integers.
pub const MAX_RATE_PLACES: u32 = 9;
/// Decimal places of a commit at most: a commit is whole bits per second.
pub const MAX_COMMIT_PLACES: u32 = 6;
/// Minor units that a cycle can cost at most.
pub const MAX_BASE_MINOR: i64 = 1_000_000_000_000;
/// Months in a billing cycle at most.
pub const MAX_CYCLE_MONTHS: i64 = 120;

/// What one unit of transfer is (F-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum QuotaUnit {
    /// 1000³ bytes.
    #[serde(rename = "GB")]
    Gb,
    /// 1024³ bytes: what the owner's plans mean.
    #[default]
    #[serde(rename = "GiB")]
    Gib,
}

impl QuotaUnit {
    pub fn bytes(self) -> u64 {
        match self {
            QuotaUnit::Gb => 1_000_000_000,
            QuotaUnit::Gib => 1 << 30,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            QuotaUnit::Gb => "GB",
            QuotaUnit::Gib => "GiB",
        }
    }
}

impl std::str::FromStr for QuotaUnit {
    type Err = BillingError;

    fn from_str(text: &str) -> Result<QuotaUnit, BillingError> {
        match text {
            "GB" => Ok(QuotaUnit::Gb),
            "GiB" => Ok(QuotaUnit::Gib),
            _ => Err(BillingError::corrupt("quota unit", text)),
        }
    }
}

impl std::fmt::Display for QuotaUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The name that a usage mode has in the database and on invoices.
pub fn mode_name(mode: UsageMode) -> &'static str {
    match mode {
        UsageMode::Sum => "sum",
        UsageMode::In => "in",
        UsageMode::Out => "out",
        UsageMode::Max => "max",
    }
}

/// How a plan charges for usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Terms {
    /// Not at all.
    Flat,
    /// Per quota unit over an included transfer.
    Transfer {
        included_units: i64,
        unit: QuotaUnit,
        mode: UsageMode,
    },
    /// Per Mbps (10⁶ bit/s) of the 95th percentile over a commit.
    Percentile { commit_mbps: Decimal, mode: UsageMode },
}

impl Terms {
    /// The name of the kind: `flat`, `transfer`, `percentile`.
    pub fn name(&self) -> &'static str {
        match self {
            Terms::Flat => "flat",
            Terms::Transfer { .. } => "transfer",
            Terms::Percentile { .. } => "percentile",
        }
    }

    /// Which directions count, where usage is charged.
    pub fn mode(&self) -> Option<UsageMode> {
        match *self {
            Terms::Flat => None,
            Terms::Transfer { mode, .. } | Terms::Percentile { mode, .. } => Some(mode),
        }
    }
}

/// What a service can be subscribed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub id: PlanId,
    pub name: String,
    pub service_type: String,
    pub terms: Terms,
    pub created_at_ms: i64,
    /// Since when nobody new can subscribe.
    pub archived_at_ms: Option<i64>,
}

/// A plan to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewPlan<'a> {
    pub name: &'a str,
    pub service_type: &'a str,
    pub terms: Terms,
}

/// What a plan costs in one currency and cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Price {
    pub id: PriceId,
    pub plan: PlanId,
    pub cycle_months: i64,
    /// Per cycle.
    pub base: Money,
    /// Major units per quota unit or Mbps over what is included; 0 for flat plans.
    pub usage_rate: Decimal,
    pub valid_from_ms: i64,
}

impl Price {
    pub fn currency(&self) -> Currency {
        self.base.currency
    }
}

/// A price to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewPrice {
    pub plan: PlanId,
    pub cycle_months: i64,
    pub base: Money,
    pub usage_rate: Decimal,
    pub valid_from_ms: i64,
}

const SELECT_PLAN: &str = "SELECT id, name, service_type, billing_model, included_transfer_units, quota_unit, usage_mode, commit_mbps, \
     created_at_ms, archived_at_ms FROM plans";
const SELECT_PRICE: &str =
    "SELECT id, plan_id, currency, cycle_months, base_minor, usage_rate, valid_from_ms FROM prices";

/// Checks and stores a plan.
///
/// # Errors
/// When a field is out of range.
pub async fn create_plan(connection: &mut AnyConnection, new: NewPlan<'_>, now_ms: i64) -> Result<Plan, BillingError> {
    let name = checked_text("plan name", new.name, MAX_PLAN_NAME_CHARS)?;
    let service_type = checked_text("service type", new.service_type, MAX_SERVICE_TYPE_CHARS)?;
    let (included_units, unit, mode, commit_mbps) = match new.terms {
        Terms::Flat => (0, QuotaUnit::default(), UsageMode::Sum, Decimal::ZERO),
        Terms::Transfer {
            included_units,
            unit,
            mode,
        } => (included_units, unit, mode, Decimal::ZERO),
        Terms::Percentile { commit_mbps, mode } => (0, QuotaUnit::default(), mode, commit_mbps),
    };
    check_decimal("included transfer", included_units.into(), MAX_INCLUDED_UNITS, 0)?;
    check_decimal("commit", commit_mbps, MAX_COMMIT_MBPS, MAX_COMMIT_PLACES)?;
    let plan = Plan {
        id: PlanId(next_id(connection, "plan").await?),
        name,
        service_type,
        terms: new.terms,
        created_at_ms: now_ms,
        archived_at_ms: None,
    };
    sqlx::query(
        "INSERT INTO plans (id, name, service_type, billing_model, included_transfer_units, quota_unit, usage_mode, \
         commit_mbps, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(plan.id.0)
    .bind(&plan.name)
    .bind(&plan.service_type)
    .bind(plan.terms.name())
    .bind(included_units)
    .bind(unit.name())
    .bind(mode_name(mode))
    .bind(commit_mbps.normalize().to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(plan)
}

/// Checks and stores a price.
///
/// # Errors
/// When a field is out of range, the plan does not exist, or it has a price from that instant on already.
pub async fn add_price(connection: &mut AnyConnection, new: NewPrice) -> Result<Price, BillingError> {
    let plan = plan(&mut *connection, new.plan).await?;
    check_decimal("usage rate", new.usage_rate, MAX_USAGE_RATE, MAX_RATE_PLACES)?;
    check_range("base price in minor units", new.base.minor, 0, MAX_BASE_MINOR)?;
    check_range("billing cycle in months", new.cycle_months, 1, MAX_CYCLE_MONTHS)?;
    // What is included is meant per month; a quarter of usage under a month's quota would be charged wrongly.
    if plan.terms != Terms::Flat && new.cycle_months != 1 {
        return Err(BillingError::UsageNeedsMonths(new.cycle_months));
    }
    let id = PriceId(next_id(connection, "price").await?);
    let same = sqlx::query(
        "SELECT id FROM prices WHERE plan_id = $1 AND currency = $2 AND cycle_months = $3 AND valid_from_ms = $4",
    )
    .bind(new.plan.0)
    .bind(new.base.currency.code())
    .bind(new.cycle_months)
    .bind(new.valid_from_ms)
    .fetch_optional(&mut *connection)
    .await?;
    if same.is_some() {
        return Err(BillingError::PriceExists {
            plan: new.plan,
            currency: new.base.currency,
            cycle_months: new.cycle_months,
        });
    }
    sqlx::query(
        "INSERT INTO prices (id, plan_id, currency, cycle_months, base_minor, usage_rate, valid_from_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id.0)
    .bind(new.plan.0)
    .bind(new.base.currency.code())
    .bind(new.cycle_months)
    .bind(new.base.minor)
    .bind(new.usage_rate.normalize().to_string())
    .bind(new.valid_from_ms)
    .execute(connection)
    .await?;
    Ok(Price {
        id,
        plan: new.plan,
        cycle_months: new.cycle_months,
        base: new.base,
        usage_rate: new.usage_rate.normalize(),
        valid_from_ms: new.valid_from_ms,
    })
}

/// Every plan, archived ones too, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn plans(db: impl AnyExecutor<'_>) -> Result<Vec<Plan>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_PLAN} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read_plan).collect()
}

/// One plan.
///
/// # Errors
/// [`BillingError::NoPlan`] when there is none of this id.
pub async fn plan(db: impl AnyExecutor<'_>, id: PlanId) -> Result<Plan, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_PLAN} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read_plan(&row.ok_or(BillingError::NoPlan(id))?)
}

/// Closes a plan to new subscriptions; those that exist go on. Archiving again changes nothing.
///
/// # Errors
/// [`BillingError::NoPlan`] when there is none of this id.
pub async fn archive_plan(connection: &mut AnyConnection, id: PlanId, now_ms: i64) -> Result<(), BillingError> {
    plan(&mut *connection, id).await?;
    sqlx::query("UPDATE plans SET archived_at_ms = $1 WHERE id = $2 AND archived_at_ms IS NULL")
        .bind(now_ms)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The prices of a plan, by currency, cycle and start.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn prices_of(db: impl AnyExecutor<'_>, plan: PlanId) -> Result<Vec<Price>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT_PRICE} WHERE plan_id = $1 ORDER BY currency, cycle_months, valid_from_ms"
    ));
    let rows = sqlx::query(sql).bind(plan.0).fetch_all(db).await?;
    rows.iter().map(read_price).collect()
}

/// One price.
///
/// # Errors
/// [`BillingError::NoPrice`] when there is none of this id.
pub async fn price(db: impl AnyExecutor<'_>, id: PriceId) -> Result<Price, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_PRICE} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read_price(&row.ok_or(BillingError::NoPrice(id))?)
}

/// The price of a plan that holds at an instant, if there is one in that currency and cycle.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn price_at(
    db: impl AnyExecutor<'_>,
    plan: PlanId,
    currency: Currency,
    cycle_months: i64,
    at_ms: i64,
) -> Result<Option<Price>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT_PRICE} WHERE plan_id = $1 AND currency = $2 AND cycle_months = $3 AND valid_from_ms <= $4 \
         ORDER BY valid_from_ms DESC LIMIT 1"
    ));
    let row = sqlx::query(sql)
        .bind(plan.0)
        .bind(currency.code())
        .bind(cycle_months)
        .bind(at_ms)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(read_price).transpose()
}

fn checked_text(field: &'static str, text: &str, max: usize) -> Result<String, BillingError> {
    let trimmed = text.trim();
    let chars = trimmed.chars().count();
    if chars == 0 || chars > max || trimmed.chars().any(char::is_control) {
        return Err(BillingError::Text {
            field,
            max,
            text: text.to_owned(),
        });
    }
    Ok(trimmed.to_owned())
}

fn check_range(field: &'static str, value: i64, min: i64, max: i64) -> Result<(), BillingError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(BillingError::OutOfRange {
        field,
        value: value.to_string(),
        min: min.to_string(),
        max: max.to_string(),
    })
}

/// From 0 to `max`, with at most `places` decimal places.
fn check_decimal(field: &'static str, value: Decimal, max: i64, places: u32) -> Result<(), BillingError> {
    if value < Decimal::ZERO || value > Decimal::from(max) {
        return Err(BillingError::OutOfRange {
            field,
            value: value.to_string(),
            min: "0".to_owned(),
            max: max.to_string(),
        });
    }
    if value.normalize().scale() > places {
        return Err(BillingError::TooFine {
            field,
            max: places,
            value: value.to_string(),
        });
    }
    Ok(())
}

pub(crate) fn read_decimal(what: &'static str, row: &AnyRow, column: &str) -> Result<Decimal, BillingError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| BillingError::Corrupt { what, text })
}

fn read_plan(row: &AnyRow) -> Result<Plan, BillingError> {
    let mode: String = row.try_get("usage_mode")?;
    let mode = match mode.as_str() {
        "sum" => UsageMode::Sum,
        "in" => UsageMode::In,
        "out" => UsageMode::Out,
        "max" => UsageMode::Max,
        _ => return Err(BillingError::corrupt("usage mode", mode)),
    };
    let model: String = row.try_get("billing_model")?;
    let terms = match model.as_str() {
        "flat" => Terms::Flat,
        "transfer" => Terms::Transfer {
            included_units: row.try_get("included_transfer_units")?,
            unit: row.try_get::<String, _>("quota_unit")?.parse()?,
            mode,
        },
        "percentile" => Terms::Percentile {
            commit_mbps: read_decimal("commit", row, "commit_mbps")?,
            mode,
        },
        _ => return Err(BillingError::corrupt("billing model", model)),
    };
    Ok(Plan {
        id: PlanId(row.try_get("id")?),
        name: row.try_get("name")?,
        service_type: row.try_get("service_type")?,
        terms,
        created_at_ms: row.try_get("created_at_ms")?,
        archived_at_ms: row.try_get("archived_at_ms")?,
    })
}

fn read_price(row: &AnyRow) -> Result<Price, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(Price {
        id: PriceId(row.try_get("id")?),
        plan: PlanId(row.try_get("plan_id")?),
        cycle_months: row.try_get("cycle_months")?,
        base: Money::new(row.try_get("base_minor")?, currency),
        usage_rate: read_decimal("usage rate", row, "usage_rate")?,
        valid_from_ms: row.try_get("valid_from_ms")?,
    })
}

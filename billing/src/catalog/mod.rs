//! Plans, their prices and coupons (F-4, F-20).
//!
//! A plan says what is included and how usage is counted; a price says what that costs in one currency and cycle. A plan
//! charges in one of three ways, and only the fields of its way exist ([`Terms`]). A change of price is a new version with
//! a later `valid_from`; subscriptions keep the version that they were made with until they are moved to another.

mod coupon;
mod sales;
mod spec;
mod version;

use std::collections::BTreeMap;

pub use coupon::{
    Coupon, Discount, NewCoupon, Redemption, archive_coupon, coupon, coupon_by_code, coupons, create_coupon,
};
pub(crate) use coupon::{keep_redemption, redeem};
use rust_decimal::Decimal;
pub use sales::{AddonSales, PlanSales, VersionSales, sold};
use schemas::db::next_id;
use schemas::ids::PlanId;
use schemas::money::Money;
use schemas::percent::Percent;
use schemas::usage::UsageMode;
pub(crate) use spec::grouped;
use spec::refuse_transfer_in_words;
pub use spec::{KNOWN as KNOWN_SPECS, PlanEdit, Spec, checked_specs, edit_change, edit_plan};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};
pub use version::{NewPrice, Price, add_price, price, price_at, prices, prices_of, usage_or_current};

use crate::BillingError;
use crate::field::{check_decimal, check_range, checked_text, named, read_decimal};
use crate::ratio::Ratio;

/// Characters in the name of a plan at most.
pub const MAX_PLAN_NAME_CHARS: usize = 120;
/// Characters in the name of a service type at most.
pub const MAX_SERVICE_TYPE_CHARS: usize = 40;
/// Quota units a plan can include at most: a million terabytes.
pub const MAX_INCLUDED_UNITS: i64 = 1_000_000_000;
/// Mbit/s a plan can commit at most: 100 Tbit/s.
pub const MAX_COMMIT_MBPS: i64 = 100_000_000;
/// Characters in the description of a plan at most.
pub const MAX_DESCRIPTION_CHARS: usize = 1000;
/// Attributes of a plan at most.
pub const MAX_ATTRIBUTES: i64 = 30;
/// Characters in the name or value of an attribute at most.
pub const MAX_ATTRIBUTE_CHARS: usize = 60;
/// Days of a trial at most.
pub const MAX_TRIAL_DAYS: i64 = 365;
/// How many of a plan can be in stock at most.
pub const MAX_STOCK: i64 = 1_000_000;
/// Decimal places of a commit at most: a commit is whole bits per second.
pub const MAX_COMMIT_PLACES: u32 = 6;
/// Minor units that a cycle can cost at most.
pub const MAX_BASE_MINOR: i64 = 1_000_000_000_000;
/// Months in a billing cycle at most.
pub const MAX_CYCLE_MONTHS: i64 = 120;

/// What one unit of transfer is (F-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
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
    /// Per Mbit/s (10⁶ bit/s) of the 95th percentile over a commit.
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

/// What a plan is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanKind {
    /// For a service of its own.
    Plan,
    /// Beside a plan, and ends with it.
    Addon,
    /// Agreed with one customer; not listed (F-28).
    Private,
}

/// When the base price of a cycle is charged; usage is always charged after it was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseTiming {
    Advance,
    Arrears,
}

/// What the plan page says of a plan (F-20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Badge {
    None,
    Popular,
    BestValue,
}

named!(PlanKind, "kind of plan", Plan => "plan", Addon => "addon", Private => "private");
named!(BaseTiming, "base timing", Advance => "advance", Arrears => "arrears");
named!(Badge, "badge", None => "", Popular => "popular", BestValue => "best_value");

/// What a service has by its plan: `vcpu` → `4`, in the order of their names; [`Plan::specs`] shows them.
pub type Attributes = BTreeMap<String, String>;

/// What a service can be subscribed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub id: PlanId,
    pub kind: PlanKind,
    pub name: String,
    pub description: String,
    pub service_type: String,
    pub terms: Terms,
    pub base_timing: BaseTiming,
    /// Days before the first charge.
    pub trial_days: i64,
    /// Each subscription has a trial; otherwise a customer's first one to the plan.
    pub trial_repeats: bool,
    pub attributes: Attributes,
    pub badge: Badge,
    /// How many more can be sold; `None`: any number.
    pub stock: Option<i64>,
    /// One per customer, never upgraded, ends without use (F-26).
    pub is_free: bool,
    /// Of six months paid at once (F-20).
    pub semi_annual_discount: Percent,
    pub created_at_ms: i64,
    /// Since when nobody new can subscribe.
    pub archived_at_ms: Option<i64>,
}

/// How a free plan is marked wherever plans are listed (F-26).
pub const FREE_MARK: &str = "Development";

impl Plan {
    /// Its name as lists show it: of a free plan with its mark.
    pub fn label(&self) -> String {
        if self.is_free && !self.name.contains(FREE_MARK) {
            return format!("{} ({FREE_MARK})", self.name);
        }
        self.name.clone()
    }

    /// The discount of a cycle (F-20): 5 % for 3 months, 10 % or the plan's own for 6, 15 % for 12, 20 % for 24.
    pub fn cycle_discount(&self, cycle_months: i64) -> Percent {
        match cycle_months {
            3 => percent(5),
            6 => self.semi_annual_discount,
            12 => percent(15),
            24 => percent(20),
            _ => percent(0),
        }
    }

    /// What a cycle costs by its discount, from the price of a month, rounded once.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn derived_base(&self, month: Money, cycle_months: i64) -> Result<Money, BillingError> {
        let kept = Decimal::ONE_HUNDRED - self.cycle_discount(cycle_months).value();
        let base = Ratio::money(month)?
            .times(Ratio::integer(cycle_months.into()))?
            .times(Ratio::decimal(kept)?)?
            .over(100)?;
        Ok(base.to_money(month.currency)?)
    }
}

/// The cycles that a plan is sold for (F-20), in months.
pub const CYCLES_MONTHS: [i64; 5] = [1, 3, 6, 12, 24];

fn percent(value: i64) -> Percent {
    // Every caller passes a constant between 0 and 100.
    Percent::new(Decimal::from(value)).unwrap_or_else(|_| unreachable!("{value} is a percentage"))
}

/// A plan to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPlan<'a> {
    pub kind: PlanKind,
    pub name: &'a str,
    pub description: &'a str,
    pub service_type: &'a str,
    pub terms: Terms,
    pub base_timing: BaseTiming,
    pub trial_days: i64,
    pub trial_repeats: bool,
    pub attributes: Attributes,
    pub badge: Badge,
    pub stock: Option<i64>,
    pub is_free: bool,
    pub semi_annual_discount: Percent,
}

impl<'a> NewPlan<'a> {
    /// A plan in the list, charged in advance, without a trial or a limit.
    pub fn new(name: &'a str, service_type: &'a str, terms: Terms) -> NewPlan<'a> {
        NewPlan {
            kind: PlanKind::Plan,
            name,
            description: "",
            service_type,
            terms,
            base_timing: BaseTiming::Advance,
            trial_days: 0,
            trial_repeats: false,
            attributes: Attributes::new(),
            badge: Badge::None,
            stock: None,
            is_free: false,
            semi_annual_discount: percent(10),
        }
    }

    /// The free developer tier (F-26): 1 vCPU, 512 MB RAM, 10 GB disk and 500 GB of transfer, more of which is not charged.
    pub fn free_tier() -> NewPlan<'static> {
        let terms = Terms::Transfer {
            included_units: 500,
            unit: QuotaUnit::default(),
            mode: UsageMode::Sum,
        };
        let attributes = [("vcpu", "1"), ("ram_gib", "0.5"), ("disk_gb", "10")];
        NewPlan {
            description: "For trying things out. One for each account; it ends after 90 days without use.",
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            is_free: true,
            ..NewPlan::new(FREE_MARK, "vps", terms)
        }
    }
}

const SELECT_PLAN: &str = "SELECT id, kind, name, description, service_type, billing_model, included_transfer_units, quota_unit, \
     usage_mode, commit_mbps, base_timing, trial_days, attributes, badge, stock, is_free, semi_annual_discount_percent, \
     created_at_ms, archived_at_ms, trial_repeats FROM plans";

/// Checks and stores a plan.
///
/// # Errors
/// When a field is out of range.
pub async fn create_plan(connection: &mut AnyConnection, new: NewPlan<'_>, now_ms: i64) -> Result<Plan, BillingError> {
    let name = checked_text("plan name", new.name, MAX_PLAN_NAME_CHARS)?;
    let service_type = checked_text("service type", new.service_type, MAX_SERVICE_TYPE_CHARS)?;
    let description = match new.description.trim() {
        "" => String::new(),
        text => checked_text("description", text, MAX_DESCRIPTION_CHARS)?,
    };
    check_range("length of the trial in days", new.trial_days, 0, MAX_TRIAL_DAYS)?;
    if new.is_free && new.kind == PlanKind::Addon {
        return Err(BillingError::FreeAddon);
    }
    if let Some(stock) = new.stock {
        check_range("stock", stock, 0, MAX_STOCK)?;
    }
    let attributes = checked_specs(&new.attributes)?;
    refuse_transfer_in_words(&new.terms, &attributes)?;
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
        kind: new.kind,
        name,
        description,
        service_type,
        terms: new.terms,
        base_timing: new.base_timing,
        trial_days: new.trial_days,
        trial_repeats: new.trial_repeats,
        attributes,
        badge: new.badge,
        stock: new.stock,
        is_free: new.is_free,
        semi_annual_discount: new.semi_annual_discount,
        created_at_ms: now_ms,
        archived_at_ms: None,
    };
    sqlx::query(
        "INSERT INTO plans (id, kind, name, description, service_type, billing_model, included_transfer_units, quota_unit, \
         usage_mode, commit_mbps, base_timing, trial_days, attributes, badge, stock, is_free, semi_annual_discount_percent, \
         created_at_ms, trial_repeats) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
    )
    .bind(plan.id.0)
    .bind(plan.kind.name())
    .bind(&plan.name)
    .bind(&plan.description)
    .bind(&plan.service_type)
    .bind(plan.terms.name())
    .bind(included_units)
    .bind(unit.name())
    .bind(mode_name(mode))
    .bind(commit_mbps.normalize().to_string())
    .bind(plan.base_timing.name())
    .bind(plan.trial_days)
    .bind(serde_json::to_string(&plan.attributes)?)
    .bind(plan.badge.name())
    .bind(plan.stock)
    .bind(i64::from(plan.is_free))
    .bind(plan.semi_annual_discount.value().normalize().to_string())
    .bind(now_ms)
    .bind(i64::from(plan.trial_repeats))
    .execute(connection)
    .await?;
    Ok(plan)
}

/// Sets how many more of a plan can be sold; `None`: any number.
///
/// # Errors
/// When there is no such plan or the number is out of range.
pub async fn set_stock(connection: &mut AnyConnection, id: PlanId, stock: Option<i64>) -> Result<(), BillingError> {
    plan(&mut *connection, id).await?;
    if let Some(stock) = stock {
        check_range("stock", stock, 0, MAX_STOCK)?;
    }
    sqlx::query("UPDATE plans SET stock = $1 WHERE id = $2")
        .bind(stock)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes `count` out of a plan's stock.
///
/// # Errors
/// [`BillingError::OutOfStock`] when there are fewer.
pub(crate) async fn take_from_stock(
    connection: &mut AnyConnection,
    plan: &Plan,
    count: i64,
) -> Result<(), BillingError> {
    let taken = sqlx::query("UPDATE plans SET stock = stock - $1 WHERE id = $2 AND (stock IS NULL OR stock >= $1)")
        .bind(count)
        .bind(plan.id.0)
        .execute(connection)
        .await?;
    match taken.rows_affected() {
        0 => Err(BillingError::OutOfStock(plan.id)),
        _ => Ok(()),
    }
}

/// Gives `count` back to a plan's stock.
///
/// # Errors
/// As the database answers.
pub(crate) async fn return_to_stock(
    connection: &mut AnyConnection,
    plan: PlanId,
    count: i64,
) -> Result<(), BillingError> {
    sqlx::query("UPDATE plans SET stock = stock + $1 WHERE id = $2 AND stock IS NOT NULL")
        .bind(count)
        .bind(plan.0)
        .execute(connection)
        .await?;
    Ok(())
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
    let attributes: String = row.try_get("attributes")?;
    let discount = read_decimal("semi-annual discount", row, "semi_annual_discount_percent")?;
    Ok(Plan {
        id: PlanId(row.try_get("id")?),
        kind: row.try_get::<String, _>("kind")?.parse()?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        service_type: row.try_get("service_type")?,
        terms,
        base_timing: row.try_get::<String, _>("base_timing")?.parse()?,
        trial_days: row.try_get("trial_days")?,
        trial_repeats: row.try_get::<i64, _>("trial_repeats")? != 0,
        attributes: serde_json::from_str(&attributes).map_err(|_| BillingError::corrupt("attributes", attributes))?,
        badge: row.try_get::<String, _>("badge")?.parse()?,
        stock: row.try_get("stock")?,
        is_free: row.try_get::<i64, _>("is_free")? != 0,
        semi_annual_discount: Percent::new(discount)
            .map_err(|_| BillingError::corrupt("semi-annual discount", discount.to_string()))?,
        created_at_ms: row.try_get("created_at_ms")?,
        archived_at_ms: row.try_get("archived_at_ms")?,
    })
}

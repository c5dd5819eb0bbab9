//! The table of tax rates, by place and time.

use rust_decimal::Decimal;
use schemas::db::next_id;
use schemas::ids::TaxRateId;
use schemas::iso;
use schemas::percent::{Percent, PercentError};
use schemas::text::is_plain_text;
use schemas::window::instant_text;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

/// Characters in a tax's name or region at most.
pub const MAX_TAX_NAME_CHARS: usize = 40;

/// A rate of tax in a place, in `[valid_from_ms, valid_to_ms)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaxRate {
    pub id: TaxRateId,
    /// ISO 3166-1, two letters.
    pub country: String,
    /// As customers' profiles name it; empty: the whole country.
    pub region: String,
    /// Without the rate: `VAT`, `GST`.
    pub name: String,
    pub rate: Percent,
    pub valid_from_ms: i64,
    pub valid_to_ms: Option<i64>,
}

impl TaxRate {
    pub fn holds_at(&self, at_ms: i64) -> bool {
        self.valid_from_ms <= at_ms && self.valid_to_ms.is_none_or(|to_ms| at_ms < to_ms)
    }

    /// Regions are compared without regard to case, as people type them.
    pub fn holds_in(&self, country: &str, region: &str) -> bool {
        self.country == country && (self.region.is_empty() || self.region.eq_ignore_ascii_case(region.trim()))
    }
}

/// A rate as somebody typed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewTaxRate<'a> {
    pub country: &'a str,
    pub region: &'a str,
    pub name: &'a str,
    pub rate_percent: Decimal,
    pub valid_from_ms: i64,
    pub valid_to_ms: Option<i64>,
}

/// Why tax rates could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TaxError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("the rate is out of range")]
    Rate(#[from] PercentError),
    #[error("a country is two capital letters of ISO 3166-1, such as DE, not {0:?}")]
    Country(String),
    #[error(
        "a {field} has at most {MAX_TAX_NAME_CHARS} characters and no control characters or invisible ones, not {text:?}"
    )]
    Text { field: &'static str, text: String },
    #[error("no tax rate {0}")]
    NoRate(TaxRateId),
    #[error("a rate of {to} would end before it starts ({from})", to = instant_text(*to_ms), from = instant_text(*from_ms))]
    EndsBeforeStart { from_ms: i64, to_ms: i64 },
    #[error("{rate} ended at {}", instant_text(*ended_ms))]
    AlreadyEnded { rate: TaxRateId, ended_ms: i64 },
    #[error("{holder} is {name} {rate} there from {} on: end it first, or both would be added", instant_text(*from_ms))]
    Overlap {
        holder: TaxRateId,
        name: String,
        rate: Percent,
        from_ms: i64,
    },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    TaxError: "tax";
    of [Database, Rate]
    source []
    NotFound: NoRate = "no_rate";
    Refused: Country = "country", Text = "text", EndsBeforeStart = "ends_before_start";
    Conflict: AlreadyEnded = "already_ended", Overlap = "overlap";
    Fault: Corrupt = "corrupt";
}

const SELECT: &str = "SELECT id, country, region, name, rate_percent, valid_from_ms, valid_to_ms FROM tax_rates";

/// Adds a rate. One tax (place and name) has one rate at a time.
///
/// # Errors
/// When a field is not valid or the tax has a rate in that time.
pub async fn add_rate(connection: &mut AnyConnection, new: NewTaxRate<'_>, now_ms: i64) -> Result<TaxRate, TaxError> {
    let country = new.country.trim();
    if !iso::is_country(country) {
        return Err(TaxError::Country(new.country.to_owned()));
    }
    if let Some(to_ms) = new.valid_to_ms.filter(|&to_ms| to_ms <= new.valid_from_ms) {
        return Err(TaxError::EndsBeforeStart {
            from_ms: new.valid_from_ms,
            to_ms,
        });
    }
    let name = checked("tax name", new.name)?;
    if name.is_empty() {
        return Err(TaxError::Text {
            field: "tax name",
            text: new.name.to_owned(),
        });
    }
    // The sequence's row lock makes concurrent writers take turns, so that the look-up below sees them.
    let id = TaxRateId(next_id(connection, "tax_rate").await?);
    let rate = TaxRate {
        id,
        country: country.to_owned(),
        region: checked("region", new.region)?,
        name,
        rate: Percent::new(new.rate_percent.normalize())?,
        valid_from_ms: new.valid_from_ms,
        valid_to_ms: new.valid_to_ms,
    };
    for other in rates(&mut *connection).await? {
        let is_same_tax = other.country == rate.country
            && other.region.eq_ignore_ascii_case(&rate.region)
            && other.name.eq_ignore_ascii_case(&rate.name);
        let is_same_time = other.valid_to_ms.is_none_or(|to_ms| to_ms > rate.valid_from_ms)
            && rate.valid_to_ms.is_none_or(|to_ms| to_ms > other.valid_from_ms);
        if is_same_tax && is_same_time {
            return Err(TaxError::Overlap {
                holder: other.id,
                name: other.name,
                rate: other.rate,
                from_ms: other.valid_from_ms,
            });
        }
    }
    sqlx::query(
        "INSERT INTO tax_rates (id, country, region, name, rate_percent, valid_from_ms, valid_to_ms, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.0)
    .bind(&rate.country)
    .bind(&rate.region)
    .bind(&rate.name)
    .bind(rate.rate.value().to_string())
    .bind(rate.valid_from_ms)
    .bind(rate.valid_to_ms)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(rate)
}

/// Ends a rate at an instant: from then on it no longer holds. One that ended keeps its end, as invoices went by it; an end
/// that is still to come can be moved.
///
/// # Errors
/// When there is no such rate, it has ended, or it would end before it starts.
pub async fn end_rate(connection: &mut AnyConnection, id: TaxRateId, end_ms: i64, now_ms: i64) -> Result<(), TaxError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(&mut *connection).await?;
    let rate = read(&row.ok_or(TaxError::NoRate(id))?)?;
    if let Some(ended_ms) = rate.valid_to_ms.filter(|&to_ms| to_ms <= now_ms) {
        return Err(TaxError::AlreadyEnded { rate: id, ended_ms });
    }
    // Moving an end later could reach into the next rate of the same tax.
    if rate.valid_to_ms.is_some_and(|to_ms| end_ms > to_ms) {
        let next = rates(&mut *connection).await?.into_iter().find(|other| {
            other.id != id
                && other.country == rate.country
                && other.region.eq_ignore_ascii_case(&rate.region)
                && other.name.eq_ignore_ascii_case(&rate.name)
                && other.valid_from_ms >= rate.valid_from_ms
                && other.valid_from_ms < end_ms
        });
        if let Some(next) = next {
            return Err(TaxError::Overlap {
                holder: next.id,
                name: next.name,
                rate: next.rate,
                from_ms: next.valid_from_ms,
            });
        }
    }
    if end_ms <= rate.valid_from_ms {
        return Err(TaxError::EndsBeforeStart {
            from_ms: rate.valid_from_ms,
            to_ms: end_ms,
        });
    }
    sqlx::query("UPDATE tax_rates SET valid_to_ms = $1 WHERE id = $2")
        .bind(end_ms)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Every rate there ever was, by place, name and time.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn rates(db: impl AnyExecutor<'_>) -> Result<Vec<TaxRate>, TaxError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY country, region, name, valid_from_ms, id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

fn checked(field: &'static str, text: &str) -> Result<String, TaxError> {
    let trimmed = text.trim();
    if trimmed.chars().count() > MAX_TAX_NAME_CHARS || !is_plain_text(trimmed) {
        return Err(TaxError::Text {
            field,
            text: text.to_owned(),
        });
    }
    Ok(trimmed.to_owned())
}

fn read(row: &AnyRow) -> Result<TaxRate, TaxError> {
    let rate_percent: String = row.try_get("rate_percent")?;
    let rate = rate_percent
        .parse::<Decimal>()
        .ok()
        .and_then(|rate| Percent::new(rate).ok());
    let rate = rate.ok_or(TaxError::Corrupt {
        what: "tax rate",
        text: rate_percent,
    })?;
    Ok(TaxRate {
        id: TaxRateId(row.try_get("id")?),
        country: row.try_get("country")?,
        region: row.try_get("region")?,
        name: row.try_get("name")?,
        rate,
        valid_from_ms: row.try_get("valid_from_ms")?,
        valid_to_ms: row.try_get("valid_to_ms")?,
    })
}

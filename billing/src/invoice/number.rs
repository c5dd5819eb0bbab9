//! Numbers of documents: gapless per entity, kind and year, because a number is taken in the transaction that writes its
//! document and given back when that fails.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::db::next_id;
use schemas::ids::EntityId;
use schemas::inventory::EntityProfile;
use sqlx::AnyConnection;

use super::InvoiceKind;
use crate::BillingError;

/// The next number of the year (UTC) of `now_ms`.
///
/// # Errors
/// As the database answers.
pub(super) async fn next(
    connection: &mut AnyConnection,
    entity: EntityId,
    profile: &EntityProfile,
    kind: InvoiceKind,
    now_ms: i64,
) -> Result<String, BillingError> {
    let now = Timestamp::from_millisecond(now_ms).map_err(|error| BillingError::Period(error.into()))?;
    let year = now.to_zoned(TimeZone::UTC).year();
    let letters = match kind {
        InvoiceKind::Invoice => "INV",
        InvoiceKind::CreditNote => "CN",
    };
    let number = next_id(connection, &format!("number:{entity}:{letters}:{year}")).await?;
    let separator = if profile.number_prefix.is_empty() { "" } else { "-" };
    Ok(format!(
        "{}{separator}{letters}-{year}-{number:06}",
        profile.number_prefix
    ))
}

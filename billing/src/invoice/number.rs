//! Numbers of documents: gapless per entity, kind and year, because a number is taken in the transaction that writes its
//! document and given back when that fails.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::db::next_ids;
use schemas::ids::EntityId;
use schemas::inventory::EntityProfile;
use sqlx::AnyConnection;

use super::InvoiceKind;
use crate::BillingError;

/// The next numbers of the year (UTC) of `now_ms`, one for each document in their order.
///
/// # Errors
/// As the database answers.
pub(super) async fn next<'a>(
    connection: &mut AnyConnection,
    documents: impl Iterator<Item = (EntityId, &'a EntityProfile, InvoiceKind)> + Clone,
    now_ms: i64,
) -> Result<Vec<String>, BillingError> {
    let now = Timestamp::from_millisecond(now_ms).map_err(|error| BillingError::Period(error.into()))?;
    let year = now.to_zoned(TimeZone::UTC).year();
    let sequence = |entity, kind| format!("number:{entity}:{}:{year}", letters(kind));
    // By name, so that two who number documents of several kinds take the same row locks in the same order.
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for (entity, _, kind) in documents.clone() {
        *counts.entry(sequence(entity, kind)).or_default() += 1;
    }
    let mut next: BTreeMap<String, i64> = BTreeMap::new();
    for (name, count) in counts {
        let first = next_ids(connection, &name, count).await?;
        next.insert(name, first);
    }
    let numbers = documents.map(|(entity, profile, kind)| {
        let number = next.entry(sequence(entity, kind)).or_default();
        *number += 1;
        let (prefix, number) = (&profile.number_prefix, *number - 1);
        let separator = if prefix.is_empty() { "" } else { "-" };
        format!("{prefix}{separator}{}-{year}-{number:06}", letters(kind))
    });
    Ok(numbers.collect())
}

fn letters(kind: InvoiceKind) -> &'static str {
    match kind {
        InvoiceKind::Invoice => "INV",
        InvoiceKind::CreditNote => "CN",
    }
}

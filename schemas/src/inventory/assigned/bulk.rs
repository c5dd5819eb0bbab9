//! Many assignments at once: what an operator brings along in a list.
//!
//! The rules are those of [`super::assign`], asked once for the whole list: a hundred thousand prefixes take about a
//! second. All or nothing, because everything happens in the caller's transaction.

use std::collections::HashSet;

use sqlx::{AnyConnection, Row as _};

use super::{CHANGES, Columns, canonical, load_assignments, record_change, refuse_overlap_in, refuse_wide};
use crate::assignment::{Assignment, Target};
use crate::db::next_id;
use crate::ids::{AssignmentId, ServiceId};
use crate::inventory::{InventoryError, service};
use crate::search;

/// Rows of one statement. Both databases allow 32,767 values in one.
const ROWS_PER_STATEMENT: usize = 500;
const COLUMNS_PER_ROW: usize = 10;

/// A target for a service over `[from_ms, to_ms)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewAssignment {
    pub service: ServiceId,
    pub target: Target,
    pub from_ms: i64,
    /// `None`: for good.
    pub to_ms: Option<i64>,
}

/// Gives every target of a list to its service. Where that reaches into the past, stored flows will be attributed anew.
///
/// # Errors
/// [`InventoryError::Overlap`] when a target has another assignment in that time, stored or in the list itself;
/// [`InventoryError::WidePrefix`] when a prefix is too wide; when a service does not exist or is archived; when an end is
/// not after its start. The transaction must then be given up.
pub async fn assign_all(
    connection: &mut AnyConnection,
    list: &[NewAssignment],
    now_ms: i64,
) -> Result<(), InventoryError> {
    if list.is_empty() {
        return Ok(());
    }
    let mut services = HashSet::new();
    for new in list {
        if let Some(to_ms) = new.to_ms.filter(|&to_ms| to_ms <= new.from_ms) {
            return Err(InventoryError::EndsBeforeStart {
                from_ms: new.from_ms,
                to_ms,
            });
        }
        refuse_wide(canonical(new.target))?;
        if services.insert(new.service) && service(&mut *connection, new.service).await?.archived_at_ms.is_some() {
            return Err(InventoryError::Archived(new.service));
        }
    }
    // Taking the ids first locks the sequence: concurrent writers take turns, so that the check sees what they wrote.
    let first_id = take_ids(connection, list.len() as i64).await?;
    refuse_overlaps(connection, list).await?;
    for (chunk, position) in list.chunks(ROWS_PER_STATEMENT).zip((0..).step_by(ROWS_PER_STATEMENT)) {
        insert(connection, chunk, first_id + position, now_ms).await?;
    }
    let targets = list.iter().zip(first_id..);
    let prefixes = targets.filter_map(|(new, id)| match canonical(new.target) {
        Target::Prefix(net) => Some((AssignmentId(id), net)),
        Target::Interface { .. } | Target::Vlan { .. } => None,
    });
    let prefixes: Vec<_> = prefixes.collect();
    search::index_prefixes(&mut *connection, &prefixes).await?;
    next_id(&mut *connection, CHANGES).await?;
    let Some(from_ms) = list
        .iter()
        .map(|new| new.from_ms)
        .min()
        .filter(|&from_ms| from_ms < now_ms)
    else {
        return Ok(());
    };
    // One change that covers all of them: the flows between are looked at once.
    let past = list.iter().filter(|new| new.from_ms < now_ms);
    let ends: Option<Vec<i64>> = past.map(|new| new.to_ms.filter(|&to_ms| to_ms < now_ms)).collect();
    record_change(
        connection,
        from_ms,
        ends.and_then(|ends| ends.into_iter().max()),
        now_ms,
    )
    .await
}

/// The first of `count` numbers of the sequence of assignments.
async fn take_ids(connection: &mut AnyConnection, count: i64) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO sequences (name, next_value) VALUES ('assignment', CAST($1 AS BIGINT) + 1) \
         ON CONFLICT (name) DO UPDATE SET next_value = sequences.next_value + CAST($1 AS BIGINT) \
         RETURNING next_value - CAST($1 AS BIGINT)",
    )
    .bind(count)
    .fetch_one(connection)
    .await?
    .try_get(0)
}

async fn refuse_overlaps(connection: &mut AnyConnection, list: &[NewAssignment]) -> Result<(), InventoryError> {
    let mut held = load_assignments(&mut *connection).await?;
    held.extend(list.iter().map(|new| Assignment {
        service: new.service.number(),
        target: canonical(new.target),
        valid_from_ms: new.from_ms,
        valid_to_ms: new.to_ms,
    }));
    refuse_overlap_in(connection, held).await
}

async fn insert(
    connection: &mut AnyConnection,
    rows: &[NewAssignment],
    first_id: i64,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let mut sql = String::from(
        "INSERT INTO assignments \
         (id, service_id, kind, prefix, exporter, if_index, vlan, valid_from_ms, valid_to_ms, created_at_ms) VALUES ",
    );
    for row in 0..rows.len() {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..COLUMNS_PER_ROW {
            let comma = if column == 0 { "" } else { ", " };
            sql.push_str(&format!("{comma}${}", row * COLUMNS_PER_ROW + column + 1));
        }
        sql.push(')');
    }
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for (new, id) in rows.iter().zip(first_id..) {
        let columns = Columns::of(canonical(new.target));
        query = query
            .bind(id)
            .bind(new.service.0)
            .bind(columns.kind)
            .bind(columns.prefix)
            .bind(columns.exporter)
            .bind(columns.if_index)
            .bind(columns.vlan)
            .bind(new.from_ms)
            .bind(new.to_ms)
            .bind(now_ms);
    }
    query.execute(connection).await?;
    Ok(())
}

//! Targets given to services over time, and the past they change.

mod bulk;

pub use bulk::{NewAssignment, assign_all};

use ipnet::IpNet;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{InventoryError, service};
use crate::address::Address;
use crate::assignment::{Assignment, Assignments, Target};
use crate::db::next_id;
use crate::ids::{AssignmentId, ServiceId};
use crate::search;

/// The length in bits that a prefix of somebody's network has at least: /8 of IPv4 and /16 of IPv6, wider than which nobody
/// holds one. A service that was given more by mistake would be charged for the traffic of everybody without an assignment.
pub const fn prefix_length_min(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 16,
    }
}

/// A stored assignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignmentRow {
    pub id: AssignmentId,
    pub service: ServiceId,
    pub target: Target,
    pub valid_from_ms: i64,
    /// First instant after the end; `None` while it lasts.
    pub valid_to_ms: Option<i64>,
    pub created_at_ms: i64,
}

impl From<AssignmentRow> for Assignment {
    fn from(row: AssignmentRow) -> Assignment {
        Assignment {
            service: row.service.number(),
            target: row.target,
            valid_from_ms: row.valid_from_ms,
            valid_to_ms: row.valid_to_ms,
        }
    }
}

/// Flows that ended in `[from_ms, to_ms)` must be attributed anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttributionChange {
    pub id: i64,
    pub from_ms: i64,
    /// `None`: up to now.
    pub to_ms: Option<i64>,
    pub created_at_ms: i64,
}

const SELECT: &str = "SELECT id, service_id, kind, prefix, exporter, if_index, vlan, valid_from_ms, valid_to_ms, created_at_ms \
                      FROM assignments";

/// The sequence that every change of an assignment advances.
const CHANGES: &str = "assignment_revision";

/// A number that differs from an earlier one when assignments were changed since: asking for it costs nothing, loading
/// all of them does.
///
/// # Errors
/// As the database answers.
pub async fn assignments_revision(db: impl AnyExecutor<'_>) -> Result<i64, InventoryError> {
    let row = sqlx::query("SELECT CAST(coalesce(max(next_value), 0) AS BIGINT) FROM sequences WHERE name = $1")
        .bind(CHANGES)
        .fetch_one(db)
        .await?;
    Ok(row.try_get(0)?)
}

/// Tells whoever follows [`assignments_revision`] that what decides attribution has changed.
pub(super) async fn note_attribution_changed(connection: &mut AnyConnection) -> Result<(), InventoryError> {
    next_id(connection, CHANGES).await?;
    Ok(())
}

/// Gives a target to a service over `[from_ms, to_ms)`. Where that reaches into the past, stored flows will be
/// attributed anew.
///
/// # Errors
/// [`InventoryError::Overlap`] when another assignment holds the target in that time, [`InventoryError::WidePrefix`] when
/// the prefix is too wide; when the service does not exist or is archived; when the end is not after the start.
pub async fn assign(
    connection: &mut AnyConnection,
    service_id: ServiceId,
    target: Target,
    from_ms: i64,
    to_ms: Option<i64>,
    now_ms: i64,
) -> Result<AssignmentRow, InventoryError> {
    if let Some(to_ms) = to_ms.filter(|&to_ms| to_ms <= from_ms) {
        return Err(InventoryError::EndsBeforeStart { from_ms, to_ms });
    }
    let target = canonical(target);
    refuse_wide(target)?;
    if service(&mut *connection, service_id).await?.archived_at_ms.is_some() {
        return Err(InventoryError::Archived(service_id));
    }
    let row = AssignmentRow {
        // The sequence's row lock makes concurrent writers take turns, so that the check below sees them.
        id: AssignmentId(next_id(connection, "assignment").await?),
        service: service_id,
        target,
        valid_from_ms: from_ms,
        valid_to_ms: to_ms,
        created_at_ms: now_ms,
    };
    refuse_overlap(connection, &row).await?;
    let columns = Columns::of(row.target);
    sqlx::query(
        "INSERT INTO assignments \
         (id, service_id, kind, prefix, exporter, if_index, vlan, valid_from_ms, valid_to_ms, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(row.id.0)
    .bind(service_id.0)
    .bind(columns.kind)
    .bind(columns.prefix)
    .bind(columns.exporter)
    .bind(columns.if_index)
    .bind(columns.vlan)
    .bind(from_ms)
    .bind(to_ms)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    if let Target::Prefix(net) = row.target {
        search::index_prefixes(&mut *connection, &[(row.id, net)]).await?;
    }
    next_id(&mut *connection, CHANGES).await?;
    if from_ms < now_ms {
        record_change(connection, from_ms, to_ms.filter(|&to_ms| to_ms < now_ms), now_ms).await?;
    }
    Ok(row)
}

/// Ends an assignment at `at_ms`. Where that lies in the past, stored flows will be attributed anew.
///
/// # Errors
/// When there is no such assignment, it has not started by then, or it already ends earlier.
pub async fn end_assignment(
    connection: &mut AnyConnection,
    id: AssignmentId,
    at_ms: i64,
    now_ms: i64,
) -> Result<(), InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(&mut *connection).await?;
    let row = read(&row.ok_or(InventoryError::NoAssignment(id))?)?;
    if at_ms <= row.valid_from_ms {
        return Err(InventoryError::EndsBeforeStart {
            from_ms: row.valid_from_ms,
            to_ms: at_ms,
        });
    }
    // Lengthening could overlap a successor: that is a new assignment, with the check it needs.
    if let Some(ends_ms) = row.valid_to_ms.filter(|&ends_ms| ends_ms < at_ms) {
        return Err(InventoryError::AlreadyEnded {
            assignment: id,
            ends_ms,
            asked_ms: at_ms,
        });
    }
    sqlx::query("UPDATE assignments SET valid_to_ms = $1 WHERE id = $2")
        .bind(at_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    next_id(&mut *connection, CHANGES).await?;
    if at_ms < now_ms && row.valid_to_ms != Some(at_ms) {
        let until_ms = row.valid_to_ms.filter(|&to_ms| to_ms < now_ms);
        record_change(connection, at_ms, until_ms, now_ms).await?;
    }
    Ok(())
}

/// Every assignment, past and present, for [`Assignments::new`].
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn load_assignments(db: impl AnyExecutor<'_>) -> Result<Vec<Assignment>, InventoryError> {
    Ok(assignments(db).await?.into_iter().map(Assignment::from).collect())
}

/// Every assignment as stored, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn assignments(db: impl AnyExecutor<'_>) -> Result<Vec<AssignmentRow>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// The assignments of one service, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn assignments_of(
    db: impl AnyExecutor<'_>,
    service: ServiceId,
) -> Result<Vec<AssignmentRow>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE service_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(service.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// Changes of the past that stored flows do not show yet, oldest first.
///
/// # Errors
/// As the database answers.
pub async fn pending_attribution_changes(db: impl AnyExecutor<'_>) -> Result<Vec<AttributionChange>, InventoryError> {
    let rows = sqlx::query(
        "SELECT id, from_ms, to_ms, created_at_ms FROM attribution_changes WHERE applied_at_ms IS NULL ORDER BY id",
    )
    .fetch_all(db)
    .await?;
    let read = |row: &AnyRow| {
        Ok(AttributionChange {
            id: row.try_get("id")?,
            from_ms: row.try_get("from_ms")?,
            to_ms: row.try_get("to_ms")?,
            created_at_ms: row.try_get("created_at_ms")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Notes that stored flows show a change. Marking again changes nothing.
///
/// # Errors
/// As the database answers.
pub async fn mark_attribution_change_applied(
    db: impl AnyExecutor<'_>,
    change: i64,
    now_ms: i64,
) -> Result<(), InventoryError> {
    sqlx::query("UPDATE attribution_changes SET applied_at_ms = $1 WHERE id = $2 AND applied_at_ms IS NULL")
        .bind(now_ms)
        .bind(change)
        .execute(db)
        .await?;
    Ok(())
}

/// Equal targets have one spelling in the database, so that equality can be asked there.
fn canonical(target: Target) -> Target {
    match target {
        Target::Prefix(net) => Target::Prefix(crate::assignment::canonical(net)),
        other => other,
    }
}

/// Refuses a prefix that no single service can have, as it is stored: an IPv4-mapped one counts as what it maps.
fn refuse_wide(target: Target) -> Result<(), InventoryError> {
    let Target::Prefix(net) = target else {
        return Ok(());
    };
    let min_bits = prefix_length_min(&net);
    if net.prefix_len() < min_bits {
        return Err(InventoryError::WidePrefix { net, min_bits });
    }
    Ok(())
}

/// The columns that spell a target.
struct Columns {
    kind: &'static str,
    prefix: Option<String>,
    exporter: Option<String>,
    if_index: Option<i64>,
    vlan: Option<i64>,
}

impl Columns {
    fn of(target: Target) -> Columns {
        let empty = |kind| Columns {
            kind,
            prefix: None,
            exporter: None,
            if_index: None,
            vlan: None,
        };
        match target {
            Target::Prefix(net) => Columns {
                prefix: Some(net.to_string()),
                ..empty("prefix")
            },
            Target::Interface {
                exporter,
                if_index,
                vlan,
            } => Columns {
                exporter: Some(exporter.to_string()),
                if_index: Some(i64::from(if_index)),
                vlan: vlan.map(i64::from),
                ..empty("interface")
            },
            Target::Vlan { exporter, vlan } => Columns {
                exporter: Some(exporter.to_string()),
                vlan: Some(i64::from(vlan)),
                ..empty("vlan")
            },
        }
    }
}

/// Builds the snapshot of what holds this very target, with the new assignment last: the rule that answers questions is
/// the rule that refuses.
async fn refuse_overlap(connection: &mut AnyConnection, new: &AssignmentRow) -> Result<(), InventoryError> {
    let columns = Columns::of(new.target);
    // Absent parts compare equal as '' and -1, which no stored part is.
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE kind = $1 AND coalesce(prefix, '') = $2 AND coalesce(exporter, '') = $3 \
         AND coalesce(if_index, -1) = $4 AND coalesce(vlan, -1) = $5 ORDER BY id"
    ));
    let rows = sqlx::query(sql)
        .bind(columns.kind)
        .bind(columns.prefix.unwrap_or_default())
        .bind(columns.exporter.unwrap_or_default())
        .bind(columns.if_index.unwrap_or(-1))
        .bind(columns.vlan.unwrap_or(-1))
        .fetch_all(&mut *connection)
        .await?;
    let mut held: Vec<Assignment> = Vec::with_capacity(rows.len() + 1);
    for row in &rows {
        held.push(read(row)?.into());
    }
    held.push((*new).into());
    refuse_overlap_in(connection, held).await
}

/// Refuses what overlaps; the earlier assignment of the two is told as the holder.
async fn refuse_overlap_in(connection: &mut AnyConnection, held: Vec<Assignment>) -> Result<(), InventoryError> {
    let Err(overlap) = Assignments::new(held) else {
        return Ok(());
    };
    let holder = ServiceId::from(overlap.first);
    Err(InventoryError::Overlap {
        target: overlap.target,
        holder,
        holder_name: service(connection, holder).await?.name,
        from_ms: overlap.from_ms,
    })
}

async fn record_change(
    connection: &mut AnyConnection,
    from_ms: i64,
    to_ms: Option<i64>,
    now_ms: i64,
) -> Result<(), InventoryError> {
    let id = next_id(connection, "attribution_change").await?;
    sqlx::query("INSERT INTO attribution_changes (id, from_ms, to_ms, created_at_ms) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(from_ms)
        .bind(to_ms)
        .bind(now_ms)
        .execute(connection)
        .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<AssignmentRow, InventoryError> {
    Ok(AssignmentRow {
        id: AssignmentId(row.try_get("id")?),
        service: ServiceId(row.try_get("service_id")?),
        target: read_target(row)?,
        valid_from_ms: row.try_get("valid_from_ms")?,
        valid_to_ms: row.try_get("valid_to_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

fn read_target(row: &AnyRow) -> Result<Target, InventoryError> {
    let kind: String = row.try_get("kind")?;
    let corrupt = |text: String| InventoryError::Corrupt {
        what: "assignment",
        text,
    };
    if kind == "prefix" {
        let prefix: String = row.try_get("prefix")?;
        return match prefix.parse() {
            Ok(net) => Ok(Target::Prefix(net)),
            Err(_) => Err(corrupt(prefix)),
        };
    }
    let exporter: String = row.try_get("exporter")?;
    let exporter: Address = exporter.parse().map_err(|_| corrupt(exporter))?;
    let vlan: Option<i64> = row.try_get("vlan")?;
    let vlan = match vlan {
        Some(vlan) => Some(u16::try_from(vlan).map_err(|_| corrupt(format!("vlan {vlan}")))?),
        None => None,
    };
    match (kind.as_str(), vlan) {
        ("interface", vlan) => {
            let if_index: i64 = row.try_get("if_index")?;
            Ok(Target::Interface {
                exporter,
                if_index: u32::try_from(if_index).map_err(|_| corrupt(format!("interface {if_index}")))?,
                vlan,
            })
        }
        ("vlan", Some(vlan)) => Ok(Target::Vlan { exporter, vlan }),
        _ => Err(corrupt(kind)),
    }
}

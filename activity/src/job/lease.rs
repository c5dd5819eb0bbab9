//! Leases: of all processes on a database, one at a time runs a job.
//!
//! ```text
//! free ── take ──▶ held ── renewed every 15 s ──▶ held
//!  ▲                 │ the process stops: released ─────────────────────────▶ free
//!  └── taken over ◀──┘ it is dead, or has renewed nothing for a minute
//! ```
//!
//! * A lease is taken by compare-and-set on what was read: of several processes that try, one succeeds. Its token counts the
//!   owners: what a former owner writes is refused by it.
//! * An owner that cannot renew its lease stops its runs before anybody else can take it ([`LOST_AFTER`] is shorter than
//!   [`LEASE_MS`]).
//! * **When an owner is taken for dead**: its process is gone, seen by others on its machine (at once); or its lease has
//!   expired by the clock and has not been renewed while somebody watched for [`WATCHED`]; or it was not renewed for a whole
//!   [`LEASE_MS`] of watching, whatever the clocks say. A clock that jumps, or one that is wrong on another machine, so takes
//!   no lease from a process that lives.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use schemas::db::Database;
use sqlx::any::AnyRow;
use sqlx::{AnyExecutor, Row as _};

/// How long a lease is good for without being renewed.
pub const LEASE_MS: i64 = 60_000;
/// How often it is renewed.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(15);
/// An owner that could not renew for so long stops what it runs.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(45);
/// How long an expired lease is watched before it is taken over.
const WATCHED: Duration = Duration::from_secs(20);

/// A process that runs jobs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// `host:pid:random`: a name that no other has, and that says where to look.
    pub name: String,
    /// Which process of which machine it is; empty where that cannot be known.
    pub process: String,
}

impl Owner {
    /// This process. Two of one process are different owners.
    pub fn of_this_process() -> Owner {
        let pid = std::process::id();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "localhost",
            host => host,
        };
        Owner {
            name: format!("{host}:{pid}:{:08x}", rand::random::<u32>()),
            process: process_of(pid).unwrap_or_default(),
        }
    }
}

/// Machine since its start, process namespace and user: within these a process id means the same to all.
fn scope() -> Option<String> {
    // Where other processes are hidden, one that cannot be seen may live.
    if !std::path::Path::new("/proc/1").exists() {
        return None;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let user = std::fs::metadata("/proc/self").ok()?.uid();
    Some(format!("{} {} {user}", boot.trim(), namespace.display()))
}

/// When a process started, in ticks since the machine did; `None` where there is none, or it has ended.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let has_ended = matches!(fields.first(), Some(&("Z" | "X")));
    (!has_ended).then(|| fields.get(19)?.parse().ok()).flatten()
}

fn process_of(pid: u32) -> Option<String> {
    Some(format!("{} {pid} {}", scope()?, started_ticks(pid)?))
}

/// Whether a process is seen to have ended; one of another machine never is.
fn has_ended(process: &str) -> bool {
    let Some(own) = scope() else { return false };
    let Some(rest) = process.strip_prefix(&own).and_then(|rest| rest.strip_prefix(' ')) else {
        return false;
    };
    let Some((pid, started)) = rest.split_once(' ') else {
        return false;
    };
    match (pid.parse(), started.parse::<u64>()) {
        (Ok(pid), Ok(started)) => started_ticks(pid) != Some(started),
        _ => false,
    }
}

/// A lease as the database has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub name: String,
    /// Empty: nobody has it.
    pub owner: String,
    process: String,
    pub(super) token: i64,
    pub until_ms: i64,
}

impl Lease {
    /// Whether somebody has it who is not seen to be dead.
    pub fn is_held(&self, now_ms: i64) -> bool {
        !self.owner.is_empty() && now_ms < self.until_ms && !has_ended(&self.process)
    }
}

fn read(row: &AnyRow) -> Result<Lease, sqlx::Error> {
    Ok(Lease {
        name: row.try_get("name")?,
        owner: row.try_get("owner")?,
        process: row.try_get("process")?,
        token: row.try_get("token")?,
        until_ms: row.try_get("until_ms")?,
    })
}

/// All leases, by name.
///
/// # Errors
/// As the database answers.
pub async fn leases(db: impl AnyExecutor<'_>) -> Result<Vec<Lease>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, owner, process, token, until_ms FROM job_leases ORDER BY name")
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// Makes a lease known; one that is there stays as it is.
pub(super) async fn add(db: impl AnyExecutor<'_>, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO job_leases (name, owner, process, token, until_ms) VALUES ($1, '', '', 0, 0) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a lease that is still as it was read; the answer is its new token, `None` when somebody else was faster.
pub(super) async fn take(
    db: impl AnyExecutor<'_>,
    seen: &Lease,
    owner: &Owner,
    now_ms: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let taken = sqlx::query(
        "UPDATE job_leases SET owner = $1, process = $2, token = token + 1, until_ms = $3 \
         WHERE name = $4 AND token = $5 AND until_ms = $6",
    )
    .bind(&owner.name)
    .bind(&owner.process)
    .bind(now_ms.saturating_add(LEASE_MS))
    .bind(&seen.name)
    .bind(seen.token)
    .bind(seen.until_ms)
    .execute(db)
    .await?;
    Ok((taken.rows_affected() == 1).then_some(seen.token + 1))
}

/// Extends everything an owner has; the answer is how many leases that is.
pub(super) async fn renew(database: &Database, owner: &Owner, now_ms: i64) -> Result<u64, sqlx::Error> {
    let renewed = sqlx::query("UPDATE job_leases SET until_ms = $1 WHERE owner = $2")
        .bind(now_ms.saturating_add(LEASE_MS))
        .bind(&owner.name)
        .execute(database.pool())
        .await?;
    Ok(renewed.rows_affected())
}

/// Gives back everything an owner has.
pub(super) async fn release(database: &Database, owner: &Owner) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE job_leases SET owner = '', process = '', until_ms = 0 WHERE owner = $1")
        .bind(&owner.name)
        .execute(database.pool())
        .await?;
    Ok(())
}

/// Remembers since when each lease has not been renewed, by this process's own monotonic time.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseWatch(BTreeMap<String, LeaseObservation>);

#[derive(Clone, Debug)]
struct LeaseObservation {
    token: i64,
    until_ms: i64,
    since: Instant,
}

impl LeaseWatch {
    /// Looks at a lease; true when it may be taken.
    pub(super) fn may_take(&mut self, lease: &Lease, now_ms: i64, now: Instant) -> bool {
        let state = (lease.token, lease.until_ms);
        let seen = self.0.entry(lease.name.clone()).or_insert_with(|| LeaseObservation {
            token: lease.token,
            until_ms: lease.until_ms,
            since: now,
        });
        if (seen.token, seen.until_ms) != state {
            *seen = LeaseObservation {
                token: lease.token,
                until_ms: lease.until_ms,
                since: now,
            };
        }
        if lease.owner.is_empty() || has_ended(&lease.process) {
            return true;
        }
        let unchanged = now.saturating_duration_since(seen.since);
        let is_expired = now_ms >= lease.until_ms && unchanged >= WATCHED;
        is_expired || unchanged >= Duration::from_millis(LEASE_MS.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn database() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        (folder, database)
    }

    /// An owner on another machine, whose process nobody here can see.
    fn elsewhere(name: &str) -> Owner {
        Owner {
            name: name.to_owned(),
            process: "another machine 1 1".to_owned(),
        }
    }

    async fn one(database: &Database) -> Lease {
        leases(database.pool()).await.unwrap().remove(0)
    }

    #[tokio::test]
    async fn of_two_that_try_one_takes_it_and_it_is_free_again_when_released() {
        let (_folder, database) = database().await;
        add(database.pool(), "billing").await.unwrap();
        add(database.pool(), "billing").await.unwrap();
        let seen = one(&database).await;
        let (ada, bob) = (elsewhere("ada"), elsewhere("bob"));
        assert_eq!(take(database.pool(), &seen, &ada, 1_000).await.unwrap(), Some(1));
        assert_eq!(take(database.pool(), &seen, &bob, 1_000).await.unwrap(), None);
        assert_eq!(renew(&database, &bob, 2_000).await.unwrap(), 0);
        assert_eq!(renew(&database, &ada, 2_000).await.unwrap(), 1);
        assert_eq!(one(&database).await.until_ms, 2_000 + LEASE_MS);
        release(&database, &bob).await.unwrap();
        assert_eq!(one(&database).await.owner, "ada");
        release(&database, &ada).await.unwrap();
        let free = one(&database).await;
        assert!(free.owner.is_empty() && LeaseWatch::default().may_take(&free, 0, Instant::now()));
        assert_eq!(take(database.pool(), &free, &bob, 3_000).await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn a_lease_expires_once_it_was_watched_and_not_because_a_clock_jumped() {
        let (_folder, database) = database().await;
        add(database.pool(), "billing").await.unwrap();
        let ada = elsewhere("ada");
        let free = one(&database).await;
        take(database.pool(), &free, &ada, 0).await.unwrap().unwrap();
        let mut watch = LeaseWatch::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let held = one(&database).await;
        assert!(!watch.may_take(&held, 1_000, start));
        // The clock jumped by a year: the owner has renewed it before anybody believes that it is dead.
        let year_ms = 31_536_000_000;
        assert!(!watch.may_take(&held, year_ms, after(10)));
        renew(&database, &ada, year_ms).await.unwrap();
        let held = one(&database).await;
        assert!(!watch.may_take(&held, year_ms, after(16)));
        // It died: expired, and watched for long enough.
        assert!(!watch.may_take(&held, year_ms + LEASE_MS, after(35)));
        assert!(watch.may_take(&held, year_ms + LEASE_MS, after(37)));
        // The clock went back by a year meanwhile: a minute without a renewal is enough.
        let mut watch = LeaseWatch::default();
        assert!(!watch.may_take(&held, 0, start));
        assert!(!watch.may_take(&held, 0, after(59)));
        assert!(watch.may_take(&held, 0, after(60)));
    }

    #[test]
    fn a_process_that_ended_is_seen_by_others_on_its_machine_only() {
        let own = Owner::of_this_process();
        assert!(!own.process.is_empty() && !has_ended(&own.process), "{own:?}");
        assert_ne!(own.name, Owner::of_this_process().name);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = process_of(child.id()).unwrap();
        assert!(!has_ended(&process));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&process));
        assert!(!has_ended(""));
        assert!(!has_ended(&format!("another {process}")));
        let lease = Lease {
            name: "billing".to_owned(),
            owner: "dead".to_owned(),
            process,
            token: 7,
            until_ms: i64::MAX,
        };
        assert!(!lease.is_held(0));
        assert!(LeaseWatch::default().may_take(&lease, 0, Instant::now()));
    }
}

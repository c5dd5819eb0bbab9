//! Rows to Parquet files to commits: the three tables that the collector writes.
//!
//! A unit of work (a segment, or a file of an import) has one [`Token`], used in each table. Its files carry the token in
//! their names. Storing is a fixed list of steps ([`Step`]); a crash after any of them and a repeat of all of them leaves
//! the same rows once (F1):
//!
//! * a file that no commit names is written again under the same name;
//! * a commit whose token was applied changes nothing, and its file is not touched again.

mod compact;
mod gathered;
mod rows;
mod sort;

use tables::definitions::{COLLECTION_5M, COUNTERS};
use tables::flow::FLOWS;
use tables::table::{
    Commit, FileEncoding, FileEntry, ManifestError, RowGroup, Storage, Table, Token, WriteError, write_row_groups,
};

pub use compact::{CompactLimits, Compaction, compact};
pub(crate) use gathered::{GatheredRows, TimeSpan};

/// Why rows could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("table {table}: file not written")]
    Write { table: &'static str, source: WriteError },
    #[error("table {table}: not committed")]
    Commit { table: &'static str, source: ManifestError },
    #[error("table {table}: {path} cannot be read")]
    Read {
        table: &'static str,
        path: String,
        source: parquet::errors::ParquetError,
    },
}

/// Rows of one table in one file.
#[derive(Debug)]
pub(crate) struct Part {
    groups: Vec<RowGroup>,
    rows: u64,
    times: TimeSpan,
}

/// Everything of one unit of work.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) token: Token,
    /// Relative to each table's folder.
    pub(crate) path: String,
    flows: Option<Part>,
    counters: Option<Part>,
    collection: Option<Part>,
}

impl Prepared {
    pub(crate) fn new(token: Token, name: &str, gathered: GatheredRows) -> Prepared {
        let path = file_path(gathered.first_received_ms.unwrap_or(0), name);
        let counters = rows::counters_part(&gathered.counters);
        let collection = rows::collection_part(&gathered.windows);
        let flows = gathered.flow_times.map(|times| Part {
            groups: gathered.flows,
            rows: gathered.flow_rows,
            times,
        });
        Prepared {
            token,
            path,
            flows,
            counters,
            collection,
        }
    }

    pub(crate) fn flow_rows(&self) -> u64 {
        self.flows.as_ref().map_or(0, |part| part.rows)
    }
}

/// Where a unit of work goes whose first datagram arrived at this instant: `YYYY-MM-DD/<name>.parquet`.
pub(crate) fn file_path(at_ms: i64, name: &str) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}/{name}.parquet", at.strftime("%Y-%m-%d"))
}

/// One step of storing, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    WriteFlows,
    CommitFlows,
    WriteCounters,
    CommitCounters,
    WriteCollection,
    CommitCollection,
}

impl Step {
    pub(crate) const ALL: [Step; 6] = [
        Step::WriteFlows,
        Step::CommitFlows,
        Step::WriteCounters,
        Step::CommitCounters,
        Step::WriteCollection,
        Step::CommitCollection,
    ];
}

/// The tables of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) flows: Table,
    pub(crate) counters: Table,
    pub(crate) collection: Table,
}

/// Sizes of the files written so far for one [`Prepared`]; `None` where the token was applied or there are no rows.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) flows: Option<u64>,
    pub(crate) counters: Option<u64>,
    pub(crate) collection: Option<u64>,
}

impl Tables {
    pub(crate) fn open(storage: impl Into<Storage>) -> Result<Tables, StoreError> {
        let storage = storage.into();
        let open = |def: &'static tables::column::TableDef| {
            Table::open(&storage, def).map_err(|source| StoreError::Commit {
                table: def.name,
                source,
            })
        };
        Ok(Tables {
            flows: open(&FLOWS)?,
            counters: open(&COUNTERS)?,
            collection: open(&COLLECTION_5M)?,
        })
    }

    pub(crate) fn all(&self) -> [&Table; 3] {
        [&self.flows, &self.counters, &self.collection]
    }

    /// The highest number that any table has of this writer; 0 when none has.
    pub(crate) fn applied(&self, writer: &str) -> Result<u64, StoreError> {
        let mut highest = 0;
        for table in self.all() {
            highest = highest.max(applied(table, writer)?);
        }
        Ok(highest)
    }

    /// Does one step. Steps may be repeated from the first one, in another process too.
    pub(crate) fn step(&self, step: Step, prepared: &Prepared, written: &mut Written) -> Result<(), StoreError> {
        match step {
            Step::WriteFlows => written.flows = write(&self.flows, prepared, prepared.flows.as_ref())?,
            Step::WriteCounters => written.counters = write(&self.counters, prepared, prepared.counters.as_ref())?,
            Step::WriteCollection => {
                written.collection = write(&self.collection, prepared, prepared.collection.as_ref())?;
            }
            Step::CommitFlows => commit(&self.flows, prepared, prepared.flows.as_ref(), written.flows)?,
            Step::CommitCounters => commit(&self.counters, prepared, prepared.counters.as_ref(), written.counters)?,
            Step::CommitCollection => {
                commit(
                    &self.collection,
                    prepared,
                    prepared.collection.as_ref(),
                    written.collection,
                )?;
            }
        }
        Ok(())
    }

    /// Does every step.
    pub(crate) fn store(&self, prepared: &Prepared) -> Result<(), StoreError> {
        let mut written = Written::default();
        for step in Step::ALL {
            self.step(step, prepared, &mut written)?;
        }
        Ok(())
    }
}

/// The highest number that this table has of a writer.
pub(crate) fn applied(table: &Table, writer: &str) -> Result<u64, StoreError> {
    let snapshot = table.snapshot().map_err(|source| StoreError::Commit {
        table: table.def().name,
        source,
    })?;
    Ok(snapshot.applied.get(writer).copied().unwrap_or(0))
}

fn write(table: &Table, prepared: &Prepared, part: Option<&Part>) -> Result<Option<u64>, StoreError> {
    let Some(part) = part else { return Ok(None) };
    // A file that a commit names is never written again: readers may have it open, and compaction may have replaced it.
    if applied(table, &prepared.token.writer)? >= prepared.token.number {
        return Ok(None);
    }
    let groups = part.groups.iter().cloned().map(Ok);
    let size = write_row_groups(table, &prepared.path, groups).map_err(|source| StoreError::Write {
        table: table.def().name,
        source,
    })?;
    Ok(Some(size))
}

fn commit(table: &Table, prepared: &Prepared, part: Option<&Part>, size: Option<u64>) -> Result<(), StoreError> {
    let file = part.zip(size).map(|(part, size_bytes)| FileEntry {
        path: prepared.path.clone(),
        rows: part.rows,
        size_bytes,
        min_time_ms: part.times.min_ms,
        max_time_ms: part.times.max_ms,
        sequence: 0,
        encoding: FileEncoding::Open,
    });
    if part.is_some() && file.is_none() {
        // Applied before, perhaps by a process that was killed before its sync: asked for again, it is synced.
        return apply(table, &prepared.token, None).map(drop);
    }
    commit_file(table, &prepared.token, file).map(drop)
}

/// Commits one file, or only the token; answers whether that changed anything.
pub(crate) fn commit_file(table: &Table, token: &Token, file: Option<FileEntry>) -> Result<bool, StoreError> {
    // Only the flows keep account of units without rows: their token says which numbers are used up.
    if file.is_none() && table.def().name != FLOWS.name {
        return Ok(false);
    }
    apply(table, token, file)
}

fn apply(table: &Table, token: &Token, file: Option<FileEntry>) -> Result<bool, StoreError> {
    let commit = Commit {
        token: Some(token.clone()),
        add: file.into_iter().collect(),
        ..Commit::default()
    };
    table.commit(commit).map_err(|source| StoreError::Commit {
        table: table.def().name,
        source,
    })
}

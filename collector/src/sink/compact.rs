//! Merging the small files of an hour into sorted ones.
//!
//! A segment is a file: at 10 s a day has 8,640 of them per table. Once an hour has been quiet for a while its files are
//! written as one file sorted by the table's sort key, and swapped in one commit: a reader sees the old files or the new
//! one (F1). An hour of more rows than [`CompactLimits::output_rows_max`] becomes several such files, each sorted. Should
//! somebody else have replaced one of the inputs meanwhile, the commit is refused and nothing has happened.
//!
//! The name and the bytes of an output are a function of its inputs: two who compact the same hour write the same file.

use std::collections::BTreeMap;

use schemas::fault;
use schemas::window::HOUR_MS;
use tables::table::{Commit, FileEncoding, FileEntry, ManifestError, Table};

use super::StoreError;
use super::sort::{ROW_GROUP_ROWS, write_sorted};

/// Which files are merged.
#[derive(Clone, Copy, Debug)]
pub struct CompactLimits {
    /// Hours that ended so long ago are merged.
    pub quiet_ms: i64,
    /// Files with more rows are left alone.
    pub file_rows_max: u64,
    /// A merged file has at most this many rows: bounds the memory that sorting takes (see `sort.rs`).
    pub output_rows_max: u64,
    /// Rows of a row group of a merged file.
    pub row_group_rows: usize,
    /// Fewer files are not worth it.
    pub files_min: usize,
    /// More files are merged the next time.
    pub files_max: usize,
    /// Also a file alone whose encoding few programs read ([`FileEncoding::Split`]) is written anew.
    pub older: bool,
}

impl Default for CompactLimits {
    fn default() -> CompactLimits {
        CompactLimits {
            quiet_ms: HOUR_MS,
            file_rows_max: 2_000_000,
            output_rows_max: 4_000_000,
            row_group_rows: ROW_GROUP_ROWS,
            files_min: 2,
            files_max: 2_000,
            older: false,
        }
    }
}

/// What one call did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compaction {
    pub files_removed: usize,
    pub rows: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Merges the files of the oldest hour that has enough of them and was quiet since `now_ms - quiet_ms`; answers what was
/// done, which is nothing when no hour qualifies or somebody else changed it first. Call again while something is done.
///
/// # Errors
/// When a file cannot be read or written; the table is as before.
pub fn compact(table: &Table, now_ms: i64, limits: &CompactLimits) -> Result<Compaction, StoreError> {
    let store_error = |source| StoreError::Commit {
        table: table.def().name,
        source,
    };
    let snapshot = table.snapshot().map_err(store_error)?;
    let Some(inputs) = choose(snapshot.files.values(), now_ms, limits) else {
        return Ok(Compaction::default());
    };
    let (Some(first), Some(newest)) = (inputs.first(), inputs.iter().map(|file| file.sequence).max()) else {
        return Ok(Compaction::default());
    };
    let day = first.path.split('/').next().unwrap_or_default();
    let hour = first.max_time_ms.div_euclid(HOUR_MS).rem_euclid(24);
    let names = inputs
        .iter()
        .map(|file| file.path.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    let path = format!(
        "{day}/hour-{hour:02}-{:08x}-{newest}.parquet",
        crc32fast::hash(names.as_bytes())
    );
    if snapshot.files.contains_key(&path) {
        return Ok(Compaction::default());
    }

    let size_bytes = write_sorted(table, &path, &inputs, limits.row_group_rows)?;
    fault::at("compact.written");
    let rows = inputs.iter().map(|file| file.rows).sum();
    let merged = FileEntry {
        path: path.clone(),
        rows,
        size_bytes,
        min_time_ms: inputs.iter().map(|file| file.min_time_ms).min().unwrap_or(0),
        max_time_ms: inputs.iter().map(|file| file.max_time_ms).max().unwrap_or(0),
        sequence: newest,
        encoding: FileEncoding::Open,
    };
    let commit = Commit {
        add: vec![merged],
        remove: inputs.iter().map(|file| file.path.clone()).collect(),
        ..Commit::default()
    };
    match table.commit(commit) {
        Ok(_) => {
            fault::at("compact.committed");
            Ok(Compaction {
                files_removed: inputs.len(),
                rows,
                bytes_before: inputs.iter().map(|file| file.size_bytes).sum(),
                bytes_after: size_bytes,
            })
        }
        // Whoever was faster may have committed a file of this very name: what nobody names is left to the vacuum.
        Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => Ok(Compaction::default()),
        Err(source) => Err(store_error(source)),
    }
}

/// The files of one hour and one day folder, in the order they were committed.
fn choose<'a>(
    files: impl Iterator<Item = &'a FileEntry>,
    now_ms: i64,
    limits: &CompactLimits,
) -> Option<Vec<&'a FileEntry>> {
    let mut hours: BTreeMap<(i64, &str), Vec<&FileEntry>> = BTreeMap::new();
    for file in files {
        let hour = file.max_time_ms.div_euclid(HOUR_MS);
        let is_quiet = (hour + 1) * HOUR_MS <= now_ms - limits.quiet_ms;
        let is_older = limits.older && file.encoding == FileEncoding::Split;
        if is_quiet && (file.rows <= limits.file_rows_max || is_older) {
            let day = file.path.split('/').next().unwrap_or_default();
            hours.entry((hour, day)).or_default().push(file);
        }
    }
    let is_worth_it = |run: &[&FileEntry]| {
        let has_older = limits.older && run.iter().any(|file| file.encoding == FileEncoding::Split);
        run.len() >= limits.files_min || has_older
    };
    for files in hours.values_mut() {
        files.sort_unstable_by(|a, b| (a.sequence, &a.path).cmp(&(b.sequence, &b.path)));
        // Runs of neighbours that fit into one output; a run of one (a merged file, say) is passed over, unless it is an older one.
        let mut run: Vec<&FileEntry> = Vec::new();
        let mut rows = 0;
        for file in std::mem::take(files) {
            if run.len() >= limits.files_max || (!run.is_empty() && rows + file.rows > limits.output_rows_max) {
                if is_worth_it(&run) {
                    return Some(run);
                }
                run.clear();
                rows = 0;
            }
            rows += file.rows;
            run.push(file);
        }
        if is_worth_it(&run) {
            return Some(run);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::Encoding;
    use parquet::file::properties::WriterProperties;
    use tables::flow::{FLOWS, Flow, flows_to_batch};
    use tables::table::write_parquet;

    fn add(table: &Table, path: &str, at_ms: i64, bytes: &[u64]) {
        let rows: Vec<Flow> = bytes
            .iter()
            .map(|bytes| Flow {
                received_at_ms: at_ms,
                bytes: *bytes,
                ..Flow::default()
            })
            .collect();
        let size_bytes = write_parquet(table, path, [flows_to_batch(&rows)]).unwrap();
        let file = FileEntry {
            path: path.to_owned(),
            rows: rows.len() as u64,
            size_bytes,
            min_time_ms: at_ms,
            max_time_ms: at_ms,
            sequence: 0,
            encoding: FileEncoding::Open,
        };
        table
            .commit(Commit {
                add: vec![file],
                ..Commit::default()
            })
            .unwrap();
    }

    fn bytes_column(table: &Table) -> Vec<u64> {
        use arrow::array::{AsArray, types::UInt64Type};
        let mut values = Vec::new();
        for file in table.snapshot().unwrap().files.values() {
            let reader = ParquetRecordBatchReaderBuilder::try_new(table.read(&file.path).unwrap()).unwrap();
            for batch in reader.build().unwrap() {
                let batch = batch.unwrap();
                let column = batch.column_by_name("bytes").unwrap();
                values.extend_from_slice(column.as_primitive::<UInt64Type>().values());
            }
        }
        values
    }

    #[test]
    fn f1_an_hour_becomes_one_file_with_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        add(&table, "1970-01-01/b.parquet", 10, &[1, 2]);
        add(&table, "1970-01-01/a.parquet", 20, &[3]);
        add(&table, "1970-01-01/c.parquet", HOUR_MS + 5, &[4]);
        let limits = CompactLimits::default();
        let early = compact(&table, HOUR_MS, &limits).unwrap();
        assert_eq!(early, Compaction::default(), "the hour is not quiet yet");
        let done = compact(&table, 4 * HOUR_MS, &limits).unwrap();
        assert_eq!((done.files_removed, done.rows), (2, 3));
        let snapshot = table.snapshot().unwrap();
        assert_eq!(snapshot.files.len(), 2);
        let merged = snapshot
            .files
            .values()
            .find(|file| file.path.contains("hour-00"))
            .unwrap();
        assert_eq!((merged.min_time_ms, merged.max_time_ms, merged.sequence), (10, 20, 2));
        let mut bytes = bytes_column(&table);
        assert_eq!(bytes[..], [4, 1, 2, 3], "sorted by time within the hour");
        bytes.sort_unstable();
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert_eq!(compact(&table, 9 * HOUR_MS, &limits).unwrap(), Compaction::default());
    }

    #[test]
    fn a_file_that_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        add(&table, "1970-01-01/a.parquet", 10, &[1]);
        add(&table, "1970-01-01/b.parquet", 20, &[2]);
        std::fs::write(table.dir().join("1970-01-01/b.parquet"), b"damaged").unwrap();
        let before = table.snapshot().unwrap();
        assert!(matches!(
            compact(&table, 4 * HOUR_MS, &CompactLimits::default()),
            Err(StoreError::Read { .. })
        ));
        assert_eq!(before, table.snapshot().unwrap());
        let files = std::fs::read_dir(table.dir().join("1970-01-01")).unwrap().count();
        assert_eq!(files, 2, "no file is left behind");
    }

    /// A file as versions before wrote them, of which some programs read nothing.
    fn add_older(table: &Table, path: &str, bytes: &[u64]) {
        let rows = bytes.iter().map(|bytes| Flow {
            bytes: *bytes,
            ..Flow::default()
        });
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::BYTE_STREAM_SPLIT);
        let file = std::fs::File::create(table.dir().join(path)).unwrap();
        let mut writer = ArrowWriter::try_new(file, FLOWS.arrow_schema(), Some(properties.build())).unwrap();
        writer.write(&flows_to_batch(&rows.collect::<Vec<_>>())).unwrap();
        writer.close().unwrap();
        let commit = Commit {
            add: vec![FileEntry {
                path: path.to_owned(),
                rows: bytes.len() as u64,
                size_bytes: 1,
                min_time_ms: 0,
                max_time_ms: 0,
                sequence: 0,
                encoding: FileEncoding::Split,
            }],
            ..Commit::default()
        };
        table.commit(commit).unwrap();
    }

    fn encodings(table: &Table) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for file in table.snapshot().unwrap().files.values() {
            let reader = ParquetRecordBatchReaderBuilder::try_new(table.read(&file.path).unwrap()).unwrap();
            let groups = reader.metadata().row_groups().iter();
            let encodings = groups
                .flat_map(|group| group.columns())
                .flat_map(|column| column.encodings());
            found.extend(encodings.map(|encoding| encoding.to_string()));
        }
        found
    }

    #[test]
    fn files_of_an_older_encoding_are_written_anew_where_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        add(&table, "1970-01-01/b.parquet", HOUR_MS + 5, &[3]);
        add_older(&table, "1970-01-01/a.parquet", &[1, 2]);
        assert!(encodings(&table).contains("BYTE_STREAM_SPLIT"));
        assert_eq!(bytes_column(&table), [1, 2, 3], "it is read as it is");
        let limits = CompactLimits {
            file_rows_max: 1,
            ..CompactLimits::default()
        };
        assert_eq!(compact(&table, 9 * HOUR_MS, &limits).unwrap(), Compaction::default());
        let older = CompactLimits { older: true, ..limits };
        let sequence = table.snapshot().unwrap().files["1970-01-01/a.parquet"].sequence;
        assert_eq!(compact(&table, 9 * HOUR_MS, &older).unwrap().rows, 2);
        assert_eq!(compact(&table, 9 * HOUR_MS, &older).unwrap(), Compaction::default());
        assert!(
            !encodings(&table).contains("BYTE_STREAM_SPLIT"),
            "{:?}",
            encodings(&table)
        );
        let snapshot = table.snapshot().unwrap();
        let written = snapshot.files.values().find(|file| file.rows == 2).unwrap();
        assert_eq!(
            written.sequence, sequence,
            "nothing changed for who follows the sequence"
        );
        let mut bytes = bytes_column(&table);
        bytes.sort_unstable();
        assert_eq!(bytes, [1, 2, 3]);
    }

    #[test]
    fn large_files_stay_and_outputs_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        for i in 0..6 {
            add(&table, &format!("1970-01-01/{i}.parquet"), i, &[1; 10]);
        }
        add(&table, "1970-01-01/large.parquet", 9, &[1; 50]);
        let limits = CompactLimits {
            file_rows_max: 40,
            output_rows_max: 30,
            ..CompactLimits::default()
        };
        assert_eq!(compact(&table, 4 * HOUR_MS, &limits).unwrap().rows, 30);
        assert_eq!(compact(&table, 4 * HOUR_MS, &limits).unwrap().rows, 30);
        assert!(table.snapshot().unwrap().files.contains_key("1970-01-01/large.parquet"));
        assert_eq!(bytes_column(&table).len(), 110);
    }
}

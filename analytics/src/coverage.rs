//! Which windows were measured.
//!
//! A window without traffic and a window nobody looked at are different things: the first is a zero, the second a gap
//! that is named. An exporter was *heard* in a window when at least one datagram of it arrived then (`collection_5m`,
//! counter `datagrams`). A service's window is *measured* when any exporter that meters the service was heard in it
//! ([`Meters`]); it is a gap only when nobody was. An exporter that is silent while another measures takes no window away:
//! what the other saw is traffic, and which exporters are silent is told on the exporters page. A gap names every exporter
//! that would have measured it: those that were heard before it, or all of them where none was.
//!
//! Being heard never goes away, so what is known is kept in memory, one bit per exporter and window, and each call reads
//! only the files of `collection_5m` that were committed since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray};
use datafusion::prelude::{col, lit};
use schemas::address::Address;
use schemas::window::{WINDOW_MS, WindowStart};
use tables::table::Snapshot;

use crate::store::parquet::{column, fold};
use crate::{Analytics, AnalyticsError, Gap, Meters};

/// Counter of `collection_5m` that tells that an exporter was heard.
const HEARD_COUNTER: &str = "datagrams";
/// Windows in one word of the bitmap.
const WORD_WINDOWS: i64 = 64;

/// The windows in which one exporter was heard: 64 windows a word, words by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct ActiveWindows {
    words: BTreeMap<i64, u64>,
}

impl ActiveWindows {
    fn insert(&mut self, window: i64) {
        let bit = 1u64 << window.rem_euclid(WORD_WINDOWS);
        *self.words.entry(window.div_euclid(WORD_WINDOWS)).or_default() |= bit;
    }

    fn contains(&self, window: i64) -> bool {
        let bit = 1u64 << window.rem_euclid(WORD_WINDOWS);
        self.words
            .get(&window.div_euclid(WORD_WINDOWS))
            .is_some_and(|word| word & bit != 0)
    }

    /// Number of the last window; `None` of none.
    fn last(&self) -> Option<i64> {
        let (number, word) = self.words.last_key_value()?;
        Some(number * WORD_WINDOWS + i64::from(word.ilog2()))
    }

    /// Number of the first window; `None` of none.
    fn first(&self) -> Option<i64> {
        let (number, word) = self.words.first_key_value()?;
        Some(number * WORD_WINDOWS + i64::from(word.trailing_zeros()))
    }
}

/// When each exporter was heard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ExporterActivity {
    /// Complete up to this commit of `collection_5m`.
    sequence: u64,
    exporters: HashMap<Address, ActiveWindows>,
}

impl ExporterActivity {
    fn insert(&mut self, exporter: Address, window_start_ms: i64) {
        self.exporters
            .entry(exporter)
            .or_default()
            .insert(window_start_ms.div_euclid(WINDOW_MS));
    }

    fn merge(&mut self, other: ExporterActivity) {
        for (exporter, heard) in other.exporters {
            let known = self.exporters.entry(exporter).or_default();
            for (number, word) in heard.words {
                *known.words.entry(number).or_default() |= word;
            }
        }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), AnalyticsError> {
        let windows = column::<TimestampMillisecondArray>(batch, "window_start")?.values();
        let exporters = column::<FixedSizeBinaryArray>(batch, "exporter")?;
        for (row, window_start_ms) in windows.iter().enumerate() {
            if let Some(exporter) = Address::from_slice(exporters.value(row)) {
                self.insert(exporter, *window_start_ms);
            }
        }
        Ok(())
    }

    /// How the windows of `[from_ms, to_ms)` (window-aligned) of a service that these meter were covered.
    pub(crate) fn coverage(&self, meters: &Meters, from_ms: i64, to_ms: i64) -> Coverage {
        let first = from_ms.div_euclid(WINDOW_MS);
        let end = to_ms.div_euclid(WINDOW_MS).max(first);
        let nothing = ActiveWindows::default();
        let metering: Vec<(Address, &ActiveWindows)> = match meters {
            Meters::Named(exporters) => exporters
                .iter()
                .map(|exporter| (*exporter, self.exporters.get(exporter).unwrap_or(&nothing)))
                .collect(),
            Meters::AllBut(others) => self
                .exporters
                .iter()
                .filter(|(exporter, _)| !others.contains(exporter))
                .map(|(exporter, heard)| (*exporter, heard))
                .collect(),
        };
        let measured: Vec<bool> = (first..end)
            .map(|window| metering.iter().any(|(_, heard)| heard.contains(window)))
            .collect();
        let mut gaps = Vec::new();
        for gap in runs(first, measured.iter().map(|measured| !measured), Address::UNSPECIFIED) {
            match meters {
                Meters::Named(_) => gaps.extend(missing(&metering, &gap)),
                Meters::AllBut(_) => gaps.push(gap),
            }
        }
        gaps.sort_by_key(|gap| (gap.from_ms, gap.exporter));
        Coverage { first, measured, gaps }
    }
}

/// The gap once for every exporter that was heard before it, or for all where none was.
fn missing(metering: &[(Address, &ActiveWindows)], gap: &Gap) -> Vec<Gap> {
    let start = gap.from_ms.div_euclid(WINDOW_MS);
    let known = |heard: &ActiveWindows| heard.first().is_some_and(|first| first < start);
    let any_known = metering.iter().any(|(_, heard)| known(heard));
    metering
        .iter()
        .filter(|(_, heard)| !any_known || known(heard))
        .map(|(exporter, _)| Gap {
            exporter: *exporter,
            ..gap.clone()
        })
        .collect()
}

fn runs(first: i64, missed: impl Iterator<Item = bool>, exporter: Address) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    for (window, missed) in (first..).zip(missed) {
        if !missed {
            continue;
        }
        let (from_ms, to_ms) = (window * WINDOW_MS, (window + 1) * WINDOW_MS);
        match gaps.last_mut() {
            Some(gap) if gap.to_ms == from_ms => gap.to_ms = to_ms,
            _ => gaps.push(Gap {
                from_ms,
                to_ms,
                exporter,
            }),
        }
    }
    gaps
}

/// Which windows of a range were measured, and the gaps by exporter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Coverage {
    /// Number of the first window.
    first: i64,
    measured: Vec<bool>,
    pub(crate) gaps: Vec<Gap>,
}

impl Coverage {
    /// All windows of the range with whether each was measured.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (i64, bool)> + '_ {
        (self.first..)
            .map(|window| window * WINDOW_MS)
            .zip(self.measured.iter().copied())
    }

    pub(crate) fn expected(&self) -> u64 {
        self.measured.len() as u64
    }

    /// How many windows were measured.
    pub(crate) fn measured(&self) -> u64 {
        self.measured.iter().filter(|measured| **measured).count() as u64
    }

    /// Whether the window was measured; one outside the range was not.
    pub(crate) fn is_measured(&self, window_start_ms: i64) -> bool {
        let position = window_start_ms.div_euclid(WINDOW_MS) - self.first;
        usize::try_from(position).is_ok_and(|position| self.measured.get(position) == Some(&true))
    }
}

impl Analytics {
    /// When each exporter was heard, up to the newest commit of `collection_5m`.
    pub(crate) async fn heard(&self) -> Result<Arc<ExporterActivity>, AnalyticsError> {
        let mut known = self.heard.lock().await;
        let snapshot = self.store.collection.snapshot()?;
        if snapshot.sequence == known.sequence {
            return Ok(known.clone());
        }
        let mut heard = if snapshot.sequence > known.sequence {
            ExporterActivity::clone(&known)
        } else {
            ExporterActivity::default()
        };
        let news = Snapshot {
            files: snapshot
                .files
                .iter()
                .filter(|(_, file)| file.sequence > heard.sequence)
                .map(|(path, file)| (path.clone(), file.clone()))
                .collect(),
            ..Snapshot::default()
        };
        let frame = self
            .store
            .read_at(&self.store.collection, Arc::new(news))?
            .filter(col("counter").eq(lit(HEARD_COUNTER)).and(col("value").gt(lit(0u64))))?
            .select_columns(&["window_start", "exporter"])?;
        heard.merge(fold(frame, ExporterActivity::add, ExporterActivity::merge).await?);
        heard.sequence = snapshot.sequence;
        *known = Arc::new(heard);
        Ok(known.clone())
    }

    /// End of the newest window in which any exporter was heard; `None` where none ever was.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn heard_until(&self) -> Result<Option<i64>, AnalyticsError> {
        let heard = self.heard().await?;
        let newest = heard.exporters.values().filter_map(ActiveWindows::last).max();
        Ok(newest.map(|window| (window + 1) * WINDOW_MS))
    }

    /// The windows that touch `[from_ms, to_ms)` in which a service that these meter was not measured.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn gaps(&self, meters: &Meters, from_ms: i64, to_ms: i64) -> Result<Vec<Gap>, AnalyticsError> {
        if to_ms <= from_ms {
            return Ok(Vec::new());
        }
        let from_ms = WindowStart::containing(from_ms).start_ms();
        let to_ms = WindowStart::containing(to_ms + WINDOW_MS - 1).start_ms();
        Ok(self.heard().await?.coverage(meters, from_ms, to_ms).gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";
    const C: &str = "192.0.2.3";

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn heard(windows: &[(&str, &[i64])]) -> ExporterActivity {
        let mut heard = ExporterActivity::default();
        for (exporter, windows) in windows {
            for window in *windows {
                heard.insert(at(exporter), window * WINDOW_MS + 1);
            }
        }
        heard
    }

    fn named(exporters: &[&str]) -> Meters {
        Meters::Named(exporters.iter().map(|text| at(text)).collect())
    }

    fn covered(heard: &ExporterActivity, meters: &Meters, from: i64, to: i64) -> (String, Vec<(String, i64, i64)>) {
        let coverage = heard.coverage(meters, from * WINDOW_MS, to * WINDOW_MS);
        let measured = coverage.windows().map(|(_, measured)| if measured { '#' } else { '.' });
        let gaps = coverage.gaps.iter();
        (
            measured.collect(),
            gaps.map(|gap| (gap.exporter.to_string(), gap.from_ms / WINDOW_MS, gap.to_ms / WINDOW_MS))
                .collect(),
        )
    }

    #[test]
    fn the_newest_window_is_that_of_any_exporter() {
        let heard = heard(&[(A, &[2, 63]), (B, &[5, 64, 130])]);
        let last = |exporter: &str| heard.exporters[&at(exporter)].last();
        assert_eq!((last(A), last(B)), (Some(63), Some(130)));
        assert_eq!(ActiveWindows::default().last(), None);
    }

    #[test]
    fn a_window_is_a_gap_only_when_nobody_who_meters_the_service_was_heard() {
        let heard = heard(&[(A, &[2, 3, 5, 6, 7]), (B, &[5, 7]), (C, &[4])]);
        let (measured, gaps) = covered(&heard, &named(&[A, B]), 2, 10);
        assert_eq!(measured, "##.###..", "B is silent in window 6, and A measured it");
        assert_eq!(
            gaps,
            [(A.into(), 4, 5), (A.into(), 8, 10), (B.into(), 8, 10)],
            "B was not known in window 4"
        );
    }

    #[test]
    fn nothing_is_measured_before_the_first_exporter_was_ever_heard() {
        let heard = heard(&[(A, &[2, 3])]);
        assert_eq!(
            covered(&heard, &named(&[A, B]), 0, 4),
            ("..##".into(), vec![(A.into(), 0, 2), (B.into(), 0, 2)])
        );
        assert_eq!(
            covered(&heard, &named(&[B]), 2, 4),
            ("..".into(), vec![(B.into(), 2, 4)])
        );
        assert_eq!(covered(&heard, &named(&[A]), 3, 3), (String::new(), vec![]));
    }

    #[test]
    fn without_named_exporters_any_will_do_that_meters() {
        let heard = heard(&[(A, &[2]), (B, &[3, 70])]);
        assert_eq!(
            covered(&heard, &Meters::AllBut(vec![]), 1, 5),
            (".##.".into(), vec![("::".into(), 1, 2), ("::".into(), 4, 5)])
        );
        assert_eq!(covered(&heard, &Meters::AllBut(vec![]), 70, 71).0, "#");
        assert_eq!(
            covered(&heard, &Meters::AllBut(vec![at(B)]), 1, 5),
            (".#..".into(), vec![("::".into(), 1, 2), ("::".into(), 3, 5)]),
            "what B sees counts for nobody"
        );
    }
}

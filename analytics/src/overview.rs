//! Traffic of the whole network over time, stacked by a dimension, for operations.
//!
//! It comes from the rollups ([`crate::rollup`]): of hours where steps are hours or days, of windows otherwise. What a range costs depends
//! on the keys and steps that it has, not on how many flows there were. The autonomous system is that
//! of the remote side; the interface is the one that faces the other network: the input of what was received, the output
//! of what was sent. Steps are aligned in UTC: 5 minutes up to a day, hours up to 32 days (any month), else days.
//!
//! Rows are read twice: once for the sum of each key, which ranks them, and once for the steps of those that are named. What is held is
//! the keys and the steps, never their product.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::prelude::Expr;
use schemas::address::Address;
use schemas::ids::ServiceId;
use tables::definitions::{AS_REST, PORT_REST};

use crate::rollup::read::{Piece, VolumeColumns, of_services};
use crate::rollup::{ByAs, ByInterface, ByPort, ByService, Key};
use crate::{Analytics, AnalyticsError, Dimension, Overview, OverviewQuery, OverviewSeries, Sites};

/// Steps of one overview at most; a longer range ends there.
const STEPS_MAX: i64 = 4_000;

/// What a series is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Stacked {
    Number(u32),
    /// A protocol's port.
    Port(u8, u32),
    Interface(Address, u32),
}

impl Stacked {
    fn text(self, by: Dimension, sites: &Sites) -> String {
        match (by, self) {
            (Dimension::Service, Stacked::Number(0)) => "unattributed".to_owned(),
            (Dimension::Service, Stacked::Number(number)) => ServiceId::from(number).to_string(),
            (Dimension::Boundary, Stacked::Number(number)) => match number {
                1 => "external".to_owned(),
                2 => "internal".to_owned(),
                _ => "unknown".to_owned(),
            },
            (Dimension::Site, Stacked::Number(number)) => match sites.name(number) {
                Some(name) => format!("site {name}"),
                None => "no site".to_owned(),
            },
            (Dimension::Exporter, Stacked::Interface(exporter, _)) => exporter.to_string(),
            (_, Stacked::Number(number)) => number.to_string(),
            (_, Stacked::Port(protocol, port)) => format!("{protocol} {port}"),
            (_, Stacked::Interface(exporter, index)) => format!("{exporter} {index}"),
        }
    }
}

/// What is stacked: of a row, what received bytes count for and what sent ones do; `None` for what the smaller keys make together.
trait Stack: Key {
    fn stacked(self, by: Dimension, sites: &Sites) -> [Option<Stacked>; 2];

    /// Rows that hold any of these.
    fn filter(_keys: &[Stacked]) -> Option<Expr> {
        None
    }
}

impl Stack for ByService {
    fn stacked(self, _by: Dimension, _sites: &Sites) -> [Option<Stacked>; 2] {
        [Some(Stacked::Number(self.0)); 2]
    }

    fn filter(keys: &[Stacked]) -> Option<Expr> {
        let number = |key: &Stacked| match key {
            Stacked::Number(number) => Some(*number),
            Stacked::Port(..) | Stacked::Interface(..) => None,
        };
        Some(of_services(&keys.iter().filter_map(number).collect::<Vec<u32>>()))
    }
}

impl Stack for ByPort {
    fn stacked(self, by: Dimension, _sites: &Sites) -> [Option<Stacked>; 2] {
        let key = match by {
            Dimension::Port if self.port == PORT_REST => None,
            Dimension::Port => Some(Stacked::Port(self.ip_protocol, self.port)),
            _ => Some(Stacked::Number(u32::from(self.ip_protocol))),
        };
        [key; 2]
    }
}

impl Stack for ByInterface {
    fn stacked(self, by: Dimension, sites: &Sites) -> [Option<Stacked>; 2] {
        let key = match by {
            Dimension::Exporter => Stacked::Interface(self.exporter, 0),
            Dimension::Site => Stacked::Number(sites.number(self.exporter)),
            Dimension::Boundary => Stacked::Number(u32::from(self.boundary)),
            _ => Stacked::Interface(self.exporter, self.if_index),
        };
        [Some(key); 2]
    }
}

impl Stack for ByAs {
    fn stacked(self, _by: Dimension, _sites: &Sites) -> [Option<Stacked>; 2] {
        [self.source, self.destination].map(|system| (system != AS_REST).then_some(Stacked::Number(system)))
    }
}

/// How a range is cut.
#[derive(Clone, Copy, Debug)]
struct Steps {
    first_ms: i64,
    step_ms: i64,
    count: usize,
}

impl Steps {
    #[inline]
    fn at(&self, start_ms: i64) -> usize {
        (((start_ms - self.first_ms) / self.step_ms) as usize).min(self.count.saturating_sub(1))
    }
}

/// Sums by key, and by step.
#[derive(Default, Debug)]
struct Totals {
    keys: HashMap<Stacked, u64>,
    steps: Vec<u64>,
}

impl Totals {
    fn add(&mut self, key: Option<Stacked>, bytes: u64) {
        if let Some(key) = key {
            let sum = self.keys.entry(key).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    fn merge(&mut self, other: Totals) {
        for (key, bytes) in other.keys {
            self.add(Some(key), bytes);
        }
        add_all(&mut self.steps, &other.steps);
    }

    /// The keys with traffic by total, ties by key.
    fn ranking(&self) -> Vec<(Stacked, u64)> {
        let mut ranking: Vec<(Stacked, u64)> = self
            .keys
            .iter()
            .map(|(key, total)| (*key, *total))
            .filter(|(_, total)| *total > 0)
            .collect();
        ranking.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        ranking
    }
}

/// The steps of series.
type Named = Vec<Vec<u64>>;

fn add_all(sums: &mut Vec<u64>, more: &[u64]) {
    sums.resize(sums.len().max(more.len()), 0);
    for (sum, bytes) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*bytes);
    }
}

impl Analytics {
    /// Metered traffic over time stacked by a dimension, largest first. The keys of these `ranks` are named, the first being
    /// rank 0; those before are summed as `larger`, those after as `other`: whatever the ranks, the series add up to the same.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) async fn overview(&self, query: &OverviewQuery) -> Result<Overview, AnalyticsError> {
        match query.by {
            Dimension::Service => self.overview_of::<ByService>(query).await,
            Dimension::Protocol | Dimension::Port => self.overview_of::<ByPort>(query).await,
            Dimension::Interface | Dimension::Exporter | Dimension::Site | Dimension::Boundary => {
                self.overview_of::<ByInterface>(query).await
            }
            Dimension::As => self.overview_of::<ByAs>(query).await,
        }
    }

    async fn overview_of<K: Stack>(&self, query: &OverviewQuery) -> Result<Overview, AnalyticsError> {
        let (from_ms, by) = (query.from_ms, query.by);
        let step_ms = query.step_ms();
        let first_ms = from_ms.div_euclid(step_ms) * step_ms;
        let to_ms = query.to_ms.min(first_ms + STEPS_MAX * step_ms).max(from_ms);
        let starts_ms: Vec<i64> = (first_ms..to_ms).step_by(step_ms as usize).collect();
        let steps = Steps {
            first_ms,
            step_ms,
            count: starts_ms.len(),
        };
        let pieces = self.pieces::<K>(from_ms, to_ms, step_ms)?;
        let mut totals = self.totals::<K>(&pieces, steps, query).await?;
        totals.steps.resize(steps.count, 0);
        let ranking = totals.ranking();

        let first = query.ranks.start.min(ranking.len());
        let last = query.ranks.end.clamp(first, ranking.len());
        // All that lie before share one series.
        let before = usize::from(first > 0);
        let series_of = |(rank, (key, _)): (usize, &(Stacked, u64))| match rank {
            rank if rank < first => (*key, 0),
            rank => (*key, before + rank - first),
        };
        let positions: HashMap<Stacked, usize> = ranking[..last].iter().enumerate().map(series_of).collect();
        let mut named = self.steps_of::<K>(&pieces, steps, query, positions).await?;
        named.resize(before + last - first, Vec::new());

        let mut series = Vec::with_capacity(named.len() + 1);
        let mut rest = totals.steps;
        for (position, mut bytes) in named.into_iter().enumerate() {
            bytes.resize(steps.count, 0);
            for (rest, bytes) in rest.iter_mut().zip(&bytes) {
                *rest = rest.saturating_sub(*bytes);
            }
            let key = match position.checked_sub(before) {
                Some(rank) => ranking[first + rank].0.text(by, &query.sites),
                None => "larger".to_owned(),
            };
            series.push(series_with(key, bytes));
        }
        if last < ranking.len() || rest.iter().any(|bytes| *bytes > 0) {
            series.push(series_with("other".to_owned(), rest));
        }
        Ok(Overview {
            from_ms,
            to_ms,
            step_ms,
            starts_ms,
            keys_total: ranking.len(),
            series,
        })
    }

    async fn totals<K: Stack>(
        &self,
        pieces: &[Piece],
        steps: Steps,
        query: &OverviewQuery,
    ) -> Result<Totals, AnalyticsError> {
        let (by, sites) = (query.by, Arc::clone(&query.sites));
        let add = move |totals: &mut Totals, columns: &VolumeColumns<'_, K>| {
            totals.steps.resize(steps.count, 0);
            let mut at = 0;
            while at < columns.start.len() {
                let key = columns.key(at);
                let (mut bytes_in, mut bytes_out) = (0u64, 0u64);
                while at < columns.start.len() && columns.key(at) == key {
                    bytes_in = bytes_in.saturating_add(columns.bytes_in[at]);
                    bytes_out = bytes_out.saturating_add(columns.bytes_out[at]);
                    let step = &mut totals.steps[steps.at(columns.start[at])];
                    *step = step.saturating_add(columns.bytes_in[at].saturating_add(columns.bytes_out[at]));
                    at += 1;
                }
                let [received, sent] = key.stacked(by, &sites);
                totals.add(received, bytes_in);
                totals.add(sent, bytes_out);
            }
        };
        self.fold_volume::<K, Totals>(pieces, None, add, Totals::merge).await
    }

    async fn steps_of<K: Stack>(
        &self,
        pieces: &[Piece],
        steps: Steps,
        query: &OverviewQuery,
        positions: HashMap<Stacked, usize>,
    ) -> Result<Named, AnalyticsError> {
        if positions.is_empty() {
            return Ok(Named::new());
        }
        let filter = K::filter(&positions.keys().copied().collect::<Vec<_>>());
        let positions = Arc::new(positions);
        let (by, sites) = (query.by, Arc::clone(&query.sites));
        let series = positions.values().max().map_or(0, |last| last + 1);
        let add = move |named: &mut Named, columns: &VolumeColumns<'_, K>| {
            named.resize(series, vec![0; steps.count]);
            let mut at = 0;
            while at < columns.start.len() {
                let key = columns.key(at);
                let [received, sent] = key.stacked(by, &sites).map(|key| positions.get(&key?).copied());
                while at < columns.start.len() && columns.key(at) == key {
                    let step = steps.at(columns.start[at]);
                    for (position, bytes) in [(received, columns.bytes_in[at]), (sent, columns.bytes_out[at])] {
                        if let Some(position) = position {
                            let sum = &mut named[position][step];
                            *sum = sum.saturating_add(bytes);
                        }
                    }
                    at += 1;
                }
            }
        };
        let merge = |all: &mut Named, more: Named| {
            all.resize(all.len().max(more.len()), Vec::new());
            for (all, more) in all.iter_mut().zip(more) {
                add_all(all, &more);
            }
        };
        self.fold_volume::<K, Named>(pieces, filter, add, merge).await
    }
}

fn series_with(key: String, bytes: Vec<u64>) -> OverviewSeries {
    OverviewSeries {
        key,
        total_bytes: bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)),
        bytes,
    }
}

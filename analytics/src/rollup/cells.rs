//! Flows to volume by key and window.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use arrow::array::RecordBatch;
use schemas::window::{WINDOW_MS, WindowStart};

use super::cell::{Cell, KeyHasher};
use super::flows::{MeteredColumns, MeteredFlow, TrafficColumns};
use super::key::{ByAs, ByInterface, ByPort, ByService, Key};
use super::{Ranges, Row};
use crate::AnalyticsError;

/// Window or hour, as its number of windows since 1970: 32 bits reach 20,000 years to both sides.
type Number = i32;

fn number_of(start_ms: i64) -> Number {
    (start_ms / WINDOW_MS) as Number
}

/// Volume by key and window.
#[derive(Debug)]
pub(crate) struct Cells<K> {
    map: HashMap<(K, Number), Cell, BuildHasherDefault<KeyHasher>>,
}

impl<K> Default for Cells<K> {
    fn default() -> Cells<K> {
        Cells {
            map: HashMap::default(),
        }
    }
}

impl<K: Key> Cells<K> {
    #[inline]
    pub(super) fn cell(&mut self, key: K, start_ms: i64) -> &mut Cell {
        self.map.entry((key, number_of(start_ms))).or_default()
    }

    #[inline]
    fn add_flow(&mut self, key: K, flow: &MeteredFlow, ranges: &Ranges) {
        flow.spread(ranges, |window: WindowStart, part| {
            self.cell(key, window.start_ms()).add_part(part);
        });
    }

    pub(crate) fn merge(&mut self, other: Cells<K>) {
        if self.map.is_empty() {
            *self = other;
            return;
        }
        for (key, cell) in other.map {
            self.map.entry(key).or_default().add(&cell);
        }
    }

    /// Drops the windows before `from_ms`.
    pub(super) fn retain_since(&mut self, from_ms: i64) {
        self.map.retain(|(_, number), _| *number >= number_of(from_ms));
        self.map.shrink_to_fit();
    }

    /// The rows of the windows of `ranges` by (key, window), the smaller keys of each window together as [`Key::rest`] where there
    /// are more than [`Key::KEYS_MAX`].
    pub(super) fn rows(&self, ranges: &Ranges) -> Vec<Row<K>> {
        let within = |row: &Row<K>| ranges.contain(row.start_ms);
        let mut rows: Vec<Row<K>> = self.all().filter(within).collect();
        if K::KEYS_MAX < rows.len() {
            rows = folded(rows, K::KEYS_MAX);
        }
        rows.sort_unstable_by_key(Row::order);
        rows
    }

    /// All rows by (key, window).
    pub(crate) fn into_rows(self) -> Vec<Row<K>> {
        let mut rows: Vec<Row<K>> = self.all().collect();
        rows.sort_unstable_by_key(Row::order);
        rows
    }

    fn all(&self) -> impl Iterator<Item = Row<K>> + '_ {
        self.map.iter().map(|((key, number), cell)| Row {
            key: *key,
            start_ms: i64::from(*number) * WINDOW_MS,
            cell: *cell,
        })
    }
}

/// Of each window the `keys_max` keys of the most bytes, ties by key, and what the others make together, with what smaller keys made
/// together before. The order of `rows` does not matter.
fn folded<K: Key>(mut rows: Vec<Row<K>>, keys_max: usize) -> Vec<Row<K>> {
    rows.sort_unstable_by_key(|row| row.start_ms);
    let mut kept = Vec::with_capacity(rows.len());
    for window in rows.chunk_by(|a, b| a.start_ms == b.start_ms) {
        let mut rest: HashMap<K, Row<K>> = HashMap::new();
        let mut add = |row: &Row<K>| {
            let key = row.key.rest();
            let empty = Row {
                key,
                cell: Cell::default(),
                ..*row
            };
            rest.entry(key).or_insert(empty).cell.add(&row.cell);
        };
        window.iter().filter(|row| row.key == row.key.rest()).for_each(&mut add);
        let mut named: Vec<Row<K>> = window.iter().filter(|row| row.key != row.key.rest()).copied().collect();
        if named.len() > keys_max {
            named.select_nth_unstable_by(keys_max, |a, b| {
                b.cell.bytes().cmp(&a.cell.bytes()).then(a.key.cmp(&b.key))
            });
            named[keys_max..].iter().for_each(&mut add);
            named.truncate(keys_max);
        }
        kept.append(&mut named);
        kept.extend(rest.into_values());
    }
    kept
}

/// Usage: volume by service.
impl Cells<ByService> {
    /// Adds the share of each metered flow in the windows of `ranges`.
    pub(crate) fn add_flows(&mut self, batch: &RecordBatch, ranges: &Ranges) -> Result<(), AnalyticsError> {
        let columns = MeteredColumns::of(batch)?;
        for flow in (0..batch.num_rows()).filter_map(|row| columns.flow(row)) {
            self.add_flow(ByService(flow.service), &flow, ranges);
        }
        Ok(())
    }
}

/// The network's traffic by what is not a service, counted in one go.
#[derive(Debug, Default)]
pub(crate) struct TrafficCells {
    pub(super) interfaces: Cells<ByInterface>,
    pub(super) ports: Cells<ByPort>,
    pub(super) systems: Cells<ByAs>,
}

impl TrafficCells {
    pub(super) fn add_flows(&mut self, batch: &RecordBatch, ranges: &Ranges) -> Result<(), AnalyticsError> {
        let columns = MeteredColumns::of(batch)?;
        let traffic = TrafficColumns::of(batch)?;
        for row in 0..batch.num_rows() {
            let Some(flow) = columns.flow(row) else {
                continue;
            };
            let (if_index, boundary) = traffic.facing(row, &flow);
            let interface = ByInterface {
                exporter: traffic.exporter(row),
                if_index,
                boundary,
            };
            let port = ByPort::of(traffic.ip_protocol(row), traffic.ports(row));
            let (source, destination) = traffic.systems(row);
            let systems = ByAs { source, destination };
            flow.spread(ranges, |window, part| {
                let start_ms = window.start_ms();
                self.interfaces.cell(interface, start_ms).add_part(part);
                self.ports.cell(port, start_ms).add_part(part);
                self.systems.cell(systems, start_ms).add_part(part);
            });
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: TrafficCells) {
        self.interfaces.merge(other.interfaces);
        self.ports.merge(other.ports);
        self.systems.merge(other.systems);
    }

    pub(super) fn retain_since(&mut self, from_ms: i64) {
        self.interfaces.retain_since(from_ms);
        self.ports.retain_since(from_ms);
        self.systems.retain_since(from_ms);
    }
}

//! The questions answered a second time, by plain loops over the flows and counts of a small world: no SQL, no columns and none
//! of the product's ways. What is shared are the words of the field: which part of a flow falls into a window
//! ([`schemas::window::spread`]), scaled volumes and the formula of the sampling error.

use std::collections::{BTreeMap, BTreeSet};

use schemas::address::Address;
use schemas::ids::ServiceId;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS, spread};
use tables::collection::CollectionRow;
use tables::flow::{Flow, Metered};

use crate::error_bound::{Estimate, Z95_PPM, of_samples_ppm};
use crate::{
    Attribution, Dimension, ExporterCount, Gap, Meters, Overview, OverviewQuery, OverviewSeries, Peer, PeriodQuery,
    PeriodUsage, SeriesPoint, SeriesQuery, UsageMode, WindowCount, WindowUsage, WindowVolume,
};

/// What is stored, and what comes of it.
#[derive(Debug)]
pub(super) struct Model {
    flows: Vec<Flow>,
    collected: Vec<CollectionRow<'static>>,
    /// By service and start of the window.
    usage: BTreeMap<(u32, i64), WindowUsage>,
    /// The windows in which each exporter was heard.
    heard: BTreeMap<Address, BTreeSet<i64>>,
}

fn floor_window(at_ms: i64) -> i64 {
    at_ms.div_euclid(WINDOW_MS) * WINDOW_MS
}

fn ceil_window(at_ms: i64) -> i64 {
    floor_window(at_ms + WINDOW_MS - 1)
}

/// The service that a flow counts for; none where it does not count.
fn counted_for(flow: &Flow) -> Option<u32> {
    match flow.metered {
        _ if flow.sampling_rate == 0 => None,
        Metered::No => None,
        Metered::In => Some(flow.dst_service),
        Metered::Out => Some(flow.src_service),
    }
}

fn is_exact(window: &WindowUsage) -> bool {
    window.packets_in + window.packets_out <= window.samples
}

fn add_to(estimate: &mut Estimate, window: &WindowUsage) {
    let bytes = window.bytes_in + window.bytes_out;
    if is_exact(window) {
        estimate.add_counted(bytes);
    } else {
        estimate.add_sampled(bytes, window.samples);
    }
}

fn usage_of(flows: &[Flow]) -> BTreeMap<(u32, i64), WindowUsage> {
    let mut usage: BTreeMap<(u32, i64), WindowUsage> = BTreeMap::new();
    for flow in flows {
        let Some(service) = counted_for(flow) else { continue };
        let is_in = flow.metered == Metered::In;
        spread(flow.bytes_scaled(), flow.start_at_ms, flow.end_at_ms, |window, part| {
            let cell = usage.entry((service, window.start_ms())).or_default();
            cell.window_start_ms = window.start_ms();
            cell.flows += 1;
            *(if is_in { &mut cell.bytes_in } else { &mut cell.bytes_out }) += part;
        });
        spread(
            flow.packets_scaled(),
            flow.start_at_ms,
            flow.end_at_ms,
            |window, part| {
                let cell = usage.entry((service, window.start_ms())).or_default();
                *(if is_in {
                    &mut cell.packets_in
                } else {
                    &mut cell.packets_out
                }) += part;
            },
        );
        spread(flow.packets, flow.start_at_ms, flow.end_at_ms, |window, part| {
            usage.entry((service, window.start_ms())).or_default().samples += part;
        });
    }
    for window in usage.values_mut() {
        window.error_bound_ppm = if is_exact(window) {
            0
        } else {
            of_samples_ppm(window.samples)
        };
    }
    usage
}

fn heard_of(collected: &[CollectionRow<'_>]) -> BTreeMap<Address, BTreeSet<i64>> {
    let mut heard: BTreeMap<Address, BTreeSet<i64>> = BTreeMap::new();
    for row in collected
        .iter()
        .filter(|row| row.counter == "datagrams" && row.value > 0)
    {
        heard.entry(row.exporter).or_default().insert(row.window_start_ms);
    }
    heard
}

impl Model {
    pub(super) fn of(flows: Vec<Flow>, collected: Vec<CollectionRow<'static>>) -> Model {
        Model {
            usage: usage_of(&flows),
            heard: heard_of(&collected),
            flows,
            collected,
        }
    }

    pub(super) fn usage_windows(&self, service: u32, from_ms: i64, to_ms: i64) -> Vec<WindowUsage> {
        let is_asked = |of: u32, at_ms: i64| of == service && (from_ms..to_ms).contains(&at_ms);
        let asked = self.usage.iter().filter(|((of, at_ms), _)| is_asked(*of, *at_ms));
        asked.map(|(_, window)| *window).collect()
    }

    pub(super) fn network_usage(&self, from_ms: i64, to_ms: i64) -> Vec<WindowVolume> {
        let mut windows: BTreeMap<i64, WindowVolume> = BTreeMap::new();
        for ((_, at_ms), window) in &self.usage {
            if (from_ms..to_ms).contains(at_ms) {
                let sum = windows.entry(*at_ms).or_default();
                sum.window_start_ms = *at_ms;
                sum.bytes_in += window.bytes_in;
                sum.bytes_out += window.bytes_out;
            }
        }
        windows.into_values().collect()
    }

    pub(super) fn attribution(&self, from_ms: i64, to_ms: i64) -> Attribution {
        let mut sums = Attribution::default();
        for ((service, at_ms), window) in &self.usage {
            if (from_ms..to_ms).contains(at_ms) {
                let bytes = window.bytes_in + window.bytes_out;
                sums.total_bytes += bytes;
                sums.unattributed_bytes += if *service == 0 { bytes } else { 0 };
            }
        }
        sums
    }

    fn counted(&self, counter: &str, from_ms: i64, to_ms: i64) -> impl Iterator<Item = &CollectionRow<'static>> {
        let is_asked = move |at_ms: i64| (from_ms..to_ms).contains(&at_ms);
        self.collected
            .iter()
            .filter(move |row| row.counter == counter && is_asked(row.window_start_ms))
    }

    pub(super) fn flow_records(&self, from_ms: i64, to_ms: i64) -> Vec<WindowCount> {
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        for row in self.counted("flow_records", from_ms, to_ms) {
            *counts.entry(row.window_start_ms).or_default() += row.value;
        }
        let counts = counts.into_iter();
        counts
            .map(|(window_start_ms, count)| WindowCount { window_start_ms, count })
            .collect()
    }

    pub(super) fn flows_without_rate(&self, from_ms: i64, to_ms: i64) -> Vec<ExporterCount> {
        let mut counts: BTreeMap<Address, u64> = BTreeMap::new();
        for row in self.counted("flows_without_sampling_rate", from_ms, to_ms) {
            *counts.entry(row.exporter).or_default() += row.value;
        }
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        counts
            .map(|(exporter, count)| ExporterCount { exporter, count })
            .collect()
    }

    pub(super) fn heard_until(&self) -> Option<i64> {
        let newest = self.heard.values().filter_map(|windows| windows.last()).max()?;
        Some(newest + WINDOW_MS)
    }

    /// Those who meter a service, with when they were heard.
    fn metering(&self, meters: &Meters) -> Vec<(Address, &BTreeSet<i64>)> {
        let heard = self.heard.iter().map(|(exporter, heard)| (*exporter, heard));
        match meters {
            Meters::Named(exporters) => heard.filter(|(exporter, _)| exporters.contains(exporter)).collect(),
            Meters::AllBut(others) => heard.filter(|(exporter, _)| !others.contains(exporter)).collect(),
        }
    }

    fn is_measured(&self, meters: &Meters, window_start_ms: i64) -> bool {
        let metering = self.metering(meters);
        metering.iter().any(|(_, heard)| heard.contains(&window_start_ms))
    }

    /// Of the windows that start in a range.
    fn gaps_of_windows(&self, meters: &Meters, first_ms: i64, end_ms: i64) -> Vec<Gap> {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        let mut at_ms = first_ms;
        while at_ms < end_ms {
            if !self.is_measured(meters, at_ms) {
                match runs.last_mut() {
                    Some(run) if run.1 == at_ms => run.1 += WINDOW_MS,
                    _ => runs.push((at_ms, at_ms + WINDOW_MS)),
                }
            }
            at_ms += WINDOW_MS;
        }
        let mut gaps = Vec::new();
        for (from_ms, to_ms) in runs {
            let named: Vec<Address> = match meters {
                Meters::AllBut(_) => vec![Address::UNSPECIFIED],
                Meters::Named(exporters) => {
                    let metering = self.metering(meters);
                    let before = metering
                        .iter()
                        .filter(|(_, heard)| heard.first().is_some_and(|first| *first < from_ms));
                    let before: Vec<Address> = before.map(|(exporter, _)| *exporter).collect();
                    if before.is_empty() { exporters.clone() } else { before }
                }
            };
            gaps.extend(named.into_iter().map(|exporter| Gap {
                from_ms,
                to_ms,
                exporter,
            }));
        }
        gaps.sort_by_key(|gap| (gap.from_ms, gap.exporter));
        gaps
    }

    pub(super) fn gaps(&self, meters: &Meters, from_ms: i64, to_ms: i64) -> Vec<Gap> {
        if to_ms <= from_ms {
            return Vec::new();
        }
        self.gaps_of_windows(meters, floor_window(from_ms), ceil_window(to_ms))
    }

    /// End of the windows that are over, so that they are measured or a gap: two minutes after their end.
    fn closed_until(now_ms: i64) -> i64 {
        floor_window(now_ms - 120_000)
    }

    pub(super) fn period_usage(&self, query: &PeriodQuery, now_ms: i64) -> PeriodUsage {
        let (first_ms, end_ms) = (ceil_window(query.from_ms), ceil_window(query.to_ms));
        let end_ms = end_ms.max(first_ms);
        let until_ms = Model::closed_until(now_ms).clamp(first_ms, end_ms);
        let mut usage = PeriodUsage {
            service: query.service.service,
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            measured_to_ms: if until_ms == end_ms { query.to_ms } else { until_ms },
            bytes_in: 0,
            bytes_out: 0,
            billed_bytes: 0,
            percentile_95_bps: None,
            percentile_rank: 0,
            windows_measured: 0,
            windows_expected: 0,
            windows_excluded: 0,
            excluded_bytes_in: 0,
            excluded_bytes_out: 0,
            error_bound_ppm: 0,
            gaps: self.gaps_of_windows(&query.service.meters, first_ms, until_ms),
        };
        let mut estimate = Estimate::default();
        let mut measured: Vec<(u64, u64)> = Vec::new();
        let mut at_ms = first_ms;
        while at_ms < until_ms {
            usage.windows_expected += 1;
            let nothing = WindowUsage::default();
            let window = self.usage.get(&(query.service.service, at_ms)).unwrap_or(&nothing);
            let mut excluded = query.excluded.iter();
            if excluded.any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&at_ms)) {
                usage.windows_excluded += 1;
                usage.excluded_bytes_in += window.bytes_in;
                usage.excluded_bytes_out += window.bytes_out;
            } else {
                usage.bytes_in += window.bytes_in;
                usage.bytes_out += window.bytes_out;
                add_to(&mut estimate, window);
                if self.is_measured(&query.service.meters, at_ms) {
                    usage.windows_measured += 1;
                    measured.push((window.bytes_in, window.bytes_out));
                }
            }
            at_ms += WINDOW_MS;
        }
        usage.error_bound_ppm = estimate.bound_ppm(Z95_PPM);
        usage.percentile_rank = (95 * usage.windows_measured).div_ceil(100);
        let at_rank = |value: fn(&(u64, u64)) -> u64| {
            let mut bps: Vec<u64> = measured.iter().map(|window| value(window) * 8 / 300).collect();
            bps.sort_unstable();
            let rank = usage.percentile_rank as usize;
            (rank > 0).then(|| bps[rank - 1])
        };
        let (of_in, of_out) = (at_rank(|window| window.0), at_rank(|window| window.1));
        (usage.billed_bytes, usage.percentile_95_bps) = match query.mode {
            UsageMode::Sum => (usage.bytes_in + usage.bytes_out, at_rank(|window| window.0 + window.1)),
            UsageMode::In => (usage.bytes_in, of_in),
            UsageMode::Out => (usage.bytes_out, of_out),
            UsageMode::Max => (usage.bytes_in.max(usage.bytes_out), of_in.max(of_out)),
        };
        usage
    }

    /// `cuts`: where the steps of the query begin, and the end of the last.
    pub(super) fn usage_series(&self, query: &SeriesQuery<'_>, cuts: &[i64]) -> Vec<SeriesPoint> {
        let services: BTreeSet<u32> = query.services.iter().map(|service| service.service).collect();
        let until_ms = Model::closed_until(query.now_ms);
        let mut points = Vec::new();
        for (start_ms, end_ms) in cuts.iter().zip(&cuts[1..]) {
            let mut point = SeriesPoint {
                start_ms: *start_ms,
                end_ms: *end_ms,
                bytes_in: 0,
                bytes_out: 0,
                windows_measured: 0,
                windows: 0,
                error_bound_ppm: 0,
            };
            let mut estimate = Estimate::default();
            let mut at_ms = ceil_window(*start_ms);
            while at_ms < *end_ms {
                for service in &services {
                    if let Some(window) = self.usage.get(&(*service, at_ms)) {
                        point.bytes_in += window.bytes_in;
                        point.bytes_out += window.bytes_out;
                        add_to(&mut estimate, window);
                    }
                }
                if at_ms < until_ms && !services.is_empty() {
                    let mut asked = query.services.iter();
                    point.windows += 1;
                    point.windows_measured += u32::from(asked.all(|service| self.is_measured(&service.meters, at_ms)));
                }
                at_ms += WINDOW_MS;
            }
            point.error_bound_ppm = estimate.bound_ppm(Z95_PPM);
            points.push(point);
        }
        points
    }

    pub(super) fn top_peers(&self, service: u32, from_ms: i64, to_ms: i64, limit: usize) -> Vec<Peer> {
        if to_ms <= from_ms {
            return Vec::new();
        }
        let (from_ms, to_ms) = (floor_window(from_ms), ceil_window(to_ms));
        let mut peers: BTreeMap<Address, Peer> = BTreeMap::new();
        for flow in &self.flows {
            let touches = flow.start_at_ms < to_ms && flow.end_at_ms >= from_ms;
            if counted_for(flow) != Some(service) || !touches {
                continue;
            }
            let is_in = flow.metered == Metered::In;
            let (address, autonomous_system) = if is_in {
                (flow.src_addr, flow.src_as)
            } else {
                (flow.dst_addr, flow.dst_as)
            };
            let peer = peers.entry(address).or_insert(Peer {
                address,
                autonomous_system: 0,
                bytes_in: 0,
                bytes_out: 0,
            });
            peer.autonomous_system = peer.autonomous_system.max(autonomous_system);
            spread(flow.bytes_scaled(), flow.start_at_ms, flow.end_at_ms, |window, part| {
                if (from_ms..to_ms).contains(&window.start_ms()) {
                    *(if is_in { &mut peer.bytes_in } else { &mut peer.bytes_out }) += part;
                }
            });
        }
        let mut peers: Vec<Peer> = peers.into_values().collect();
        peers.retain(|peer| peer.bytes_in + peer.bytes_out > 0);
        // By address before, and stable.
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.bytes_in + peer.bytes_out));
        peers.truncate(limit);
        peers
    }

    pub(super) fn overview(&self, query: &OverviewQuery) -> Overview {
        let (from_ms, by, ranks) = (query.from_ms, query.by, query.ranks.clone());
        let step_ms = match query.to_ms - from_ms {
            range_ms if range_ms <= DAY_MS => WINDOW_MS,
            range_ms if range_ms <= 32 * DAY_MS => HOUR_MS,
            _ => DAY_MS,
        };
        let to_ms = query.to_ms.max(from_ms);
        let first_ms = from_ms.div_euclid(step_ms) * step_ms;
        let steps = (to_ms - first_ms + step_ms - 1).div_euclid(step_ms) as usize;
        // Keys compare as they are ranked: by exporter or protocol, then by number.
        let mut keys: BTreeMap<(Option<Address>, u32, u32), Vec<u64>> = BTreeMap::new();
        for flow in self.flows.iter().filter(|flow| counted_for(flow).is_some()) {
            let received = flow.metered == Metered::In;
            let side = |source: u32, destination: u32| if received { source } else { destination };
            let port = flow.src_port.min(flow.dst_port);
            let key = match by {
                Dimension::Service => (None, 0, side(flow.dst_service, flow.src_service)),
                Dimension::Protocol => (None, 0, u32::from(flow.ip_protocol)),
                Dimension::Port => {
                    let port = if port < 32_768 { u32::from(port) } else { 0 };
                    (None, u32::from(flow.ip_protocol), port)
                }
                Dimension::Interface => (Some(flow.exporter), 0, side(flow.in_if, flow.out_if)),
                Dimension::Exporter => (Some(flow.exporter), 0, 0),
                // By name: FRA1 has the network, NYC1 the other.
                Dimension::Site => (None, 0, u32::from(flow.exporter.to_string().contains('.'))),
                Dimension::Boundary => (
                    None,
                    0,
                    side(u32::from(flow.in_boundary as u8), u32::from(flow.out_boundary as u8)),
                ),
                Dimension::As => (None, 0, side(flow.src_as, flow.dst_as)),
            };
            spread(flow.bytes_scaled(), flow.start_at_ms, flow.end_at_ms, |window, part| {
                if (from_ms..to_ms).contains(&window.start_ms()) {
                    let step = (window.start_ms() - first_ms).div_euclid(step_ms) as usize;
                    keys.entry(key).or_insert_with(|| vec![0; steps])[step] += part;
                }
            });
        }

        let mut ranking: Vec<OverviewSeries> = Vec::new();
        for ((exporter, protocol, number), bytes) in keys {
            let key = match (exporter, by) {
                (Some(exporter), Dimension::Exporter) => exporter.to_string(),
                (Some(exporter), _) => format!("{exporter} {number}"),
                (None, Dimension::Service) if number == 0 => "unattributed".to_owned(),
                (None, Dimension::Service) => ServiceId::from(number).to_string(),
                (None, Dimension::Port) => format!("{protocol} {number}"),
                (None, Dimension::Site) => format!("site {}", ["FRA1", "NYC1"][number as usize]),
                (None, Dimension::Boundary) => ["unknown", "external", "internal"][number as usize].to_owned(),
                (None, _) => number.to_string(),
            };
            ranking.push(OverviewSeries {
                key,
                total_bytes: bytes.iter().sum(),
                bytes,
            });
        }
        ranking.retain(|series| series.total_bytes > 0);
        ranking.sort_by_key(|series| std::cmp::Reverse(series.total_bytes));
        let keys_total = ranking.len();
        let mut series: Vec<OverviewSeries> = Vec::new();
        for (rank, one) in ranking.into_iter().enumerate() {
            let summed = match rank {
                rank if rank < ranks.start => Some("larger"),
                rank if rank >= ranks.end.max(ranks.start) => Some("other"),
                _ => None,
            };
            match (summed, series.last_mut()) {
                (Some(key), Some(sum)) if sum.key == key => {
                    sum.total_bytes += one.total_bytes;
                    for (sum, bytes) in sum.bytes.iter_mut().zip(one.bytes) {
                        *sum += bytes;
                    }
                }
                (Some(key), _) => series.push(OverviewSeries {
                    key: key.to_owned(),
                    ..one
                }),
                (None, _) => series.push(one),
            }
        }
        Overview {
            from_ms,
            to_ms,
            step_ms,
            starts_ms: (0..steps as i64).map(|step| first_ms + step * step_ms).collect(),
            keys_total,
            series,
        }
    }
}

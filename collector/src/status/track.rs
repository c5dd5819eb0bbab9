//! Follows datagrams, flows and counts as they are decoded, to tell each exporter's status.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::address::Address;
use schemas::metering::{ExporterTable, MeteringConfig};

use super::summary::{ExporterSums, FlowSummary, InterfaceSums};
use super::{
    DOMAINS_MAX, EXPORTERS_MAX, ExporterStatus, INTERFACES_MAX, InterfaceStatus, MINUTES_MAX, MinuteStatus,
    STRANGERS_MAX,
};
use crate::counts::{Counter, Counts};
use crate::decode::DomainView;

const MINUTE_MS: i64 = 60_000;

#[derive(Debug)]
struct Tracked {
    /// Everything but interfaces.
    status: ExporterStatus,
    interfaces: HashMap<u32, InterfaceStatus>,
    /// No datagram of it was ever understood.
    is_stranger: bool,
}

/// Status of every exporter so far.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    index: HashMap<Address, usize>,
    exporters: Vec<Tracked>,
    strangers: usize,
    /// Those that the configuration lists: they always have a place.
    listed: HashSet<Address>,
    totals: BTreeMap<String, u64>,
}

impl Tracker {
    /// Goes on from what was kept.
    pub(crate) fn restore(exporters: Vec<ExporterStatus>, totals: BTreeMap<String, u64>) -> Tracker {
        let mut tracker = Tracker {
            totals,
            ..Tracker::default()
        };
        for mut status in exporters {
            tracker.index.insert(status.address, tracker.exporters.len());
            let interfaces = std::mem::take(&mut status.interfaces);
            let is_stranger = status.protocol_versions.is_empty();
            tracker.strangers += usize::from(is_stranger);
            tracker.exporters.push(Tracked {
                is_stranger,
                status,
                interfaces: interfaces.into_iter().map(|i| (i.if_index, i)).collect(),
            });
        }
        tracker
    }

    /// Takes over which exporters the configuration lists.
    pub(crate) fn set_listed(&mut self, metering: &MeteringConfig) {
        let hosts = metering.exporters.iter().filter_map(|exporter| exporter.address.host());
        self.listed = hosts.collect();
    }

    /// The entry of an exporter that spoke this protocol, 0 for none of ours; made where there is room.
    fn get(&mut self, address: Address, protocol_version: u8) -> Option<&mut Tracked> {
        let speaks = protocol_version != 0;
        if let Some(index) = self.index.get(&address) {
            let tracked = self.exporters.get_mut(*index)?;
            if speaks && tracked.is_stranger {
                tracked.is_stranger = false;
                self.strangers -= 1;
            }
            return Some(tracked);
        }
        let is_full = self.exporters.len() >= EXPORTERS_MAX;
        let has_room = if speaks {
            !is_full
                || self.evict(|tracked, _| tracked.is_stranger)
                || (self.listed.contains(&address)
                    && self.evict(|tracked, listed| !listed.contains(&tracked.status.address)))
        } else if is_full || self.strangers >= STRANGERS_MAX {
            self.evict(|tracked, _| tracked.is_stranger)
        } else {
            true
        };
        if !has_room {
            return None;
        }
        self.strangers += usize::from(!speaks);
        self.index.insert(address, self.exporters.len());
        self.exporters.push(Tracked {
            status: ExporterStatus::new(address),
            interfaces: HashMap::new(),
            is_stranger: !speaks,
        });
        self.exporters.last_mut()
    }

    /// Forgets the exporter among those that `may_go` which was not heard for longest; answers whether there was one.
    fn evict(&mut self, may_go: impl Fn(&Tracked, &HashSet<Address>) -> bool) -> bool {
        let silent = (0..self.exporters.len())
            .filter(|index| may_go(&self.exporters[*index], &self.listed))
            .min_by_key(|index| self.exporters[*index].status.last_heard_ms);
        let Some(index) = silent else { return false };
        let gone = self.exporters.swap_remove(index);
        self.strangers -= usize::from(gone.is_stranger);
        self.index.remove(&gone.status.address);
        if let Some(moved) = self.exporters.get(index) {
            self.index.insert(moved.status.address, index);
        }
        true
    }

    /// A datagram of this exporter arrived.
    pub(crate) fn heard(&mut self, exporter: Address, protocol_version: u8, at_ms: i64, length: usize) {
        if exporter == Address::UNSPECIFIED {
            return;
        }
        let Some(tracked) = self.get(exporter, protocol_version) else {
            return;
        };
        let status = &mut tracked.status;
        if status.first_heard_ms == 0 || at_ms < status.first_heard_ms {
            status.first_heard_ms = at_ms;
        }
        status.last_heard_ms = status.last_heard_ms.max(at_ms);
        status.datagrams += 1;
        status.datagram_bytes += length as u64;
        if protocol_version != 0 {
            status.protocol_versions.insert(protocol_version);
        }
        minute(&mut status.minutes, at_ms).datagrams += 1;
    }

    /// Flows after they were attributed.
    pub(crate) fn flows(&mut self, summary: &FlowSummary) {
        for sums in &summary.exporters {
            if let Some(tracked) = self.get(sums.exporter, sums.protocol_version) {
                tracked.flows(sums);
            }
        }
    }

    /// Counts of a segment.
    pub(crate) fn counts(&mut self, counts: &Counts) {
        for (key, counter, value) in counts.iter() {
            add(&mut self.totals, counter, value);
            if key.exporter == Address::UNSPECIFIED {
                continue;
            }
            let Some(tracked) = self.get(key.exporter, key.protocol_version) else {
                continue;
            };
            add(&mut tracked.status.counters, counter, value);
            if counter == Counter::DatagramsRejectedSource {
                tracked.status.refused_at_ms = tracked.status.last_heard_ms;
            }
            if counter == Counter::SequenceLost {
                tracked.status.sequence_lost += value;
                tracked.domain_lost(key.protocol_version, key.observation_domain, value);
            }
        }
    }

    /// Every exporter in order of address, with its domains and its configuration as of now.
    pub(crate) fn exporters(
        &self,
        domains: impl IntoIterator<Item = (Address, DomainView)>,
        metering: &MeteringConfig,
    ) -> Vec<ExporterStatus> {
        let mut by_exporter: HashMap<Address, Vec<DomainView>> = HashMap::new();
        for (exporter, domain) in domains {
            let listed = by_exporter.entry(exporter).or_default();
            if listed.len() < DOMAINS_MAX {
                listed.push(domain);
            }
        }
        let configured = ExporterTable::of(metering, |config| config);
        let mut exporters: Vec<ExporterStatus> = Vec::with_capacity(self.exporters.len());
        for tracked in &self.exporters {
            let mut status = tracked.status.clone();
            status.interfaces = tracked.interfaces.values().copied().collect();
            status.interfaces.sort_unstable_by_key(|interface| interface.if_index);
            if let Some(mut domains) = by_exporter.remove(&status.address) {
                // Losses of a domain that only one session has go back farther here than in the decoder.
                let key = |domain: &DomainView| (domain.protocol_version, domain.observation_domain);
                let mut sessions: HashMap<(u8, u32), u32> = HashMap::new();
                for domain in &domains {
                    *sessions.entry(key(domain)).or_default() += 1;
                }
                for domain in domains.iter_mut().filter(|domain| sessions[&key(domain)] == 1) {
                    let known = status.domains.iter().find(|known| key(known) == key(domain));
                    domain.sequence_lost = known.map_or(domain.sequence_lost, |known| known.sequence_lost);
                }
                status.domains = domains;
                status
                    .domains
                    .sort_by_key(|domain| (domain.protocol_version, domain.observation_domain, domain.port));
            }
            let config = configured.get(status.address, 0);
            status.configured = config.is_some();
            let named = config.filter(|config| config.name.is_some());
            status.name = named.map(|config| config.name_of(status.address));
            status.site = config.and_then(|config| config.site.clone());
            status.meter = config.map(|config| config.meter).unwrap_or_default();
            exporters.push(status);
        }
        exporters.sort_unstable_by_key(|status| status.address);
        exporters
    }

    pub(crate) fn totals(&self) -> &BTreeMap<String, u64> {
        &self.totals
    }
}

impl Tracked {
    /// Losses are kept with the domain, whose other fields come from the decoders when the status is told.
    fn domain_lost(&mut self, protocol_version: u8, observation_domain: u32, lost: u64) {
        let domains = &mut self.status.domains;
        let same =
            |d: &DomainView| d.protocol_version == protocol_version && d.observation_domain == observation_domain;
        let at = match domains.iter().position(same) {
            Some(at) => at,
            None if domains.len() >= DOMAINS_MAX => return,
            None => {
                domains.push(DomainView {
                    observation_domain,
                    protocol_version,
                    ..DomainView::default()
                });
                domains.len() - 1
            }
        };
        domains[at].sequence_lost += lost;
    }

    fn flows(&mut self, sums: &ExporterSums) {
        let status = &mut self.status;
        status.flows += sums.flows;
        status.packets = status.packets.saturating_add(sums.packets);
        status.bytes = status.bytes.saturating_add(sums.bytes);
        status.bytes_scaled = status.bytes_scaled.saturating_add(sums.bytes_scaled);
        status.flows_without_rate += sums.flows_without_rate;
        status.header_sizes.add(sums.header_sizes);
        if sums.is_metered {
            status.unmetered_since_ms = 0;
        } else if status.unmetered_since_ms == 0 {
            status.unmetered_since_ms = sums.minutes.iter().map(|minute| minute.at_ms).min().unwrap_or(0);
        }
        if let Some(sampling_rate) = sums.sampling_rate {
            status.sampling_rate = sampling_rate;
        }
        for sums in &sums.minutes {
            let minute = minute(&mut status.minutes, sums.at_ms);
            minute.flows += sums.flows;
            minute.bytes_scaled = minute.bytes_scaled.saturating_add(sums.bytes_scaled);
        }
        for sums in &sums.interfaces {
            if let Some(interface) = self.interface(sums) {
                interface.in_flows += sums.in_flows;
                interface.out_flows += sums.out_flows;
                interface.in_bytes_scaled = interface.in_bytes_scaled.saturating_add(sums.in_bytes_scaled);
                interface.out_bytes_scaled = interface.out_bytes_scaled.saturating_add(sums.out_bytes_scaled);
                interface.last_seen_ms = interface.last_seen_ms.max(sums.last_seen_ms);
                interface.boundary = sums.boundary;
            }
        }
    }

    /// The entry of an interface; `None` beyond the limit.
    fn interface(&mut self, sums: &InterfaceSums) -> Option<&mut InterfaceStatus> {
        let is_new = !self.interfaces.contains_key(&sums.if_index);
        if is_new && self.interfaces.len() >= INTERFACES_MAX {
            return None;
        }
        Some(self.interfaces.entry(sums.if_index).or_insert(InterfaceStatus {
            if_index: sums.if_index,
            in_flows: 0,
            out_flows: 0,
            in_bytes_scaled: 0,
            out_bytes_scaled: 0,
            last_seen_ms: sums.last_seen_ms,
            boundary: sums.boundary,
        }))
    }
}

fn add(counters: &mut BTreeMap<String, u64>, counter: Counter, value: u64) {
    match counters.get_mut(counter.name()) {
        Some(sum) => *sum += value,
        None => {
            counters.insert(counter.name().to_owned(), value);
        }
    }
}

/// The entry of a minute, kept in order; a minute older than all that are kept counts with the oldest.
fn minute(minutes: &mut Vec<MinuteStatus>, at_ms: i64) -> &mut MinuteStatus {
    let minute_ms = at_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
    let mut position = minutes.len();
    while position > 0 && minutes[position - 1].minute_ms > minute_ms {
        position -= 1;
    }
    if position > 0 && minutes[position - 1].minute_ms == minute_ms {
        return &mut minutes[position - 1];
    }
    if minutes.len() >= MINUTES_MAX {
        if position == 0 {
            return &mut minutes[0];
        }
        minutes.remove(0);
        position -= 1;
    }
    let entry = MinuteStatus {
        minute_ms,
        ..MinuteStatus::default()
    };
    minutes.insert(position, entry);
    &mut minutes[position]
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::metering::MeterMode;
    use tables::flow::{Flow, Metered};

    #[test]
    fn minutes_stay_in_order_and_bounded() {
        let mut minutes = Vec::new();
        for at in [5, 3, 4, 5, 20, 1] {
            minute(&mut minutes, at * MINUTE_MS + 7).flows += 1;
        }
        let seen: Vec<(i64, u64)> = minutes.iter().map(|m| (m.minute_ms / MINUTE_MS, m.flows)).collect();
        assert_eq!(seen, [(1, 1), (3, 1), (4, 1), (5, 2), (20, 1)]);
        for at in 21..60 {
            minute(&mut minutes, at * MINUTE_MS).flows += 1;
        }
        assert_eq!(minutes.len(), MINUTES_MAX);
        minute(&mut minutes, 0).flows += 1;
        assert_eq!(minutes[0].flows, 2, "counted with the oldest");
    }

    fn address(number: usize) -> Address {
        Address::from_v4((0x0a00_0000 + number as u32).to_be_bytes())
    }

    #[test]
    fn a_listed_exporter_has_a_place_after_a_flood_of_forged_ones() {
        let mut tracker = Tracker::default();
        for number in 0..EXPORTERS_MAX {
            tracker.heard(address(number), 9, 1_000 + number as i64, 10);
        }
        let late = address(EXPORTERS_MAX);
        tracker.heard(late, 9, 99_000, 10);
        assert!(!tracker.index.contains_key(&late), "the list is full");
        let metering = MeteringConfig {
            exporters: vec![schemas::metering::ExporterConfig::unlisted(late)],
            ..MeteringConfig::default()
        };
        tracker.set_listed(&metering);
        tracker.heard(late, 9, 99_000, 10);
        let exporters = tracker.exporters([], &metering);
        assert_eq!(exporters.len(), EXPORTERS_MAX);
        let shown = exporters.iter().find(|status| status.address == late).unwrap();
        assert_eq!((shown.datagrams, shown.configured), (1, true));
        assert!(
            !tracker.index.contains_key(&address(0)),
            "the one not heard for longest went"
        );
        for (address, index) in &tracker.index {
            assert_eq!(tracker.exporters[*index].status.address, *address);
        }
    }

    #[test]
    fn refused_sources_are_shown_and_bounded() {
        let mut tracker = Tracker::default();
        let mut counts = Counts::default();
        for number in 0..STRANGERS_MAX + 5 {
            tracker.heard(address(number), 0, 1_000 + number as i64, 10);
        }
        tracker.heard(Address::UNSPECIFIED, 0, 9_000, 10);
        let newest = address(STRANGERS_MAX + 4);
        let key = crate::counts::CountKey {
            exporter: newest,
            observation_domain: 0,
            protocol_version: 0,
        };
        counts.add(key, Counter::DatagramsRejectedSource, 1);
        tracker.counts(&counts);
        let metering = MeteringConfig::default();
        let exporters = tracker.exporters([], &metering);
        assert_eq!(exporters.len(), STRANGERS_MAX, "the newest replace the oldest");
        let refused: Vec<&ExporterStatus> = exporters.iter().filter(|status| status.is_refused()).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].address, newest);

        // Allowed from now on: it is an exporter like others, and no stranger after a restart either.
        tracker.heard(newest, 10, 20_000, 10);
        let mut tracker = Tracker::restore(tracker.exporters([], &metering), BTreeMap::new());
        assert_eq!(tracker.strangers, STRANGERS_MAX - 1);
        let status = tracker.get(newest, 10).unwrap().status.clone();
        assert!(!status.is_refused() && status.refused_at_ms > 0);
    }

    #[test]
    fn flows_of_which_none_counts_are_told_after_an_hour() {
        const HOUR: i64 = 60;
        let mut tracker = Tracker::default();
        let mut arrive = |minute: i64, metered| {
            let flow = Flow {
                exporter: address(1),
                metered,
                received_at_ms: minute * MINUTE_MS + 7,
                ..Flow::default()
            };
            tracker.heard(flow.exporter, 9, flow.received_at_ms, 100);
            tracker.flows(&FlowSummary::of(&[flow].into_iter().collect()));
            let told = tracker.exporters([], &MeteringConfig::default()).remove(0);
            told.nothing_metered_since_ms(MeterMode::Boundary)
                .map(|at_ms| at_ms / MINUTE_MS)
        };
        assert_eq!(arrive(10, Metered::No), None);
        assert_eq!(arrive(9 + HOUR, Metered::No), None);
        assert_eq!(arrive(10 + HOUR, Metered::No), Some(10));
        assert_eq!(arrive(11 + HOUR, Metered::In), None);
        assert_eq!(arrive(12 + HOUR, Metered::No), None);
        assert_eq!(arrive(12 + 2 * HOUR, Metered::No), Some(12 + HOUR));
        let told = tracker.exporters([], &MeteringConfig::default()).remove(0);
        assert_eq!(
            told.nothing_metered_since_ms(MeterMode::Off),
            None,
            "it is not to count any"
        );
        let tracker = Tracker::restore(vec![told.clone()], BTreeMap::new());
        assert_eq!(tracker.exporters([], &MeteringConfig::default()), [told]);
    }

    #[test]
    fn a_restored_tracker_goes_on() {
        let flow = Flow {
            exporter: "192.0.2.1".parse().unwrap(),
            in_if: 1,
            out_if: 2,
            bytes: 10,
            packets: 1,
            sampling_rate: 100,
            received_at_ms: 60_000,
            ..Flow::default()
        };
        let metering = MeteringConfig::default();
        let mut tracker = Tracker::default();
        tracker.heard(flow.exporter, 9, 60_000, 100);
        tracker.flows(&FlowSummary::of(&[flow, flow].into_iter().collect()));
        let mut tracker = Tracker::restore(tracker.exporters([], &metering), tracker.totals().clone());
        tracker.flows(&FlowSummary::of(&[flow].into_iter().collect()));
        let exporters = tracker.exporters([], &metering);
        assert_eq!(exporters.len(), 1);
        let status = &exporters[0];
        assert_eq!((status.flows, status.bytes_scaled, status.datagrams), (3, 3_000, 1));
        assert_eq!(status.interfaces.len(), 2);
        assert_eq!(status.interfaces[0].in_flows, 3);
        assert_eq!(status.interfaces[0].in_bytes_scaled, 3_000);
    }
}

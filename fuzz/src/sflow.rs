//! sFlow version 5 under test.

use collector::counts::Counter;
use collector::decode::sflow::{SflowCheckpoint, SflowDecoder, SflowLimits};
use collector::decode::{Datagram, Decoded};
use schemas::metering::{ExporterConfig, MeteringConfig};
use tables::flow::Flow;

use crate::check::Subject;
use crate::input::{Input, Settings, sources};

fn limits(settings: Settings) -> SflowLimits {
    if !settings.tight_limits() {
        return SflowLimits::default();
    }
    SflowLimits {
        agents_max: 3,
        sub_agents_max: 2,
        agents_per_source_max: 2,
        silence_max_ms: 60_000,
        name_silence_max_ms: 10_000,
        sources_per_agent_max: 2,
        interfaces_per_agent_max: 3,
        strangers_max: 1,
    }
}

fn metering(settings: Settings) -> MeteringConfig {
    let mut config = MeteringConfig::default();
    if settings.configured_rates() {
        let [first, second, ..] = sources();
        config.exporters.push(ExporterConfig {
            sampling_rate: Some(512),
            ..ExporterConfig::unlisted(first)
        });
        config.exporters.push(ExporterConfig {
            default_sampling_rate: Some(256),
            ..ExporterConfig::unlisted(second)
        });
    }
    config
}

impl Subject for SflowDecoder {
    type Checkpoint = SflowCheckpoint;

    fn new(settings: Settings) -> SflowDecoder {
        SflowDecoder::new(limits(settings), &metering(settings))
    }

    fn restore(settings: Settings, checkpoint: SflowCheckpoint) -> SflowDecoder {
        SflowDecoder::restore(limits(settings), &metering(settings), checkpoint)
    }

    fn checkpoint(&self) -> SflowCheckpoint {
        SflowDecoder::checkpoint(self)
    }

    fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) {
        SflowDecoder::decode(self, datagram, decoded);
    }

    fn start_segment(&mut self, decoded: &mut Decoded) {
        self.forget_silent(decoded);
    }

    fn check_state(&self, settings: Settings, input: &Input, decoded: &Decoded) {
        let limits = limits(settings);
        let agents = self.agents();
        // Agents that the configuration lists always have a place.
        let listed: Vec<_> = metering(settings)
            .exporters
            .into_iter()
            .filter_map(|exporter| exporter.address.host())
            .collect();
        let unlisted = agents.iter().filter(|agent| !listed.contains(&agent.exporter)).count();
        assert!(unlisted <= limits.agents_max, "too many agents");
        for agent in &agents {
            let own = agents.iter().filter(|other| other.exporter == agent.exporter).count();
            assert!(own <= limits.sub_agents_max, "too many sub-agents");
            assert!(agent.sources.len() <= limits.sources_per_agent_max, "too many sources");
            assert!(
                agent.interfaces.len() <= limits.interfaces_per_agent_max,
                "too many interfaces"
            );
        }
        assert!(
            self.checkpoint().strangers.len() <= limits.strangers_max,
            "too many strangers"
        );

        let counts = &decoded.counts;
        if counts.total(Counter::CounterSamples) == 0 {
            assert!(decoded.counters.is_empty(), "F2: counters without a counter sample");
        }
        // Nothing is made up: a sample takes at least the eight bytes of its format and length.
        let bytes: usize = input.packets.iter().map(|packet| packet.payload.len()).sum();
        let samples = counts.total(Counter::FlowRecords)
            + counts.total(Counter::SamplesNotIp)
            + counts.total(Counter::SamplesIgnored)
            + counts.total(Counter::CounterSamples);
        assert!(samples * 8 <= bytes as u64, "F2: more samples than bytes");
        let decoded_datagrams = counts.total(Counter::DatagramsDecoded);
        let claimed: u64 = input
            .packets
            .iter()
            .map(|packet| samples_claimed(&packet.payload))
            .sum();
        let reached = samples + counts.total(Counter::SamplesRejected);
        assert!(reached <= claimed, "F2: {reached} samples counted, {claimed} claimed");
        assert!(
            claimed == 0 || decoded_datagrams > 0 || reached == 0,
            "F2: samples of no datagram"
        );
    }

    fn check_flow(_: Settings, flow: &Flow) {
        assert_eq!(flow.packets, 1, "a flow is one packet: {flow:?}");
        assert_eq!(
            (flow.start_at_ms, flow.end_at_ms),
            (flow.received_at_ms, flow.received_at_ms)
        );
    }
}

/// How many samples a datagram says it has.
fn samples_claimed(payload: &[u8]) -> u64 {
    let word = |at: usize| payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk().copied());
    let address_bytes = match word(4).map(u32::from_be_bytes) {
        Some(0) => 0,
        Some(1) => 4,
        Some(2) => 16,
        _ => return 0,
    };
    word(8 + address_bytes + 12).map_or(0, |count| u64::from(u32::from_be_bytes(count)))
}

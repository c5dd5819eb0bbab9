//! NetFlow v5, v7, v9 and IPFIX under test.

use collector::counts::Counter;
use collector::decode::netflow::{DecodeLimits, NetflowCheckpoint, NetflowDecoder};
use collector::decode::{Datagram, Decoded};
use collector::sampling::{ExporterSampling, MAX_RATE_DOMAINS, SamplingConfig};
use tables::flow::Flow;

use crate::check::{Subject, total};
use crate::input::{Input, Settings, sources};
use crate::model::{self, Model};

fn limits(settings: Settings) -> DecodeLimits {
    if !settings.tight_limits() {
        return DecodeLimits::default();
    }
    DecodeLimits {
        max_exporters: 2,
        max_domains_per_exporter: 3,
        max_domains_unlisted: 4,
        max_sessions_per_exporter: 2,
        max_session_silence_ms: 60_000,
        max_templates_per_domain: 4,
        max_template_fields: 12,
        max_template_fields_per_exporter: 30,
        max_template_fields_unlisted: 40,
        template_lifetime_ms: 60_000,
        max_exporter_silence_ms: 60_000,
        max_sets_per_datagram: 8,
        max_pending_bytes_per_domain: 600,
        max_pending_bytes_per_exporter: 1_000,
        max_pending_bytes: 1_500,
        max_pending_bytes_unlisted: 1_200,
        max_samplers_per_domain: 2,
        max_samplers_unlisted: 5,
        ..DecodeLimits::default()
    }
}

fn sampling(settings: Settings) -> SamplingConfig {
    let mut config = SamplingConfig {
        v5_mode_bits: !settings.plain_sampling_word(),
        ..SamplingConfig::default()
    };
    if settings.configured_rates() {
        let own = |override_rate, default_rate| ExporterSampling {
            override_rate,
            default_rate,
            ..ExporterSampling::default()
        };
        let [first, second, ..] = sources();
        config.exporters.insert(first, None, own(Some(512), None));
        config.exporters.insert(second, None, own(None, Some(256)));
    }
    config
}

/// Leaves a datagram of another version than the target's to that version's target, as the first of `versions`.
pub fn keep_versions(input: &mut Input, versions: &[u8]) {
    for packet in &mut input.packets {
        if let [0, version @ (5 | 7 | 9 | 10), ..] = packet.payload.as_mut_slice()
            && !versions.contains(version)
        {
            *version = versions[0];
        }
    }
}

impl Subject for NetflowDecoder {
    type Checkpoint = NetflowCheckpoint;

    fn new(settings: Settings) -> NetflowDecoder {
        NetflowDecoder::new(limits(settings), sampling(settings))
    }

    fn restore(settings: Settings, checkpoint: NetflowCheckpoint) -> NetflowDecoder {
        NetflowDecoder::restore(limits(settings), sampling(settings), checkpoint)
    }

    fn checkpoint(&self) -> NetflowCheckpoint {
        NetflowDecoder::checkpoint(self)
    }

    fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) {
        NetflowDecoder::decode(self, datagram, decoded);
    }

    fn start_segment(&mut self, decoded: &mut Decoded) {
        self.forget_silent(decoded);
    }

    fn check_state(&self, settings: Settings, input: &Input, decoded: &Decoded) {
        let limits = limits(settings);
        if !settings.tight_limits() {
            compare_with_model(settings, input, decoded);
        }
        let domains = self.domains();
        let config = sampling(settings);
        let (mut waiting_sets, mut waiting_bytes, mut exporters, mut unlisted_fields) = (0, 0, 0, 0);
        for source in sources() {
            let own: Vec<_> = domains.iter().filter(|domain| domain.exporter == source).collect();
            assert!(own.len() <= limits.max_domains_per_exporter, "too many domains");
            let own_bytes: usize = own.iter().map(|domain| domain.pending_bytes).sum();
            assert!(
                own_bytes <= limits.max_pending_bytes_per_exporter,
                "too much waits for an exporter"
            );
            waiting_bytes += own_bytes;
            exporters += usize::from(!own.is_empty());
            let fields = own
                .iter()
                .flat_map(|domain| &domain.templates)
                .map(|template| template.fields.len());
            let fields: usize = fields.sum();
            assert!(
                fields <= limits.max_template_fields_per_exporter,
                "too many fields of an exporter"
            );
            unlisted_fields += if config.lists(source) { 0 } else { fields };
            for domain in own {
                assert!(
                    domain.templates_known <= limits.max_templates_per_domain,
                    "too many templates"
                );
                for template in &domain.templates {
                    assert!(template.id >= 256, "template {} cannot be named", template.id);
                    assert!(
                        (1..=limits.max_template_fields).contains(&template.fields.len()),
                        "fields"
                    );
                }
                assert!(
                    domain.pending_bytes <= limits.max_pending_bytes_per_domain,
                    "too much waits"
                );
                assert_eq!(domain.pending_sets == 0, domain.pending_bytes == 0, "what waits costs");
                waiting_sets += domain.pending_sets as u64;
            }
        }
        assert!(waiting_bytes <= limits.max_pending_bytes, "too much waits in all");
        assert!(
            unlisted_fields <= limits.max_template_fields_unlisted,
            "too many fields in all"
        );
        // Exporters that the configuration lists always have a place.
        assert!(
            exporters <= limits.max_exporters + config.exporters.listed().len(),
            "too many exporters"
        );
        if settings.tight_limits() {
            check_samplers(self, &limits, &config);
            let unlisted = domains.iter().filter(|domain| !domain.is_listed).count();
            assert!(unlisted <= limits.max_domains_unlisted, "too many domains in all");
        }

        let counts = &decoded.counts;
        let waited = counts.total(Counter::SetsPending);
        let answered = counts.total(Counter::SetsReplayed) + waiting_sets;
        assert!(
            waited >= answered,
            "F2: {waited} sets waited, {answered} were read or still wait"
        );
        let given_up = waited - answered;
        assert!(
            given_up <= counts.total(Counter::SetsDroppedPending),
            "F2: {given_up} waiting sets vanished"
        );
        let templates: usize = domains.iter().map(|domain| domain.templates_known).sum();
        assert!(
            templates as u64 <= counts.total(Counter::Templates),
            "F2: more templates are known than came"
        );
        assert!(
            decoded.flows.len() as u64 >= total(counts, &[Counter::TimesMissing]),
            "F2: more times are missing than there are flows"
        );
    }

    fn check_flow(settings: Settings, flow: &Flow) {
        let limits = limits(settings);
        let received_ms = flow.received_at_ms;
        assert!(flow.start_at_ms <= flow.end_at_ms, "negative duration: {flow:?}");
        assert!(
            flow.end_at_ms <= received_ms + limits.max_clock_skew_ms,
            "in the future: {flow:?}"
        );
        assert!(
            flow.end_at_ms >= received_ms - limits.max_flow_age_ms,
            "too old: {flow:?}"
        );
        assert!(
            flow.start_at_ms >= flow.end_at_ms - limits.max_flow_duration_ms,
            "too long: {flow:?}"
        );
        assert!(sources().contains(&flow.exporter), "of nobody: {flow:?}");
    }
}

/// Under limits that an input cannot reach, flows and counts are those of the plainest reading.
fn compare_with_model(settings: Settings, input: &Input, decoded: &Decoded) {
    let (limits, sampling) = (limits(settings), sampling(settings));
    let mut model = Model::default();
    for (packet, received_at_ms) in input.packets.iter().zip(input.times_ms()) {
        let from = (packet.source(), packet.source_port(settings));
        model.decode(&limits, &sampling, from, received_at_ms, &packet.payload);
    }
    if model.met_a_packet_section || model.met_totals {
        return;
    }
    for counter in model::COUNTERS {
        let counted = decoded.counts.total(*counter);
        assert_eq!(
            counted,
            model.count(*counter),
            "F2: {} (right: the model)",
            counter.name()
        );
    }
    assert_eq!(decoded.flows.len(), model.flows.len(), "flows (right: the model)");
    for (row, (flow, expected)) in decoded.flows.iter().zip(&model.flows).enumerate() {
        assert_eq!(
            model::as_told(&flow, &limits),
            *expected,
            "flow {row} (right: the model)"
        );
    }
}

/// The announced samplers are only visible in the checkpoint's JSON.
fn check_samplers(decoder: &NetflowDecoder, limits: &DecodeLimits, config: &SamplingConfig) {
    let json = serde_json::to_value(decoder.checkpoint()).expect("a checkpoint is JSON");
    let exporters = json["exporters"].as_object().expect("exporters by address");
    let mut unlisted = 0;
    for (address, exporter) in exporters {
        let is_listed = config.lists(address.parse().expect("an address"));
        let sessions = exporter["sessions"].as_object().expect("sessions by port");
        assert!(sessions.len() <= limits.max_sessions_per_exporter, "too many sessions");
        for session in sessions.values() {
            let domains = session["rates"]["domains"].as_object().expect("rates by domain");
            assert!(domains.len() <= MAX_RATE_DOMAINS, "rates of too many domains");
            for domain in domains.values() {
                let announced = domain["announced"].as_array().expect("announced rates");
                // That of the whole domain always has a place.
                assert!(
                    announced.len() <= limits.max_samplers_per_domain + 1,
                    "too many announcements"
                );
                unlisted += if is_listed { 0 } else { announced.len() };
            }
        }
    }
    assert!(
        unlisted <= limits.max_samplers_unlisted,
        "too many announcements in all"
    );
}

//! Which rate a flow gets, from every place an exporter may say it.

use super::*;
use schemas::metering::MeteringConfig;

use crate::sampling::{ExporterSampling, SamplingSource};

fn rate_of(out: &Decoded) -> u32 {
    one_flow(out).sampling_rate
}

fn flows_message() -> Ipfix {
    Ipfix::new().template(256, FLOW_FIELDS).set(256, &flow_record(100, 1))
}

/// Options data of one sampler without an id, one packet in `rate` (IE 305/306), as Juniper sends it: scope of length 0.
fn options(message: Ipfix, rate: u32) -> Ipfix {
    let body = [1_u32, rate - 1].map(u32::to_be_bytes).concat();
    message
        .options_template(512, 1, &[(144, 0), (305, 4), (306, 4)])
        .set(512, &body)
}

#[test]
fn options_work_before_in_and_after_the_datagram_of_the_data() {
    let mut before = decoder();
    let out = decode_all(
        &mut before,
        &[options(Ipfix::new(), 1000).build(), flows_message().build()],
    );
    assert_eq!(rate_of(&out), 1000);
    let out = decode_all(&mut decoder(), &[options(flows_message(), 1000).build()]);
    assert_eq!(rate_of(&out), 1000, "in the same datagram, behind the data");
    let mut after = decoder();
    let out = decode_all(
        &mut after,
        &[
            flows_message().build(),
            options(Ipfix::new().sequence(1), 1000).build(),
            flows_message().sequence(2).build(),
        ],
    );
    let rates: Vec<u32> = out.flows.rows().iter().map(|flow| flow.sampling_rate).collect();
    assert_eq!(
        rates,
        [0, 1000],
        "later flows only: what is stored is not guessed again"
    );
    assert_eq!(out.counts.total(Counter::FlowsWithoutRate), 1);
}

#[test]
fn options_of_another_domain_and_protocol_hold_for_the_exporter() {
    let mut decoder = decoder();
    let out = decode_all(
        &mut decoder,
        &[options(Ipfix::new().domain(77), 500).build(), flows_message().build()],
    );
    assert_eq!(rate_of(&out), 500);
    let status = decoder.domains();
    assert_eq!(status.len(), 2);
    assert_eq!(status[0].sampling.source, SamplingSource::OptionsExporter);
    let out = decode_all(
        &mut decoder,
        &[
            options(Ipfix::new().sequence(1), 600).build(),
            flows_message().sequence(2).build(),
        ],
    );
    assert_eq!(rate_of(&out), 600, "the domain's own rate is more specific");
}

#[test]
fn samplers_are_told_apart() {
    let mut sampled_fields = FLOW_FIELDS.to_vec();
    sampled_fields.push((302, 4));
    let flow_of = |sampler: u32| [flow_record(100, 1), sampler.to_be_bytes().to_vec()].concat();
    let samplers = [1_u32, 1, 100, 2, 1, 200].map(u32::to_be_bytes).concat();
    let message = Ipfix::new()
        .template(256, &sampled_fields)
        .options_template(512, 1, &[(302, 4), (309, 4), (310, 4)])
        .set(256, &[flow_of(1), flow_of(2), flow_of(3)].concat())
        .set(512, &samplers);
    let out = decode_all(&mut decoder(), &[message.build()]);
    let rates: Vec<u32> = out.flows.rows().iter().map(|flow| flow.sampling_rate).collect();
    assert_eq!(
        rates,
        [100, 200, 0],
        "an unknown sampler gets no rate where the known ones differ"
    );
    assert_eq!(out.counts.total(Counter::OptionsRecords), 2);
}

#[test]
fn v9_samplers_of_cisco() {
    let mut sampled_fields = FLOW_FIELDS.to_vec();
    sampled_fields.push((48, 1));
    let options = [&[0, 0, 0, 9][..], &[7], &[2], &1024_u32.to_be_bytes()].concat();
    let message = V9::new()
        .options_template(257, &[(1, 4)], &[(48, 1), (49, 1), (50, 4)])
        .template(256, &sampled_fields)
        .set(257, &options)
        .set(256, &[flow_record(100, 1), vec![7]].concat());
    let mut decoder = decoder();
    assert_eq!(rate_of(&decode_all(&mut decoder, &[message.build()])), 1024);
    assert_eq!(decoder.domains()[0].sampling.source, SamplingSource::OptionsSampler);
}

#[test]
fn a_v9_scope_is_no_element() {
    // Scope type 34 does not exist, but as an element it would be samplingInterval.
    let message = V9::new()
        .options_template(257, &[(34, 4)], &[(35, 1)])
        .template(256, FLOW_FIELDS)
        .set(257, &[0, 0, 3, 0xe8, 1])
        .set(256, &flow_record(100, 1));
    assert_eq!(rate_of(&decode_all(&mut decoder(), &[message.build()])), 0);
}

#[test]
fn a_record_may_say_its_own_rate() {
    for (specs, values) in [
        (&[(34, 4)][..], &[300_u32][..]),
        (&[(50, 4)], &[300]),
        (&[(305, 4), (306, 4)], &[2, 598]),
    ] {
        let all = [FLOW_FIELDS, specs].concat();
        let tail: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        let message = options(Ipfix::new().template(256, &all), 1000).set(256, &[flow_record(100, 1), tail].concat());
        assert_eq!(
            rate_of(&decode_all(&mut decoder(), &[message.build()])),
            300,
            "{specs:?}"
        );
    }
}

#[test]
fn configuration_overrides_and_fills_in() {
    let config = |override_rate, default_rate| SamplingConfig {
        exporters: [(
            exporter(),
            ExporterSampling {
                override_rate,
                default_rate,
                ..ExporterSampling::default()
            },
        )]
        .into(),
        ..SamplingConfig::default()
    };
    let decode = |config, message: Ipfix| {
        let mut decoder = NetflowDecoder::new(DecodeLimits::default(), config);
        rate_of(&decode_all(&mut decoder, &[message.build()]))
    };
    assert_eq!(decode(config(Some(7), None), options(flows_message(), 1000)), 7);
    assert_eq!(decode(config(None, Some(8)), options(flows_message(), 1000)), 1000);
    assert_eq!(decode(config(None, Some(8)), flows_message()), 8);
}

#[test]
fn the_v5_sampling_word_with_and_without_mode_bits() {
    for (mode_bits, word, rate) in [
        (true, 0x43e8, 1000),
        (false, 0x43e8, 0x43e8),
        (true, 1000, 1000),
        (true, 0x4000, 0),
    ] {
        let config = SamplingConfig {
            v5_mode_bits: mode_bits,
            ..SamplingConfig::default()
        };
        let mut decoder = NetflowDecoder::new(DecodeLimits::default(), config);
        let out = decode_all(&mut decoder, &[encode::v5(0, word, 1)]);
        assert_eq!(rate_of(&out), rate, "{word:#x}");
        assert_eq!(out.counts.total(Counter::FlowsWithoutRate), u64::from(rate == 0));
    }
}

#[test]
fn reloaded_configuration_holds_for_later_flows() {
    let mut decoder = decoder();
    assert_eq!(rate_of(&decode_all(&mut decoder, &[flows_message().build()])), 0);
    decoder.set_sampling(SamplingConfig {
        default_rate: Some(1),
        ..SamplingConfig::default()
    });
    let later = flows_message().sequence(1).build();
    assert_eq!(rate_of(&decode_all(&mut decoder, &[later])), 1);
    assert_eq!(decoder.domains()[0].sampling.source, SamplingSource::Default);
}

#[test]
fn interfaces_that_are_sampled_differently_decide_nothing_for_others() {
    let v9 = |rates: [u32; 2]| {
        let options = [1, rates[0], 2, rates[1]].map(u32::to_be_bytes).concat();
        let message = V9::new()
            .options_template(257, &[(2, 4)], &[(34, 4)])
            .template(256, FLOW_FIELDS)
            .set(257, &options)
            .set(256, &flow_record(100, 1));
        rate_of(&decode_all(&mut decoder(), &[message.build()]))
    };
    assert_eq!((v9([100, 100]), v9([100, 200])), (100, 0));
    let options = [7, 100, 8, 200].map(u32::to_be_bytes).concat();
    let message = flows_message()
        .options_template(257, 1, &[(10, 4), (34, 4)])
        .set(257, &options);
    assert_eq!(rate_of(&decode_all(&mut decoder(), &[message.build()])), 0);
}

/// Flow fields with both interfaces and the direction.
const INTERFACE_FIELDS: &[(u16, u16)] = &[(10, 4), (14, 4), (61, 1), (1, 4), (2, 4)];

fn crossing(in_if: u32, out_if: u32, direction: u8) -> Vec<u8> {
    let mut record = [in_if, out_if].map(u32::to_be_bytes).concat();
    record.push(direction);
    record.extend([100_u32, 1].map(u32::to_be_bytes).concat());
    record
}

#[test]
fn a_rate_announced_for_an_interface_holds_for_the_flows_observed_there() {
    let announced = [7, 100, 8, 200].map(u32::to_be_bytes).concat();
    let flows = [
        crossing(7, 8, 0),
        crossing(8, 7, 255),
        crossing(7, 8, 1),
        crossing(9, 8, 0),
        crossing(0, 8, 0),
    ]
    .concat();
    let ipfix = Ipfix::new()
        .options_template(257, 1, &[(10, 4), (34, 4)])
        .set(257, &announced)
        .template(256, INTERFACE_FIELDS)
        .set(256, &flows)
        .build();
    let v9 = V9::new()
        .options_template(257, &[(2, 4)], &[(34, 4)])
        .set(257, &announced)
        .template(256, INTERFACE_FIELDS)
        .set(256, &flows)
        .build();
    for payload in [ipfix, v9] {
        let mut decoder = decoder();
        let out = decode_all(&mut decoder, &[payload]);
        let rates: Vec<u32> = out.flows.rows().iter().map(|flow| flow.sampling_rate).collect();
        assert_eq!(
            rates,
            [100, 200, 200, 0, 0],
            "in, in unless it says otherwise, out, an interface nobody announced, no interface"
        );
        assert_eq!(out.counts.total(Counter::FlowsWithoutRate), 2);
    }
}

#[test]
fn a_rate_of_an_interface_says_where_it_came_from() {
    let message = Ipfix::new()
        .options_template(257, 1, &[(10, 4), (34, 4)])
        .set(257, &[7, 100, 8, 200].map(u32::to_be_bytes).concat())
        .template(256, INTERFACE_FIELDS)
        .set(256, &crossing(8, 7, 0));
    let mut decoder = decoder();
    decode_all(&mut decoder, &[message.build()]);
    assert_eq!(decoder.domains()[0].sampling.source, SamplingSource::OptionsInterface);
    assert_eq!(decoder.domains()[0].sampling.rate, 200);
}

#[test]
fn the_v5_sampling_word_is_read_as_each_exporter_is_configured() {
    use schemas::metering::{DecodingConfig, ExporterConfig};
    let rate = |for_all: bool, for_this_one: Option<bool>| {
        let metering = MeteringConfig {
            exporters: vec![ExporterConfig {
                v5_sampling_mode_bits: for_this_one,
                ..ExporterConfig::unlisted(exporter())
            }],
            decoding: DecodingConfig {
                v5_sampling_mode_bits: for_all,
                ..DecodingConfig::default()
            },
            ..MeteringConfig::default()
        };
        let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(&metering));
        rate_of(&decode_all(&mut decoder, &[encode::v5(0, 0x43e8, 1)]))
    };
    assert_eq!((rate(true, None), rate(false, None)), (1_000, 0x43e8));
    assert_eq!((rate(true, Some(false)), rate(false, Some(true))), (0x43e8, 1_000));
}

#[test]
fn the_collectors_default_rate_comes_last() {
    use schemas::metering::{DecodingConfig, ExporterConfig};
    let rate = |own: Option<u32>, message: Ipfix| {
        let metering = MeteringConfig {
            exporters: vec![ExporterConfig {
                default_sampling_rate: own,
                ..ExporterConfig::unlisted(exporter())
            }],
            decoding: DecodingConfig {
                default_sampling_rate: Some(64),
                ..DecodingConfig::default()
            },
            ..MeteringConfig::default()
        };
        let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(&metering));
        rate_of(&decode_all(&mut decoder, &[message.build()]))
    };
    assert_eq!(rate(None, flows_message()), 64);
    assert_eq!(rate(Some(32), flows_message()), 32);
    assert_eq!(rate(Some(32), options(flows_message(), 1_000)), 1_000);
}

fn rates_of(out: &Decoded) -> Vec<u32> {
    out.flows.iter().map(|flow| flow.sampling_rate).collect()
}

#[test]
fn case_08a_rates_by_template_as_arista_announces_them() {
    let record = |template: u32, rate: u32| [0, template, rate].map(u32::to_be_bytes).concat();
    let message = Ipfix::new()
        .template(1910, FLOW_FIELDS)
        .template(1911, FLOW_FIELDS)
        .options_template(50_710, 2, &[(149, 4), (145, 4), (34, 4)])
        .set(50_710, &[record(1910, 1_000), record(1911, 10_000)].concat())
        .set(1910, &flow_record(600, 1))
        .set(1911, &flow_record(600, 1));
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[message.build()]);
    assert_eq!(rates_of(&out), [1_000, 10_000]);
    assert_eq!(decoder.domains()[0].sampling.source, SamplingSource::OptionsTemplate);
    let other = Ipfix::new().template(300, FLOW_FIELDS).set(300, &flow_record(600, 1));
    let out = decode_all(&mut decoder, &[other.build()]);
    assert_eq!(
        (rates_of(&out), out.counts.total(Counter::FlowsRateAmbiguous)),
        (vec![0], 1)
    );
    assert!(one_flow(&out).is_marked(tables::flow::marks::RATE_AMBIGUOUS));
}

#[test]
fn case_08b_an_interface_beside_the_rate_is_its_interface() {
    let fields = &[(10, 4), (14, 4), (1, 4), (2, 4)];
    let crossing = |in_if: u32| [in_if, 600, 1_500, 1].map(u32::to_be_bytes).concat();
    let record = |interface: u32, rate: u32| [1, interface, rate].map(u32::to_be_bytes).concat();
    let message = V9::new()
        .options_template(257, &[(1, 4)], &[(10, 4), (34, 4)])
        .template(256, fields)
        .set(257, &[record(513, 100), record(514, 10_000)].concat())
        .set(256, &[crossing(513), crossing(514), crossing(515)].concat());
    let out = decode_all(&mut decoder(), &[message.build()]);
    assert_eq!(rates_of(&out), [100, 10_000, 0]);
    assert_eq!(out.counts.total(Counter::FlowsRateAmbiguous), 1);
}

#[test]
fn case_08e_a_sampler_that_nobody_announced() {
    let fields = [FLOW_FIELDS, &[(48, 4)]].concat();
    let flow_of = |sampler: u32| [flow_record(1_500, 1), sampler.to_be_bytes().to_vec()].concat();
    let message = V9::new()
        .options_template(257, &[(1, 4)], &[(48, 4), (50, 4)])
        .template(256, &fields)
        .set(257, &[1_u32, 1, 1_000].map(u32::to_be_bytes).concat())
        .set(256, &[flow_of(1), flow_of(7)].concat());
    let out = decode_all(&mut decoder(), &[message.build()]);
    assert_eq!(rates_of(&out), [1_000, 0]);
    assert_eq!(out.counts.total(Counter::FlowsSamplerNotAnnounced), 1);
    assert!(out.flows.row(1).is_marked(tables::flow::marks::SAMPLER_NOT_ANNOUNCED));
}

#[test]
fn scopes_that_are_not_understood_decide_nothing() {
    let flows = |message: Ipfix| message.template(256, FLOW_FIELDS).set(256, &flow_record(1_500, 1));
    let record = [7_u32, 1_000].map(u32::to_be_bytes).concat();
    // A line card, an observation point, a port, an enterprise's own; beside the scope: a name.
    for scope in [141, 138, 142, 0x8001] {
        let mut specs = vec![(scope, 4), (34, 4)];
        if scope == 0x8001 {
            // The enterprise's number follows its field.
            specs.splice(1..1, [(0, 2636)]);
        }
        let mut message = flows(Ipfix::new());
        if scope == 0x8001 {
            let body = [&600_u16.to_be_bytes()[..], &[0, 2, 0, 1], &fields(&specs)].concat();
            message = message.set(3, &body);
        } else {
            message = message.options_template(600, 1, &specs);
        }
        let out = decode_all(&mut decoder(), &[message.set(600, &record).build()]);
        assert_eq!(rates_of(&out), [0], "scope {scope}");
        assert_eq!(out.counts.total(Counter::FlowsRateAmbiguous), 1, "scope {scope}");
    }
    let v9 = |scope| {
        let message = V9::new()
            .options_template(257, &[(scope, 4)], &[(34, 4)])
            .template(256, FLOW_FIELDS)
            .set(257, &record)
            .set(256, &flow_record(1_500, 1));
        rates_of(&decode_all(&mut decoder(), &[message.build()]))
    };
    assert_eq!(
        (v9(1), v9(3), v9(4)),
        (vec![1_000], vec![0], vec![0]),
        "system, line card, cache"
    );
    // Beside the scope the name of an interface: of the domain as long as all that are told agree. softflowd names the one it
    // listens on, and its flows give no index.
    let named = |told: &[(u32, u32)]| {
        let records: Vec<u8> = told
            .iter()
            .flat_map(|(name, rate)| [7, *name, *rate].map(u32::to_be_bytes).concat())
            .collect();
        let message = flows(Ipfix::new())
            .options_template(600, 1, &[(144, 4), (82, 4), (34, 4)])
            .set(600, &records);
        rates_of(&decode_all(&mut decoder(), &[message.build()]))
    };
    const GE_0: u32 = 0x6765_2d30;
    assert_eq!(named(&[(GE_0, 1_000)]), [1_000]);
    assert_eq!(named(&[(GE_0, 1_000), (GE_0 + 1, 1_000)]), [1_000]);
    assert_eq!(named(&[(GE_0, 1_000), (GE_0 + 1, 100)]), [0]);
    // Those that are of the domain, and a scope of no length.
    for scope in [130, 143, 144, 149] {
        let message = flows(Ipfix::new())
            .options_template(600, 1, &[(scope, 4), (34, 4)])
            .set(600, &record);
        assert_eq!(
            rates_of(&decode_all(&mut decoder(), &[message.build()])),
            [1_000],
            "scope {scope}"
        );
    }
}

#[test]
fn a_rate_of_an_interface_ends_when_its_options_template_becomes_the_domains() {
    let two = |one: u32, other: u32| [one, other].map(u32::to_be_bytes).concat();
    let before = Ipfix::new()
        .template(256, INTERFACE_FIELDS)
        .options_template(300, 1, &[(10, 4), (34, 4)])
        .set(300, &two(1, 1_000))
        .set(256, &crossing(1, 2, 255));
    let after = |message: Ipfix| {
        message
            .options_template(300, 1, &[(149, 4), (34, 4)])
            .set(300, &two(0, 100))
            .set(256, &[crossing(1, 2, 255), crossing(5, 2, 255)].concat())
    };
    let withdrawn = after(Ipfix::new().sequence(2).withdraw(3, 300));
    let all_withdrawn = after(Ipfix::new().sequence(2).withdraw(3, 3));
    let redefined = after(Ipfix::new().sequence(2));
    for message in [withdrawn, all_withdrawn, redefined] {
        let mut decoder = decoder();
        let out = decode_all(&mut decoder, &[before.clone().build(), message.build()]);
        assert_eq!(rates_of(&out), [1_000, 100, 100]);
        assert_eq!(out.counts.total(Counter::RatesEndedTemplate), 1);
        assert_eq!(decoder.domains()[0].rates_ended, 1, "the page says so");
    }
    // The same layout again ends nothing.
    let again = Ipfix::new()
        .sequence(2)
        .options_template(300, 1, &[(10, 4), (34, 4)])
        .set(256, &crossing(1, 2, 255));
    let out = decode_all(&mut decoder(), &[before.build(), again.build()]);
    assert_eq!(rates_of(&out), [1_000, 1_000]);
}

#[test]
fn a_rate_of_an_interface_ends_when_only_that_of_the_system_is_announced_for_days() {
    const HALF_HOUR_MS: i64 = 1_800_000;
    // Under the id of the old template, and under another one.
    for (new_id, ended_by, first_right) in [
        (300, Counter::RatesEndedTemplate, 2),
        (301, Counter::RatesEndedSilent, 5),
    ] {
        let mut decoder = decoder();
        let mut counts = crate::counts::Counts::default();
        for round in 0..=4 * 48_u32 {
            let message = V9::new().sequence(round).template(256, INTERFACE_FIELDS);
            let (id, scope, record) = if round < 2 {
                (300, 2, [1_u32, 1_000])
            } else {
                (new_id, 1, [0, 100])
            };
            let payload = message
                .options_template(id, &[(scope, 4)], &[(34, 4)])
                .set(id, &record.map(u32::to_be_bytes).concat())
                .set(256, &crossing(1, 2, 255))
                .build();
            let mut out = Decoded::default();
            decode_at(
                &mut decoder,
                &payload,
                NOW_MS + i64::from(round) * HALF_HOUR_MS,
                &mut out,
            );
            let right = if round < first_right { 1_000 } else { 100 };
            assert_eq!(rate_of(&out), right, "template {new_id}, round {round}");
            counts.merge(&out.counts);
        }
        assert_eq!(counts.total(ended_by), 1);
    }
}

#[test]
fn a_scope_that_names_an_observation_domain_is_of_that_domain() {
    let options = |sequence, told: &[u32]| {
        let record: Vec<u8> = told.iter().flat_map(|word| word.to_be_bytes()).collect();
        Ipfix::new()
            .domain(0)
            .sequence(sequence)
            .options_template(300, 1, &[(149, 4), (34, 4)])
            .set(300, &record)
            .build()
    };
    let flow = |domain, sequence| flows_message().domain(domain).sequence(sequence).build();
    let one_by_one = [
        options(0, &[5, 100]),
        flow(5, 0),
        options(1, &[6, 400]),
        flow(6, 0),
        flow(5, 1),
    ];
    assert_eq!(rates_of(&decode_all(&mut decoder(), &one_by_one)), [100, 400, 100]);
    let together = [options(0, &[5, 100, 6, 400]), flow(5, 0), flow(6, 0)];
    assert_eq!(rates_of(&decode_all(&mut decoder(), &together)), [100, 400]);
    let whole = [options(0, &[5, 100, 0, 30]), flow(5, 0), flow(6, 0)];
    assert_eq!(
        rates_of(&decode_all(&mut decoder(), &whole)),
        [100, 30],
        "0 is the whole exporter"
    );
}

#[test]
fn case_17_a_rate_of_one_in_one_and_a_half_scales_exactly() {
    let fields = [FLOW_FIELDS, &[(305, 4), (306, 4)]].concat();
    let record = [flow_record(1_500, 1), [2_222_u32, 1_111].map(u32::to_be_bytes).concat()].concat();
    let out = decode_all(
        &mut decoder(),
        &[Ipfix::new().template(256, &fields).set(256, &record).build()],
    );
    let flow = one_flow(&out);
    assert_eq!(
        (flow.sampling_rate, flow.sampling_divisor, flow.bytes_scaled()),
        (3, 2, 2_250)
    );
    // Announced instead: the columns of a whole set.
    let message = Ipfix::new()
        .options_template(512, 1, &[(144, 0), (305, 4), (306, 4)])
        .template(256, FLOW_FIELDS)
        .set(512, &[2_222_u32, 1_111].map(u32::to_be_bytes).concat())
        .set(256, &flow_record(1_500, 1));
    assert_eq!(
        one_flow(&decode_all(&mut decoder(), &[message.build()])).bytes_scaled(),
        2_250
    );
}

#[test]
fn case_26_a_rate_in_the_wrong_order_of_bytes_is_flagged_and_can_be_overridden() {
    let fields = [FLOW_FIELDS, &[(305, 4), (306, 4)]].concat();
    let numbers = [1_u32, 1_000].map(u32::to_le_bytes).concat();
    let record = [flow_record(1_500, 1), numbers].concat();
    let message = |sequence| Ipfix::new().sequence(sequence).template(256, &fields).set(256, &record);
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[message(0).build()]);
    assert!(one_flow(&out).is_marked(tables::flow::marks::RATE_IMPLAUSIBLE));
    assert_eq!(out.counts.total(Counter::FlowsRateImplausible), 1);
    assert!(decoder.domains()[0].sampling.implausible, "the page says so");
    let own = ExporterSampling {
        override_rate: Some(1_001),
        ..ExporterSampling::default()
    };
    decoder.set_sampling(SamplingConfig {
        exporters: [(exporter(), own)].into(),
        ..SamplingConfig::default()
    });
    let out = decode_all(&mut decoder, &[message(1).build()]);
    assert_eq!((rate_of(&out), one_flow(&out).marks), (1_001, 0));
}

#[test]
fn a_v5_header_whose_rate_jumps_is_flagged() {
    let mut decoder = decoder();
    let mut sequence = 0;
    let mut marked = |word, received_at_ms| {
        let mut out = Decoded::default();
        decode_at(&mut decoder, &encode::v5(sequence, word, 1), received_at_ms, &mut out);
        sequence += 1;
        one_flow(&out).is_marked(tables::flow::marks::RATE_IMPLAUSIBLE)
    };
    assert!(!marked(1_000, NOW_MS));
    assert!(!marked(2_000, NOW_MS));
    assert!(marked(10, NOW_MS));
    assert!(marked(10, NOW_MS + 1_000));
    assert!(!marked(10, NOW_MS + 86_400_000), "said for a day");
    assert!(marked(10_000, NOW_MS + 86_400_000));
    assert!(!marked(10, NOW_MS + 86_400_000), "it was an error");
}

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
            options(Ipfix::new(), 1000).build(),
            flows_message().build(),
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
        &[options(Ipfix::new(), 600).build(), flows_message().build()],
    );
    assert_eq!(rate_of(&out), 600, "the domain's own rate is more specific");
}

#[test]
fn samplers_are_told_apart() {
    let mut sampled_fields = FLOW_FIELDS.to_vec();
    sampled_fields.push((302, 4));
    let flow_of = |sampler: u32| [flow_record(1, 1), sampler.to_be_bytes().to_vec()].concat();
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
        .set(256, &[flow_record(1, 1), vec![7]].concat());
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
        .set(256, &flow_record(1, 1));
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
        let message = options(Ipfix::new().template(256, &all), 1000).set(256, &[flow_record(1, 1), tail].concat());
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
    assert_eq!(rate_of(&decode_all(&mut decoder, &[flows_message().build()])), 1);
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
            .set(256, &flow_record(1, 1));
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

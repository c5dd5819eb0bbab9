//! Every limit: what is beyond it is refused and counted, and nobody's state makes room for a stranger's.

use super::*;
use crate::decode::netflow::state::PendingSet;
use crate::sampling::{ExporterSampling, MAX_SAMPLERS_PER_EXPORTER};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A configuration that lists one router.
fn listing(router: Address) -> SamplingConfig {
    SamplingConfig {
        exporters: [(router, ExporterSampling::default())].into(),
        ..SamplingConfig::default()
    }
}

fn forged(number: u32) -> Address {
    Address::from_v4((0x0a00_0000 + number).to_be_bytes())
}

fn decode_of(decoder: &mut NetflowDecoder, source: Address, received_at_ms: i64, message: Ipfix) -> Decoded {
    let mut out = Decoded::default();
    let datagram = Datagram {
        received_at_ms,
        source,
        source_port: 0,
        payload: &message.build(),
    };
    decoder.decode(&datagram, &mut out);
    out
}

fn flows_message() -> Ipfix {
    Ipfix::new().template(256, FLOW_FIELDS).set(256, &flow_record(100, 1))
}

#[test]
fn a_listed_router_has_a_place_after_sixteen_thousand_forged_sources() {
    let router = exporter();
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), listing(router));
    let max = u32::try_from(DecodeLimits::default().max_exporters).unwrap();
    for number in 0..max {
        decode_of(&mut decoder, forged(number), NOW_MS, flows_message());
    }
    let late = decode_of(&mut decoder, forged(max), NOW_MS, flows_message());
    assert_eq!(
        late.counts.total(Counter::DatagramsRejectedLimit),
        1,
        "the table is full"
    );
    assert!(late.flows.is_empty());
    let listed = decode_of(&mut decoder, router, NOW_MS, flows_message());
    assert_eq!(
        (listed.flows.len(), listed.counts.total(Counter::DatagramsDecoded)),
        (1, 1)
    );
    let first = decode_of(&mut decoder, forged(0), NOW_MS, flows_message().sequence(1));
    assert_eq!(first.flows.len(), 1, "nobody was pushed out");
}

#[test]
fn a_flood_is_over_a_day_after_it() {
    let limits = DecodeLimits {
        max_exporters: 3,
        ..DecodeLimits::default()
    };
    let router = exporter();
    let mut decoder = NetflowDecoder::new(limits, listing(router));
    decode_of(&mut decoder, router, NOW_MS, flows_message());
    decode_of(&mut decoder, forged(1), NOW_MS, flows_message());
    decode_of(&mut decoder, forged(2), NOW_MS + DAY_MS / 2, flows_message());
    let newcomer = |decoder: &mut NetflowDecoder, at_ms| {
        decoder.forget_silent(&mut Decoded::default());
        decode_of(decoder, forged(3), at_ms, flows_message()).flows.len()
    };
    assert_eq!(newcomer(&mut decoder, NOW_MS + DAY_MS / 2), 0, "both may come back");
    let again = flows_message().sequence(1);
    decode_of(&mut decoder, forged(2), NOW_MS + DAY_MS + 1, again);
    assert_eq!(newcomer(&mut decoder, NOW_MS + DAY_MS + 2), 1);
    let known: Vec<Address> = decoder.domains().iter().map(|domain| domain.exporter).collect();
    assert_eq!(
        known,
        [forged(2), forged(3), router],
        "silent and listed stays, silent and not listed goes"
    );
}

/// Found by fuzzing.
#[test]
fn f2_what_is_given_up_with_a_forgotten_exporter_is_counted() {
    let limits = DecodeLimits {
        max_exporters: 2,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let unknown_template = |sequence| Ipfix::new().sequence(sequence).set(300, &flow_record(100, 1));
    let mut counts = decode_of(&mut decoder, forged(1), NOW_MS, unknown_template(0)).counts;
    // Numbers can only be missing after a datagram whose records are known.
    counts.merge(&decode_of(&mut decoder, forged(1), NOW_MS, flows_message().sequence(10)).counts);
    counts.merge(&decode_of(&mut decoder, forged(1), NOW_MS, flows_message().sequence(18)).counts);
    decode_of(&mut decoder, forged(2), NOW_MS + DAY_MS + 1, flows_message());
    let mut out = Decoded::default();
    decoder.forget_silent(&mut out);
    assert_eq!(decoder.domains().len(), 1);
    assert_eq!(counts.total(Counter::SetsPending), 1);
    assert_eq!(out.counts.total(Counter::SetsDroppedPending), 1);
    assert_eq!(out.counts.total(Counter::SequenceLost), 7, "11 to 17 never came");
}

#[test]
fn exporters_that_were_never_understood_go_first() {
    let limits = DecodeLimits {
        max_exporters: 2,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    decode_of(&mut decoder, forged(1), NOW_MS, flows_message());
    let mut out = Decoded::default();
    let broken = Datagram {
        received_at_ms: NOW_MS,
        source: forged(2),
        source_port: 0,
        payload: &[0, 10, 0, 99],
    };
    decoder.decode(&broken, &mut out);
    decoder.forget_silent(&mut Decoded::default());
    assert_eq!(
        decode_of(&mut decoder, forged(3), NOW_MS, flows_message()).flows.len(),
        1
    );
}

#[test]
fn waiting_data_of_strangers_leaves_room_for_that_of_listed_routers() {
    let cost_bytes = PendingSet::cost_bytes(&flow_record(100, 1));
    let limits = DecodeLimits {
        max_pending_bytes: 4 * cost_bytes,
        max_pending_bytes_unlisted: 2 * cost_bytes,
        ..DecodeLimits::default()
    };
    let router = exporter();
    let mut decoder = NetflowDecoder::new(limits, listing(router));
    let mut sequence = 0;
    let mut waits = |source| {
        sequence += 1;
        let message = Ipfix::new().sequence(sequence).set(300, &flow_record(100, 1));
        let out = decode_of(&mut decoder, source, NOW_MS, message);
        let counts = [Counter::SetsPending, Counter::SetsDroppedPending].map(|counter| out.counts.total(counter));
        assert_eq!(counts[0] + counts[1], 1, "each set is counted");
        counts[0] == 1
    };
    assert_eq!(
        (1..5).map(|number| waits(forged(number))).collect::<Vec<_>>(),
        [true, true, false, false]
    );
    assert_eq!([(); 3].map(|()| waits(router)), [true, true, false]);
}

#[test]
fn waiting_data_of_one_exporter_is_bounded_over_all_its_domains() {
    let cost_bytes = PendingSet::cost_bytes(&flow_record(100, 1));
    let limits = DecodeLimits {
        max_pending_bytes_per_exporter: 2 * cost_bytes,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let mut pending = |source, domain| {
        let message = Ipfix::new().domain(domain).set(300, &flow_record(100, 1));
        decode_of(&mut decoder, source, NOW_MS, message)
            .counts
            .total(Counter::SetsPending)
    };
    assert_eq!((0..4).map(|domain| pending(forged(1), domain)).sum::<u64>(), 2);
    assert_eq!(pending(forged(2), 0), 1, "another exporter has its own room");
}

/// Defines a template of `fields` fields and answers whether it was taken.
fn defines(decoder: &mut NetflowDecoder, source: Address, id: u16, fields: usize, at_ms: i64) -> bool {
    /// No datagram is the copy of another.
    static SEQUENCE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let sequence = SEQUENCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let message = Ipfix::new().sequence(sequence).template(id, &vec![(1, 4); fields]);
    let out = decode_of(decoder, source, at_ms, message);
    let counts = [Counter::Templates, Counter::TemplatesRejected].map(|counter| out.counts.total(counter));
    assert_eq!(counts[0] + counts[1], 1, "each template is counted");
    counts[0] == 1
}

#[test]
fn template_fields_are_bounded_by_exporter_and_for_all_that_are_not_listed() {
    let limits = DecodeLimits {
        max_template_fields_per_exporter: 100,
        max_template_fields_unlisted: 150,
        ..DecodeLimits::default()
    };
    let router = exporter();
    let mut decoder = NetflowDecoder::new(limits, listing(router));
    assert!(defines(&mut decoder, forged(1), 256, 60, NOW_MS));
    assert!(!defines(&mut decoder, forged(1), 257, 60, NOW_MS), "its own bound");
    assert!(defines(&mut decoder, forged(1), 257, 40, NOW_MS));
    assert!(defines(&mut decoder, forged(2), 256, 50, NOW_MS));
    assert!(
        !defines(&mut decoder, forged(3), 256, 1, NOW_MS),
        "the bound of all strangers"
    );
    assert!(
        defines(&mut decoder, router, 256, 100, NOW_MS),
        "not of a listed router"
    );

    decode_of(&mut decoder, forged(1), NOW_MS, Ipfix::new().withdraw(2, 256));
    assert!(
        !defines(&mut decoder, forged(3), 256, 1, NOW_MS),
        "250 − 60 are still more than 150"
    );
    decode_of(&mut decoder, router, NOW_MS, Ipfix::new().withdraw(2, 2));
    assert!(
        defines(&mut decoder, forged(3), 256, 60, NOW_MS),
        "withdrawn templates give their room back"
    );
    let restored = NetflowDecoder::restore(limits, listing(router), decoder.checkpoint());
    assert_eq!(restored.template_fields, decoder.template_fields);
    assert_eq!(decoder.template_fields, 40 + 50 + 60);
}

#[test]
fn a_template_that_was_not_repeated_for_days_makes_room_in_a_full_domain() {
    let limits = DecodeLimits {
        max_templates_per_domain: 2,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    assert!(defines(&mut decoder, forged(1), 256, 3, NOW_MS));
    assert!(defines(&mut decoder, forged(1), 257, 3, NOW_MS + DAY_MS));
    assert!(
        !defines(&mut decoder, forged(1), 258, 3, NOW_MS + 2 * DAY_MS),
        "both are alive"
    );
    assert!(
        defines(&mut decoder, forged(1), 256, 3, NOW_MS + 2 * DAY_MS),
        "repeated"
    );
    assert!(
        !defines(&mut decoder, forged(1), 258, 3, NOW_MS + 3 * DAY_MS),
        "257 lives for another day"
    );
    let at_ms = NOW_MS + 4 * DAY_MS;
    let out = decode_of(&mut decoder, forged(1), at_ms, Ipfix::new().template(258, FLOW_FIELDS));
    assert_eq!(
        [
            Counter::Templates,
            Counter::TemplatesExpired,
            Counter::TemplatesRejected
        ]
        .map(|counter| out.counts.total(counter)),
        [1, 1, 0]
    );
    let ids: Vec<u16> = decoder.domains()[0]
        .templates
        .iter()
        .map(|template| template.id)
        .collect();
    assert_eq!(ids, [256, 258], "the one repeated longest ago went");
    let data = Ipfix::new().set(258, &flow_record(70, 1));
    assert_eq!(decode_of(&mut decoder, forged(1), at_ms, data).flows.len(), 1);
}

#[test]
fn an_old_template_is_used_while_there_is_room() {
    let mut decoder = decoder();
    decode_of(&mut decoder, forged(1), NOW_MS, Ipfix::new().template(256, FLOW_FIELDS));
    let month_later_ms = NOW_MS + 30 * DAY_MS;
    let out = decode_of(
        &mut decoder,
        forged(1),
        month_later_ms,
        Ipfix::new().set(256, &flow_record(70, 1)),
    );
    assert_eq!(out.flows.len(), 1);
}

#[test]
fn announced_samplers_are_bounded_by_exporter_and_counted() {
    let mut decoder = decoder();
    let mut sequence = 0;
    let mut announce = |source, domain: u32| {
        sequence += 1024;
        let samplers: Vec<u8> = (1..=1024_u32)
            .flat_map(|sampler| [sampler, 100].map(u32::to_be_bytes).concat())
            .collect();
        let message = Ipfix::new()
            .domain(domain)
            .sequence(sequence)
            .options_template(512, 1, &[(302, 4), (34, 4)])
            .set(512, &samplers);
        decode_of(&mut decoder, source, NOW_MS, message)
            .counts
            .total(Counter::SamplersRejected)
    };
    let domains = u32::try_from(MAX_SAMPLERS_PER_EXPORTER / 1024).unwrap();
    let refused: u64 = (0..domains).map(|domain| announce(forged(1), domain)).sum();
    assert_eq!(refused, 0);
    assert_eq!(
        announce(forged(1), domains),
        1024,
        "beyond what one exporter may announce"
    );
    assert_eq!(announce(forged(1), 0), 0, "known ones may change");
    assert_eq!(announce(forged(2), 0), 0, "another exporter has its own room");
}

#[test]
fn domains_of_strangers_are_bounded_over_all_of_them() {
    let limits = DecodeLimits {
        max_domains_unlisted: 3,
        ..DecodeLimits::default()
    };
    let router = exporter();
    let mut decoder = NetflowDecoder::new(limits, listing(router));
    let mut id = 255;
    let mut heard = |decoder: &mut NetflowDecoder, source, domain, at_ms| {
        id += 1;
        let message = Ipfix::new().domain(domain).template(id, FLOW_FIELDS);
        let out = decode_of(decoder, source, at_ms, message);
        out.counts.total(Counter::DatagramsRejectedLimit) == 0
    };
    assert!((0..2).all(|domain| heard(&mut decoder, forged(1), domain, NOW_MS)));
    assert!(heard(&mut decoder, forged(2), 0, NOW_MS + DAY_MS / 2));
    assert!(!heard(&mut decoder, forged(1), 2, NOW_MS), "of any of them");
    assert!(!heard(&mut decoder, forged(3), 0, NOW_MS));
    assert!((0..9).all(|domain| heard(&mut decoder, router, domain, NOW_MS)));
    assert!(
        heard(&mut decoder, forged(1), 1, NOW_MS + DAY_MS / 2),
        "known ones go on"
    );

    let restored = NetflowDecoder::restore(limits, listing(router), decoder.checkpoint());
    let sums = |decoder: &NetflowDecoder| (decoder.domains_unlisted, decoder.samplers_unlisted);
    assert_eq!(sums(&restored), (3, 0));
    assert_eq!(sums(&decoder), (3, 0));

    assert!(heard(&mut decoder, forged(2), 0, NOW_MS + DAY_MS + 1));
    decoder.forget_silent(&mut Decoded::default());
    assert_eq!(
        decoder.domains_unlisted, 2,
        "domain 0 of the first was silent for a day"
    );
    assert!(heard(&mut decoder, forged(3), 0, NOW_MS + DAY_MS + 1));
    decoder.set_sampling(SamplingConfig::default());
    assert_eq!(decoder.domains_unlisted, 3 + 9, "nobody is listed any more");
}

#[test]
fn a_refused_domain_leaves_no_session() {
    let limits = DecodeLimits {
        max_domains_unlisted: 1,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let mut out = Decoded::default();
    for source_port in 1..50 {
        let payload = Ipfix::new().domain(source_port).template(256, FLOW_FIELDS).build();
        let datagram = Datagram {
            received_at_ms: NOW_MS,
            source: forged(1),
            source_port: u16::try_from(source_port).unwrap(),
            payload: &payload,
        };
        decoder.decode(&datagram, &mut out);
    }
    assert_eq!(out.counts.total(Counter::DatagramsRejectedLimit), 48);
    assert_eq!(decoder.exporters[&forged(1)].sessions.len(), 1);
}

#[test]
fn rates_that_strangers_announce_are_bounded_over_all_of_them() {
    let limits = DecodeLimits {
        max_samplers_unlisted: 5,
        ..DecodeLimits::default()
    };
    let router = exporter();
    let mut decoder = NetflowDecoder::new(limits, listing(router));
    let mut sequence = 0;
    let mut refused = |decoder: &mut NetflowDecoder, source, fields: &[(u16, u16)]| {
        sequence += 4;
        let announced: Vec<u8> = (1..=4_u32)
            .flat_map(|named| [named, 100].map(u32::to_be_bytes).concat())
            .collect();
        let message = Ipfix::new()
            .sequence(sequence)
            .options_template(512, 1, fields)
            .set(512, &announced);
        let out = decode_of(decoder, source, NOW_MS, message);
        out.counts.total(Counter::SamplersRejected)
    };
    let samplers = &[(302, 4), (34, 4)];
    assert_eq!(refused(&mut decoder, forged(1), samplers), 0);
    assert_eq!(
        refused(&mut decoder, forged(2), &[(149, 4), (34, 4)]),
        3,
        "of whole domains, too"
    );
    assert_eq!(refused(&mut decoder, forged(3), samplers), 4);
    assert_eq!(refused(&mut decoder, forged(1), samplers), 0, "known ones may change");
    assert_eq!(refused(&mut decoder, router, samplers), 0);
    assert_eq!(decoder.samplers_unlisted, 5);
    let restored = NetflowDecoder::restore(limits, listing(router), decoder.checkpoint());
    assert_eq!(restored.samplers_unlisted, 5);
}

#[test]
fn a_strangers_domain_is_counted_by_its_number_when_it_has_records() {
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), listing(exporter()));
    let domains = |out: &Decoded| -> Vec<u32> { out.counts.iter().map(|(key, ..)| key.observation_domain).collect() };
    let template = || Ipfix::new().domain(7).template(256, FLOW_FIELDS);
    let empty = decode_of(&mut decoder, forged(1), NOW_MS, template());
    assert!(domains(&empty).iter().all(|domain| *domain == 0));
    assert!(!decoder.domains()[0].had_records);
    let data = Ipfix::new().domain(7).set(256, &flow_record(100, 1));
    let full = decode_of(&mut decoder, forged(1), NOW_MS, data);
    assert_eq!(full.counts.total(Counter::FlowRecords), 1);
    assert!(domains(&full).iter().all(|domain| *domain == 7));
    assert!(decoder.domains()[0].had_records);
    let listed = decode_of(&mut decoder, exporter(), NOW_MS, template());
    assert!(domains(&listed).iter().all(|domain| *domain == 7));
    let mut written = serde_json::to_value(decoder.checkpoint()).unwrap();
    let stored = &mut written["exporters"][forged(1).to_string()]["sessions"]["0"]["domains"];
    let domain = stored.as_object_mut().unwrap().values_mut().next().unwrap();
    assert!(domain.as_object_mut().unwrap().remove("had_records").is_some());
    let earlier: NetflowCheckpoint = serde_json::from_value(written).unwrap();
    let restored = NetflowDecoder::restore(DecodeLimits::default(), listing(exporter()), earlier);
    assert_eq!(
        restored.domains().len(),
        2,
        "a checkpoint of an earlier version is read"
    );
}

#[test]
fn the_status_lists_as_many_templates_as_are_useful_and_counts_all() {
    let mut decoder = decoder();
    let exporters = 40;
    for number in 0..exporters {
        for id in 256..276 {
            defines(&mut decoder, forged(number), id, 250, NOW_MS);
        }
    }
    let domains = decoder.domains();
    assert_eq!(domains.len(), exporters as usize);
    assert!(domains.iter().all(|domain| domain.templates_known == 20));
    let listed: Vec<usize> = domains
        .iter()
        .map(|domain| domain.templates.iter().map(|template| template.fields.len()).sum())
        .collect();
    assert!(listed.iter().all(|fields| *fields <= LISTED_FIELDS_PER_EXPORTER_MAX));
    let all: usize = listed.iter().sum();
    assert!(all <= LISTED_FIELDS_MAX && all > LISTED_FIELDS_MAX - 250, "{all}");
    assert!(listed[0] > 0 && listed[exporters as usize - 1] == 0);
}

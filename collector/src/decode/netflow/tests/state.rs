//! Templates, waiting data, limits, sequence numbers and checkpoints.

use super::*;

fn data(sequence: u32, bytes: u32) -> Ipfix {
    Ipfix::new().sequence(sequence).set(256, &flow_record(bytes, 1))
}

fn bytes_of(out: &Decoded) -> Vec<u64> {
    out.flows.rows().iter().map(|flow| flow.bytes).collect()
}

#[test]
fn data_waits_for_its_template_with_its_own_times() {
    let mut decoder = decoder();
    let mut out = Decoded::default();
    decode_at(&mut decoder, &data(0, 100).build(), NOW_MS, &mut out);
    assert!(out.flows.is_empty());
    assert_eq!(decoder.domains()[0].pending_sets, 1);
    let template = Ipfix::new()
        .sequence(1)
        .template(256, FLOW_FIELDS)
        .set(256, &flow_record(200, 1))
        .build();
    decode_at(&mut decoder, &template, NOW_MS + 30_000, &mut out);
    assert_eq!(bytes_of(&out), [100, 200]);
    let received: Vec<i64> = out.flows.rows().iter().map(|flow| flow.received_at_ms).collect();
    assert_eq!(received, [NOW_MS, NOW_MS + 30_000]);
    let counts =
        [Counter::SetsPending, Counter::SetsReplayed, Counter::SetsDroppedPending].map(|c| out.counts.total(c));
    assert_eq!(counts, [1, 1, 0]);
    assert_eq!((decoder.domains()[0].pending_sets, decoder.pending_bytes), (0, 0));
}

#[test]
fn waiting_data_is_given_up_by_age_and_size() {
    let limits = DecodeLimits {
        max_pending_bytes_per_domain: 400,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let mut out = Decoded::default();
    for i in 0..10 {
        decode_at(&mut decoder, &data(i, 1).build(), NOW_MS, &mut out);
    }
    let pending = out.counts.total(Counter::SetsPending);
    assert!((1..10).contains(&pending));
    assert_eq!(pending + out.counts.total(Counter::SetsDroppedPending), 10);
    assert!(decoder.domains()[0].pending_bytes <= 400);
    let later_ms = NOW_MS + limits.pending_max_age_ms + 1;
    decode_at(
        &mut decoder,
        &Ipfix::new().template(256, FLOW_FIELDS).build(),
        later_ms,
        &mut out,
    );
    assert!(out.flows.is_empty());
    assert_eq!(out.counts.total(Counter::SetsDroppedPending), 10);
    assert_eq!(decoder.pending_bytes, 0);
}

#[test]
fn a_template_id_may_get_another_layout() {
    let mut decoder = decoder();
    let first = Ipfix::new().template(256, FLOW_FIELDS).set(256, &flow_record(100, 1));
    let same_datagram = data(1, 200).template(256, &[(1, 2)]).set(256, &[1, 44]);
    let after = Ipfix::new().set(256, &[1, 144]);
    let out = decode_all(&mut decoder, &[first.build(), same_datagram.build(), after.build()]);
    assert_eq!(
        bytes_of(&out),
        [100, 200, 300, 400],
        "a set is read by the template before it"
    );
}

#[test]
fn withdrawn_templates_are_forgotten() {
    let known = Ipfix::new()
        .template(256, FLOW_FIELDS)
        .template(257, FLOW_FIELDS)
        .options_template(258, 1, &[(144, 4), (34, 4)]);
    let templates = |messages: &[Ipfix]| {
        let mut decoder = decoder();
        let payloads: Vec<Vec<u8>> = messages.iter().cloned().map(Ipfix::build).collect();
        let out = decode_all(&mut decoder, &payloads);
        let ids: Vec<u16> = decoder.domains()[0]
            .templates
            .iter()
            .map(|template| template.id)
            .collect();
        (ids, out)
    };
    let (ids, out) = templates(&[known.clone(), data(0, 50).withdraw(2, 256), data(1, 60)]);
    assert_eq!(ids, [257, 258]);
    assert_eq!(
        bytes_of(&out),
        [50],
        "data before the withdrawal is read, data after it waits"
    );
    assert_eq!(out.counts.total(Counter::TemplateWithdrawals), 1);
    assert_eq!(templates(&[known.clone(), Ipfix::new().withdraw(2, 2)]).0, [258]);
    assert_eq!(templates(&[known, Ipfix::new().withdraw(3, 3)]).0, [256, 257]);
}

#[test]
fn templates_that_cannot_be_used_are_refused() {
    let cases = [
        Ipfix::new().template(255, FLOW_FIELDS),
        Ipfix::new().template(256, &[(1, 0)]),
        Ipfix::new().template(256, &[(1, 4); 257]),
        Ipfix::new().template(256, &[(1, 40_000), (2, 40_000)]),
        Ipfix::new().set(2, &[1, 0, 0, 9, 0, 1, 0, 4]),
        Ipfix::new().options_template(256, 2, &[(1, 4)]),
    ];
    for case in cases {
        let mut decoder = decoder();
        let out = decode_all(&mut decoder, &[case.clone().build()]);
        assert_eq!(out.counts.total(Counter::TemplatesRejected), 1, "{case:?}");
        assert!(decoder.domains()[0].templates.is_empty());
    }
    let padded = Ipfix::new().set(2, &[&[1, 0, 0, 1, 0, 1, 0, 4][..], &[0; 8]].concat());
    let out = decode_all(&mut decoder(), &[padded.build()]);
    assert_eq!(
        (
            out.counts.total(Counter::Templates),
            out.counts.total(Counter::TemplatesRejected)
        ),
        (1, 0)
    );
}

#[test]
fn a_layout_that_was_refused_is_not_read_by_the_one_before() {
    let refused: [fn(Ipfix) -> Ipfix; 4] = [
        |message| message.template(256, &[(1, 0)]),
        |message| message.template(256, &[(1, 4); 257]),
        |message| message.template(256, &[(1, 40_000), (2, 40_000)]),
        |message| message.options_template(256, 2, &[(1, 4)]),
    ];
    for (case, refused) in refused.into_iter().enumerate() {
        let mut decoder = decoder();
        let known = Ipfix::new().template(256, FLOW_FIELDS);
        let messages = [known, refused(data(0, 50)), data(1, 60)].map(Ipfix::build);
        let out = decode_all(&mut decoder, &messages);
        assert_eq!(bytes_of(&out), [50], "{case}");
        assert_eq!(out.counts.total(Counter::TemplatesRejected), 1);
        assert_eq!(out.counts.total(Counter::SetsPending), 1, "what comes after it waits");
        assert!(decoder.domains()[0].templates.is_empty());
    }
}

#[test]
fn padding_is_no_record() {
    let specs = [(1, 4), (2, 4)];
    for (padding, refused) in [
        (&[][..], 0),
        (&[0, 0, 0], 0),
        (&[7, 7, 7], 0),
        (&[0; 7], 0),
        (&[1, 2, 3, 4], 1),
    ] {
        let body = [&[0, 0, 0, 90, 0, 0, 0, 1], padding].concat();
        let out = decode_all(
            &mut decoder(),
            &[Ipfix::new().template(256, &specs).set(256, &body).build()],
        );
        assert_eq!(
            (out.flows.len(), out.counts.total(Counter::RecordsRejectedLength)),
            (1, refused),
            "{padding:?}"
        );
    }
}

#[test]
fn one_exporter_cannot_use_up_anothers_room() {
    let limits = DecodeLimits {
        max_exporters: 2,
        max_domains_per_exporter: 2,
        max_templates_per_domain: 2,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let mut out = Decoded::default();
    for domain in 0..5 {
        for id in 256..260 {
            decode_at(
                &mut decoder,
                &Ipfix::new().domain(domain).template(id, FLOW_FIELDS).build(),
                NOW_MS,
                &mut out,
            );
        }
    }
    assert_eq!(out.counts.total(Counter::DatagramsRejectedLimit), 3 * 4);
    assert_eq!(out.counts.total(Counter::TemplatesRejected), 2 * 2);
    for last in 2..9 {
        let datagram = Datagram {
            received_at_ms: NOW_MS,
            source: Address::from_v4([192, 0, 2, last]),
            source_port: 0,
            payload: &Ipfix::new()
                .template(256, FLOW_FIELDS)
                .set(256, &flow_record(100, 1))
                .build(),
        };
        decoder.decode(&datagram, &mut out);
    }
    assert_eq!(
        out.flows.len(),
        1,
        "the second exporter has its place, the others have none"
    );
    assert_eq!(out.counts.total(Counter::DatagramsRejectedLimit), 3 * 4 + 6);
    let nobody = CountKey {
        exporter: Address::UNSPECIFIED,
        observation_domain: 0,
        protocol_version: 0,
    };
    assert_eq!(out.counts.get(nobody, Counter::Datagrams), 6);
}

#[test]
fn broken_datagrams_are_refused_by_cause() {
    let good = data(0, 100).build();
    let mut too_long = good.clone();
    too_long[3] += 1;
    let mut bad_set = Ipfix::new()
        .template(256, FLOW_FIELDS)
        .set(256, &flow_record(100, 1))
        .build();
    let at = bad_set.len() - flow_record(100, 1).len() - 2;
    bad_set[at] = 0xff;
    let cases: [(&[u8], Counter); 8] = [
        (&[], Counter::DatagramsRejectedShort),
        (&[0, 10, 0], Counter::DatagramsRejectedShort),
        (&good[..15], Counter::DatagramsRejectedShort),
        (&[0, 4, 0, 0], Counter::DatagramsRejectedVersion),
        (&too_long, Counter::DatagramsRejectedLength),
        (&encode::v5(0, 0, 2)[..100], Counter::DatagramsRejectedLength),
        (&encode::v5(0, 0, 2)[..20], Counter::DatagramsRejectedShort),
        (&bad_set, Counter::SetsRejectedLength),
    ];
    for (payload, cause) in cases {
        let out = decode_all(&mut decoder(), &[payload.to_vec()]);
        assert_eq!(out.counts.total(cause), 1, "{payload:?}");
        assert_eq!(out.counts.total(Counter::Datagrams), 1);
        assert!(out.flows.is_empty());
    }
    let reserved = decode_all(&mut decoder(), &[Ipfix::new().set(4, &[0; 4]).build()]);
    assert_eq!(reserved.counts.total(Counter::SetsRejectedReserved), 1);
    let many = (0..1030).fold(Ipfix::new(), |message, _| message.set(300, &[]));
    let many = decode_all(&mut decoder(), &[many.build()]);
    assert_eq!(many.counts.total(Counter::SetsRejectedLimit), 6);
}

/// Lost, reset, reordered.
fn sequence(payloads: &[Vec<u8>]) -> [u64; 3] {
    let out = decode_all(&mut decoder(), payloads);
    [
        Counter::SequenceLost,
        Counter::SequenceReset,
        Counter::SequenceReordered,
    ]
    .map(|counter| out.counts.total(counter))
}

#[test]
fn each_protocol_counts_what_it_numbers() {
    let tail = |next: &dyn Fn(u32) -> Vec<u8>| (0..70).map(next).collect::<Vec<_>>();
    // v5 counts flows: 3 + 3, then 4 flows are missing.
    let v5 = [
        vec![encode::v5(0, 0, 3), encode::v5(3, 0, 3)],
        tail(&|i| encode::v5(10 + i, 0, 1)),
    ]
    .concat();
    assert_eq!(sequence(&v5), [4, 0, 0]);
    // v9 counts datagrams: number 2 is missing, 5 and 4 change places.
    let order = [0, 1, 3, 5, 4];
    let v9 = [
        order.map(|i| V9::new().sequence(i).build()).to_vec(),
        tail(&|i| V9::new().sequence(6 + i).build()),
    ]
    .concat();
    assert_eq!(sequence(&v9), [1, 0, 1]);
    // IPFIX counts data records, also of options: 2, then 1, then 5 are missing.
    let options = Ipfix::new()
        .sequence(2)
        .options_template(300, 1, &[(144, 4), (34, 4)])
        .set(300, &[0; 8]);
    let two = [flow_record(100, 1), flow_record(200, 1)].concat();
    let ipfix = [
        vec![
            Ipfix::new().template(256, FLOW_FIELDS).set(256, &two).build(),
            options.build(),
        ],
        tail(&|i| data(8 + i, 1).build()),
    ]
    .concat();
    assert_eq!(sequence(&ipfix), [5, 0, 0]);
}

#[test]
fn a_restarted_exporter_is_a_reset() {
    let mut restarted = V9::new().sequence(0);
    restarted.uptime_ms = 1000;
    assert_eq!(
        sequence(&[V9::new().sequence(50).build(), restarted.build()]),
        [0, 1, 0]
    );
}

#[test]
fn a_restored_decoder_goes_on_to_the_same_flows() {
    let options = Ipfix::new()
        .options_template(512, 1, &[(302, 4), (50, 4)])
        .set(512, &[0, 0, 0, 1, 0, 0, 3, 0xe8]);
    let mut payloads = vec![
        data(0, 100).build(),
        options.build(),
        Ipfix::new().sequence(9).set(300, &flow_record(700, 7)).build(),
        Ipfix::new().sequence(2).template(256, FLOW_FIELDS).build(),
        V9::new().template(256, FLOW_FIELDS).build(),
        V9::new().sequence(5).set(256, &flow_record(300, 3)).build(),
        encode::v5(0, 10, 3),
        Ipfix::new()
            .sequence(10)
            .template(300, FLOW_FIELDS)
            .set(300, &flow_record(800, 8))
            .build(),
    ];
    payloads.extend((0..70).map(|i| data(20 + i, i).build()));
    let whole = decode_all(&mut decoder(), &payloads);
    for cut in 0..payloads.len() {
        let mut first = decoder();
        let mut out = decode_all(&mut first, &payloads[..cut]);
        let text = serde_json::to_string(&first.checkpoint()).unwrap();
        let checkpoint: NetflowCheckpoint = serde_json::from_str(&text).unwrap();
        assert_eq!(checkpoint, first.checkpoint());
        let mut second = NetflowDecoder::restore(DecodeLimits::default(), SamplingConfig::default(), checkpoint);
        assert_eq!(second.pending_bytes, first.pending_bytes);
        for payload in &payloads[cut..] {
            decode_at(&mut second, payload, NOW_MS, &mut out);
        }
        assert_eq!(out.flows.rows(), whole.flows.rows(), "cut before datagram {cut}");
        assert_eq!(out.counts, whole.counts, "cut before datagram {cut}");
    }
}

#[test]
fn the_status_names_what_an_exporter_sends() {
    let mut decoder = decoder();
    let message = V9::new()
        .options_template(257, &[(1, 4)], &[(34, 4)])
        .template(256, &[(8, 4), (1, 4), (40_001, 2)]);
    decode_all(&mut decoder, &[message.build()]);
    let status = &decoder.domains()[0];
    assert_eq!(
        (status.exporter, status.protocol_version, status.observation_domain),
        (exporter(), 9, 1)
    );
    let names = |template: &TemplateStatus| -> Vec<String> { template.fields.iter().map(|f| f.name.clone()).collect() };
    assert_eq!(
        names(&status.templates[0]),
        ["sourceIPv4Address", "octetDeltaCount", "element 40001"]
    );
    assert_eq!(names(&status.templates[1]), ["scope system", "samplingInterval"]);
    assert_eq!(status.templates[1].kind, TemplateKind::Options);
    assert_eq!(
        (status.templates[0].last_seen_ms, status.last_heard_ms),
        (NOW_MS, NOW_MS)
    );
}

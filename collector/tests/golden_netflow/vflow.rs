//! The captures of vFlow have no expected output; the values here are what `tshark` 4.0 reads from them.

use collector::decode::netflow::TemplateKind;

use super::{as_exported, decode, decoder};
use crate::beside::{GOLDEN, needs};
use crate::golden;

#[test]
fn a_juniper_template_is_learned() {
    needs!(GOLDEN);
    let mut decoder = decoder();
    let out = decode(&mut decoder, &[as_exported(golden::read("vflow/ipfix_top_1.bin"))]);
    assert!(out.flows.is_empty());
    let status = &decoder.domains()[0];
    assert_eq!(status.observation_domain, 0x8400);
    let template = &status.templates[0];
    assert_eq!(
        (template.id, template.kind, template.fields.len()),
        (256, TemplateKind::Data, 25)
    );
    assert_eq!(template.fields[16].name, "octetDeltaCount");
}

#[test]
fn v5_flows_are_read() {
    needs!(GOLDEN);
    let out = decode(&mut decoder(), &[as_exported(golden::read("vflow/v5_top_1.bin"))]);
    assert_eq!(out.flows.len(), 29);
    let flow = out.flows.rows()[0];
    assert_eq!(
        (flow.src_addr.to_string(), flow.dst_addr.to_string()),
        ("125.238.46.48".into(), "114.23.236.96".into())
    );
    assert_eq!(
        (flow.bytes, flow.packets, flow.src_port, flow.dst_port),
        (1708, 4, 49233, 443)
    );
    assert_eq!(
        (flow.in_if, flow.out_if, flow.src_as, flow.dst_as),
        (791, 817, 4771, 56030)
    );
    assert_eq!(flow.sampling_rate, 1000);
    assert_eq!(flow.end_at_ms - flow.start_at_ms, 31_119);
}

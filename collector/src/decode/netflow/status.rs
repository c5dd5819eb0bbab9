//! What is known of an exporter, for people: the exporters page shows it.

use std::collections::BTreeMap;

use schemas::address::Address;
use serde::{Deserialize, Serialize};

use super::exporter::Exporter;
use super::span::ActiveTimeout;
use super::spec::{FieldSpec, TemplateKind};
use crate::sampling::{ChosenRate, SamplingConfig};

/// One observation domain of one exporter in one protocol.
#[derive(Clone, PartialEq, Debug)]
pub struct DomainStatus {
    pub exporter: Address,
    /// 5, 7, 9 or 10 = IPFIX.
    pub protocol_version: u8,
    pub observation_domain: u32,
    /// The UDP port of its transport session; 0 = all ports of its exporter.
    pub port: u16,
    pub last_heard_ms: i64,
    /// The configuration lists its exporter.
    pub is_listed: bool,
    /// Flows or options data of it could be read.
    pub had_records: bool,
    /// How far its exporter's clock is ahead of ours, as its headers tell it; negative: behind.
    pub clock_offset_ms: Option<i64>,
    /// The rate that its last flow got, and who said it.
    pub sampling: ChosenRate,
    /// Rates that its session announced and that have ended.
    pub rates_ended: u64,
    /// As many as are listed, see [`LISTED_FIELDS_MAX`].
    pub templates: Vec<TemplateStatus>,
    /// All of them.
    pub templates_known: usize,
    /// Records or datagrams that are known to be lost.
    pub sequence_lost: u64,
    /// Records or datagrams that are missing and may still come.
    pub sequence_waiting: u64,
    /// Data sets that wait for a template.
    pub pending_sets: usize,
    pub pending_bytes: usize,
    /// By which long flows are bounded; `None` where nobody said and nothing showed.
    pub active_timeout: Option<ActiveTimeout>,
    /// Its session was seen to observe packets on their way in and out.
    pub observes_twice: bool,
    /// Its templates have IE 23 beside IE 1.
    pub has_out_counters: bool,
}

/// Fields of templates that are told by name, of all exporters together: the status is written every few seconds, and
/// thousands of exporters with the same templates would make it megabytes. Beyond it templates are only counted.
pub const LISTED_FIELDS_MAX: usize = 50_000;
/// The same for one exporter, so that one with thousands of templates does not hide those of the others.
pub const LISTED_FIELDS_PER_EXPORTER_MAX: usize = 4_096;

/// One template as the exporter described it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TemplateStatus {
    pub id: u16,
    pub kind: TemplateKind,
    /// When it was last sent.
    pub last_seen_ms: i64,
    pub fields: Vec<FieldStatus>,
}

/// One field of a template.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FieldStatus {
    pub name: String,
    /// 65535 = variable.
    pub length_bytes: u16,
    pub is_scope: bool,
}

pub(super) fn domains(exporters: &BTreeMap<Address, Exporter>, config: &SamplingConfig) -> Vec<DomainStatus> {
    let mut statuses = Vec::new();
    let mut fields_free = LISTED_FIELDS_MAX;
    for (exporter, state) in exporters {
        let reading = config.of(*exporter).reading;
        let is_listed = config.lists(*exporter);
        let mut exporter_fields_free = LISTED_FIELDS_PER_EXPORTER_MAX.min(fields_free);
        for (port, key, domain) in state.domains() {
            let listed = domain.templates.iter().take_while(|(_, template)| {
                let fields = template.spec.fields.len();
                let fits = fields <= exporter_fields_free;
                if fits {
                    exporter_fields_free -= fields;
                    fields_free -= fields;
                }
                fits
            });
            let templates = listed.map(|(id, template)| {
                let scopes = usize::from(template.spec.scope_fields);
                let fields = template
                    .spec
                    .fields
                    .iter()
                    .enumerate()
                    .map(|(index, field)| FieldStatus {
                        name: if index < scopes && template.spec.is_v9 {
                            v9_scope_name(field.element)
                        } else {
                            field_name(field)
                        },
                        length_bytes: field.length,
                        is_scope: index < scopes,
                    });
                TemplateStatus {
                    id: *id,
                    kind: template.spec.kind,
                    last_seen_ms: template.last_seen_ms,
                    fields: fields.collect(),
                }
            });
            statuses.push(DomainStatus {
                exporter: *exporter,
                protocol_version: key.protocol_version,
                observation_domain: key.observation_domain,
                port,
                last_heard_ms: domain.last_heard_ms,
                is_listed,
                had_records: domain.had_records,
                clock_offset_ms: domain.clock_offset_ms,
                sampling: domain.sampling,
                rates_ended: state.rates_ended(port),
                templates: templates.collect(),
                templates_known: domain.templates.len(),
                sequence_lost: domain.sequence_lost,
                sequence_waiting: domain.sequence.waiting(),
                pending_sets: domain.pending.len(),
                pending_bytes: domain.pending.bytes(),
                active_timeout: domain.meaning.active_timeout(reading, state.active_timeout_s(port)),
                observes_twice: state.observes_twice(port),
                has_out_counters: domain.meaning.has_out_counters,
            });
        }
    }
    statuses
}

fn v9_scope_name(scope_type: u16) -> String {
    match scope_type {
        1 => "scope system".to_owned(),
        2 => "scope interface".to_owned(),
        3 => "scope line card".to_owned(),
        4 => "scope cache".to_owned(),
        5 => "scope template".to_owned(),
        other => format!("scope {other}"),
    }
}

fn field_name(field: &FieldSpec) -> String {
    /// The enterprise number of reverse elements (RFC 5103).
    const REVERSE: u32 = 29305;
    match field.enterprise {
        0 => match element_name(field.element) {
            Some(name) => name.to_owned(),
            None => format!("element {}", field.element),
        },
        REVERSE => match element_name(field.element) {
            Some(name) => format!("reverse {name}"),
            None => format!("reverse element {}", field.element),
        },
        enterprise => format!("enterprise {enterprise} element {}", field.element),
    }
}

/// IANA's names of the elements that flow exporters usually send.
fn element_name(element: u16) -> Option<&'static str> {
    Some(match element {
        1 => "octetDeltaCount",
        2 => "packetDeltaCount",
        3 => "deltaFlowCount",
        4 => "protocolIdentifier",
        5 => "ipClassOfService",
        6 => "tcpControlBits",
        7 => "sourceTransportPort",
        8 => "sourceIPv4Address",
        9 => "sourceIPv4PrefixLength",
        10 => "ingressInterface",
        11 => "destinationTransportPort",
        12 => "destinationIPv4Address",
        13 => "destinationIPv4PrefixLength",
        14 => "egressInterface",
        15 => "ipNextHopIPv4Address",
        16 => "bgpSourceAsNumber",
        17 => "bgpDestinationAsNumber",
        18 => "bgpNextHopIPv4Address",
        21 => "flowEndSysUpTime",
        22 => "flowStartSysUpTime",
        23 => "postOctetDeltaCount",
        24 => "postPacketDeltaCount",
        27 => "sourceIPv6Address",
        28 => "destinationIPv6Address",
        29 => "sourceIPv6PrefixLength",
        30 => "destinationIPv6PrefixLength",
        31 => "flowLabelIPv6",
        32 => "icmpTypeCodeIPv4",
        34 => "samplingInterval",
        35 => "samplingAlgorithm",
        36 => "flowActiveTimeout",
        37 => "flowIdleTimeout",
        40 => "exportedOctetTotalCount",
        41 => "exportedMessageTotalCount",
        42 => "exportedFlowRecordTotalCount",
        48 => "samplerId",
        49 => "samplerMode",
        50 => "samplerRandomInterval",
        52 => "minimumTTL",
        53 => "maximumTTL",
        54 => "fragmentIdentification",
        56 => "sourceMacAddress",
        57 => "postDestinationMacAddress",
        58 => "vlanId",
        59 => "postVlanId",
        60 => "ipVersion",
        61 => "flowDirection",
        62 => "ipNextHopIPv6Address",
        63 => "bgpNextHopIPv6Address",
        64 => "ipv6ExtensionHeaders",
        70 => "mplsTopLabelStackSection",
        80 => "destinationMacAddress",
        82 => "interfaceName",
        83 => "interfaceDescription",
        84 => "samplerName",
        85 => "octetTotalCount",
        86 => "packetTotalCount",
        88 => "fragmentOffset",
        89 => "forwardingStatus",
        130 => "exporterIPv4Address",
        131 => "exporterIPv6Address",
        136 => "flowEndReason",
        137 => "commonPropertiesId",
        139 => "icmpTypeCodeIPv6",
        143 => "meteringProcessId",
        144 => "exportingProcessId",
        145 => "templateId",
        148 => "flowId",
        149 => "observationDomainId",
        150 => "flowStartSeconds",
        151 => "flowEndSeconds",
        152 => "flowStartMilliseconds",
        153 => "flowEndMilliseconds",
        154 => "flowStartMicroseconds",
        155 => "flowEndMicroseconds",
        156 => "flowStartNanoseconds",
        157 => "flowEndNanoseconds",
        158 => "flowStartDeltaMicroseconds",
        159 => "flowEndDeltaMicroseconds",
        160 => "systemInitTimeMilliseconds",
        161 => "flowDurationMilliseconds",
        162 => "flowDurationMicroseconds",
        176 => "icmpTypeIPv4",
        177 => "icmpCodeIPv4",
        178 => "icmpTypeIPv6",
        179 => "icmpCodeIPv6",
        210 => "paddingOctets",
        225 => "postNATSourceIPv4Address",
        226 => "postNATDestinationIPv4Address",
        231 => "initiatorOctets",
        232 => "responderOctets",
        234 => "ingressVRFID",
        235 => "egressVRFID",
        243 => "dot1qVlanId",
        245 => "dot1qCustomerVlanId",
        252 => "ingressPhysicalInterface",
        253 => "egressPhysicalInterface",
        254 => "postDot1qVlanId",
        256 => "ethernetType",
        298 => "initiatorPackets",
        299 => "responderPackets",
        302 => "selectorId",
        304 => "selectorAlgorithm",
        104 => "layer2packetSectionData",
        305 => "samplingPacketInterval",
        306 => "samplingPacketSpace",
        309 => "samplingSize",
        310 => "samplingPopulation",
        311 => "samplingProbability",
        312 => "dataLinkFrameSize",
        315 => "dataLinkFrameSection",
        322 => "observationTimeSeconds",
        323 => "observationTimeMilliseconds",
        335 => "selectorName",
        352 => "layer2OctetDeltaCount",
        365 => "staMacAddress",
        366 => "staIPv4Address",
        _ => return None,
    })
}

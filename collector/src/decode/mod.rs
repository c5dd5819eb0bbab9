//! Datagrams to flows. A decoder is a pure function of its state and the datagrams in order: the journal replays to the
//! same flows (F1). It never reads a clock; time comes with the datagram.

mod copies;
mod discard;
pub mod dispatch;
mod domain_view;
pub mod ingress;
pub mod netflow;
mod packet_header;
mod recent;
pub mod sflow;

pub use domain_view::{CLOCK_OFF_MS, DomainView};
use schemas::address::Address;
use tables::flow::FlowColumns;

use crate::counts::Counts;

/// One UDP payload as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// UTC milliseconds.
    pub received_at_ms: i64,
    /// UDP source address.
    pub source: Address,
    /// UDP source port; 0 = not known. With the address it names the transport session (RFC 7011 §2).
    pub source_port: u16,
    pub payload: &'a [u8],
}

/// Counters of one interface as an sFlow counter sample reports them; one row of the `counters` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterfaceCounters {
    pub received_at_ms: i64,
    pub exporter: Address,
    pub observation_domain: u32,
    pub if_index: u32,
    pub if_type: u32,
    pub speed_bps: u64,
    pub duplex: u32,
    pub status: u32,
    pub in_bytes: u64,
    pub in_unicast_packets: u64,
    pub in_multicast_packets: u64,
    pub in_broadcast_packets: u64,
    pub in_discards: u64,
    pub in_errors: u64,
    pub out_bytes: u64,
    pub out_unicast_packets: u64,
    pub out_multicast_packets: u64,
    pub out_broadcast_packets: u64,
    pub out_discards: u64,
    pub out_errors: u64,
}

/// What decoding gathers. Flows carry everything but boundary, metering and service columns, which are set by
/// [`tables::metering::Enricher`] afterwards.
#[derive(Debug, Default)]
pub struct Decoded {
    pub flows: FlowColumns,
    pub counters: Vec<InterfaceCounters>,
    /// What options data said of interfaces, in the order it came.
    pub interfaces: Vec<netflow::AnnouncedInterface>,
    pub counts: Counts,
}

//! Capture files under test: pcap and pcapng by anybody.
//!
//! Promises: every packet is counted once, as a datagram or by why it was left out; a datagram's time is one that people can
//! write; what is found can be decoded, and F2 holds there too.

use collector::counts::Counter;
use collector::decode::Decoded;
use collector::decode::dispatch::Dispatcher;
use collector::import::{PortFilter, ReplaySummary, read_pcap_bytes};
use schemas::metering::MeteringConfig;

/// The last instant of the year 9999, UTC ms: four digits of a year are all that folders and people have room for.
const LAST_MS: i64 = 253_402_300_799_999;

const ANY_PORT: [u16; 1 << 16] = {
    let mut ports = [0; 1 << 16];
    let mut port = 0;
    while port < ports.len() {
        ports[port] = port as u16;
        port += 1;
    }
    ports
};

/// Reads one capture. Its first byte is not part of it: it says which payloads are taken.
pub fn run(input: &[u8]) {
    let Some((choice, capture)) = input.split_first() else {
        return;
    };
    let filter = match choice % 3 {
        0 => PortFilter::FlowLike,
        1 => PortFilter::Ports(vec![2055, 4739, 6343, 9995]),
        // Any port, so that the fuzzer need not guess one.
        _ => PortFilter::Ports(ANY_PORT.to_vec()),
    };
    let mut dispatcher = Dispatcher::new(&MeteringConfig::default());
    let mut decoded = Decoded::default();
    let (mut datagrams, mut bytes) = (0, 0);
    let (summary, _) = read_pcap_bytes(capture, &filter, |datagram| {
        let at_ms = datagram.received_at_ms;
        assert!((0..=LAST_MS).contains(&at_ms), "received at {at_ms} ms");
        datagrams += 1;
        bytes += datagram.payload.len();
        dispatcher.decode(datagram, &mut decoded);
    });
    let ReplaySummary {
        packets,
        datagrams: taken,
        fragments,
        truncated,
        others,
        link_unknown,
        time_unknown,
    } = summary;
    assert_eq!(
        packets,
        taken + fragments + truncated + others + link_unknown + time_unknown,
        "every packet is counted once: {summary:?}"
    );
    assert_eq!(taken, datagrams, "datagrams handed over");
    assert!(bytes <= capture.len(), "more was found than there is");
    assert_eq!(decoded.counts.total(Counter::Datagrams), datagrams, "F2: datagrams");
    assert_eq!(
        decoded.counts.total(Counter::FlowRecords),
        decoded.flows.len() as u64,
        "F2: flows"
    );
}

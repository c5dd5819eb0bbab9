//! What is known of a record beside its columns: the bits of `marks`.
//!
//! A mark says how a flow came about, so that it can be read again under other settings, and nothing is billed or left out of a
//! bill without a reason that can be looked up. [`ALL`] lists them for documents and pages.

/// Next hop and output interface were in the record and both zero, and it names an input interface: what an exporter that is
/// configured with `zero_route_is_discard` says of a discarded packet.
pub const NO_ROUTE: u16 = 1 << 0;
/// The answering half of a record that counts both directions: made from it, with source and destination exchanged.
pub const ANSWER: u16 = 1 << 1;
/// Bytes and packets are what a running total grew by.
pub const OF_TOTALS: u16 = 1 << 2;
/// Sources of the sampling rate contradict each other: the rate is 0.
pub const RATE_AMBIGUOUS: u16 = 1 << 3;
/// The layer-2 octets of its packets were taken off `bytes`.
pub const LAYER2_TAKEN_OFF: u16 = 1 << 4;
/// The same exporter observed these packets at its other side too, and that observation is metered.
pub const SECOND_OBSERVATION: u16 = 1 << 5;
/// The packet inside a tunnel.
pub const INNER_PACKET: u16 = 1 << 6;
/// The record names a sampler that its exporter did not announce.
pub const SAMPLER_NOT_ANNOUNCED: u16 = 1 << 7;
/// The sampling rate is orders of magnitude from what counters or history say.
pub const RATE_IMPLAUSIBLE: u16 = 1 << 8;
/// `forwarding_status` was not reported: it says dropped because of [`NO_ROUTE`] and the configuration.
pub const DROPPED_BY_RULE: u16 = 1 << 9;
/// Judged where its exporter metered by addresses. One of this and the next two is set once a flow was judged; flows that were
/// stored before there were these marks have none.
pub const METER_ADDRESSES: u16 = 1 << 10;
/// Judged where its exporter metered at its external interfaces.
pub const METER_BOUNDARY: u16 = 1 << 11;
/// Judged where its exporter did not meter.
pub const METER_OFF: u16 = 1 << 12;
/// Judged where another observation than this one was metered.
pub const OTHER_OBSERVATION: u16 = 1 << 13;

/// How a flow was judged.
pub const JUDGED: u16 = METER_ADDRESSES | METER_BOUNDARY | METER_OFF | OTHER_OBSERVATION;

/// Every mark: its bit, its name and its meaning.
#[rustfmt::skip] // a mark is a line
pub const ALL: [(u16, &str, &str); 14] = [
    (NO_ROUTE, "no route", "next hop and output interface are in the record and zero, with an input interface"),
    (ANSWER, "answer", "answering half of a record that counts both directions"),
    (OF_TOTALS, "of totals", "what a running total grew by"),
    (RATE_AMBIGUOUS, "rate ambiguous", "sources of the sampling rate contradict each other; the rate is 0"),
    (LAYER2_TAKEN_OFF, "layer 2 taken off", "the layer-2 octets of its packets were taken off `bytes`"),
    (SECOND_OBSERVATION, "second observation", "the same packets were metered at the exporter's other side; never metered"),
    (INNER_PACKET, "inner packet", "the packet inside a tunnel"),
    (SAMPLER_NOT_ANNOUNCED, "sampler not announced", "the record names a sampler that its exporter did not announce"),
    (RATE_IMPLAUSIBLE, "rate implausible", "the rate is orders of magnitude from what counters or history say"),
    (DROPPED_BY_RULE, "dropped by rule", "not reported as dropped; `zero_route_is_discard` says so"),
    (METER_ADDRESSES, "meter addresses", "judged where its exporter metered by addresses"),
    (METER_BOUNDARY, "meter boundary", "judged where its exporter metered at its external interfaces"),
    (METER_OFF, "meter off", "judged where its exporter did not meter; never metered"),
    (OTHER_OBSERVATION, "other observation", "judged where another observation than this one was metered; never metered"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_a_bit_of_its_own_and_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metering.md");
        let page = std::fs::read_to_string(page).expect("docs/metering.md exists");
        for (place, (bit, name, meaning)) in ALL.iter().enumerate() {
            assert_eq!(*bit, 1 << place, "{name}");
            let row = format!("| {bit} | {name} | {meaning} |");
            assert!(page.contains(&row), "docs/metering.md, Marks, lacks the line: {row}");
        }
    }
}

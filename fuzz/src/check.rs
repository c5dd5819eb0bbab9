//! The collector's promises, checked on one input for any decoder.
//!
//! * F2: datagrams = decoded + rejected, by cause; every flow row was counted, and no other.
//! * F1: decoding again, with the state kept as JSON and restored somewhere between, gives the same flows, counts and state.
//! * State stays within the limits; times stay within theirs; flows survive the way to Arrow and back.

use std::fmt::Debug;

use collector::counts::{Counter, Counts};
use collector::decode::{Datagram, Decoded};
use serde::{Serialize, de::DeserializeOwned};
use tables::flow::{Flow, batch_to_flows};

use crate::input::{Input, Settings};

/// A decoder under test.
pub trait Subject: Sized {
    type Checkpoint: Serialize + DeserializeOwned + PartialEq + Debug;

    fn new(settings: Settings) -> Self;
    fn restore(settings: Settings, checkpoint: Self::Checkpoint) -> Self;
    fn checkpoint(&self) -> Self::Checkpoint;
    fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded);
    /// What happens between segments of the journal.
    fn start_segment(&mut self, decoded: &mut Decoded);
    /// What this decoder promises of its state beyond what all do.
    fn check_state(&self, settings: Settings, input: &Input, decoded: &Decoded);
    /// What it promises of a flow.
    fn check_flow(settings: Settings, flow: &Flow);
}

/// Decodes an input every way there is and compares.
pub fn run<S: Subject>(input: &Input) {
    let settings = input.settings;
    let mut straight = S::new(settings);
    let mut decoded = Decoded::default();
    let split = settings.split(input.packets.len());
    feed(&mut straight, input, 0..split, &mut decoded);
    straight.start_segment(&mut decoded);
    feed(&mut straight, input, split..input.packets.len(), &mut decoded);

    let mut before = S::new(settings);
    let mut again = Decoded::default();
    feed(&mut before, input, 0..split, &mut again);
    let json = serde_json::to_vec(&before.checkpoint()).expect("a checkpoint is JSON");
    let checkpoint: S::Checkpoint = serde_json::from_slice(&json).expect("a checkpoint is read again");
    assert_eq!(checkpoint, before.checkpoint(), "F1: the checkpoint changed on its way");
    let mut restored = S::restore(settings, checkpoint);
    restored.start_segment(&mut again);
    feed(&mut restored, input, split..input.packets.len(), &mut again);

    assert_eq!(decoded.flows, again.flows, "F1: restored before {split}, other flows");
    assert_eq!(
        decoded.counters, again.counters,
        "F1: restored before {split}, other counters"
    );
    assert_eq!(
        decoded.counts, again.counts,
        "F1: restored before {split}, other counts"
    );
    assert_eq!(
        straight.checkpoint(),
        restored.checkpoint(),
        "F1: restored before {split}, other state"
    );

    check_counts(input, &decoded);
    straight.check_state(settings, input, &decoded);
    for flow in decoded.flows.iter() {
        S::check_flow(settings, &flow);
    }
    check_arrow(&decoded);
}

fn feed<S: Subject>(subject: &mut S, input: &Input, range: std::ops::Range<usize>, decoded: &mut Decoded) {
    let times_ms = input.times_ms();
    for index in range {
        let (packet, settings) = (&input.packets[index], input.settings);
        let datagram = Datagram {
            received_at_ms: times_ms[index],
            source: packet.source(),
            source_port: packet.source_port(settings),
            payload: &packet.payload,
        };
        subject.decode(&datagram, decoded);
    }
}

/// The sum of some counters over all exporters.
pub fn total(counts: &Counts, counters: &[Counter]) -> u64 {
    counters.iter().map(|counter| counts.total(*counter)).sum()
}

fn check_counts(input: &Input, decoded: &Decoded) {
    let counts = &decoded.counts;
    let rejected: Vec<Counter> = Counter::ALL
        .iter()
        .copied()
        .filter(|counter| counter.name().starts_with("datagrams_rejected."))
        .collect();
    let of = |counter| counts.total(counter);
    assert_eq!(of(Counter::Datagrams), input.packets.len() as u64, "F2: datagrams");
    let bytes: usize = input.packets.iter().map(|packet| packet.payload.len()).sum();
    assert_eq!(of(Counter::DatagramBytes), bytes as u64, "F2: bytes of datagrams");
    assert_eq!(
        of(Counter::Datagrams),
        of(Counter::DatagramsDecoded) + total(counts, &rejected),
        "F2: received = decoded + rejected"
    );
    assert!(
        of(Counter::DatagramBytesTrailing) <= bytes as u64,
        "F2: more trails than came"
    );
    assert_eq!(
        of(Counter::FlowRecords),
        decoded.flows.len() as u64,
        "F2: flow records = rows"
    );
    let without_rate = decoded.flows.iter().filter(|flow| flow.sampling_rate == 0).count();
    assert_eq!(
        of(Counter::FlowsWithoutRate),
        without_rate as u64,
        "F2: flows without a rate"
    );
    for (key, counter, _) in counts.iter() {
        let received = counts.get(key, Counter::Datagrams) + counts.get(key, Counter::MessagesFurther);
        assert!(
            received > 0,
            "F2: {} counted under {key:?}, which sent nothing",
            counter.name()
        );
    }
}

fn check_arrow(decoded: &Decoded) {
    if decoded.flows.is_empty() {
        return;
    }
    let rows = decoded.flows.rows();
    assert!(
        decoded.flows.values().iter().all(|column| column.len() <= rows.len()),
        "no column is longer than the rows"
    );
    let mut complete = decoded.flows.clone();
    complete.complete();
    assert!(
        complete.values().iter().all(|column| column.len() == rows.len()),
        "complete columns are of one length"
    );
    assert_eq!(complete.rows(), rows, "completing changes no row");
    let batch = complete.into_batch();
    assert_eq!(batch.num_rows(), rows.len(), "a batch holds every flow");
    let back = batch_to_flows(&batch).expect("a batch of flows is read again");
    assert_eq!(back, rows, "flows survive Arrow");
}

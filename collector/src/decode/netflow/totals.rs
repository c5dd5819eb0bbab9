//! Counters that run on: what a record adds is the difference to the last report of its cache entry.
//!
//! | records | what they count |
//! |---|---|
//! | IE 85 and 86 without IE 1 | everything since the session began, in each report again (nProbe #307, elastiflow #646) |
//! | Cisco ASA, IE 233 = 5 (update) | what came since the last event |
//! | Cisco ASA, IE 233 = 2 (teardown) | the whole connection once more |
//!
//! A session is a cache entry of the exporter with a start. An entry is a flow key at one point of observation: interfaces, VLANs,
//! direction, and the numbers that exporters give to entries (IE 148, a connection of an ASA) and to points (IE 138). The
//! first report of a session counts in full, and each difference is of the time since the last report. Each counter is
//! differenced by itself:
//!
//! | a total that is less than before | what it adds |
//! |---|---|
//! | in a report older than the last one: by export time, sequence number or the time of the last packet | nothing: it was counted ([`Counter::TotalsLate`]) |
//! | of another start | all of it: another session |
//! | and more by a small step modulo the width of its field, or modulo 2³² | that step: the counter wrapped |
//! | otherwise | nothing, and differences count from it ([`Counter::TotalsFell`]) |
//!
//! What is remembered is bounded. A session that may have been forgotten counts nothing in the
//! report that finds it again, because the part that was billed before is not known; that is counted
//! (`flow_totals.forgotten`). A connection whose end was counted is remembered apart for ten minutes, so that an update which its
//! teardown overtook is not counted again.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use tables::flow::{Flow, SpanBound, marks};

use super::limits::FlowCapacity;
use super::memory::{Memory, flow_key, mix, observed_key};
use super::tally::Tally;
use crate::counts::Counter;

/// Starts of one session as different datagrams give them.
const START_TOLERANCE_MS: u64 = 2_000;
/// A session that was not reported for so long is over: nothing is lost with it.
const SESSION_SILENCE_MS: i64 = 600_000;
/// A session so short has had no report before.
const FIRST_REPORT_MS: i64 = 60_000;
/// No datagram is on its way for longer after the end of its connection.
const ENDED_KNOWN_MS: i64 = 600_000;
/// Connections of an observation domain whose end is remembered.
const ENDED_MAX: usize = 1_024;
/// Less than so much in one step shows that a counter in a longer field wrapped at 32 bits.
const STEP_OF_32_BITS_MAX: u64 = 1 << 30;

/// What a record's counters are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CountKind {
    /// Since the last report, and there was none: a connection begins.
    First,
    /// Of the whole session so far.
    Total,
    /// Since the last report.
    Delta,
    /// Of the whole session, which ends.
    LastTotal,
}

impl CountKind {
    /// By IE 233 of a record that has it; others are totals when they come from IE 85.
    pub(super) fn of(event: Option<u8>, counts_totals: bool) -> CountKind {
        const CREATED: u8 = 1;
        const DELETED: u8 = 2;
        match event {
            Some(CREATED) => CountKind::First,
            Some(DELETED) => CountKind::LastTotal,
            Some(_) => CountKind::Delta,
            None if counts_totals => CountKind::Total,
            None => CountKind::Delta,
        }
    }

    fn is_total(self) -> bool {
        matches!(self, CountKind::Total | CountKind::LastTotal)
    }
}

/// Bytes and packets of one direction, and of its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) answer_bytes: u64,
    pub(super) answer_packets: u64,
}

/// How many bytes the field of each counter has in a template, at most 8; 0 where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CounterLengths {
    pub(super) bytes: u8,
    pub(super) packets: u8,
    pub(super) answer_bytes: u8,
    pub(super) answer_packets: u8,
}

/// What counters grew by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Growth {
    added: Counted,
    /// What differences count from.
    total: Counted,
    /// A counter of bytes was less than before, and did not wrap.
    fell: bool,
}

impl Counted {
    fn plus(self, more: Counted) -> Counted {
        Counted {
            bytes: self.bytes.saturating_add(more.bytes),
            packets: self.packets.saturating_add(more.packets),
            answer_bytes: self.answer_bytes.saturating_add(more.answer_bytes),
            answer_packets: self.answer_packets.saturating_add(more.answer_packets),
        }
    }

    /// What totals that were `self` grew by, each by itself.
    fn grown_to(self, told: Counted, lengths: CounterLengths, is_late: bool) -> Growth {
        let (bytes, total_bytes, bytes_fell) = grown(self.bytes, told.bytes, lengths.bytes, is_late);
        let (packets, total_packets, _) = grown(self.packets, told.packets, lengths.packets, is_late);
        let (answer_bytes, total_answer_bytes, answer_fell) =
            grown(self.answer_bytes, told.answer_bytes, lengths.answer_bytes, is_late);
        let (answer_packets, total_answer_packets, _) = grown(
            self.answer_packets,
            told.answer_packets,
            lengths.answer_packets,
            is_late,
        );
        Growth {
            added: Counted {
                bytes,
                packets,
                answer_bytes,
                answer_packets,
            },
            total: Counted {
                bytes: total_bytes,
                packets: total_packets,
                answer_bytes: total_answer_bytes,
                answer_packets: total_answer_packets,
            },
            fell: bytes_fell || answer_fell,
        }
    }
}

/// What one total grew by, what the next one is compared with, and whether it fell.
fn grown(before: u64, told: u64, field_bytes: u8, is_late: bool) -> (u64, u64, bool) {
    if field_bytes == 0 && told == 0 {
        // The template of this report does not have it.
        return (0, before, false);
    }
    if told >= before {
        return (told - before, told, false);
    }
    if is_late {
        return (0, before, true);
    }
    match wrapped_by(before, told, field_bytes) {
        Some(step) => (step, before.saturating_add(step), false),
        None => (0, told, true),
    }
}

/// By how much a counter that reads less than before went on, where it wrapped.
fn wrapped_by(before: u64, told: u64, field_bytes: u8) -> Option<u64> {
    let bits = u32::from(field_bytes.clamp(1, 8)) * 8;
    let step_modulo = |bits: u32| told.wrapping_sub(before) & (u64::MAX >> (64 - bits));
    let step = step_modulo(bits);
    if step < 1 << (bits - 1) {
        return Some(step);
    }
    let step = step_modulo(32);
    let may_have_32_bits = bits > 32 && told <= u64::from(u32::MAX);
    (may_have_32_bits && step < STEP_OF_32_BITS_MAX).then_some(step)
}

/// What one record says of its session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) kind: CountKind,
    pub(super) told: Counted,
    pub(super) lengths: CounterLengths,
    /// Bytes and packets are of the same packets.
    pub(super) compares_sizes: bool,
    /// IE 148; 0 where the record has none.
    pub(super) flow_id: u64,
    /// IE 138; 0 where the record has none.
    pub(super) observation_point: u64,
    /// Start and end by the exporter's clock, as it told them: made plausible they may move from report to report.
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) export_ms: i64,
    /// Of its datagram; `None` where its set waited for a template.
    pub(super) sequence: Option<u32>,
}

impl Report {
    fn lasted_ms(&self) -> i64 {
        self.end_ms.saturating_sub(self.start_ms).max(0)
    }
}

/// A cache entry of the exporter.
fn entry_key(flow: &Flow, report: &Report) -> u64 {
    let seen_at = mix(observed_key(flow), u64::from(flow.out_vlan));
    mix(mix(seen_at, report.flow_id), report.observation_point)
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct SessionTotal {
    start_ms: i64,
    /// End of the last report.
    end_ms: i64,
    counted: Counted,
    /// The same end by the exporter's clock; `None` in checkpoints of earlier versions.
    #[serde(default)]
    told_end_ms: Option<i64>,
    /// When the last report was exported.
    #[serde(default)]
    exported_ms: i64,
    /// Of the datagram of the last report.
    #[serde(default)]
    sequence: Option<u32>,
}

impl SessionTotal {
    /// Its start by our clock: a nonsensical one of its exporter makes no other session look forgotten.
    fn began_at_ms(&self) -> i64 {
        let lasted_ms = self
            .told_end_ms
            .map(|end_ms| end_ms.saturating_sub(self.start_ms).max(0));
        lasted_ms.map_or(self.start_ms, |lasted_ms| self.end_ms.saturating_sub(lasted_ms))
    }

    fn starts_with(&self, report: &Report) -> bool {
        self.start_ms.abs_diff(report.start_ms) <= START_TOLERANCE_MS
    }

    /// Whether its last report was made after this one.
    fn is_newer_than(&self, report: &Report) -> bool {
        let is_behind = match (self.sequence, report.sequence) {
            (Some(last), Some(now)) => (now.wrapping_sub(last) as i32) < 0,
            _ => false,
        };
        match report.export_ms.cmp(&self.exported_ms) {
            Ordering::Less => true,
            // Headers of IPFIX and v9 tell whole seconds.
            Ordering::Equal if is_behind => true,
            _ => self.told_end_ms.is_some_and(|end_ms| report.end_ms < end_ms),
        }
    }

    /// Whether the report is of this session, and not of another one that began soon after its start.
    fn is_of(&self, report: &Report) -> bool {
        if !self.starts_with(report) {
            return false;
        }
        let is_less = report.told.bytes < self.counted.bytes || report.told.answer_bytes < self.counted.answer_bytes;
        let began_later = self.told_end_ms.is_some_and(|end_ms| report.start_ms > end_ms);
        match report.kind {
            CountKind::First => self.is_newer_than(report),
            CountKind::Delta => true,
            CountKind::Total | CountKind::LastTotal => !(is_less && began_later),
        }
    }

    /// Whether the totals of this session, which has ended, have what the report tells.
    fn has_counted(&self, report: &Report) -> bool {
        let is_forgotten = report.export_ms.saturating_sub(self.exported_ms) > ENDED_KNOWN_MS;
        if is_forgotten || !self.starts_with(report) {
            return false;
        }
        if self.is_newer_than(report) {
            return true;
        }
        match report.kind {
            CountKind::First => false,
            CountKind::Delta => self.told_end_ms.is_some_and(|end_ms| report.start_ms <= end_ms),
            // Its teardown came twice.
            CountKind::Total | CountKind::LastTotal => {
                let growth = self.counted.grown_to(report.told, report.lengths, false);
                self.told_end_ms == Some(report.end_ms) && growth.added == Counted::default() && !growth.fell
            }
        }
    }
}

/// The sessions of an observation domain.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    /// By [`entry_key`]; of earlier versions by [`flow_key`].
    sessions: Memory<SessionTotal>,
    /// Connections whose teardown was counted.
    ended: Memory<SessionTotal>,
    /// Sessions that began until then may have been forgotten.
    forgotten_until_ms: Option<i64>,
}

impl Totals {
    pub(super) fn remembered(&self) -> usize {
        self.sessions.len() + self.ended.len()
    }

    /// What the record of `flow`, whose times are known, adds to what its session was counted for; `None` where it cannot be.
    pub(super) fn difference(
        &mut self,
        flow: &mut Flow,
        report: &Report,
        room: FlowCapacity,
        tally: &mut Tally,
    ) -> Option<Counted> {
        let key = entry_key(flow, report);
        let sessions_max = room.max(self.sessions.len());
        self.take_over(key, flow, sessions_max);
        let known = self.sessions.get(key).copied();
        let before = known.filter(|session| session.is_of(report));
        if before.is_none() && self.ended.get(key).is_some_and(|ended| ended.has_counted(report)) {
            mark_total(flow, report.kind, tally);
            tally.add(Counter::TotalsLate, 1);
            return Some(Counted::default());
        }
        let is_late = before.is_some_and(|session| session.is_newer_than(report));
        // Another session of the same entry was reported since: what this one was counted for is forgotten.
        let is_overtaken = before.is_none()
            && known.is_some_and(|later| report.start_ms < later.start_ms && later.is_newer_than(report));
        let (growth, cause) = match before {
            None if report.kind.is_total() && self.may_be_forgotten(report, flow.end_at_ms, is_overtaken) => {
                let nothing = Growth {
                    total: report.told,
                    ..Growth::default()
                };
                (nothing, Some(Counter::TotalsForgotten))
            }
            None => (added_whole(Counted::default(), report.told), None),
            Some(before) if !report.kind.is_total() => (added_whole(before.counted, report.told), None),
            Some(before) => {
                let growth = before.counted.grown_to(report.told, report.lengths, is_late);
                let cause = if is_late {
                    Counter::TotalsLate
                } else {
                    Counter::TotalsFell
                };
                (growth, growth.fell.then_some(cause))
            }
        };
        let added = growth.added;
        let is_impossible = report.compares_sizes && super::cannot_be(added.bytes, added.packets);
        if is_impossible && before.is_none() {
            return None;
        }
        if let Some(before) = before
            && before.end_ms > flow.start_at_ms
            && before.end_ms <= flow.end_at_ms
        {
            flow.reported_start_at_ms = flow.reported_start();
            flow.start_at_ms = before.end_ms;
            flow.span_bound = SpanBound::Learned;
            tally.add(Counter::SpansBoundedLearned, u64::from(!is_impossible));
        }
        let session = match before {
            Some(before) if is_late => SessionTotal {
                // A clock that was set back makes reports look late that are not.
                end_ms: before.end_ms.max(flow.end_at_ms),
                counted: growth.total,
                ..before
            },
            _ => SessionTotal {
                start_ms: report.start_ms,
                end_ms: flow.end_at_ms,
                counted: growth.total,
                told_end_ms: Some(report.end_ms),
                exported_ms: report.export_ms,
                sequence: report.sequence,
            },
        };
        if report.kind == CountKind::LastTotal {
            if !is_overtaken {
                self.sessions.remove(key);
            }
            let ended_max = room.max(self.ended.len()).min(ENDED_MAX);
            if ended_max > 0 {
                self.ended.put(key, session, ended_max);
            }
        } else if !is_overtaken {
            self.remember(key, session, sessions_max, flow.end_at_ms);
        }
        if is_impossible {
            return None;
        }
        mark_total(flow, report.kind, tally);
        if let Some(cause) = cause {
            tally.add(cause, 1);
        }
        Some(added)
    }

    /// A session that an earlier version remembered by its flow alone is that of the entry which reports it first.
    fn take_over(&mut self, key: u64, flow: &Flow, sessions_max: usize) {
        if self.sessions.get(key).is_some() {
            return;
        }
        if let Some(session) = self.sessions.remove(flow_key(flow)) {
            self.remember(key, session, sessions_max, flow.end_at_ms);
        }
    }

    fn remember(&mut self, key: u64, session: SessionTotal, sessions_max: usize, now_ms: i64) {
        if sessions_max == 0 {
            self.forgotten_until_ms = self.forgotten_until_ms.max(Some(session.began_at_ms()));
            return;
        }
        let forgotten = self.sessions.put(key, session, sessions_max);
        let living = forgotten
            .values()
            .filter(|session| session.end_ms > now_ms.saturating_sub(SESSION_SILENCE_MS));
        self.forgotten_until_ms = self.forgotten_until_ms.max(living.map(SessionTotal::began_at_ms).max());
    }

    fn may_be_forgotten(&self, report: &Report, end_at_ms: i64, is_overtaken: bool) -> bool {
        let began_at_ms = end_at_ms.saturating_sub(report.lasted_ms());
        let is_of_then = self.forgotten_until_ms.is_some_and(|until_ms| began_at_ms <= until_ms);
        (is_of_then || is_overtaken) && report.lasted_ms() > FIRST_REPORT_MS
    }
}

/// Counters that say what came since the last report, or that are the first ones of their session.
fn added_whole(before: Counted, told: Counted) -> Growth {
    Growth {
        added: told,
        total: before.plus(told),
        fell: false,
    }
}

fn mark_total(flow: &mut Flow, kind: CountKind, tally: &mut Tally) {
    if kind.is_total() {
        flow.marks |= marks::OF_TOTALS;
        tally.add(Counter::FlowsOfTotals, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_790_812_800_000;
    const EIGHT: CounterLengths = CounterLengths {
        bytes: 8,
        packets: 8,
        answer_bytes: 8,
        answer_packets: 8,
    };

    fn room(max_of_kind: usize) -> FlowCapacity {
        FlowCapacity { left: 64, max_of_kind }
    }

    fn flow(minute: i64) -> Flow {
        Flow {
            src_port: 443,
            start_at_ms: T0,
            end_at_ms: T0 + minute * 60_000,
            ..Flow::default()
        }
    }

    fn told(bytes: u64) -> Counted {
        Counted {
            bytes,
            packets: bytes / 1000,
            ..Counted::default()
        }
    }

    fn report(flow: &Flow, bytes: u64, kind: CountKind) -> Report {
        Report {
            kind,
            told: told(bytes),
            lengths: EIGHT,
            compares_sizes: true,
            flow_id: 0,
            observation_point: 0,
            start_ms: flow.start_at_ms,
            end_ms: flow.end_at_ms,
            export_ms: flow.end_at_ms,
            sequence: None,
        }
    }

    #[test]
    fn a_total_adds_what_it_grew_by_since_the_last_report() {
        let (mut totals, mut tally) = (Totals::default(), Tally::new());
        let mut add = |minute, bytes, kind| {
            let mut flow = flow(minute);
            let report = report(&flow, bytes, kind);
            let added = totals.difference(&mut flow, &report, room(8), &mut tally).unwrap();
            (added.bytes, (flow.start_at_ms - T0) / 60_000, flow.span_bound)
        };
        assert_eq!(add(1, 1_000_000, CountKind::Total), (1_000_000, 0, SpanBound::None));
        assert_eq!(add(2, 2_000_000, CountKind::Total), (1_000_000, 1, SpanBound::Learned));
        assert_eq!(add(3, 2_000_000, CountKind::Total), (0, 2, SpanBound::Learned));
        assert_eq!(
            add(4, 500_000, CountKind::Total).0,
            0,
            "it fell, and its start is the same"
        );
        assert_eq!(add(5, 600_000, CountKind::Total).0, 100_000, "from then on");
        assert_eq!(add(6, 50_000, CountKind::Delta).0, 50_000);
        assert_eq!(add(7, 700_000, CountKind::LastTotal).0, 50_000);
        assert_eq!(add(7, 700_000, CountKind::LastTotal).0, 0, "its end came twice");
        assert_eq!(add(6, 40_000, CountKind::Delta).0, 0, "it was in the total");
        assert_eq!(
            add(8, 700_000, CountKind::LastTotal).0,
            700_000,
            "another session after the end of one"
        );
        assert_eq!((totals.sessions.len(), totals.ended.len()), (0, 1));
    }

    #[test]
    fn a_session_that_was_forgotten_counts_nothing_twice() {
        let (mut totals, mut tally) = (Totals::default(), Tally::new());
        let mut add = |port, minute, bytes| {
            let mut flow = Flow {
                src_port: port,
                ..flow(minute)
            };
            let report = report(&flow, bytes, CountKind::Total);
            let added = totals.difference(&mut flow, &report, room(2), &mut tally);
            added.unwrap().bytes
        };
        for port in 1..=4 {
            assert_eq!(add(port, 1, 1_000), 1_000);
        }
        assert_eq!(add(1, 2, 1_500), 0, "what of it was counted is not known any more");
        assert_eq!(add(1, 3, 1_800), 300, "from then on it is");
        assert_eq!(add(9, 1, 700), 700, "no session of a minute was reported before");
    }

    #[test]
    fn a_counter_wraps_at_the_width_of_its_field_or_at_32_bits() {
        assert_eq!(wrapped_by(4_294_000_000, 1_032_704, 4), Some(2_000_000));
        assert_eq!(wrapped_by(4_296_000_000, 2_032_704, 4), Some(1_000_000), "again");
        assert_eq!(wrapped_by(4_294_000_000, 32_704, 8), Some(1_000_000));
        assert_eq!(wrapped_by(u64::MAX - 9, 5, 8), Some(15));
        assert_eq!(wrapped_by(65_000, 464, 2), Some(1_000));
        assert_eq!(wrapped_by(5_000_000_000, 705_032_704, 4), Some(0));
        assert_eq!(wrapped_by(5_000_000, 4_999_999, 4), None, "one less is no wrap");
        assert_eq!(wrapped_by(5_000_000, 4_999_999, 8), None);
        assert_eq!(wrapped_by(2_000_000, 500, 8), None);
        assert_eq!(
            grown(7_000, 0, 0, false),
            (0, 7_000, false),
            "a template without the counter says nothing of it"
        );
    }

    #[test]
    fn a_late_report_of_a_session_that_another_one_followed_is_not_counted_again() {
        let (mut totals, mut tally) = (Totals::default(), Tally::new());
        let mut add = |start_minute: i64, minute: i64, bytes| {
            let mut flow = Flow {
                start_at_ms: T0 + start_minute * 60_000,
                ..flow(minute)
            };
            let report = report(&flow, bytes, CountKind::Total);
            let added = totals.difference(&mut flow, &report, room(8), &mut tally);
            added.unwrap().bytes
        };
        assert_eq!(add(0, 1, 1_000_000), 1_000_000);
        assert_eq!(add(3, 4, 500_000), 500_000, "another session");
        assert_eq!(add(0, 2, 2_000_000), 0, "what of it was counted is not known any more");
        assert_eq!(add(3, 5, 600_000), 100_000, "the later one goes on");
    }

    #[test]
    fn a_record_that_cannot_be_is_found_by_what_it_adds() {
        let (mut totals, mut tally) = (Totals::default(), Tally::new());
        let mut add = |minute, bytes, packets| {
            let mut flow = flow(minute);
            let mut report = report(&flow, bytes, CountKind::Total);
            report.told.packets = packets;
            let added = totals.difference(&mut flow, &report, room(8), &mut tally);
            added.map(|added| added.bytes)
        };
        assert_eq!(add(1, 100, 1_000), None);
        assert_eq!(
            add(2, 1_000_000, 1_000),
            Some(1_000_000),
            "nothing of it was remembered"
        );
        assert_eq!(add(3, 1_000_100, 2_000), None);
        assert_eq!(add(4, 1_001_100, 2_001), Some(1_000));
    }

    #[test]
    fn a_session_of_an_earlier_checkpoint_goes_on() {
        let mut flow = flow(3);
        flow.in_if = 7;
        let key = flow_key(&flow).to_string();
        let stored = serde_json::json!({
            "sessions": { "young": { key: {
                "start_ms": T0,
                "end_ms": T0 + 120_000,
                "counted": { "bytes": 2_000_000, "packets": 2_000, "answer_bytes": 0, "answer_packets": 0 },
            } }, "old": {} },
            "forgotten_until_ms": null,
        });
        let mut totals: Totals = serde_json::from_value(stored).unwrap();
        let mut tally = Tally::new();
        let report = report(&flow, 3_000_000, CountKind::Total);
        let added = totals.difference(&mut flow, &report, room(8), &mut tally).unwrap();
        assert_eq!((added.bytes, flow.start_at_ms), (1_000_000, T0 + 120_000));
        let text = serde_json::to_string(&totals).unwrap();
        assert_eq!(serde_json::from_str::<Totals>(&text).unwrap(), totals);
        assert_eq!(totals.remembered(), 1, "it is known by its entry from now on");
    }
}

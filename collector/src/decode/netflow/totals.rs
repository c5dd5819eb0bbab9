//! Counters that run on: what a record adds is the difference to the session's last report.
//!
//! | records | what they count |
//! |---|---|
//! | IE 85 and 86 without IE 1 | everything since the session began, in each report again (nProbe #307, elastiflow #646) |
//! | Cisco ASA, IE 233 = 5 (update) | what came since the last event |
//! | Cisco ASA, IE 233 = 2 (teardown) | the whole connection once more |
//!
//! A session is a flow key with a start. The first report of one counts in full, a total that fell begins anew, and each difference
//! is of the time since the last report. What is remembered is bounded. A session that may have been forgotten counts nothing in the
//! report that finds it again, because the part that was billed before is not known; that is counted
//! (`flow_totals.forgotten`).

use schemas::flow::{Flow, SpanBound, marks};
use serde::{Deserialize, Serialize};

use super::memory::{Memory, flow_key};
use super::tally::Tally;
use crate::counts::Counter;

/// Starts of one session as different datagrams give them.
const START_TOLERANCE_MS: u64 = 2_000;
/// A session that was not reported for so long is over: nothing is lost with it.
const SESSION_SILENCE_MS: i64 = 600_000;
/// A session so short has had no report before.
const FIRST_REPORT_MS: i64 = 60_000;

/// What a record's counters are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CountKind {
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
        const DELETED: u8 = 2;
        match event {
            Some(DELETED) => CountKind::LastTotal,
            Some(_) => CountKind::Delta,
            None if counts_totals => CountKind::Total,
            None => CountKind::Delta,
        }
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

impl Counted {
    fn plus(self, more: Counted) -> Counted {
        Counted {
            bytes: self.bytes.saturating_add(more.bytes),
            packets: self.packets.saturating_add(more.packets),
            answer_bytes: self.answer_bytes.saturating_add(more.answer_bytes),
            answer_packets: self.answer_packets.saturating_add(more.answer_packets),
        }
    }

    /// What is more than `before`; `None` when a counter of bytes fell.
    fn since(self, before: Counted) -> Option<Counted> {
        Some(Counted {
            bytes: self.bytes.checked_sub(before.bytes)?,
            packets: self.packets.saturating_sub(before.packets),
            answer_bytes: self.answer_bytes.checked_sub(before.answer_bytes)?,
            answer_packets: self.answer_packets.saturating_sub(before.answer_packets),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct SessionTotal {
    start_ms: i64,
    /// End of the last report.
    end_ms: i64,
    counted: Counted,
}

/// The sessions of an observation domain.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    sessions: Memory<SessionTotal>,
    /// Sessions that began until then may have been forgotten.
    forgotten_until_ms: Option<i64>,
}

impl Totals {
    pub(super) fn remembered(&self) -> usize {
        self.sessions.len()
    }

    /// What the record of `flow`, whose times are known, adds to what its session was counted for; `sessions_max` may be remembered.
    pub(super) fn difference(
        &mut self,
        flow: &mut Flow,
        told: Counted,
        kind: CountKind,
        sessions_max: usize,
        tally: &mut Tally,
    ) -> Counted {
        let key = flow_key(flow);
        let start_ms = flow.reported_start();
        let before = self
            .sessions
            .get(key)
            .copied()
            .filter(|session| session.start_ms.abs_diff(start_ms) <= START_TOLERANCE_MS);
        let (added, total) = match (kind, before) {
            (CountKind::Delta, None) => (told, told),
            (CountKind::Delta, Some(before)) => (told, before.counted.plus(told)),
            (_, None) if self.may_be_forgotten(start_ms, flow.end_at_ms) => {
                tally.add(Counter::TotalsForgotten, 1);
                (Counted::default(), told)
            }
            (_, None) => (told, told),
            // A counter that fell began anew.
            (_, Some(before)) => (told.since(before.counted).unwrap_or(told), told),
        };
        if kind != CountKind::Delta {
            flow.marks |= marks::OF_TOTALS;
            tally.add(Counter::FlowsOfTotals, 1);
        }
        if let Some(before) = before
            && before.end_ms > flow.start_at_ms
            && before.end_ms <= flow.end_at_ms
        {
            flow.reported_start_at_ms = start_ms;
            flow.start_at_ms = before.end_ms;
            flow.span_bound = SpanBound::Learned;
            tally.add(Counter::SpansBoundedLearned, 1);
        }
        if kind == CountKind::LastTotal {
            self.sessions.remove(key);
        } else if sessions_max > 0 {
            let session = SessionTotal {
                start_ms,
                end_ms: flow.end_at_ms,
                counted: total,
            };
            let forgotten = self.sessions.put(key, session, sessions_max);
            let living = forgotten
                .values()
                .filter(|session| session.end_ms > flow.end_at_ms - SESSION_SILENCE_MS);
            self.forgotten_until_ms = self
                .forgotten_until_ms
                .max(living.map(|session| session.start_ms).max());
        } else {
            self.forgotten_until_ms = self.forgotten_until_ms.max(Some(start_ms));
        }
        added
    }

    fn may_be_forgotten(&self, start_ms: i64, end_ms: i64) -> bool {
        let is_of_then = self.forgotten_until_ms.is_some_and(|until_ms| start_ms <= until_ms);
        is_of_then && end_ms.saturating_sub(start_ms) > FIRST_REPORT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_790_812_800_000;

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

    #[test]
    fn a_total_adds_what_it_grew_by_since_the_last_report() {
        let (mut totals, mut tally) = (Totals::default(), Tally::new());
        let mut add = |minute, bytes, kind| {
            let mut flow = flow(minute);
            let added = totals.difference(&mut flow, told(bytes), kind, 8, &mut tally);
            (added.bytes, (flow.start_at_ms - T0) / 60_000, flow.span_bound)
        };
        assert_eq!(add(1, 1_000_000, CountKind::Total), (1_000_000, 0, SpanBound::None));
        assert_eq!(add(2, 2_000_000, CountKind::Total), (1_000_000, 1, SpanBound::Learned));
        assert_eq!(add(3, 2_000_000, CountKind::Total), (0, 2, SpanBound::Learned));
        assert_eq!(add(4, 500, CountKind::Total).0, 500, "it began anew");
        assert_eq!(add(5, 600, CountKind::Total).0, 100);
        assert_eq!(add(6, 50, CountKind::Delta).0, 50);
        assert_eq!(add(7, 700, CountKind::LastTotal).0, 50);
        assert_eq!(
            add(8, 700, CountKind::LastTotal).0,
            700,
            "another session after the end of one"
        );
        assert_eq!(totals.remembered(), 0);
    }

    #[test]
    fn a_session_that_was_forgotten_counts_nothing_twice() {
        let (mut totals, mut tally) = (Totals::default(), Tally::new());
        let mut add = |port, minute, bytes| {
            let mut flow = Flow {
                src_port: port,
                ..flow(minute)
            };
            totals
                .difference(&mut flow, told(bytes), CountKind::Total, 2, &mut tally)
                .bytes
        };
        for port in 1..=4 {
            assert_eq!(add(port, 1, 1_000), 1_000);
        }
        assert_eq!(add(1, 2, 1_500), 0, "what of it was counted is not known any more");
        assert_eq!(add(1, 3, 1_800), 300, "from then on it is");
        assert_eq!(add(9, 1, 700), 700, "no session of a minute was reported before");
    }
}

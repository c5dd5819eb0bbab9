//! From which time the bytes of a record can be.
//!
//! A record holds what was counted since its exporter last reported the flow, whatever start it gives: Junos keeps the start of
//! the whole session in each of its reports (nfdump #93, #231; Juniper KB25893), so that the bytes of a minute would be spread over
//! days. A flow that goes on is reported every *active timeout*; the span of a longer record is bounded by it:
//!
//! ```text
//! reported   |start ······································· end|    exported
//! bounded                                 |start ·········· end|
//!                                         exported − active timeout, or the flow's last report where that is later
//! ```
//!
//! A timeout that is said (1 and 2 below) holds. One that is learned is what other reports show: where the last report of this very flow
//! is known, the record begins there, also where that is longer ago, so that a timeout that was changed puts no bytes into the
//! wrong window. Where datagrams are missing since then, a report of the flow may be among them, and the timeout holds.
//!
//! Where the timeout comes from, first that is known ([`SpanBound`]):
//!
//! 1. the configuration (`active_timeout_s`);
//! 2. options data (IE 36);
//! 3. the exporter's own records: two reports of one flow with one start, and the time between them. The commonest of those
//!    times is the timeout. Exporters that begin anew with each report, as most do, never show that, and their records are left as they
//!    are: a flow of half an hour is one where the timeout is half an hour;
//! 4. Junos itself, known by its template: its timeout is at most 600 seconds, so that a longer record shows what it does before it is
//!    shown twice. Until it is, Junos' default of 60 seconds is taken.
//!
//! Only records longer than any of that are looked at. What is remembered is bounded and part of the checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tables::flow::{FlowColumns, SpanBound, marks};

use super::memory::{Memory, observed_key};
use super::tally::Tally;
use crate::counts::Counter;

/// Shorter records are not looked at while no timeout is known: 60 s is the least that a router has unless it is told otherwise.
const NOTED_FROM_MS: i64 = 65_000;
/// Starts of one flow as different datagrams give them: headers count seconds, uptimes milliseconds.
const START_TOLERANCE_MS: i64 = 2_000;
/// Reports of one flow that follow sooner are halves of one report.
const GAP_MIN_MS: i64 = 5_000;
/// Longer is no active timeout.
const GAP_MAX_MS: i64 = 7_200_000;
/// Timeouts are learned to so much.
const GAP_STEP_MS: i64 = 5_000;
/// Then all counts are halved, so that a changed timeout is learned.
const GAPS_MAX: u32 = 128;
/// A session that keeps its start outweighs so many flows that began anew.
const RESTARTS_PER_KEPT: u32 = 4;
/// `flow-active-timeout` under `services flow-monitoring`: 10 to 600 s, 60 s unless configured.
const JUNOS_TIMEOUT_MAX_MS: i64 = 600_000;
const JUNOS_TIMEOUT_MS: i64 = 60_000;
/// Reports remembered of an exporter that has not shown what it does: the first ones, until they are old.
const UNPROVEN_REPORTS_MAX: usize = 64;
const UNPROVEN_REPORT_AGE_MS: i64 = 1_800_000;
/// Options templates of a domain that announce a timeout; beyond it those of before are forgotten, and what still holds is
/// announced again. Without a bound an exporter could define and withdraw one id after the other.
const ANNOUNCED_MAX: usize = 64;

/// The active timeout of an observation domain, and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveTimeout {
    pub timeout_ms: i64,
    pub told_by: SpanBound,
}

impl ActiveTimeout {
    /// Rounded up.
    pub fn seconds(self) -> u64 {
        u64::try_from((self.timeout_ms + 999) / 1000).unwrap_or(0)
    }

    /// Who says so, for people.
    pub fn words(self) -> &'static str {
        match self.told_by {
            SpanBound::Configured => "configured",
            SpanBound::Options => "options of the exporter",
            SpanBound::Learned | SpanBound::None => "learned from its records",
        }
    }
}

/// What is known of an observation domain's reports of long flows.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Spans {
    /// Seconds, by options template: templates may speak of different caches.
    announced: BTreeMap<u16, u32>,
    /// How often two reports of a flow with one start were so many steps apart.
    gaps: BTreeMap<u32, u32>,
    /// Long flows that began anew after a report.
    restarts: u32,
    reports: Memory<Report>,
    /// When the last datagram was exported before which some are missing.
    gap_before_ms: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct Report {
    start_ms: i64,
    exported_ms: i64,
}

/// What the rows of a set have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanContext {
    pub(super) export_ms: i64,
    pub(super) configured_ms: Option<i64>,
    /// Announced in another domain of the session.
    pub(super) of_session_s: Option<u32>,
    pub(super) is_junos: bool,
    /// How many reports may be remembered.
    pub(super) reports_max: usize,
}

impl Spans {
    pub(super) fn remembered(&self) -> usize {
        self.reports.len()
    }

    /// Takes what options data says: seconds, 0 for a device that keeps no flows.
    pub(super) fn announce(&mut self, template_id: u16, seconds: u32) {
        if seconds == 0 {
            self.announced.remove(&template_id);
        } else {
            if self.announced.len() >= ANNOUNCED_MAX && !self.announced.contains_key(&template_id) {
                self.announced.clear();
            }
            self.announced.insert(template_id, seconds);
        }
    }

    /// The largest of what options data announces, so that no flow is cut that another cache keeps longer.
    pub(super) fn announced_s(&self) -> Option<u32> {
        self.announced.values().copied().max()
    }

    /// Takes that datagrams are missing before one that was exported then.
    pub(super) fn saw_gap(&mut self, export_ms: i64) {
        self.gap_before_ms = Some(export_ms);
    }

    /// The timeout in force.
    pub(super) fn timeout(&self, configured_ms: Option<i64>, of_session_s: Option<u32>) -> Option<ActiveTimeout> {
        let announced_ms = self
            .announced_s()
            .or(of_session_s)
            .map(|seconds| i64::from(seconds) * 1000);
        let known = |timeout_ms, told_by| ActiveTimeout { timeout_ms, told_by };
        configured_ms
            .map(|ms| known(ms, SpanBound::Configured))
            .or(announced_ms.map(|ms| known(ms, SpanBound::Options)))
            .or(self.learned_ms().map(|ms| known(ms, SpanBound::Learned)))
    }

    /// Whether the exporter's records show that it keeps the start of a session.
    fn keeps_start(&self) -> bool {
        let kept: u32 = self.gaps.values().sum();
        kept > 0 && kept.saturating_mul(RESTARTS_PER_KEPT) >= self.restarts
    }

    /// The commonest time between two reports, the shortest of equals.
    fn learned_ms(&self) -> Option<i64> {
        let (steps, _) = self
            .gaps
            .iter()
            .max_by_key(|(steps, count)| (**count, std::cmp::Reverse(**steps)))?;
        self.keeps_start().then_some(i64::from(*steps) * GAP_STEP_MS)
    }

    /// Bounds the spans of the rows from `first` on.
    pub(super) fn bound(&mut self, flows: &mut FlowColumns, first: usize, context: SpanContext, tally: &mut Tally) {
        let in_force = self.timeout(context.configured_ms, context.of_session_s);
        let tolerant = |timeout_ms: i64| timeout_ms.saturating_add(GAP_MIN_MS.max(timeout_ms / 8));
        // From which duration on a record is no single report.
        let cut_from_ms = match in_force {
            Some(timeout) => tolerant(timeout.timeout_ms),
            None if context.is_junos => tolerant(JUNOS_TIMEOUT_MAX_MS),
            None => i64::MAX,
        };
        let noted_from_ms = match in_force {
            // A session's first report is noted too, which is as long as the timeout.
            Some(timeout) if self.keeps_start() => timeout.timeout_ms - timeout.timeout_ms / 8 - START_TOLERANCE_MS,
            Some(_) => cut_from_ms,
            None => NOTED_FROM_MS.min(cut_from_ms),
        };
        let lasts = |(end_ms, start_ms): (&i64, &i64)| end_ms - start_ms >= noted_from_ms;
        let mut times = flows.end_at_ms[first..].iter().zip(&flows.start_at_ms[first..]);
        // Of nearly every set: one look at two columns.
        if !times.any(lasts) {
            return;
        }
        for row in first..flows.len() {
            let is_short = flows.end_at_ms[row] - flows.start_at_ms[row] < noted_from_ms;
            // What a running total grew by is from the time since its last report already.
            if is_short || flows.marks[row] & marks::OF_TOTALS != 0 {
                continue;
            }
            let flow = flows.row(row);
            let start_ms = flow.reported_start();
            let last_report_ms = self.note(observed_key(&flow), start_ms, context, in_force.is_some());
            let duration_ms = flow.end_at_ms.saturating_sub(start_ms);
            if duration_ms <= cut_from_ms && last_report_ms.is_none() {
                continue;
            }
            let timeout = in_force.or_else(|| self.timeout(context.configured_ms, context.of_session_s));
            let timeout = timeout.unwrap_or(ActiveTimeout {
                timeout_ms: JUNOS_TIMEOUT_MS,
                told_by: SpanBound::Learned,
            });
            let reach_ms = self.reach_ms(timeout, last_report_ms, context.export_ms);
            let by_reach_ms = context.export_ms.saturating_sub(reach_ms);
            let earliest_ms = flow.end_at_ms.saturating_sub(reach_ms);
            // A clock that the times were corrected for tells no bound: then the same time counts from the flow's end.
            let within = |at_ms: i64| at_ms >= earliest_ms && at_ms <= flow.end_at_ms;
            let bound_ms = if within(by_reach_ms) { by_reach_ms } else { earliest_ms };
            let bound_ms = match last_report_ms {
                Some(report_ms) if within(report_ms) => bound_ms.max(report_ms),
                _ => bound_ms,
            };
            if bound_ms <= flow.start_at_ms {
                continue;
            }
            flows.set_reported_start(row, start_ms);
            flows.start_at_ms[row] = bound_ms;
            flows.set_span_bound(row, timeout.told_by);
            tally.add(counter_of(timeout.told_by), 1);
        }
    }

    /// How long before its export the bytes of a record can be.
    fn reach_ms(&self, timeout: ActiveTimeout, last_report_ms: Option<i64>, export_ms: i64) -> i64 {
        let is_said = matches!(timeout.told_by, SpanBound::Configured | SpanBound::Options);
        let is_last = |report_ms: i64| self.gap_before_ms.is_none_or(|gap_ms| gap_ms <= report_ms);
        let since_last_ms = last_report_ms
            .filter(|report_ms| !is_said && is_last(*report_ms))
            .map(|report_ms| export_ms.saturating_sub(report_ms));
        match since_last_ms {
            Some(since_ms) if since_ms <= GAP_MAX_MS => since_ms,
            _ => timeout.timeout_ms,
        }
    }

    /// Notes a report; answers when the same session was reported before.
    fn note(&mut self, key: u64, start_ms: i64, context: SpanContext, is_known: bool) -> Option<i64> {
        let export_ms = context.export_ms;
        let before = self.reports.get(key).copied();
        let gap_ms = before.map_or(0, |report| export_ms.saturating_sub(report.exported_ms));
        if before.is_some() && gap_ms < GAP_MIN_MS {
            // Another part of the same report, or one that was overtaken.
            return None;
        }
        let is_same = before.is_some_and(|report| report.start_ms.abs_diff(start_ms) <= START_TOLERANCE_MS as u64);
        if is_same && gap_ms <= GAP_MAX_MS {
            let steps = u32::try_from((gap_ms + GAP_STEP_MS / 2) / GAP_STEP_MS).unwrap_or(u32::MAX);
            *self.gaps.entry(steps).or_default() += 1;
        } else if before.is_some_and(|report| start_ms >= report.exported_ms - START_TOLERANCE_MS) {
            self.restarts += 1;
        }
        if self.restarts + self.gaps.values().sum::<u32>() > GAPS_MAX {
            self.restarts /= 2;
            self.gaps.values_mut().for_each(|count| *count /= 2);
            self.gaps.retain(|_, count| *count > 0);
        }
        let report = Report {
            start_ms,
            exported_ms: export_ms,
        };
        if is_known || self.keeps_start() {
            if context.reports_max > 0 {
                self.reports.put(key, report, context.reports_max);
            }
        } else {
            self.put_unproven(key, report, context.reports_max);
        }
        before.filter(|_| is_same).map(|report| report.exported_ms)
    }

    /// Keeps the first reports, so that a flow is still known when it is reported again.
    fn put_unproven(&mut self, key: u64, report: Report, reports_max: usize) {
        let reports_max = reports_max.min(UNPROVEN_REPORTS_MAX);
        if self.reports.get(key).is_none() && self.reports.len() >= reports_max / 2 {
            let oldest_ms = report.exported_ms - UNPROVEN_REPORT_AGE_MS;
            self.reports.retain(|known| known.exported_ms >= oldest_ms);
            if self.reports.len() >= reports_max / 2 {
                return;
            }
        }
        self.reports.put(key, report, reports_max);
    }
}

fn counter_of(bound: SpanBound) -> Counter {
    match bound {
        SpanBound::Configured => Counter::SpansBoundedConfigured,
        SpanBound::Options => Counter::SpansBoundedOptions,
        SpanBound::Learned | SpanBound::None => Counter::SpansBoundedLearned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_timeouts_are_bounded_and_the_last_one_holds() {
        let mut spans = Spans::default();
        for id in 256..=u16::MAX {
            spans.announce(id, u32::from(id));
            assert!(spans.announced.len() <= ANNOUNCED_MAX);
        }
        assert_eq!(spans.announced_s(), Some(u32::from(u16::MAX)));
        spans.announce(u16::MAX, 0);
        assert!(spans.announced_s().is_some_and(|seconds| seconds < u32::from(u16::MAX)));
    }
}

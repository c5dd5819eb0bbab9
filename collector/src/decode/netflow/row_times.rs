//! From when a row is: what its record says, by the clock of its header, made plausible and counted.

use super::semantics::LongRow;
use super::tally::Tally;
use super::template::Plan;
use crate::counts::Counter;
use crate::times::{Clock, FlowTimes, TimeLimits, normalise, resolve};

/// IPFIX headers carry no uptime; it follows from when the exporter started (IE 160).
pub(super) fn with_boot(clock: Clock, boot_ms: Option<i64>) -> Clock {
    match boot_ms {
        Some(boot_ms) if clock.uptime_ms.is_none() => Clock {
            // Modulo 2³², as the elements count.
            uptime_ms: Some(clock.export_ms.wrapping_sub(boot_ms) as u32),
            ..clock
        },
        _ => clock,
    }
}

/// A flow's start and end from what its record carries.
#[inline]
pub(super) fn times_of(
    plan: &Plan,
    start: u64,
    end: u64,
    duration_ms: Option<u64>,
    clock: Clock,
) -> (Option<i64>, Option<i64>) {
    let mut start_ms = plan.start.and_then(|kind| resolve(kind, start, clock));
    let mut end_ms = plan.end.and_then(|kind| resolve(kind, end, clock));
    if let Some(duration_ms) = duration_ms.and_then(|duration_ms| i64::try_from(duration_ms).ok()) {
        match (start_ms, end_ms) {
            (Some(start), None) => end_ms = start.checked_add(duration_ms),
            (None, Some(end)) => start_ms = end.checked_sub(duration_ms),
            _ => {}
        }
    }
    (start_ms, end_ms)
}

/// A flow's plausible start and end from what was reported; counts what had to be changed. That of `row` is noted where it was
/// shortened: whether that is counted depends on what else bounds it.
#[inline]
pub(super) fn finish_times(
    start_ms: Option<i64>,
    end_ms: Option<i64>,
    received_at_ms: i64,
    limits: &TimeLimits,
    row: usize,
    long_rows: &mut Vec<LongRow>,
    tally: &mut Tally,
) -> (i64, i64) {
    let times = normalise(start_ms, end_ms, received_at_ms, limits);
    note_times(times, row, long_rows, tally);
    (times.start_ms, times.end_ms)
}

/// Counts what had to be changed of a row's times, and notes a row that was shortened.
#[inline]
pub(super) fn note_times(times: FlowTimes, row: usize, long_rows: &mut Vec<LongRow>, tally: &mut Tally) {
    if times.missing || times.negative_duration || times.future || times.too_old || times.too_long {
        if times.too_long {
            long_rows.push((row, times.reported_start_ms));
        }
        tally.add(Counter::TimesMissing, u64::from(times.missing));
        tally.add(Counter::TimesNegativeDuration, u64::from(times.negative_duration));
        tally.add(Counter::TimesFuture, u64::from(times.future));
        tally.add(Counter::TimesTooOld, u64::from(times.too_old));
    }
}

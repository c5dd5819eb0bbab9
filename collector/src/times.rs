//! When a flow began and ended, in UTC milliseconds, whatever clock its exporter keeps.
//!
//! [`resolve`] turns one reported value into an instant; [`normalise`] makes the pair plausible. The result always holds
//! `start ≤ end ≤ received + max_clock_skew`, `end ≥ received − max_flow_age` and `start ≥ end − max_flow_duration`, so that a
//! nonsensical clock cannot put usage into another month. Each change is counted by its cause.

/// How a time element counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeKind {
    /// IE 21/22: milliseconds since the exporter started, 32 bits, wraps after 49.7 days.
    SysUptime,
    /// IE 150/151: seconds since 1970.
    Seconds,
    /// IE 152/153: milliseconds since 1970.
    Milliseconds,
    /// IE 154–157: NTP timestamp, seconds since 1900 and a binary fraction (RFC 7011 §6.1.9, §6.1.10).
    Ntp,
    /// IE 158/159: microseconds before the export time.
    DeltaMicroseconds,
}

/// What a datagram's header says about time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// When the datagram left the exporter, by its own clock, UTC ms.
    pub export_ms: i64,
    /// Milliseconds since the exporter started, at that moment, modulo 2³²; `None` where it is not known.
    pub uptime_ms: Option<u32>,
}

/// Limits of what is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeLimits {
    pub max_flow_age_ms: i64,
    pub max_flow_duration_ms: i64,
    pub max_clock_skew_ms: i64,
}

/// 1900-01-01 to 1970-01-01.
const NTP_TO_UNIX_SECONDS: i64 = 2_208_988_800;
/// NTP seconds start again at 0 on 2036-02-07.
const NTP_ERA_SECONDS: i64 = 1 << 32;

/// The instant that `value` names, UTC ms; `None` when it names none: an absolute time of 0, or an uptime without a
/// known start.
#[inline]
pub fn resolve(kind: TimeKind, value: u64, clock: Clock) -> Option<i64> {
    match kind {
        TimeKind::SysUptime => {
            // Both counters wrap; their difference does not as long as it is under 24.8 days.
            let since_header_ms = (value as u32).wrapping_sub(clock.uptime_ms?) as i32;
            Some(clock.export_ms + i64::from(since_header_ms))
        }
        TimeKind::DeltaMicroseconds => Some(clock.export_ms - i64::try_from(value / 1000).unwrap_or(i64::MAX / 2)),
        _ if value == 0 => None,
        TimeKind::Seconds => i64::try_from(value).ok()?.checked_mul(1000),
        TimeKind::Milliseconds => i64::try_from(value).ok(),
        TimeKind::Ntp => {
            let mut seconds = (value >> 32) as i64 - NTP_TO_UNIX_SECONDS;
            if seconds < 0 {
                seconds += NTP_ERA_SECONDS;
            }
            let fraction_ms = ((value & 0xffff_ffff) * 1000) >> 32;
            Some(seconds * 1000 + fraction_ms as i64)
        }
    }
}

/// A flow's times after [`normalise`], and what had to be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowTimes {
    pub start_ms: i64,
    pub end_ms: i64,
    /// One of the two was not reported.
    pub missing: bool,
    /// It ended before it began: it then has no duration, at its end.
    pub negative_duration: bool,
    /// It ended later than it was received: moved to end when it was received.
    pub future: bool,
    /// It ended too long ago, and was moved to end when it was received.
    pub too_old: bool,
    /// It began too long ago, and was shortened; [`FlowTimes::reported_start_ms`] is its start as it was told, moved with its end.
    pub too_long: bool,
    pub reported_start_ms: i64,
}

/// Makes the times of a flow plausible.
#[inline]
pub fn normalise(start_ms: Option<i64>, end_ms: Option<i64>, received_at_ms: i64, limits: &TimeLimits) -> FlowTimes {
    let (start, end) = match (start_ms, end_ms) {
        (Some(start), Some(end)) => (start, end),
        (Some(known), None) | (None, Some(known)) => (known, known),
        (None, None) => (received_at_ms, received_at_ms),
    };
    let negative_duration = end < start;
    let mut duration_ms = if negative_duration {
        0
    } else {
        end.saturating_sub(start)
    };
    let future = end > received_at_ms.saturating_add(limits.max_clock_skew_ms);
    let ended_too_long_ago = end < received_at_ms.saturating_sub(limits.max_flow_age_ms);
    let end_ms_plausible = if future || ended_too_long_ago {
        received_at_ms
    } else {
        end
    };
    let too_long = duration_ms > limits.max_flow_duration_ms;
    let reported_start_ms = end_ms_plausible.saturating_sub(duration_ms);
    if too_long {
        duration_ms = limits.max_flow_duration_ms;
    }
    FlowTimes {
        start_ms: end_ms_plausible.saturating_sub(duration_ms),
        end_ms: end_ms_plausible,
        missing: start_ms.is_none() || end_ms.is_none(),
        negative_duration,
        future,
        too_old: ended_too_long_ago,
        too_long,
        reported_start_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeLimits = TimeLimits {
        max_flow_age_ms: 3_600_000,
        max_flow_duration_ms: 86_400_000,
        max_clock_skew_ms: 60_000,
    };
    const NOW_MS: i64 = 1_767_225_600_000;

    #[test]
    fn uptime_counts_through_its_wrap() {
        let clock = |uptime_ms| Clock {
            export_ms: NOW_MS,
            uptime_ms,
        };
        let at = |value: u32, uptime| resolve(TimeKind::SysUptime, u64::from(value), clock(Some(uptime)));
        assert_eq!(at(4_000, 10_000), Some(NOW_MS - 6_000));
        assert_eq!(
            at(u32::MAX - 999, 2_000),
            Some(NOW_MS - 3_000),
            "the flow began before the wrap"
        );
        assert_eq!(at(12_000, 10_000), Some(NOW_MS + 2_000));
        assert_eq!(resolve(TimeKind::SysUptime, 5, clock(None)), None);
    }

    #[test]
    fn absolute_times_are_read_in_their_units() {
        let clock = Clock {
            export_ms: NOW_MS,
            uptime_ms: None,
        };
        let at = |kind, value| resolve(kind, value, clock);
        assert_eq!(at(TimeKind::Seconds, 1_767_225_600), Some(NOW_MS));
        assert_eq!(at(TimeKind::Milliseconds, 1_767_225_600_123), Some(NOW_MS + 123));
        let ntp = ((1_767_225_600_u64 + 2_208_988_800) << 32) | 0x8000_0000;
        assert_eq!(at(TimeKind::Ntp, ntp), Some(NOW_MS + 500));
        let after_2036 = ((2_208_988_800_u64 + 2_100_000_000) % (1 << 32)) << 32;
        assert_eq!(at(TimeKind::Ntp, after_2036), Some(2_100_000_000_000));
        assert_eq!(at(TimeKind::DeltaMicroseconds, 5_000_999), Some(NOW_MS - 5_000));
        assert_eq!(at(TimeKind::Milliseconds, 0), None);
        assert_eq!(at(TimeKind::Milliseconds, u64::MAX), None);
        assert_eq!(at(TimeKind::Seconds, u64::MAX / 4), None);
    }

    #[test]
    fn implausible_times_are_changed_and_said_so() {
        let times = |start, end| normalise(start, end, NOW_MS, &LIMITS);
        let good = times(Some(NOW_MS - 5_000), Some(NOW_MS - 1_000));
        assert_eq!((good.start_ms, good.end_ms), (NOW_MS - 5_000, NOW_MS - 1_000));
        assert!(!(good.missing || good.negative_duration || good.future || good.too_old));

        let missing = times(None, None);
        assert_eq!(
            (missing.start_ms, missing.end_ms, missing.missing),
            (NOW_MS, NOW_MS, true)
        );
        let one = times(None, Some(NOW_MS - 7));
        assert_eq!((one.start_ms, one.end_ms, one.missing), (NOW_MS - 7, NOW_MS - 7, true));

        let negative = times(Some(NOW_MS - 1), Some(NOW_MS - 9));
        assert_eq!(
            (negative.start_ms, negative.end_ms, negative.negative_duration),
            (NOW_MS - 9, NOW_MS - 9, true)
        );

        let future = times(Some(NOW_MS + 90_000), Some(NOW_MS + 100_000));
        assert_eq!(
            (future.start_ms, future.end_ms, future.future),
            (NOW_MS - 10_000, NOW_MS, true)
        );
        assert!(!times(Some(NOW_MS), Some(NOW_MS + 60_000)).future);

        let old = times(Some(0), Some(4_000));
        assert_eq!((old.start_ms, old.end_ms, old.too_old), (NOW_MS - 4_000, NOW_MS, true));
        let long = times(Some(NOW_MS - 100_000_000), Some(NOW_MS));
        assert_eq!(
            (long.start_ms, long.end_ms, long.too_old, long.too_long),
            (NOW_MS - 86_400_000, NOW_MS, false, true)
        );
        let extreme = times(Some(i64::MIN), Some(i64::MAX));
        assert!(extreme.start_ms <= extreme.end_ms && extreme.end_ms == NOW_MS);
    }
}

//! What a correction of an exporter's past makes of a stored flow (see [`schemas::metering::correction`]).

use schemas::address::Address;
use schemas::metering::correction::CorrectionSettings;

use crate::flow::{FORWARDING_DROPPED, Flow, SpanBound, marks};

/// Writes what the decoder would have made of the record under these settings. Applying it again changes nothing.
pub fn apply(settings: &CorrectionSettings, flow: &mut Flow) {
    if let Some(rate) = settings.sampling_rate {
        (flow.sampling_rate, flow.sampling_divisor) = rate.into();
        flow.marks &= !(marks::RATE_AMBIGUOUS | marks::SAMPLER_NOT_ANNOUNCED | marks::RATE_IMPLAUSIBLE);
    }
    if let Some(is_discard) = settings.zero_route_is_discard {
        apply_zero_route(flow, is_discard);
    }
    if let Some(timeout_s) = settings.active_timeout_s {
        apply_active_timeout(flow, timeout_s);
    }
}

/// A status that the exporter reported stays: the zero rule speaks only where it reported none.
fn apply_zero_route(flow: &mut Flow, is_discard: bool) {
    if is_discard && flow.is_marked(marks::NO_ROUTE) && flow.forwarding_status == 0 {
        flow.forwarding_status = FORWARDING_DROPPED;
        flow.marks |= marks::DROPPED_BY_RULE;
    }
    if !is_discard && (flow.is_marked(marks::DROPPED_BY_RULE) || was_dropped_by_7bef553(flow)) {
        flow.forwarding_status = 0;
        flow.marks = flow.marks & !marks::DROPPED_BY_RULE | marks::NO_ROUTE;
    }
}

/// Version 7bef553 always applied the rule and kept no mark: what it dropped shows in the fields that the rule reads.
fn was_dropped_by_7bef553(flow: &Flow) -> bool {
    let goes_nowhere = flow.out_if == 0 && flow.next_hop == Address::UNSPECIFIED && flow.in_if != 0;
    goes_nowhere && flow.forwarding_status == FORWARDING_DROPPED && !flow.is_marked(marks::NO_ROUTE)
}

/// What a running total grew by is of the time since its last report, or since its start: no timeout bounds that.
fn apply_active_timeout(flow: &mut Flow, timeout_s: u32) {
    if flow.is_marked(marks::OF_TOTALS) {
        return;
    }
    let reported_ms = flow.reported_start();
    let earliest_ms = flow.end_at_ms.saturating_sub(i64::from(timeout_s) * 1000);
    if timeout_s > 0 && reported_ms < earliest_ms {
        flow.reported_start_at_ms = reported_ms;
        flow.start_at_ms = earliest_ms;
        flow.span_bound = SpanBound::Configured;
    } else {
        flow.reported_start_at_ms = 0;
        flow.start_at_ms = reported_ms;
        flow.span_bound = SpanBound::None;
    }
}

#[cfg(test)]
mod tests {
    use schemas::sampling::SamplingRate;

    use super::*;

    fn corrected(settings: &CorrectionSettings, flow: Flow) -> Flow {
        let mut once = flow;
        apply(settings, &mut once);
        let mut twice = once;
        apply(settings, &mut twice);
        assert_eq!(once, twice, "applying it again changes nothing");
        once
    }

    #[test]
    fn a_rate_is_set_also_where_none_was_known() {
        let settings = CorrectionSettings {
            sampling_rate: Some(SamplingRate::of(3, 2)),
            ..CorrectionSettings::default()
        };
        let unknown = Flow {
            bytes: 1500,
            marks: marks::RATE_AMBIGUOUS | marks::ANSWER,
            ..Flow::default()
        };
        let flow = corrected(&settings, unknown);
        assert_eq!((flow.bytes_scaled(), flow.marks), (2250, marks::ANSWER));
    }

    #[test]
    fn the_zero_rule_is_applied_and_taken_back_and_never_overrides_the_exporter() {
        let rule = |is_discard| CorrectionSettings {
            zero_route_is_discard: Some(is_discard),
            ..CorrectionSettings::default()
        };
        let no_route = |forwarding_status, marks| Flow {
            in_if: 7,
            forwarding_status,
            marks,
            ..Flow::default()
        };
        let dropped = corrected(&rule(true), no_route(0, marks::NO_ROUTE));
        assert!(dropped.was_discarded() && dropped.is_marked(marks::DROPPED_BY_RULE));
        let forwarded = corrected(&rule(false), dropped);
        assert_eq!(forwarded, no_route(0, marks::NO_ROUTE));
        let told = no_route(64, marks::NO_ROUTE);
        assert_eq!(
            corrected(&rule(true), told),
            told,
            "forwarded, as the exporter reported"
        );
        let told = no_route(FORWARDING_DROPPED, marks::NO_ROUTE);
        assert_eq!(corrected(&rule(false), told), told, "dropped, as the exporter reported");
        let unmarked = no_route(0, 0);
        assert_eq!(corrected(&rule(true), unmarked), unmarked, "its record had no next hop");
        // Stored by version 7bef553.
        let earlier = corrected(&rule(false), no_route(FORWARDING_DROPPED, 0));
        assert_eq!(earlier, forwarded);
        assert_eq!(corrected(&rule(true), earlier), dropped);
    }

    #[test]
    fn a_span_is_bounded_anew_from_the_reported_start() {
        let timeout = |seconds| CorrectionSettings {
            active_timeout_s: Some(seconds),
            ..CorrectionSettings::default()
        };
        let long = Flow {
            start_at_ms: 1_000,
            end_at_ms: 500_000,
            ..Flow::default()
        };
        let bounded = corrected(&timeout(60), long);
        assert_eq!((bounded.start_at_ms, bounded.reported_start()), (440_000, 1_000));
        assert_eq!(bounded.span_bound, SpanBound::Configured);
        let wider = corrected(&timeout(300), bounded);
        assert_eq!((wider.start_at_ms, wider.reported_start()), (200_000, 1_000));
        assert_eq!(corrected(&timeout(0), bounded), long);
        assert_eq!(corrected(&timeout(600), bounded), long);
    }

    #[test]
    fn the_span_of_a_running_total_is_left_alone() {
        let since_last_report = Flow {
            reported_start_at_ms: 1_000,
            start_at_ms: 440_000,
            end_at_ms: 500_000,
            span_bound: SpanBound::Learned,
            marks: marks::OF_TOTALS,
            ..Flow::default()
        };
        for active_timeout_s in [0, 30, 60, 600] {
            let settings = CorrectionSettings {
                active_timeout_s: Some(active_timeout_s),
                ..CorrectionSettings::default()
            };
            assert_eq!(corrected(&settings, since_last_report), since_last_report);
        }
    }
}

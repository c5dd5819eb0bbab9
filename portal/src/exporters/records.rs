//! What an exporter's records mean, as far as it was learned or configured: facts for its card, and what somebody should decide.

use collector::counts::Counter;
use collector::status::ExporterStatus;
use schemas::metering::ExporterConfig;
use serde::Serialize;

use super::view::Problem;
use crate::format::grouped;

/// One copy in so many datagrams is worth a look: a few come of a network that repeats.
const DATAGRAMS_PER_COPY: u64 = 100;

/// A fact with its explanation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RecordFact {
    pub(crate) what: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

/// The active timeouts in force, and how many flows were treated in which way; nothing of what does not occur.
pub(super) fn facts(status: &ExporterStatus) -> Vec<RecordFact> {
    let count = |counter: Counter| status.counters.get(counter.name()).copied().unwrap_or(0);
    let mut facts = Vec::new();
    let mut add = |what, value: String, note: String| facts.push(RecordFact { what, value, note });
    let bounded = count(Counter::SpansBoundedConfigured)
        + count(Counter::SpansBoundedOptions)
        + count(Counter::SpansBoundedLearned);
    let mut timeouts: Vec<(u64, &str)> = status
        .domains
        .iter()
        .filter_map(|domain| Some((domain.active_timeout_s?, domain.active_timeout_source.as_str())))
        .collect();
    timeouts.sort_unstable();
    timeouts.dedup();
    if !timeouts.is_empty() || bounded > 0 {
        let values: Vec<String> = timeouts.iter().map(|(seconds, _)| format!("{seconds} s")).collect();
        let mut sources: Vec<&str> = timeouts.iter().map(|(_, source)| *source).collect();
        sources.dedup();
        let source = if sources.is_empty() {
            "not known"
        } else {
            &sources.join(", ")
        };
        add(
            "Active timeout",
            if values.is_empty() {
                "-".to_owned()
            } else {
                values.join(", ")
            },
            format!("{source}; {} flows bounded by it", grouped(bounded)),
        );
    }
    for (counter, what, note) in [
        (
            Counter::FlowsSecondObservation,
            "Observed twice",
            "flows of packets that were metered at its other side: kept, not metered",
        ),
        (
            Counter::FlowsOfAnswers,
            "Answers",
            "flows made of the answering half of a record",
        ),
        (
            Counter::FlowsOfTotals,
            "Running totals",
            "flows that are the difference to the session's last report",
        ),
        (
            Counter::TotalsLate,
            "Totals that came late",
            "reports that a later one of their session overtook: counted with that",
        ),
        (
            Counter::TotalsFell,
            "Totals that fell",
            "reports with less than their session had before: they add nothing",
        ),
        (
            Counter::FlowsWithoutRoute,
            "Without a route",
            "flows with next hop and output interface 0, taken as forwarded",
        ),
        (
            Counter::FlowsLayer2TakenOff,
            "Layer 2 taken off",
            "flows less the octets of layer2_octets",
        ),
    ] {
        let flows = count(counter);
        if flows > 0 {
            add(what, grouped(flows), note.to_owned());
        }
    }
    let copies = count(Counter::DatagramsRejectedDuplicate);
    if copies > 0 {
        add(
            "Arrived twice",
            grouped(copies),
            "datagrams that are copies of one before: not counted again".to_owned(),
        );
    }
    let ended = count(Counter::RatesEndedTemplate) + count(Counter::RatesEndedSilent);
    if ended > 0 {
        add(
            "Rates ended",
            grouped(ended),
            "announced sampling rates whose options template changed, or that were not repeated".to_owned(),
        );
    }
    facts
}

/// What somebody should decide, because the records do not tell it.
pub(super) fn problems(status: &ExporterStatus, config: Option<&ExporterConfig>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |what, advice: String| problems.push(Problem { what, advice });
    let direction_is_open = config.is_none_or(|config| config.direction.is_none());
    if direction_is_open && status.domains.iter().any(|domain| domain.observes_twice) {
        add(
            "observes packets twice",
            "It reports packets on their way in and on their way out. Each counts once, at ingress; the other flows are kept and \
             not metered. Set direction to \"ingress\" or \"egress\" to decide it, or export one of them only."
                .to_owned(),
        );
    }
    let copies = status
        .counters
        .get(Counter::DatagramsRejectedDuplicate.name())
        .copied()
        .unwrap_or(0);
    if copies.saturating_mul(DATAGRAMS_PER_COPY) > status.datagrams {
        add(
            "datagrams arrive twice",
            format!(
                "{} of {} datagrams are copies of one before and count nothing. Look for two paths to the collector: two flow \
                 servers on the router that are one collector, a mirrored port, a relay.",
                grouped(copies),
                grouped(status.datagrams)
            ),
        );
    }
    let out_is_open = config.is_none_or(|config| config.out_bytes_are_answer.is_none());
    if out_is_open && status.domains.iter().any(|domain| domain.has_out_counters) {
        add(
            "two byte counters",
            "Its records have IE 23 beside IE 1, and only IE 1 is metered. If IE 23 counts the answering direction (Meraki, nProbe), \
             set out_bytes_are_answer = true; if it repeats IE 1 (FortiOS), set it to false."
                .to_owned(),
        );
    }
    let forgotten = status
        .counters
        .get(Counter::TotalsForgotten.name())
        .copied()
        .unwrap_or(0);
    if forgotten > 0 {
        add(
            "running totals forgotten",
            format!(
                "{} records of sessions came when what was billed of them was no longer known, and count nothing. Export deltas \
                 (IE 1) from it, or from fewer sessions.",
                grouped(forgotten)
            ),
        );
    }
    if let Some(octets) = status.header_sizes.octets() {
        add(
            "layer-2 octets",
            format!(
                "Its TCP packets without payload are {octets} octets larger than IP has them: it counts the Ethernet header. Set \
                 layer2_octets = {octets} to take them off."
            ),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector::decode::DomainView;

    fn status() -> ExporterStatus {
        let mut status = ExporterStatus::new("192.0.2.1".parse().unwrap());
        status.domains = vec![DomainView {
            active_timeout_s: Some(60),
            active_timeout_source: "learned from its records".to_owned(),
            observes_twice: true,
            has_out_counters: true,
            ..DomainView::default()
        }];
        for (counter, value) in [
            (Counter::SpansBoundedLearned, 7),
            (Counter::FlowsSecondObservation, 3),
            (Counter::TotalsForgotten, 2),
        ] {
            status.counters.insert(counter.name().to_owned(), value);
        }
        status.header_sizes.layer2 = [400, 0];
        status
    }

    #[test]
    fn the_timeout_in_force_and_what_was_done_by_it_are_told() {
        let facts = facts(&status());
        assert_eq!(facts.len(), 2);
        assert_eq!(
            (facts[0].value.as_str(), facts[0].note.as_str()),
            ("60 s", "learned from its records; 7 flows bounded by it")
        );
        assert_eq!((facts[1].what, facts[1].value.as_str()), ("Observed twice", "3"));
        assert_eq!(super::facts(&ExporterStatus::new("192.0.2.1".parse().unwrap())), []);
    }

    #[test]
    fn datagrams_that_arrive_twice_are_told_and_pointed_out_where_they_are_many() {
        let told = |datagrams, copies: u64| {
            let mut status = ExporterStatus::new("192.0.2.1".parse().unwrap());
            status.datagrams = datagrams;
            let name = Counter::DatagramsRejectedDuplicate.name().to_owned();
            status.counters.insert(name, copies);
            (facts(&status).len(), problems(&status, None).len())
        };
        assert_eq!(told(1_000, 0), (0, 0));
        assert_eq!(told(1_000, 10), (1, 0));
        assert_eq!(told(1_000, 11), (1, 1));
    }

    #[test]
    fn what_is_to_be_decided_is_pointed_out_until_it_is() {
        let words = |config: Option<&ExporterConfig>| -> Vec<&str> {
            problems(&status(), config).iter().map(|problem| problem.what).collect()
        };
        assert_eq!(
            words(None),
            [
                "observes packets twice",
                "two byte counters",
                "running totals forgotten",
                "layer-2 octets"
            ]
        );
        let mut config = ExporterConfig::unlisted("192.0.2.1".parse().unwrap());
        config.direction = Some(schemas::metering::MeterDirection::Ingress);
        config.out_bytes_are_answer = Some(false);
        assert_eq!(words(Some(&config)), ["running totals forgotten", "layer-2 octets"]);
    }
}

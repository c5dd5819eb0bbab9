//! The truth check of the last whole hour: flows beside the counters of the interfaces they crossed.

use std::collections::HashMap;

use analytics::counter_reconciliation::{CounterReconciliationRow, Direction, Verdict, finding_text, percent_text};
use schemas::address::Address;
use schemas::metering::MeteringConfig;
use schemas::names::Names;
use schemas::window::HOUR_MS;
use serde::Serialize;

use super::view::{ExporterView, Problem};
use crate::format;

/// Findings told one by one above an exporter; the table below has all.
const FINDINGS_TOLD: usize = 4;

/// One direction of one interface in the last whole hour that was checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = CounterCheck)]
pub(crate) struct CounterReconciliationView {
    pub(crate) hour_start_ms: i64,
    pub(crate) if_index: u32,
    /// As configured, else `interface 17`.
    pub(crate) interface: String,
    pub(crate) direction: Direction,
    pub(crate) covered_ms: u32,
    /// Layer 2, both, over the time for which the counter could be followed.
    pub(crate) counter_bytes: u64,
    pub(crate) metered_bytes: u64,
    pub(crate) samples: u64,
    /// `None` where there is nothing to compare.
    pub(crate) ratio_ppm: Option<u32>,
    pub(crate) bound_ppm: u32,
    pub(crate) verdict: Verdict,
    pub(crate) finding: Option<String>,
}

/// Gives each exporter its part of the check, and a problem for what disagrees.
pub(crate) fn attach(exporters: &mut [ExporterView], rows: &[CounterReconciliationRow], metering: &MeteringConfig) {
    let names = Names::new(metering);
    let mut by_exporter: HashMap<Address, Vec<CounterReconciliationView>> = HashMap::new();
    for row in rows {
        by_exporter.entry(row.exporter).or_default().push(view(row, &names));
    }
    for exporter in exporters {
        let Some(mut checked) = by_exporter.remove(&exporter.address) else {
            continue;
        };
        // What disagrees first, then by interface.
        checked.sort_by_key(|view| (view.finding.is_none(), view.if_index, view.direction));
        exporter.problems.extend(problems(&checked));
        exporter.truth = checked;
    }
}

fn view(row: &CounterReconciliationRow, names: &Names<'_>) -> CounterReconciliationView {
    let interface = names.interface(row.exporter, row.if_index);
    let finding = || finding_text(row.ratio_ppm, &names.exporter(row.exporter), &interface, row.guess);
    CounterReconciliationView {
        hour_start_ms: row.hour_start_ms,
        if_index: row.if_index,
        direction: row.direction,
        covered_ms: row.covered_ms,
        counter_bytes: row.counter_bytes,
        metered_bytes: row.metered_bytes,
        samples: row.samples,
        ratio_ppm: row.has_ratio().then_some(row.ratio_ppm),
        bound_ppm: row.bound_ppm,
        verdict: row.verdict,
        finding: row.is_finding().then(finding),
        interface,
    }
}

fn problems(checked: &[CounterReconciliationView]) -> Vec<Problem> {
    let findings: Vec<&CounterReconciliationView> = checked.iter().filter(|view| view.finding.is_some()).collect();
    let mut problems: Vec<Problem> = findings
        .iter()
        .take(FINDINGS_TOLD)
        .map(|view| Problem {
            what: "counters disagree",
            advice: format!(
                "{} ({}, {}, ± {} %)",
                view.finding.as_deref().unwrap_or_default(),
                direction_words(view.direction),
                hour_words(view.hour_start_ms),
                percent_text(view.bound_ppm)
            ),
        })
        .collect();
    if findings.len() > FINDINGS_TOLD {
        problems.push(Problem {
            what: "counters disagree",
            advice: format!(
                "on {} more: see flows against counters below.",
                findings.len() - FINDINGS_TOLD
            ),
        });
    }
    problems
}

pub(crate) fn direction_words(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "received",
        Direction::Out => "sent",
    }
}

/// `14:00–15:00 UTC`.
pub(crate) fn hour_words(start_ms: i64) -> String {
    let clock = |at_ms| format::clock(at_ms, &jiff::tz::TimeZone::UTC);
    format!("{}–{} UTC", clock(start_ms), clock(start_ms + HOUR_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use analytics::counter_reconciliation::MismatchCause;
    use schemas::metering::ExporterConfig;

    const HOUR_14_MS: i64 = 1_749_996_000_000;

    fn row(if_index: u32, verdict: Verdict) -> CounterReconciliationRow {
        CounterReconciliationRow {
            hour_start_ms: HOUR_14_MS,
            exporter: "192.0.2.1".parse().unwrap(),
            if_index,
            direction: Direction::In,
            covered_ms: 3_570_000,
            counter_bytes: 1_000_000_000,
            metered_bytes: 610_000_000,
            bytes_scaled: 600_000_000,
            samples: 10_000,
            sampling_rate: 1_000,
            ratio_ppm: 610_000,
            bound_ppm: 25_800,
            verdict,
            guess: (verdict == Verdict::Mismatch).then_some(MismatchCause::SamplingRate),
        }
    }

    fn attached(rows: &[CounterReconciliationRow]) -> ExporterView {
        let config = ExporterConfig {
            name: Some("mx1".to_owned()),
            interface_names: [(1, "ae0.0".to_owned())].into(),
            ..ExporterConfig::unlisted("192.0.2.1".parse().unwrap())
        };
        let metering = MeteringConfig {
            exporters: vec![config.clone()],
            ..MeteringConfig::default()
        };
        let mut exporters = [super::super::view::never_heard("192.0.2.1".parse().unwrap(), &config)];
        exporters[0].problems.clear();
        attach(&mut exporters, rows, &metering);
        let [exporter] = exporters;
        exporter
    }

    #[test]
    fn a_finding_is_a_problem_that_says_what_and_when() {
        let exporter = attached(&[row(9, Verdict::Agrees), row(1, Verdict::Mismatch)]);
        assert_eq!(exporter.truth[0].if_index, 1, "what disagrees comes first");
        let [problem] = &exporter.problems[..] else {
            panic!("{:?}", exporter.problems)
        };
        assert_eq!(problem.what, "counters disagree");
        assert_eq!(
            problem.advice,
            "metered 61 % of the counter on mx1 ae0.0: sampling rate? (received, 14:00–15:00 UTC, ± 2.58 %)"
        );
        assert!(attached(&[row(1, Verdict::Agrees)]).problems.is_empty());
    }

    #[test]
    fn a_wrong_rate_of_a_whole_switch_does_not_fill_the_page() {
        let rows: Vec<CounterReconciliationRow> = (1..=48).map(|if_index| row(if_index, Verdict::Mismatch)).collect();
        let exporter = attached(&rows);
        assert_eq!(exporter.problems.len(), FINDINGS_TOLD + 1);
        assert!(exporter.problems[FINDINGS_TOLD].advice.starts_with("on 44 more"));
        assert_eq!(exporter.truth.len(), 48);
    }
}

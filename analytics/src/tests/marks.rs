//! What billing's corrections go by: which times changed, and which cannot be measured any more; and what counts as measured
//! where several exporters are.

use std::collections::BTreeMap;

use tables::definitions::USAGE_5M;
use tables::table::RETAINED_FROM;

use super::*;
use crate::usage::LATENESS_MS;
use crate::{MeteredService, Meters, UsageMode};

const A: &str = "198.51.100.1";
const B: &str = "198.51.100.3";

fn days(fixture: &Fixture) -> Vec<Option<String>> {
    let of_day = |day: i64| (T0 + day * DAY, T0 + (day + 1) * DAY);
    fixture
        .analytics
        .usage_marks(&[of_day(0), of_day(1), of_day(2)])
        .unwrap()
}

/// Which of two days' marks differ.
fn changed(before: &[Option<String>], after: &[Option<String>]) -> Vec<bool> {
    before
        .iter()
        .zip(after)
        .map(|(before, after)| before != after)
        .collect()
}

#[tokio::test]
async fn a_mark_changes_when_usage_of_its_time_does_and_only_then() {
    let fixture = Fixture::new();
    fixture.hear(A, T0, T0 + 3 * DAY);
    fixture.add_flows(&[
        received(1, T0, 1),
        received(1, T0 + DAY, 2),
        received(2, T0 + 2 * DAY, 4),
    ]);
    fixture.refresh().await;
    let first = days(&fixture);
    assert!(first.iter().all(Option::is_some));
    fixture.refresh().await;
    assert_eq!(days(&fixture), first);

    // One late flow of the first day in a file with today's: the day between is computed again, and as it was.
    fixture.add_flows(&[received(1, T0 + HOUR, 8), received(2, T0 + 2 * DAY + HOUR, 16)]);
    let refresh = fixture.refresh().await;
    assert_eq!((refresh.files_written, refresh.windows_recomputed > 288), (2, true));
    let second = days(&fixture);
    assert_eq!(changed(&first, &second), [true, false, true]);

    // The only flow of a day turns out not to count: the day has no file any more.
    let old = fixture.flows().snapshot().unwrap();
    let old = old.files.values().find(|file| file.rows == 3).unwrap().clone();
    let unmetered = Flow {
        metered: Metered::No,
        ..received(1, T0 + DAY, 2)
    };
    let new = fixture.write_flows(&[received(1, T0, 1), unmetered, received(2, T0 + 2 * DAY, 4)]);
    let commit = Commit {
        add: vec![new],
        remove: vec![old.path],
        ..Commit::default()
    };
    fixture.flows().commit(commit).unwrap();
    fixture.refresh().await;
    let third = days(&fixture);
    assert_eq!(changed(&second, &third), [false, true, false]);

    // What was heard later changes what was measured.
    fixture.hear(B, T0 + HOUR, T0 + 2 * HOUR);
    assert_eq!(changed(&third, &days(&fixture)), [true, false, false]);
}

#[tokio::test]
async fn what_retention_has_removed_a_part_of_has_no_mark() {
    let fixture = Fixture::new();
    fixture.hear(A, T0, T0 + 3 * DAY);
    fixture.add_flows(&[received(1, T0, 1), received(1, T0 + DAY, 2)]);
    fixture.refresh().await;
    for table in [&USAGE_5M, &COLLECTION_5M] {
        let from_ms = T0 + if table.name == USAGE_5M.name { HOUR } else { DAY + HOUR };
        let commit = Commit {
            set: BTreeMap::from([(RETAINED_FROM.to_owned(), from_ms.to_string())]),
            ..Commit::default()
        };
        Table::open(fixture.path(), table).unwrap().commit(commit).unwrap();
        let lost = days(&fixture).iter().filter(|mark| mark.is_none()).count();
        assert_eq!(lost, if table.name == USAGE_5M.name { 1 } else { 2 }, "{}", table.name);
    }
}

#[tokio::test]
async fn a_router_that_falls_silent_takes_no_window_from_what_another_measures() {
    let fixture = Fixture::new();
    // A measures the service for a day, B of another site is heard for the first half of it.
    fixture.hear(A, T0, T0 + DAY);
    fixture.hear(B, T0, T0 + DAY / 2);
    let flows: Vec<Flow> = windows(T0, T0 + DAY)
        .map(|window| {
            let mbps = if window.start_ms() < T0 + DAY / 2 { 10 } else { 100 };
            sent(1, window.start_ms(), mbps * 1_000_000 / 8 * 300)
        })
        .collect();
    fixture.add_flows(&flows);
    fixture.refresh().await;
    for (meters, p95_mbps, measured) in [
        (Meters::AllBut(vec![]), 100, 288),
        (Meters::Named(vec![address(A), address(B)]), 100, 288),
        (Meters::Named(vec![address(B)]), 10, 144),
        (Meters::AllBut(vec![address(A)]), 10, 144),
    ] {
        let service = MeteredService { service: 1, meters };
        let usage = fixture
            .period_usage(&service, T0, T0 + DAY, UsageMode::Out, T0 + DAY + LATENESS_MS)
            .await;
        assert_eq!(
            (usage.percentile_95_bps, usage.windows_measured, usage.windows_expected),
            (Some(p95_mbps * 1_000_000), measured, 288),
            "{service:?}"
        );
        assert_eq!(usage.gaps.is_empty(), measured == 288, "{service:?}");
    }
}

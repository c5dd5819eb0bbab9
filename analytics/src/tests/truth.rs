//! The truth check over stored tables, and usage files of a version that kept no sampling error.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array, UInt64Array};
use schemas::metering::{ExporterConfig, MeterDirection, MeterMode, MeteringConfig};
use tables::column::TableDef;
use tables::definitions::{COUNTERS, TRUTH_1H, USAGE_5M};
use tables::flow::address_array;

use super::*;
use crate::counter_reconciliation::{
    CHECK_DELAY_MS, CounterReconciliationRow, CounterReconciliationSettings, MismatchCause, Verdict,
};

const SWITCH: &str = "198.51.100.9";
const RATE: u32 = 1_000;
/// A frame of 1,500 bytes at layer 3.
const FRAME: u64 = 1_518;
/// When the first hour is due.
const DUE: i64 = T0 + HOUR + CHECK_DELAY_MS;

fn settings(exporters: Vec<ExporterConfig>) -> CounterReconciliationSettings {
    let metering = MeteringConfig {
        exporters,
        ..MeteringConfig::default()
    };
    CounterReconciliationSettings {
        metering: Arc::new(metering),
        tolerance_percent: 5,
    }
}

/// A sampled packet of 1,500 bytes.
fn sample(at_ms: i64, in_if: u32, out_if: u32, direction: u8) -> Flow {
    Flow {
        received_at_ms: at_ms,
        start_at_ms: at_ms,
        end_at_ms: at_ms,
        exporter: address(SWITCH),
        protocol_version: 105,
        sampling_rate: RATE,
        in_if,
        out_if,
        direction,
        bytes: 1_500,
        packets: 1,
        ..Flow::default()
    }
}

/// A sampled packet each second of an hour, from interface 1 to 2, observed where it comes in.
fn an_hour_of_samples() -> Vec<Flow> {
    (0..3_600)
        .map(|second| sample(T0 + second * 1_000 + 500, 1, 2, 0))
        .collect()
}

/// What the counters of interface 1 (received) and 2 (sent) say each half minute when all of that is counted.
fn counter_at(at_ms: i64) -> u64 {
    5_000 + (at_ms - T0) as u64 / 1_000 * FRAME * u64::from(RATE)
}

impl Fixture {
    fn add_counters(&self, rows: &[(i64, u32, u64, u64)]) {
        let number = |value: fn(&(i64, u32, u64, u64)) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(value)))
        };
        let schema = COUNTERS.arrow_schema();
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            let plain: ArrayRef = match field.name().as_str() {
                "received_at" => Arc::new(TimestampMillisecondArray::from_iter_values(
                    rows.iter().map(|row| row.0),
                )),
                "exporter" => address_array(vec![address(SWITCH); rows.len()].into_iter()),
                "if_index" => Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.1))),
                "speed_bps" => number(|_| 10_000_000_000),
                "in_bytes" => number(|row| row.2),
                "out_bytes" => number(|row| row.3),
                _ => number(|_| 0),
            };
            arrow::compute::cast(&plain, field.data_type()).unwrap()
        });
        let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
        let (min, max) = (
            rows.iter().map(|row| row.0).min().unwrap(),
            rows.iter().map(|row| row.0).max().unwrap(),
        );
        self.commit(&COUNTERS, &batch, min, max);
    }

    fn commit(&self, def: &'static TableDef, batch: &RecordBatch, min_ms: i64, max_ms: i64) {
        let table = Table::open(self.path(), def).unwrap();
        let entry = self.write(&table, batch, min_ms, max_ms);
        let commit = Commit {
            add: vec![entry],
            ..Commit::default()
        };
        table.commit(commit).unwrap();
    }

    /// An hour with flows and counters that agree.
    fn of_one_hour() -> Fixture {
        let fixture = Fixture::new();
        fixture.add_flows(&an_hour_of_samples());
        let mut rows = Vec::new();
        for at_ms in (T0..T0 + HOUR).step_by(30_000) {
            rows.push((at_ms, 1, counter_at(at_ms), 0));
            rows.push((at_ms, 2, 77, counter_at(at_ms)));
        }
        fixture.add_counters(&rows);
        fixture
    }

    async fn counter_reconciliation(&self, settings: &CounterReconciliationSettings) -> Vec<CounterReconciliationRow> {
        self.analytics
            .reconcile_counters(settings, T0, T0 + DAY, T0 + DAY)
            .await
            .unwrap();
        self.analytics.counter_reconciliation(T0, T0 + DAY).await.unwrap()
    }
}

fn verdicts(rows: &[CounterReconciliationRow]) -> Vec<(u32, &'static str, Verdict, Option<MismatchCause>)> {
    rows.iter()
        .map(|row| (row.if_index, row.direction.name(), row.verdict, row.guess))
        .collect()
}

#[tokio::test]
async fn flows_that_the_counters_confirm_are_no_finding() {
    let fixture = Fixture::of_one_hour();
    let rows = fixture.counter_reconciliation(&settings(vec![])).await;
    assert_eq!(
        verdicts(&rows),
        [
            (1, "in", Verdict::Agrees, None),
            (1, "out", Verdict::NoCounter, None),
            // Its counter rose by what interface 1 let in, and no packet is observed where it leaves.
            (2, "in", Verdict::NotSampled, None),
            (2, "out", Verdict::NotSampled, None),
        ]
    );
    let first = &rows[0];
    let seconds = 3_570;
    assert_eq!(
        first.covered_ms,
        seconds as u32 * 1_000,
        "from the first to the last sample"
    );
    assert_eq!(first.counter_bytes, seconds * FRAME * u64::from(RATE));
    assert_eq!((first.metered_bytes, first.ratio_ppm), (first.counter_bytes, 1_000_000));
    assert_eq!((first.bytes_scaled, first.samples), (seconds * 1_500_000, seconds));
    assert_eq!((first.sampling_rate, first.bound_ppm), (RATE, 43_181), "2.58 / √3570");
}

#[tokio::test]
async fn a_wrong_rate_shows_whichever_way_it_is_wrong() {
    for (rate, ratio_ppm, guess) in [
        (1, 1_000, MismatchCause::RateNotApplied),
        (500, 500_000, MismatchCause::IngressOnly),
        (610, 610_000, MismatchCause::SamplingRate),
        (2_000, 2_000_000, MismatchCause::CountedTwice),
    ] {
        let fixture = Fixture::of_one_hour();
        let table = fixture.flows();
        let old = table.snapshot().unwrap().files.keys().cloned().collect();
        let flows: Vec<Flow> = an_hour_of_samples()
            .into_iter()
            .map(|flow| Flow {
                sampling_rate: rate,
                ..flow
            })
            .collect();
        let commit = Commit {
            add: vec![fixture.write_flows(&flows)],
            remove: old,
            ..Commit::default()
        };
        table.commit(commit).unwrap();
        let row = fixture.counter_reconciliation(&settings(vec![])).await[0];
        assert_eq!(
            (row.verdict, row.guess, row.ratio_ppm),
            (Verdict::Mismatch, Some(guess), ratio_ppm),
            "{rate}"
        );
    }
}

/// Packets observed on their way in and on their way out are told apart, so neither direction is counted twice.
#[tokio::test]
async fn each_direction_is_compared_with_its_own_observations() {
    let fixture = Fixture::of_one_hour();
    let leaving: Vec<Flow> = an_hour_of_samples()
        .into_iter()
        .map(|flow| Flow { direction: 1, ..flow })
        .collect();
    fixture.add_flows(&leaving);
    let rows = fixture.counter_reconciliation(&settings(vec![])).await;
    assert_eq!(
        verdicts(&rows),
        [
            (1, "in", Verdict::Agrees, None),
            (1, "out", Verdict::NoCounter, None),
            (2, "in", Verdict::NotSampled, None),
            (2, "out", Verdict::Agrees, None),
        ]
    );
}

#[tokio::test]
async fn a_metered_interface_without_flows_is_a_finding() {
    let exporter = |external: u32| ExporterConfig {
        meter: MeterMode::Boundary,
        direction: Some(MeterDirection::Egress),
        external_interfaces: vec![external],
        ..ExporterConfig::unlisted(address(SWITCH))
    };
    let fixture = Fixture::of_one_hour();
    let rows = fixture.counter_reconciliation(&settings(vec![exporter(2)])).await;
    assert_eq!(
        (rows[3].verdict, rows[3].guess),
        (Verdict::Mismatch, Some(MismatchCause::NotSampled))
    );
    assert_eq!(rows[3].ratio_ppm, 0);
    let rows = fixture.counter_reconciliation(&settings(vec![exporter(1)])).await;
    assert_eq!(rows[3].verdict, Verdict::NotSampled, "metering does not rest on it");
}

#[tokio::test]
async fn a_reboot_a_wrap_and_lost_samples_are_left_out() {
    let fixture = Fixture::new();
    fixture.add_flows(&an_hour_of_samples());
    let mut rows = Vec::new();
    for at_ms in (T0..T0 + HOUR).step_by(30_000) {
        let minute = (at_ms - T0) / 60_000;
        let counted = counter_at(at_ms);
        match minute {
            // A 64-bit counter near its end.
            ..10 => rows.push((at_ms, 1, (u64::MAX - 400_000_000).wrapping_add(counted), 0)),
            // Nothing arrives for five minutes.
            10..15 => {}
            // It has restarted meanwhile.
            15..40 => rows.push((at_ms, 1, counted - counter_at(T0 + 14 * 60_000), 0)),
            // And again, between two samples.
            _ => rows.push((at_ms, 1, counted - counter_at(T0 + 40 * 60_000) + 9, 0)),
        }
    }
    fixture.add_counters(&rows);
    let row = fixture.counter_reconciliation(&settings(vec![])).await[0];
    assert_eq!((row.verdict, row.ratio_ppm), (Verdict::Agrees, 1_000_000));
    let whole_minutes = 10 + 25 + 20;
    assert_eq!(i64::from(row.covered_ms), whole_minutes * 60_000 - 3 * 30_000);
}

#[tokio::test]
async fn hours_are_judged_when_they_are_over_and_again_when_data_comes_late() {
    let fixture = Fixture::of_one_hour();
    let settings = settings(vec![]);
    let pass = |now_ms| {
        let (analytics, settings) = (fixture.analytics.clone(), settings.clone());
        async move {
            analytics
                .refresh_counter_reconciliation(&settings, now_ms)
                .await
                .unwrap()
        }
    };
    assert_eq!(pass(DUE - 1).await.hours, 0, "flows of the hour may still come");
    assert_eq!((pass(DUE).await.hours, pass(DUE).await.hours), (1, 0));
    let file = || {
        let table = Table::open(fixture.path(), &TRUTH_1H).unwrap();
        let snapshot = table.snapshot().unwrap();
        let [path] = snapshot.files.keys().collect::<Vec<_>>()[..] else {
            panic!("one file: {snapshot:?}")
        };
        std::fs::read(table.dir().join(path)).unwrap()
    };
    let before = file();
    assert_eq!(fixture.counter_reconciliation(&settings).await.len(), 4);
    assert!(before == file(), "judged again it is the same");
    assert_eq!(
        fixture
            .analytics
            .latest_counter_reconciliation(DUE)
            .await
            .unwrap()
            .len(),
        4
    );
    assert!(
        fixture
            .analytics
            .latest_counter_reconciliation(T0 + 2 * DAY)
            .await
            .unwrap()
            .is_empty(),
        "too old to tell of now"
    );

    fixture.add_flows(&an_hour_of_samples());
    let late = pass(DUE + HOUR).await;
    assert_eq!(
        (late.hours, late.findings),
        (1, 1),
        "the same packets came a second time"
    );
    let row = fixture
        .analytics
        .latest_counter_reconciliation(DUE + HOUR)
        .await
        .unwrap()[0];
    assert_eq!(
        (row.guess, row.ratio_ppm),
        (Some(MismatchCause::CountedTwice), 2_000_000)
    );
    let stored = fixture
        .json("SELECT addr_text(exporter) AS exporter, verdict, guess FROM truth_1h WHERE verdict = 'mismatch'")
        .await;
    assert_eq!(
        stored,
        serde_json::json!([{"exporter": SWITCH, "verdict": "mismatch", "guess": "counted at ingress and egress?"}])
    );

    fixture.add_flows(&[sample(T0 + 500, 1, 2, 0)]);
    assert_eq!(
        pass(DUE + 3 * DAY).await.hours,
        0,
        "corrections older than a day are asked for by hand"
    );
}

#[tokio::test]
async fn usage_has_its_sampling_error() {
    let fixture = Fixture::new();
    let sampled = Flow {
        sampling_rate: 100,
        packets: 400,
        ..received(1, T0, 600_000)
    };
    fixture.add_flows(&[sampled, received(2, T0, 1_000)]);
    fixture.add_flows(&[Flow {
        start_at_ms: T0 + WINDOW_MS,
        end_at_ms: T0 + WINDOW_MS + 1,
        ..sampled
    }]);
    fixture.refresh().await;
    let stored = fixture
        .json("SELECT service, error_bound_ppm FROM usage_5m ORDER BY service, window_start")
        .await;
    assert_eq!(
        stored,
        serde_json::json!([
            {"service": 1, "error_bound_ppm": 98_000},
            {"service": 1, "error_bound_ppm": 98_000},
            {"service": 2, "error_bound_ppm": 0},
        ])
    );
    let service = MeteredService {
        service: 1,
        meters: crate::Meters::AllBut(vec![]),
    };
    let period = fixture
        .period_usage(&service, T0, T0 + DAY, UsageMode::Sum, T0 + 2 * DAY)
        .await;
    assert_eq!(period.error_bound_ppm, 69_297, "196 % / √800");
    let query = crate::SeriesQuery {
        services: &[service],
        from_ms: T0,
        to_ms: T0 + HOUR,
        step: crate::Step::Hour,
        zone: &jiff::tz::TimeZone::UTC,
        now_ms: T0 + DAY,
    };
    let points = fixture.analytics.usage_series(&query).await.unwrap();
    assert_eq!(points[0].error_bound_ppm, 69_297);
}

/// A data directory of the version before: its flows are gone by retention, its usage stays as it was.
#[tokio::test]
async fn usage_files_without_the_sampling_error_are_completed_from_their_own_rows() {
    static OLD: TableDef = TableDef {
        columns: USAGE_5M.columns.split_at(8).0,
        ..USAGE_5M
    };
    let fixture = Fixture::new();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![T0, T0]).with_timezone("UTC")),
        Arc::new(UInt32Array::from(vec![3, 4])),
        Arc::new(UInt64Array::from(vec![7_000, 8_000])),
        Arc::new(UInt64Array::from(vec![0, 0])),
        Arc::new(UInt64Array::from(vec![100_000, 5])),
        Arc::new(UInt64Array::from(vec![0, 0])),
        Arc::new(UInt64Array::from(vec![100, 5])),
        Arc::new(UInt64Array::from(vec![100, 5])),
    ];
    let batch = RecordBatch::try_new(OLD.arrow_schema(), arrays).unwrap();
    fixture.commit(&OLD, &batch, T0, T0);
    let before = fixture.analytics.usage_windows(3, T0, T0 + DAY).await.unwrap();
    assert_eq!(before[0].error_bound_ppm, 196_000, "readable as it is");

    fixture.refresh().await;
    fixture.refresh().await;
    assert_eq!(fixture.analytics.usage_windows(3, T0, T0 + DAY).await.unwrap(), before);
    let stored = fixture
        .json("SELECT service, bytes_in, error_bound_ppm FROM usage_5m ORDER BY service")
        .await;
    assert_eq!(
        stored,
        serde_json::json!([
            {"service": 3, "bytes_in": 7_000, "error_bound_ppm": 196_000},
            {"service": 4, "bytes_in": 8_000, "error_bound_ppm": 0},
        ])
    );
}

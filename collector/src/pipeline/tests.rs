//! Crashes between any two steps, and the whole collector over loopback.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::types::{TimestampMillisecondType, UInt64Type};
use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::window::DAY_MS;
use tables::definitions::COLLECTION_5M;
use tables::flow::FLOWS;
use tables::table::Table;

use super::*;
use crate::counts::Counter;
use crate::decode::Datagram;
use crate::journal::{RecordBuffer, SegmentWriter};
use crate::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol};
use crate::simulate::traffic::{Traffic, TrafficConfig};
use crate::sink::{Step, Written, file_path};
use crate::status;
use crate::test_support::{source, v5_datagram};

const NOW_MS: i64 = 1_700_000_000_000;

/// The `bytes` of every stored flow, in order.
fn stored_bytes(data_dir: &Path) -> Vec<u64> {
    let table = Table::open(data_dir, &FLOWS).unwrap();
    let mut values = Vec::new();
    for file in table.snapshot().unwrap().files.values() {
        let before = values.len();
        for batch in batches(&table, &file.path) {
            let column = batch.column_by_name("bytes").unwrap();
            values.extend_from_slice(column.as_primitive::<UInt64Type>().values());
            let received = batch.column_by_name("received_at").unwrap();
            for at_ms in received.as_primitive::<TimestampMillisecondType>().values() {
                assert!((file.min_time_ms..=file.max_time_ms).contains(at_ms));
            }
        }
        assert_eq!(file.rows as usize, values.len() - before);
    }
    values.sort_unstable();
    values
}

fn batches(table: &Table, path: &str) -> Vec<arrow::array::RecordBatch> {
    let file = std::fs::File::open(table.dir().join(path)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

/// Sums of `collection_5m` by counter.
fn stored_counts(data_dir: &Path) -> BTreeMap<String, u64> {
    let table = Table::open(data_dir, &COLLECTION_5M).unwrap();
    let mut sums = BTreeMap::new();
    for file in table.snapshot().unwrap().files.values() {
        for batch in batches(&table, &file.path) {
            let names = batch.column_by_name("counter").unwrap().as_string::<i32>().clone();
            let values = batch
                .column_by_name("value")
                .unwrap()
                .as_primitive::<UInt64Type>()
                .clone();
            for row in 0..names.len() {
                *sums.entry(names.value(row).to_owned()).or_default() += values.value(row);
            }
        }
    }
    sums
}

fn write_segment(journal: &Journal, number: u64, payloads: &[Vec<u8>], closed: bool) {
    let mut writer = SegmentWriter::new(journal.segment_path(number), journal.id(), number, NOW_MS);
    let mut records = RecordBuffer::default();
    for (i, payload) in payloads.iter().enumerate() {
        let datagram = Datagram {
            received_at_ms: NOW_MS + i as i64,
            source: source(),
            source_port: 2055,
            payload,
        };
        records.push_datagram(0, &datagram);
    }
    writer.append(records);
    if closed {
        writer.close().unwrap();
    } else {
        writer.sync().unwrap();
    }
}

/// What a process does that is killed after so many steps; answers whether it got to the end.
fn run_and_die(data_dir: &Path, mut steps_left: usize) -> bool {
    let mut alive = || {
        let alive = steps_left > 0;
        steps_left = steps_left.saturating_sub(1);
        alive
    };
    let journal = Journal::open(data_dir).unwrap();
    let tables = Tables::open(data_dir).unwrap();
    let recovered = worker::recover(&journal, &tables, MeteringConfig::default(), Arc::default(), 2).unwrap();
    let mut stage = recovered.stage;
    for number in recovered.next_segment..recovered.next_new_segment {
        let prepared = worker::prepare(&journal, &mut stage, number, &mut Vec::new())
            .unwrap()
            .unwrap();
        let mut written = Written::default();
        for step in Step::ALL {
            if !alive() {
                return false;
            }
            tables.step(step, &prepared, &mut written).unwrap();
        }
        if !alive() {
            return false;
        }
        worker::save_checkpoint(&journal, &stage, number).unwrap();
        if !alive() {
            return false;
        }
        journal.delete(number).unwrap();
    }
    true
}

const SEGMENTS: u64 = 3;

fn expected_bytes() -> Vec<u64> {
    (1..=SEGMENTS)
        .flat_map(|segment| (0..3).map(move |i| segment * 100 + i))
        .collect()
}

fn prepare_journal(data_dir: &Path) {
    let journal = Journal::open(data_dir).unwrap();
    for number in 1..=SEGMENTS {
        let names = (0..3).map(|i| number as u32 * 100 + i);
        let payloads: Vec<Vec<u8>> = names.map(|name| v5_datagram(name, &[(name, 1)])).collect();
        // The last one was being written when the process died.
        write_segment(&journal, number, &payloads, number < SEGMENTS);
    }
}

fn assert_stored_once(data_dir: &Path, what: &str) {
    assert_eq!(stored_bytes(data_dir), expected_bytes(), "{what}");
    let counts = stored_counts(data_dir);
    assert_eq!(counts[Counter::Datagrams.name()], 9, "{what}");
    assert_eq!(counts[Counter::DatagramsDecoded.name()], 9, "{what}");
    let journal = Journal::open(data_dir).unwrap();
    assert_eq!(journal.segments().unwrap(), [], "{what}");
    // The next number is new to every table.
    let tables = Tables::open(data_dir).unwrap();
    let recovered = worker::recover(&journal, &tables, MeteringConfig::default(), Arc::default(), 2).unwrap();
    assert_eq!(recovered.next_new_segment, SEGMENTS + 1, "{what}");
    let exporters = recovered.stage.exporters();
    assert_eq!((exporters.len(), exporters[0].flows), (1, 9), "{what}");
}

#[test]
fn f1_a_crash_after_any_step_neither_loses_nor_doubles() {
    let steps_per_segment = Step::ALL.len() + 2;
    for steps in 0..=steps_per_segment * SEGMENTS as usize {
        let dir = tempfile::tempdir().unwrap();
        prepare_journal(dir.path());
        run_and_die(dir.path(), steps);
        assert!(run_and_die(dir.path(), usize::MAX));
        assert_stored_once(dir.path(), &format!("killed after {steps} steps"));
    }
}

/// An exporter that sends its templates and its sampling rate once, in the first datagrams.
fn prepare_journal_of_templates(data_dir: &Path, protocol: SimProtocol) -> Vec<u64> {
    let mut exporter = SimExporter::new(SimExporterConfig {
        refresh_datagrams: u32::MAX,
        refresh_ms: 1 << 40,
        ..SimExporterConfig::new(source(), 7, protocol, 100, NOW_MS - 3_600_000)
    });
    let mut traffic = Traffic::new(TrafficConfig {
        seed: 1,
        protocol,
        ipv6_percent: 20,
    });
    let mut flows = Vec::new();
    traffic.fill(NOW_MS, 200, &mut flows);
    let mut payloads = Vec::new();
    exporter.encode(NOW_MS, &flows, &mut payloads).unwrap();
    assert!(payloads.len() >= SEGMENTS as usize, "each segment has data");
    let journal = Journal::open(data_dir).unwrap();
    let per_segment = payloads.len().div_ceil(SEGMENTS as usize);
    for (part, number) in payloads.chunks(per_segment).zip(1..) {
        write_segment(&journal, number, part, true);
    }
    let mut bytes: Vec<u64> = flows.iter().map(|flow| flow.bytes).collect();
    bytes.sort_unstable();
    bytes
}

#[test]
fn f1_templates_of_an_earlier_segment_survive_a_crash_after_any_step() {
    let steps_per_segment = Step::ALL.len() + 2;
    for protocol in [SimProtocol::V9, SimProtocol::Ipfix] {
        for steps in 0..steps_per_segment * SEGMENTS as usize {
            let dir = tempfile::tempdir().unwrap();
            let expected = prepare_journal_of_templates(dir.path(), protocol);
            run_and_die(dir.path(), steps);
            assert!(run_and_die(dir.path(), usize::MAX));
            assert_eq!(
                stored_bytes(dir.path()),
                expected,
                "{protocol} killed after {steps} steps"
            );
            let counts = stored_counts(dir.path());
            assert_eq!(counts["flow_records"], expected.len() as u64);
            for lost in ["flows_without_sampling_rate", "sequence_lost", "sets_pending"] {
                assert_eq!(counts.get(lost), None, "{protocol} killed after {steps} steps");
            }
        }
    }
}

#[test]
fn f1_crashes_again_and_again_come_to_an_end() {
    // Nine steps are one segment and one step: any fewer would never finish a segment.
    let dir = tempfile::tempdir().unwrap();
    prepare_journal(dir.path());
    let mut runs = 0;
    while !run_and_die(dir.path(), Step::ALL.len() + 3) {
        runs += 1;
        assert!(runs < 20);
    }
    assert!(runs >= 2);
    assert_stored_once(dir.path(), "killed again and again");
}

#[test]
fn a_lost_checkpoint_does_not_reuse_numbers() {
    let dir = tempfile::tempdir().unwrap();
    prepare_journal(dir.path());
    assert!(run_and_die(dir.path(), usize::MAX));
    let journal = Journal::open(dir.path()).unwrap();
    std::fs::remove_file(journal.dir().join("CHECKPOINT")).unwrap();
    let tables = Tables::open(dir.path()).unwrap();
    let recovered = worker::recover(&journal, &tables, MeteringConfig::default(), Arc::default(), 2).unwrap();
    assert_eq!(recovered.next_new_segment, SEGMENTS + 1);
}

#[test]
fn a_checkpoint_that_is_not_understood_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    prepare_journal(dir.path());
    let folder = dir.path().join("journal");
    std::fs::write(folder.join("CHECKPOINT"), b"{").unwrap();
    assert!(run_and_die(dir.path(), usize::MAX));
    assert_stored_once(dir.path(), "after a damaged checkpoint");
    assert!(folder.join("CHECKPOINT.unreadable").exists());
}

fn config() -> CollectorConfig {
    CollectorConfig {
        netflow: vec!["127.0.0.1:0".parse().unwrap()],
        sflow: vec!["127.0.0.1:0".parse().unwrap()],
        segment_seconds: 1,
        fsync_interval_ms: 20,
        receive_buffer_bytes: 1 << 18,
        ..CollectorConfig::default()
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn what_arrives_by_udp_is_stored_and_a_restart_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    prepare_journal(dir.path());
    let collector = Collector::start(dir.path(), config(), MeteringConfig::default(), Arc::default()).unwrap();
    let error = Collector::start(dir.path(), config(), MeteringConfig::default(), Arc::default()).unwrap_err();
    assert!(matches!(error, CollectorError::Journal(JournalError::Locked { .. })));
    let [netflow, sflow] = collector.listening() else {
        panic!("two sockets: {:?}", collector.listening())
    };
    assert_eq!((netflow.kind, sflow.kind), (ListenKind::Netflow, ListenKind::Sflow));
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..10u32 {
        sender
            .send_to(&v5_datagram(i, &[(1_000 + i, 1)]), netflow.address)
            .unwrap();
    }
    // While running: queryable a segment later.
    wait_for("the first segment", || stored_bytes(dir.path()).len() == 9 + 10);
    collector.set_metering(MeteringConfig::default(), Arc::default());
    // Content decides, not the socket; and a stop drains what is on its way.
    sender.send_to(&v5_datagram(10, &[(1_010, 1)]), sflow.address).unwrap();
    sender.send_to(b"nonsense", sflow.address).unwrap();
    let live = collector.live();
    assert!(live.running && !live.journal_stalled && !live.store_stalled);
    collector.stop().unwrap();

    let mut expected = expected_bytes();
    expected.extend(1_000..=1_010);
    assert_eq!(stored_bytes(dir.path()), expected);
    let counts = stored_counts(dir.path());
    assert_eq!(counts["datagrams"], 9 + 12);
    assert_eq!(counts["datagrams_decoded"], 9 + 11);
    assert_eq!(counts["datagrams_rejected.version"], 1);
    let status = status::read(dir.path()).unwrap().unwrap();
    assert_eq!(status.totals["flow_records"], 20);
    assert_eq!(status.sockets.iter().map(|socket| socket.datagrams).sum::<u64>(), 12);
    assert_eq!(status.exporters.iter().map(|exporter| exporter.flows).sum::<u64>(), 20);

    let again = Collector::start(dir.path(), config(), MeteringConfig::default(), Arc::default()).unwrap();
    again.stop().unwrap();
    assert_eq!(stored_bytes(dir.path()), expected, "a restart stores nothing twice");
    let text = crate::metrics::prometheus(&status, &live);
    assert!(text.contains("ezscale_collector_events_total{counter=\"flow_records\"} 20\n"));
}

#[test]
fn the_status_is_written_while_nothing_is_received() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), config(), MeteringConfig::default(), Arc::default()).unwrap();
    let written_at_ms = || status::read(dir.path()).unwrap().map(|status| status.written_at_ms);
    wait_for("the first status", || written_at_ms().is_some());
    let first = written_at_ms();
    wait_for("the next status", || written_at_ms() > first);
    collector.stop().unwrap();
}

#[test]
fn an_exporter_that_sends_from_several_ports_decodes_right_with_several_sockets() {
    for protocol in [SimProtocol::V9, SimProtocol::Ipfix] {
        let dir = tempfile::tempdir().unwrap();
        let config = CollectorConfig {
            receive_threads: 4,
            ..config()
        };
        let collector = Collector::start(dir.path(), config, MeteringConfig::default(), Arc::default()).unwrap();
        assert_eq!(collector.listening().len(), 2, "one for each address");
        let to = collector.listening()[0].address;

        let now_ms = schemas::clock::machine_now_ms();
        // Templates and sampling rate come once, in the first datagram.
        let mut exporter = SimExporter::new(SimExporterConfig {
            refresh_datagrams: u32::MAX,
            refresh_ms: 1 << 40,
            ..SimExporterConfig::new(source(), 7, protocol, 100, now_ms - 3_600_000)
        });
        let mut traffic = Traffic::new(TrafficConfig {
            seed: 1,
            protocol,
            ipv6_percent: 20,
        });
        let mut flows = Vec::new();
        traffic.fill(now_ms, 1_000, &mut flows);
        let mut payloads = Vec::new();
        exporter.encode(now_ms, &flows, &mut payloads).unwrap();
        assert!(payloads.len() > 32, "two from each port: {}", payloads.len());
        // The kernel chooses a socket by the source address, whatever the port.
        let ports: Vec<UdpSocket> = (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        ports[0].send_to(&payloads[0], to).unwrap();
        wait_for("the templates", || !stored_counts(dir.path()).is_empty());
        for (payload, port) in payloads[1..].iter().zip(ports.iter().cycle()) {
            port.send_to(payload, to).unwrap();
        }
        let shared = collector.shared.clone();
        collector.stop().unwrap();

        let used = |stats: &&Arc<SocketStats>| stats.datagrams.load(Ordering::Relaxed) > 0;
        assert_eq!(shared.sockets.iter().filter(used).count(), 1, "{protocol}");
        let mut expected: Vec<u64> = flows.iter().map(|flow| flow.bytes).collect();
        expected.sort_unstable();
        assert_eq!(stored_bytes(dir.path()), expected, "{protocol}");
        let counts = stored_counts(dir.path());
        assert_eq!(counts["flow_records"], flows.len() as u64, "{protocol}");
        for lost in [
            "flows_without_sampling_rate",
            "sets_pending",
            "sequence_lost",
            "sequence_reordered",
        ] {
            assert_eq!(counts.get(lost), None, "{protocol}");
        }
        let status = status::read(dir.path()).unwrap().unwrap();
        assert_eq!(status.exporters.len(), 1, "{protocol}");
        assert_eq!(status.sockets.len(), 2, "one for each address");
        assert_eq!(status.sockets[0].datagrams, payloads.len() as u64, "{protocol}");
    }
}

#[test]
fn tables_that_cannot_be_written_keep_the_segment_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), config(), MeteringConfig::default(), Arc::default()).unwrap();
    // Files where the days' folders must be.
    let table = Table::open(dir.path(), &FLOWS).unwrap();
    let now_ms = schemas::clock::machine_now_ms();
    // Tomorrow's too, should it be midnight.
    let obstacles = [now_ms, now_ms + DAY_MS].map(|at_ms| {
        let file = table.dir().join(file_path(at_ms, "x"));
        file.parent().unwrap().to_owned()
    });
    for obstacle in &obstacles {
        std::fs::write(obstacle, b"").unwrap();
    }
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = collector.listening()[0].address;
    sender.send_to(&v5_datagram(0, &[(77, 1)]), to).unwrap();
    wait_for("a failed attempt", || collector.live().store_stalled);
    assert_eq!(collector.live().segments_waiting, 1);
    for obstacle in &obstacles {
        std::fs::remove_file(obstacle).unwrap();
    }
    wait_for("recovery by itself", || stored_bytes(dir.path()) == [77]);
    collector.stop().unwrap();
    assert_eq!(stored_bytes(dir.path()), [77]);
}

//! What disks and people do to a collector: each fault is told, what was acknowledged stays, and work goes on by itself
//! where it can. What must hold is [`crate::support::numbered`]'s; docs/durability.md has the same faults as a table.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::numbered::{LANES, Model, Targets};
use crate::support::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const DATAGRAM_INTERVAL: Duration = Duration::from_millis(2);
/// Enough for gaps in the sequence numbers to be judged (64 datagrams), in each lane.
const SETTLE_DATAGRAMS: u32 = 80 * LANES as u32;
const CONFIG: &str = "[collector]
segment_seconds = 1
fsync_interval_ms = 50
";
/// Small, so that limits are reached: a short queue, from which datagrams are dropped as soon as the journal stalls, and a
/// short journal.
const CONFIG_SMALL: &str = "[collector]
segment_seconds = 1
segment_max_bytes = 8388608
fsync_interval_ms = 50
queue_max_bytes = 4194304
journal_max_bytes = 67108864
";

fn collect() -> Start<'static> {
    Start::new("collect").netflow("127.0.0.1:0").sflow("127.0.0.1:0")
}

fn serve() -> Start<'static> {
    Start::new("serve")
        .netflow("127.0.0.1:0")
        .sflow("127.0.0.1:0")
        .http("127.0.0.1:0")
}

fn get(process: &Ezscale, path: &str) -> (u16, String) {
    let url = format!("{}{path}", process.http.as_deref().expect("a portal"));
    let request = ureq::get(&url).config().http_status_as_error(false).build();
    let mut response = request.call().unwrap_or_else(|error| panic!("GET {url}: {error}"));
    let text = response.body_mut().read_to_string().expect("text");
    (response.status().as_u16(), text)
}

/// Sum of a metric over its series.
fn metric(process: &Ezscale, name: &str) -> u64 {
    let (status, text) = get(process, "/metrics");
    assert_eq!(status, 200, "{text}");
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '))
        .map(|(_, value)| value.parse::<u64>().expect("a whole number"));
    values.sum()
}

fn wait_until_healthy(process: &Ezscale) {
    wait_until("the collector to be healthy and ready by itself", LIMIT, || {
        get(process, "/healthz") == (200, "ok\n".to_owned()) && get(process, "/readyz").0 == 200
    });
}

fn wait_until_unhealthy(process: &Ezscale, what: &str) {
    for path in ["/healthz", "/readyz"] {
        wait_until(&format!("{path} to name {what}"), LIMIT, || {
            let (status, text) = get(process, path);
            status == 503 && text.contains(what)
        });
    }
}

/// Waits until everything sent so far is stored.
fn wait_until_stored(data: &DataDir, model: &Model) {
    wait_until("everything to be stored", LIMIT, || {
        let sql = "SELECT count(*) AS n FROM (SELECT DISTINCT observation_domain, src_port, dst_port FROM flows)";
        let [rows] = data.query_numbers(sql, ["n"]);
        rows == model.sent()
    });
}

/// The journal cannot be written: nothing is acknowledged, everything that arrives is counted, and it goes on by itself.
fn check_stalled_journal(data: &DataDir, fail: impl Fn(), mend: impl Fn(), error: &str, advice: &str) {
    let mut model = Model::new();
    let process = serve().on(data);
    let targets = Targets::of(&process);
    model.send(targets, 200, DATAGRAM_INTERVAL);
    wait_until_stored(data, &model);
    model.acknowledge_all();
    wait_until_healthy(&process);

    fail();
    let received_before = metric(&process, "ezscale_socket_datagrams_total");
    assert_eq!(received_before, model.sent());
    wait_until("datagrams to be dropped, and counted", LIMIT, || {
        model.send(targets, 40, DATAGRAM_INTERVAL);
        model.send_junk(targets, 20);
        metric(&process, "ezscale_socket_queue_dropped_total") > 40
    });
    wait_until_unhealthy(&process, "journal:");
    assert_eq!(metric(&process, "ezscale_collector_journal_stalled"), 1);
    assert_eq!(metric(&process, "ezscale_collector_running"), 1);
    wait_until("every datagram to be counted", LIMIT, || {
        metric(&process, "ezscale_socket_datagrams_total") == model.sent_with_junk()
    });
    let said = process.stderr();
    for expected in [error, advice, "journal cannot be written", "/journal"] {
        assert!(said.contains(expected), "the log says {expected:?}:\n{said}");
    }

    mend();
    wait_until_healthy(&process);
    assert!(process.stderr().contains("journal is written again"));
    model.send(targets, SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained_after_drops(data);
}

#[test]
fn f1_f2_a_full_disk_stops_acknowledging_and_is_recovered_from() {
    let mut data = DataDir::on_disk_of(64 << 10);
    data.set_config(CONFIG_SMALL);
    let disk = data.disk();
    check_stalled_journal(
        &data,
        || disk.fill(),
        || disk.free(),
        "No space left on device",
        "free space on this disk",
    );
}

#[test]
fn f1_f2_a_disk_that_becomes_read_only_is_recovered_from() {
    let mut data = DataDir::on_disk_of(64 << 10);
    data.set_config(CONFIG_SMALL);
    let (disk, folder) = (data.disk(), data.path());
    check_stalled_journal(
        &data,
        || disk.make_read_only(&folder),
        || disk.make_writable(&folder),
        "Read-only file system",
        "mount this disk writable",
    );
}

/// A stop on a full disk says what is lost, keeps what was acknowledged, and comes to an end.
#[test]
fn f1_a_stop_on_a_full_disk_ends_and_keeps_what_was_acknowledged() {
    let mut data = DataDir::on_disk_of(64 << 10);
    data.set_config(CONFIG_SMALL);
    let mut model = Model::new();
    let mut process = collect().on(&data);
    let targets = Targets::of(&process);
    model.send(targets, 200, DATAGRAM_INTERVAL);
    wait_until_stored(&data, &model);
    model.acknowledge_all();
    data.disk().fill();
    model.send(targets, 200, DATAGRAM_INTERVAL);
    process.signal("TERM");
    let status = process.wait_for_end(LIMIT);
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "it did not drain, and says so:\n{said}");
    assert!(said.contains("journal given up"), "{said}");

    data.disk().free();
    model.lose(2);
    let process = collect().on(&data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_stored(&data);
}

/// The tables cannot be written: everything waits in the journal, up to its limit; then datagrams are dropped and counted.
#[test]
fn f1_f2_a_journal_at_its_limit_drops_counts_and_recovers() {
    check_full_journal(256 << 10, "journal_max_bytes is reached");
}

/// The same on a disk that is smaller than the limit: without the room that is left, the tables could not be written later.
#[test]
fn f1_f2_a_journal_leaves_the_tables_room_on_its_disk() {
    check_full_journal(64 << 10, "the rest of the disk is left to the tables");
}

fn check_full_journal(disk_kib: u32, reason: &str) {
    let mut data = DataDir::on_disk_of(disk_kib);
    data.set_config(CONFIG_SMALL);
    let tables = data.path().join("tables");
    let mut model = Model::new();
    let process = serve().on(&data);
    let targets = Targets::of(&process);
    model.send(targets, 200, DATAGRAM_INTERVAL);
    wait_until_stored(&data, &model);

    data.disk().make_read_only(&tables);
    model.send(targets, 200, DATAGRAM_INTERVAL);
    // None of these is dropped: the journal has room.
    model.acknowledge_all();
    wait_until_unhealthy(&process, "tables:");
    assert_eq!(metric(&process, "ezscale_collector_store_stalled"), 1);
    assert_eq!(metric(&process, "ezscale_socket_queue_dropped_total"), 0);
    let status = || -> Value {
        let shown = data
            .disk()
            .command("cat")
            .arg(data.path().join("collector/status.json"))
            .output();
        serde_json::from_slice(&shown.expect("cat runs").stdout).expect("the status is JSON")
    };
    wait_until("the status to say so", LIMIT, || status()["store_stalled"] == true);
    let said = process.stderr();
    for expected in [
        "segment cannot be stored",
        "Read-only file system",
        "mount this disk writable",
    ] {
        assert!(said.contains(expected), "the log says {expected:?}:\n{said}");
    }

    wait_until("the journal to be full", LIMIT, || {
        model.send_junk(targets, 50);
        get(&process, "/healthz").1.contains("journal:")
    });
    wait_until("datagrams to be dropped, and counted", LIMIT, || {
        model.send_junk(targets, 10);
        metric(&process, "ezscale_socket_queue_dropped_total") > 0
    });
    let said = process.stderr();
    assert!(said.contains(reason), "the log says {reason:?}:\n{said}");
    assert!(!said.contains("No space left on device"), "it left some:\n{said}");

    data.disk().make_writable(&tables);
    wait_until_healthy(&process);
    wait_until("the status to say so", LIMIT, || status()["store_stalled"] == false);
    model.send(targets, SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    wait_until("every datagram to be counted", LIMIT, || {
        metric(&process, "ezscale_socket_datagrams_total") == model.sent_with_junk()
    });
    process.terminate();
    model.check_drained_after_drops(&data);
}

/// Runs `collect`, which must refuse to start, and returns what it said.
fn refusal(data: &DataDir) -> String {
    let output = data
        .command(&["collect", "--netflow", "127.0.0.1:0", "--sflow", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "it refuses to start:\n{said}");
    said
}

#[test]
fn a_start_on_a_read_only_disk_is_refused_with_what_to_do() {
    let data = DataDir::on_disk_of(64 << 10);
    collect().on(&data).terminate();
    data.disk().make_read_only(&data.path());
    let said = refusal(&data);
    for expected in [
        data.path().to_str().expect("UTF-8"),
        "Read-only file system",
        "mount this disk writable",
    ] {
        assert!(said.contains(expected), "{expected:?} in:\n{said}");
    }
    data.disk().make_writable(&data.path());
    collect().on(&data).terminate();
}

/// What exporters send until there is room is not received; their sequence numbers tell how much it was.
#[test]
fn f1_f2_a_start_on_a_full_disk_is_refused_with_what_to_do() {
    let mut data = DataDir::on_disk_of(64 << 10);
    data.set_config(CONFIG);
    let mut model = Model::new();
    let process = collect().on(&data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained(&data);

    data.disk().fill();
    let said = refusal(&data);
    for expected in [
        data.path().to_str().expect("UTF-8"),
        "No space left on device",
        "free space on this disk",
    ] {
        assert!(said.contains(expected), "{expected:?} in:\n{said}");
    }
    model.lose(10);
    data.disk().free();
    let process = collect().on(&data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained(&data);
}

/// Leaves segments in the journal by an abort at `point`, while datagrams are sent; nothing runs afterwards.
fn leave_segments(data: &DataDir, model: &mut Model, point: &str) -> PathBuf {
    let mut process = collect().environment("EZSCALE_FAULT", point).on(data);
    let targets = Targets::of(&process);
    wait_until("the abort", LIMIT, || {
        model.send(targets, 8, DATAGRAM_INTERVAL);
        process.ended().is_some()
    });
    model.lose(1);
    model.check_killed(data);
    let mut segments: Vec<PathBuf> = std::fs::read_dir(data.path().join("journal"))
        .expect("the journal's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .collect();
    segments.sort();
    segments.pop().expect("the abort left a segment")
}

const SEGMENT_HEADER_BYTES: usize = 32;
const BLOCK_HEADER_BYTES: usize = 16;

fn number_at(bytes: &[u8], offset: usize) -> usize {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("four bytes")) as usize
}

/// Offsets of the blocks with records, by the layout that collector/src/journal/mod.rs gives.
fn blocks(segment: &[u8]) -> Vec<usize> {
    let mut blocks = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while segment.get(offset..offset + 4) == Some(b"EZBK") {
        let length = number_at(segment, offset + 4);
        if length > 0 {
            blocks.push(offset);
        }
        offset += BLOCK_HEADER_BYTES + length;
    }
    assert_eq!(offset, segment.len(), "blocks follow each other to the end");
    blocks
}

/// Payloads of the datagrams in a block.
fn payloads(segment: &[u8], block: usize) -> Vec<&[u8]> {
    const RECORD_HEADER_BYTES: usize = 32;
    let start = block + BLOCK_HEADER_BYTES;
    let mut records = &segment[start..start + number_at(segment, block + 4)];
    let mut payloads = Vec::new();
    while !records.is_empty() {
        assert_eq!(records[0], 1, "a datagram");
        let end = RECORD_HEADER_BYTES + number_at(records, 4);
        payloads.push(&records[RECORD_HEADER_BYTES..end]);
        records = &records[end..];
    }
    payloads
}

/// Lets a collector store what is left, and more; answers what it said and the sum of a counter.
fn recover(data: &DataDir, model: &mut Model, counter: &str) -> (String, u64) {
    let process = collect().on(data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    wait_until("what was left to be stored", LIMIT, || {
        std::fs::read_to_string(data.path().join("collector/status.json"))
            .is_ok_and(|status| status.contains(&format!("\"{counter}\"")))
    });
    let said = process.stderr();
    process.terminate();
    model.check_drained(data);
    let sql = format!("SELECT sum(value) AS n FROM collection_5m WHERE counter = '{counter}'");
    let [count] = data.query_numbers(&sql, ["n"]);
    (said, count)
}

/// Damages a closed segment in some place; what the place's block holds is lost, everything else is stored.
fn check_damage(place: impl Fn(&[u8], &[usize]) -> (usize, Option<usize>)) {
    let mut data = DataDir::new();
    data.set_config(CONFIG);
    let mut model = Model::new();
    let path = leave_segments(&data, &mut model, "segment.closed");
    let mut bytes = std::fs::read(&path).expect("the segment");
    let (at, lost_block) = place(&bytes, &blocks(&bytes));
    for payload in lost_block.into_iter().flat_map(|block| payloads(&bytes, block)) {
        model.destroyed(payload);
    }
    bytes[at] ^= 0x20;
    std::fs::write(&path, &bytes).expect("the segment can be damaged");
    let (said, damaged) = recover(&data, &mut model, "journal_blocks_damaged");
    assert_eq!(damaged, 1, "the damage is counted");
    assert!(said.contains("journal is damaged"), "{said}");
    let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    assert!(said.contains(name), "the log names {name}:\n{said}");
}

#[test]
fn f1_a_damaged_block_of_a_segment_costs_itself_only() {
    check_damage(|_, blocks| {
        let middle = blocks[blocks.len() / 2];
        (middle + BLOCK_HEADER_BYTES + 40, Some(middle))
    });
}

#[test]
fn f1_a_damaged_block_header_costs_its_block_only() {
    check_damage(|_, blocks| {
        let middle = blocks[blocks.len() / 2];
        (middle, Some(middle))
    });
}

#[test]
fn f1_a_damaged_segment_header_costs_nothing() {
    check_damage(|_, _| (9, None));
}

#[test]
fn f1_a_torn_write_is_ignored_and_counted() {
    let mut data = DataDir::new();
    data.set_config(CONFIG);
    let mut model = Model::new();
    let path = leave_segments(&data, &mut model, "journal.synced:8");
    let bytes = std::fs::read(&path).expect("the segment");
    let last = *blocks(&bytes).last().expect("blocks");
    for payload in payloads(&bytes, last) {
        model.destroyed(payload);
    }
    let torn = &bytes[..bytes.len() - 10];
    std::fs::write(&path, torn).expect("the segment can be torn");
    let (said, torn_bytes) = recover(&data, &mut model, "journal_bytes_torn");
    assert_eq!(torn_bytes, (torn.len() - last) as u64);
    assert!(said.contains("never acknowledged, ignored"), "{said}");
}

/// A directory with some stored flows, and nothing running.
fn stored() -> (DataDir, Model) {
    let mut data = DataDir::new();
    data.set_config(CONFIG);
    let mut model = Model::new();
    let process = collect().on(&data);
    for _ in 0..2 {
        model.send(Targets::of(&process), 80, DATAGRAM_INTERVAL);
        wait_until_stored(&data, &model);
    }
    process.terminate();
    model.check_drained(&data);
    (data, model)
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for day in std::fs::read_dir(folder).expect("the table's folder") {
        let day = day.expect("an entry").path();
        if day.is_dir() {
            let entries = std::fs::read_dir(day).expect("the day's folder");
            files.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    files
}

#[test]
fn a_damaged_parquet_file_is_named_and_can_be_restored() {
    let (data, mut model) = stored();
    let file = parquet_files(&data.path().join("tables/flows")).pop().expect("a file");
    let whole = std::fs::read(&file).expect("the file");
    let name = file.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    let half = &whole[..whole.len() / 2];
    for damaged in [half, b"".as_slice()] {
        std::fs::write(&file, damaged).expect("the file can be damaged");
        let output = data
            .command(&["query", "SELECT sum(bytes) FROM flows"])
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "no answer is better than a wrong one");
        assert!(said.contains(name), "the error names {name}:\n{said}");
    }
    // Collecting does not need it; usage does, and says so.
    let mut process = collect().on(&data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.signal("TERM");
    let status = process.wait_for_end(LIMIT);
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "it could not make usage current:\n{said}");
    assert!(said.contains(name), "the error names {name}:\n{said}");
    std::fs::write(&file, whole).expect("the file can be restored");
    model.check_drained(&data);
}

#[test]
fn f1_a_damaged_manifest_is_refused_and_can_be_restored() {
    let (data, mut model) = stored();
    let manifest = data.path().join("tables/flows/MANIFEST");
    let whole = std::fs::read(&manifest).expect("the manifest");
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 1;
    for damaged in [flipped.as_slice(), b""] {
        std::fs::write(&manifest, damaged).expect("the manifest can be damaged");
        let said = refusal(&data);
        for expected in [
            manifest.to_str().expect("UTF-8"),
            "is damaged at byte",
            "restore it from a backup",
        ] {
            assert!(said.contains(expected), "{expected:?} in:\n{said}");
        }
    }
    std::fs::write(&manifest, &whole).expect("the manifest can be restored");

    // Lost under a running collector: what arrives waits until it is back.
    let process = serve().on(&data);
    std::fs::remove_file(&manifest).expect("the manifest can be lost");
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    wait_until_unhealthy(&process, "tables:");
    assert!(process.stderr().contains("was there and is gone: mount or restore"));
    std::fs::write(&manifest, &whole).expect("the manifest can be restored");
    std::fs::set_permissions(&manifest, std::fs::Permissions::from_mode(0o600)).expect("it is the test's own");
    wait_until_healthy(&process);
    process.terminate();
    model.check_drained(&data);
}

#[test]
fn f1_tables_that_are_not_mounted_are_not_begun_anew() {
    let (data, mut model) = stored();
    let (tables, away) = (data.path().join("tables"), data.scratch().join("away"));
    std::fs::rename(&tables, &away).expect("the tables can be moved");
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700).create(&tables).expect("an empty mount point");
    let said = refusal(&data);
    assert!(said.contains("mount or restore that folder"), "{said}");
    std::fs::remove_dir_all(&tables).expect("the mount point can be removed");
    std::fs::rename(&away, &tables).expect("the tables can be moved back");
    let process = collect().on(&data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained(&data);
}

#[test]
fn f1_a_damaged_checkpoint_is_put_aside() {
    let mut data = DataDir::new();
    data.set_config(CONFIG);
    let mut model = Model::new();
    // The second segment is committed and neither checkpointed nor deleted.
    leave_segments(&data, &mut model, "checkpoint.due:2");
    let checkpoint = data.path().join("journal/CHECKPOINT");
    let half = std::fs::read(&checkpoint).expect("the checkpoint");
    std::fs::write(&checkpoint, &half[..half.len() / 2]).expect("the checkpoint can be damaged");
    let process = collect().on(&data);
    assert!(
        process
            .stderr()
            .contains("checkpoint not understood, templates are learned again")
    );
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    assert!(data.path().join("journal/CHECKPOINT.unreadable").exists());
    // Sequence numbers before and after are not compared any more; everything acknowledged is there, once.
    model.check_stored(&data);
}

#[test]
fn a_lost_journal_id_is_refused_while_segments_need_it() {
    let mut data = DataDir::new();
    data.set_config(CONFIG);
    let mut model = Model::new();
    leave_segments(&data, &mut model, "segment.closed");
    let id = data.path().join("journal/ID");
    let text = std::fs::read(&id).expect("the id");
    std::fs::remove_file(&id).expect("the id can be lost");
    let said = refusal(&data);
    assert!(
        said.contains("without it the segments beside it cannot be read"),
        "{said}"
    );
    std::fs::write(&id, text).expect("the id can be restored");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&id, private).expect("as it was");
    let process = collect().on(&data);
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained(&data);
}

#[test]
fn a_second_collector_on_one_directory_is_refused() {
    let mut data = DataDir::new();
    data.set_config(CONFIG);
    let mut model = Model::new();
    let process = collect().on(&data);
    model.send(Targets::of(&process), 40, DATAGRAM_INTERVAL);
    let said = refusal(&data);
    let holder = std::fs::read_to_string(data.path().join("journal/LOCK")).expect("the lock");
    let expected = format!(
        "another process (pid {}) collects into this data directory",
        holder.trim()
    );
    assert!(said.contains(&expected), "{expected:?} in:\n{said}");
    model.send(Targets::of(&process), SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained(&data);
}

//! What a full disk does to the database and to what runs by itself: `/readyz` names it, nothing that was acknowledged is lost,
//! and everything goes on by itself. What it does to the collector alone is in `faults.rs`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::numbered::{LANES, Model, Targets};
use crate::support::wait::wait_until;

/// Within this everything recovers by itself.
const LIMIT: Duration = Duration::from_secs(60);
const DATAGRAM_INTERVAL: Duration = Duration::from_millis(2);
/// Enough for gaps in the sequence numbers to be judged, in each lane.
const SETTLE_DATAGRAMS: u32 = 80 * LANES as u32;
const CONFIG: &str = "[collector]
segment_seconds = 1
segment_max_bytes = 8388608
fsync_interval_ms = 50
queue_max_bytes = 4194304
journal_max_bytes = 67108864
";
/// As many connections as the pool has.
const CONNECTIONS: u64 = 8;

fn serve(data: &DataDir) -> Ezscale {
    Start::new("serve")
        .netflow("127.0.0.1:0")
        .sflow("127.0.0.1:0")
        .http("127.0.0.1:0")
        .on(data)
}

fn get(process: &Ezscale, path: &str) -> (u16, String) {
    let url = format!("{}{path}", process.http.as_deref().expect("a portal"));
    let request = ureq::get(&url).config().http_status_as_error(false).build();
    let mut response = request.call().unwrap_or_else(|error| panic!("GET {url}: {error}"));
    let text = response.body_mut().read_to_string().expect("text");
    (response.status().as_u16(), text)
}

fn metric(process: &Ezscale, name: &str) -> u64 {
    let (_, text) = get(process, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("a whole number for {name} in\n{text}"))
}

/// The problems that `/readyz` names; none when it is ready.
fn problems(process: &Ezscale) -> Vec<String> {
    let (status, text) = get(process, "/readyz");
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("JSON ({error}): {text}"));
    assert_eq!(answer["ready"], status == 200, "{text}");
    let problems = answer["problems"].as_array().expect("a list");
    problems
        .iter()
        .map(|one| one.as_str().expect("text").to_owned())
        .collect()
}

fn wait_until_ready(process: &Ezscale) -> Duration {
    let started = Instant::now();
    wait_until("/readyz to be ready by itself", LIMIT, || problems(process).is_empty());
    started.elapsed()
}

fn names(problems: &[String], what: &str) -> bool {
    problems.iter().any(|problem| problem.starts_with(what))
}

#[test]
fn f1_f2_a_full_disk_is_named_and_database_jobs_and_collector_go_on_by_themselves() {
    let mut data = DataDir::on_disk_of(64 << 10);
    data.set_config(CONFIG);
    let mut model = Model::new();
    let process = serve(&data);
    let targets = Targets::of(&process);
    wait_until_ready(&process);
    model.send(targets, 200, DATAGRAM_INTERVAL);
    wait_until("everything to be stored", LIMIT, || {
        let sql = "SELECT count(*) AS n FROM (SELECT DISTINCT observation_domain, src_port, dst_port FROM flows)";
        data.query_numbers(sql, ["n"]) == [model.sent()]
    });
    model.acknowledge_all();
    let before = data.add(
        &["customer", "add", "--name", "Before", "--email", "before@example.net"],
        "cus_",
    );

    data.disk().fill();
    wait_until("/readyz to name database, folder and collector", LIMIT, || {
        model.send(targets, 40, DATAGRAM_INTERVAL);
        let problems = problems(&process);
        names(&problems, "database: ") && names(&problems, "data_folder: ") && names(&problems, "collector: journal")
    });
    // Every connection of the pool has failed in the middle of a transaction by then.
    wait_until(
        "transactions to fail on as many connections as there are",
        LIMIT,
        || {
            model.send(targets, 8, DATAGRAM_INTERVAL);
            problems(&process);
            metric(&process, "ezscale_database_connections_discarded_total") >= CONNECTIONS
        },
    );
    // Who adds something now is told that it was not added.
    let refused = data
        .command(&["customer", "add", "--name", "During", "--email", "during@example.net"])
        .output()
        .expect("the program runs");
    assert!(!refused.status.success(), "{refused:?}");
    let said = process.stderr();
    assert!(said.contains("not ready"), "{said}");

    data.disk().free();
    let recovered = wait_until_ready(&process);
    println!("ready {:.1} s after the disk was freed", recovered.as_secs_f64());
    let after = data.add(
        &["customer", "add", "--name", "After", "--email", "after@example.net"],
        "cus_",
    );
    let listed = data.run(&["customer", "list"]);
    assert!(listed.contains(&before) && listed.contains(&after), "{listed}");
    assert!(!listed.contains("During"), "{listed}");
    let said = process.stderr();
    assert!(!said.contains("non-zero depth"), "{said}");
    model.send(targets, SETTLE_DATAGRAMS, DATAGRAM_INTERVAL);
    process.terminate();
    model.check_drained_after_drops(&data);
}

#[test]
fn a_damaged_database_is_refused_at_the_start_with_what_to_do() {
    let data = DataDir::new();
    data.run(&["customer", "add", "--name", "Ada", "--email", "ada@example.net"]);
    let path = data.path().join("ezscale.db");
    // What is in its log would be read in place of what is damaged.
    for log in ["ezscale.db-wal", "ezscale.db-shm"] {
        let _ = std::fs::remove_file(data.path().join(log));
    }
    std::fs::write(&path, vec![0x55; 64 << 10]).expect("the test's directory is writable");
    let mut process = Start::new("serve")
        .netflow("127.0.0.1:0")
        .http("127.0.0.1:0")
        .spawn_on(&data);
    let status = process.wait_for_end(LIMIT);
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    for expected in ["ezscale.db", "is damaged", "restore a backup"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

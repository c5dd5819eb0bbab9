//! A configuration that changes under load, and a stop under load: no datagram is lost by either.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::numbered::{FLOWS, LANES, Model, Targets};
use crate::support::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const RELOADS: usize = 20;
const FLOWS_MIN: u64 = 100_000;
/// Sent between two looks at whether the reloads are done.
const ROUND_DATAGRAMS: u32 = 200;
const RELOADED: &str = "configuration reloaded";
/// Of the sFlow lane; its samples say nothing of a rate here.
const AGENT: &str = "192.0.2.9";

fn collect() -> Start<'static> {
    Start::new("collect").netflow("127.0.0.1:0").sflow("127.0.0.1:0")
}

fn config(default_sampling_rate: usize) -> String {
    format!(
        "[collector]\nsegment_seconds = 1\n\n[[exporter]]\naddress = \"{AGENT}\"\ndefault_sampling_rate = {default_sampling_rate}\n"
    )
}

fn times_said(process: &Ezscale, text: &str) -> usize {
    process.stderr().matches(text).count()
}

/// Reloads by signal, one after the other, and by a changed file at last; between them a file with a mistake.
fn reload_again_and_again(data: &DataDir, process: &Ezscale) {
    for reload in 1..RELOADS {
        data.change_config(&config(100 + reload));
        process.signal("HUP");
        wait_until("the configuration to be reloaded", LIMIT, || {
            times_said(process, RELOADED) >= reload
        });
    }
    let reloaded = times_said(process, RELOADED);
    data.change_config("[collector]\nsegment_secondz = 1\n");
    process.signal("HUP");
    wait_until("the mistake to be named", LIMIT, || {
        let said = process.stderr();
        said.contains("the changed configuration is not used") && said.contains("segment_secondz")
    });
    assert_eq!(
        times_said(process, RELOADED),
        reloaded,
        "a file with mistakes changes nothing"
    );
    data.change_config(&config(100 + RELOADS));
    wait_until("the changed file to be seen", LIMIT, || {
        times_said(process, RELOADED) > reloaded
    });
}

#[test]
fn f1_f2_reloads_under_load_lose_nothing() {
    let mut data = DataDir::new();
    data.set_config(&config(100));
    let process = collect().on(&data);
    let targets = Targets::of(&process);
    let mut model = Model::new();
    let rows = |rate: usize| {
        let sql = format!("SELECT count(*) AS n FROM flows WHERE exporter = '{AGENT}' AND sampling_rate = {rate}");
        data.query_numbers(&sql, ["n"])[0]
    };
    wait_until("the first configuration to be in force", LIMIT, || {
        model.send(targets, ROUND_DATAGRAMS, Duration::from_micros(200));
        rows(100) > 0
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !done.load(Ordering::Acquire) || model.sent() * u64::from(FLOWS) < FLOWS_MIN {
                model.send(targets, ROUND_DATAGRAMS, Duration::from_micros(200));
            }
        });
        reload_again_and_again(&data, &process);
        done.store(true, Ordering::Release);
        sender.join().expect("the sender sends");
    });
    println!("{} flows sent", model.sent() * u64::from(FLOWS));
    // The last configuration holds for what comes from now on: a segment of its own, after the reload.
    wait_until("the last configuration to be in force", LIMIT, || {
        model.send(targets, ROUND_DATAGRAMS, Duration::from_micros(200));
        rows(100 + RELOADS) > 0
    });
    model.acknowledge_all();
    process.terminate();
    model.check_drained(&data);
    assert_eq!(rows(0), 0, "one configuration or another was always in force");
}

/// As an operator adds SNMP to a file that everybody can read, and then does what the log says.
#[test]
fn a_configuration_that_is_refused_for_its_mode_fails_until_chmod_and_is_taken_then() {
    let mut data = DataDir::new();
    data.set_config(&config(100));
    set_mode(data.scratch(), 0o755);
    let file = data.scratch().join("config.toml");
    set_mode(&file, 0o644);
    let process = collect().on(&data);
    let failed = "the changed configuration is not used";
    // Under the file, whose mode a rename would keep.
    std::fs::write(&file, config(101) + "snmp = { community = 'c', port = 9 }\n").unwrap();
    wait_until("the file to be refused twice", LIMIT, || {
        times_said(&process, failed) >= 2
    });
    assert!(process.stderr().contains("chmod o-rwx"), "{}", process.stderr());
    assert_eq!(times_said(&process, RELOADED), 0);
    set_mode(&file, 0o640);
    wait_until("the file to be taken over", LIMIT, || {
        times_said(&process, RELOADED) == 1
    });
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the file is the test's own");
}

#[test]
fn f1_f2_a_stop_under_load_drains() {
    let mut data = DataDir::new();
    data.set_config("[collector]\nsegment_seconds = 3600\n");
    let mut model = Model::new();
    let process = collect().on(&data);
    // At once: nothing of this is stored, and the end of it may not even be read, when the signal comes.
    model.send(Targets::of(&process), 200 * LANES as u32, Duration::ZERO);
    model.acknowledge_all();
    process.terminate();
    model.check_drained(&data);
}

/// A stop that comes as soon as anybody can know that the collector listens.
#[test]
fn a_stop_right_after_the_start_drains() {
    let data = DataDir::new();
    for _ in 0..5 {
        collect().on(&data).terminate();
    }
}

//! Backups of a running installation, and what a restore makes of a folder that is lost: the same books, the same usage. Killed,
//! on a full disk and with a damaged file there is a whole backup or none, a whole folder or none.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fixtures::postgres::{Shared, TestDatabase};
use schemas::fault::BACKUP_POINTS;

use crate::support::command::output_of;
use crate::support::demo::{demo_data, start_demo};
use crate::support::disk::Disk;
use crate::support::ezscale::{DataDir, Start};
use crate::support::s3::S3Server;
use crate::support::wait::wait_until;

const BINARY: &str = env!("CARGO_BIN_EXE_ezscale");
const LIMIT: Duration = Duration::from_secs(60);

fn ezscale(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> String {
    output_of(&mut ezscale(arguments))
}

fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success(), "{command:?} went well");
    String::from_utf8(stderr).unwrap()
}

/// Commands on the data that answer what must be the same after a restore. Usage is that of windows that were closed before.
fn books(data_dir: &str, until: &str) -> Vec<String> {
    let usage = format!(
        "SELECT service, count(*) AS windows, sum(bytes_in) AS i, sum(bytes_out) AS o FROM usage_5m \
         WHERE window_start < '{until}' GROUP BY service ORDER BY service"
    );
    let flows = format!("SELECT count(*) AS n, sum(bytes * sampling_rate) AS b FROM flows WHERE end_at < '{until}'");
    let on = |arguments: &[&str]| run(&[arguments, &["--data-dir", data_dir]].concat());
    vec![
        on(&["ledger", "balance"]),
        on(&["invoice", "list", "--format", "json"]),
        on(&["customer", "list"]),
        on(&["subscription", "list"]),
        on(&["query", &usage, "--format", "csv"]),
        on(&["query", &flows, "--format", "csv"]),
    ]
}

#[test]
fn after_the_loss_of_the_whole_folder_the_books_and_the_usage_are_the_same() {
    let data = demo_data();
    let running = start_demo(&data);
    let path = data.path().display().to_string();
    let to = data.scratch().join("backups").display().to_string();
    let key = data.scratch().join("kept.key");
    std::fs::copy(data.path().join("secrets.key"), &key).unwrap();
    // Windows that no flow can change any more.
    let until = (schemas::clock::machine_now() - jiff::SignedDuration::from_hours(2))
        .strftime("%Y-%m-%dT%H:00:00Z")
        .to_string();

    // Under load: live exporters send, and the collector stores, merges and counts meanwhile.
    let first = data.run(&["backup", "--to", &to]);
    assert!(
        first.contains("read back and compared") && first.contains("key       not in it"),
        "{first}"
    );
    let flows = || data.query_numbers("SELECT count(*) AS n FROM flows", ["n"])[0];
    let before = flows();
    wait_until("flows arrive", LIMIT, || flows() > before);
    // Billing goes on meanwhile: what the backup holds is known when nothing changed while it was made.
    let mut made = None;
    for _ in 0..20 {
        let before = books(&path, &until);
        let said = data.run(&["backup", "--to", &to]);
        if books(&path, &until) == before {
            made = Some((said, before));
            break;
        }
    }
    let (second, expected) = made.expect("the books are at rest for once");
    let new = second.split("; ").nth(1).unwrap().split(' ').next().unwrap();
    let all = second
        .split("tables")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    assert!(
        new.parse::<u64>().unwrap() * 4 < all.parse().unwrap(),
        "what is there is not copied again: {second}"
    );
    assert!(data.run(&["audit", "list"]).contains("backup.create"));
    running.kill9();
    std::fs::remove_dir_all(data.path()).unwrap();

    let verified = run(&["backup", "verify", "--to", &to]);
    assert!(verified.contains("0 problems"), "{verified}");
    let told = run(&["restore", "--from", &to, "--data-dir", &path]);
    assert!(told.contains("put the key file with the key"), "{told}");
    let refused = fails(&mut ezscale(&["ledger", "check", "--data-dir", &path]));
    assert!(refused.contains("is missing"), "{refused}");
    std::fs::remove_dir_all(data.path()).unwrap();
    let key = key.display().to_string();
    let told = run(&["restore", "--from", &to, "--data-dir", &path, "--key-file", &key]);
    assert!(
        told.contains("what to check next") && told.contains("ezscale ledger check"),
        "{told}"
    );
    for (before, after) in expected.iter().zip(books(&path, &until)) {
        assert_eq!(*before, after);
    }
    assert!(data.run(&["ledger", "check"]).contains("no violations"));
    let checked = data.run(&["invoice", "check", "--all"]);
    assert!(checked.contains(", 0 differ"), "{checked}");
    assert!(data.run(&["audit", "list"]).contains("backup.restore"));
    // What is new has a number that nobody else had: flows of a service that the backup does not know are not its.
    let customer = data.add(
        &["customer", "add", "--name", "New", "--email", "new@example.net"],
        "cus_",
    );
    assert!(customer["cus_".len()..].parse::<u64>().unwrap() > 10_000, "{customer}");
    let again = fails(&mut ezscale(&["restore", "--from", &to, "--data-dir", &path]));
    assert!(again.contains("is not empty"), "{again}");

    // And it goes on.
    let before = flows();
    let collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
    data.run_simulate(&[
        "--to",
        &collector.netflow[0].to_string(),
        "--protocol",
        "v9",
        "--flows",
        "2000",
    ]);
    wait_until("flows are stored", LIMIT, || flows() > before);
    collector.terminate();
    let third = data.run(&["backup", "--to", &to]);
    assert!(third.contains("read back"), "{third}");
    assert!(
        data.run(&["backup", "prune", "--keep", "1", "--to", &to])
            .contains(" removed, with ")
    );
    let verified = run(&["backup", "verify", "--to", &to]);
    assert!(
        verified.contains("1 backup,") && verified.contains("0 problems"),
        "{verified}"
    );
}

/// A customer, an endpoint with a secret, and some thousand stored flows.
fn small() -> DataDir {
    let data = DataDir::new();
    std::fs::create_dir(data.path()).unwrap();
    let config = "own_networks = ['198.51.100.0/24', '2001:db8::/32']\n[webhooks]\nallow_private = true\n";
    std::fs::write(data.path().join("ezscale.toml"), config).unwrap();
    data.run(&["customer", "add", "--name", "Ada", "--email", "ada@example.net"]);
    data.run(&["webhook", "add", "http://127.0.0.1:1/x", "--customer", "cus_1"]);
    for _ in 0..2 {
        let collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
        data.run_simulate(&[
            "--to",
            &collector.netflow[0].to_string(),
            "--protocol",
            "v9",
            "--flows",
            "3000",
        ]);
        collector.terminate();
    }
    data
}

fn small_books(data_dir: &str) -> Vec<String> {
    let on = |arguments: &[&str]| run(&[arguments, &["--data-dir", data_dir]].concat());
    vec![
        on(&[
            "query",
            "SELECT count(*) AS n, sum(bytes) AS b FROM flows",
            "--format",
            "csv",
        ]),
        on(&[
            "query",
            "SELECT count(*) AS n, sum(value) AS b FROM collection_5m",
            "--format",
            "csv",
        ]),
        on(&["customer", "list"]),
        on(&["webhook", "list"]),
    ]
}

#[test]
fn a_backup_and_a_restore_that_are_killed_leave_all_or_nothing() {
    let data = small();
    let path = data.path().display().to_string();
    let to = data.scratch().join("backups").display().to_string();
    let expected = small_books(&path);
    let of_backup = BACKUP_POINTS.iter().filter(|point| point.starts_with("backup."));
    for (done, point) in of_backup.enumerate() {
        let backup = ["backup", "--to", &to, "--with-key", "--data-dir", &path];
        fails(ezscale(&backup).env("EZSCALE_FAULT", point));
        let mut listed = ezscale(&["backup", "list", "--to", &to]);
        let listed = String::from_utf8(listed.output().unwrap().stdout).unwrap();
        assert_eq!(
            listed
                .lines()
                .filter(|line| line.contains(env!("CARGO_PKG_VERSION")))
                .count(),
            done,
            "{point}: {listed}"
        );
        let said = run(&backup);
        assert!(said.contains("can read the secrets"), "{said}");
        let verified = run(&["backup", "verify", "--to", &to]);
        assert!(verified.contains("0 problems"), "{point}: {verified}");
        // Something new for the next one.
        let collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
        data.run_simulate(&[
            "--to",
            &collector.netflow[0].to_string(),
            "--protocol",
            "v9",
            "--flows",
            "100",
        ]);
        collector.terminate();
    }
    let unfinished = std::fs::read_dir(data.scratch().join("backups/backups")).unwrap();
    for folder in unfinished {
        let folder = folder.unwrap().path();
        let is_empty = std::fs::read_dir(&folder).unwrap().next().is_none();
        assert!(
            is_empty || folder.join("MANIFEST").exists(),
            "{} is left",
            folder.display()
        );
    }
    let first = run(&["backup", "list", "--to", &to]);
    let first = first.lines().nth(1).unwrap().split_whitespace().next().unwrap();

    let target = data.scratch().join("restored");
    let into = target.display().to_string();
    let restore = ["restore", "--from", &to, "--name", first, "--data-dir", &into];
    for point in BACKUP_POINTS.iter().filter(|point| point.starts_with("restore.")) {
        fails(ezscale(&restore).env("EZSCALE_FAULT", point));
        assert!(!target.exists(), "{point}");
    }
    // Over an empty folder, as a package makes it.
    std::fs::create_dir(&target).unwrap();
    run(&restore);
    assert_eq!(small_books(&into), expected);
    assert!(!data.scratch().join(".restored.restoring").exists());
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_or_missing_file_is_found_and_never_restored() {
    let data = small();
    let backups = data.scratch().join("backups");
    let to = backups.display().to_string();
    data.run(&["backup", "--to", &to, "--with-key"]);
    let into = data.scratch().join("restored");
    let restore = ["restore", "--from", &to, "--data-dir", &into.display().to_string()];
    let files = files_below(&backups);
    let files: Vec<_> = files.iter().filter(|file| !file.ends_with("LOCK")).collect();
    assert!(
        files.len() >= 8,
        "database, tables' manifests, files, key, manifest: {files:?}"
    );
    for file in files {
        let whole = std::fs::read(file).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        for content in [Some(damaged), Some(whole[..whole.len() / 2].to_vec()), None] {
            match &content {
                Some(content) => std::fs::write(file, content).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
            let mut verify = ezscale(&["backup", "verify", "--to", &to]);
            let output = verify.output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{}: {said}", file.display());
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(name == "MANIFEST" || said.contains(name), "{}: {said}", file.display());
            // What a restore does not read (the shown configuration) does not stop it.
            if name != "configuration.toml" {
                fails(&mut ezscale(&restore));
                assert!(!into.exists(), "{}", file.display());
            }
        }
        std::fs::write(file, whole).unwrap();
    }
    assert!(run(&["backup", "verify", "--to", &to]).contains("0 problems"));
    run(&restore);
}

/// A backup's manifest with one text for another and a right checksum, as whoever can write the place can make it.
fn forge(manifest: &Path, what: &str, by: &str) {
    let text = std::fs::read_to_string(manifest).unwrap();
    let json = text.split_once('\n').unwrap().1.trim_end();
    let forged = json.replace(what, by);
    assert_ne!(forged, json, "{what:?}");
    let digest = ring::digest::digest(&ring::digest::SHA256, forged.as_bytes());
    let sum: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(manifest, format!("sha256 {sum}\n{forged}\n")).unwrap();
}

#[test]
fn s1_a_forged_backup_is_a_problem_and_writes_nothing_outside() {
    let data = small();
    let backups = data.scratch().join("backups");
    let to = backups.display().to_string();
    data.run(&["backup", "--to", &to]);
    let into = data.scratch().join("restored");
    let restore = ["restore", "--from", &to, "--data-dir", &into.display().to_string()];
    let files = files_below(&backups);
    let manifest = files.iter().find(|file| file.ends_with("MANIFEST")).unwrap();
    let whole = std::fs::read_to_string(manifest).unwrap();
    let json: serde_json::Value = serde_json::from_str(whole.split_once('\n').unwrap().1).unwrap();
    let path = json["tables"]["flows"].as_object().unwrap().keys().next().unwrap();
    let path = serde_json::to_string(path).unwrap();
    let victim = data.scratch().join("victim");
    let absolute = serde_json::to_string(&victim.display().to_string()).unwrap();
    let above = format!("\"{}{}\"", "../".repeat(20), victim.display());
    let name = serde_json::to_string(&json["name"]).unwrap();
    for (what, by) in [
        (path.as_str(), above.as_str()),
        (&path, &absolute),
        (&path, r#""a//b""#),
        (&path, r#""a\\..\\b""#),
        (&path, r#""a\u0000b""#),
        (&path, r#""""#),
        ("\"flows\":{", &format!("{absolute}:{{")),
        ("\"flows\":{", "\"..\":{"),
        (&name, r#""other""#),
        (&name, r#""../..""#),
    ] {
        forge(manifest, what, by);
        let verified = ezscale(&["backup", "verify", "--to", &to]).output().unwrap();
        let said = String::from_utf8(verified.stdout).unwrap() + &String::from_utf8(verified.stderr).unwrap();
        assert!(!verified.status.success(), "{what} by {by}: {said}");
        assert!(said.contains("MANIFEST is damaged"), "{what} by {by}: {said}");
        fails(&mut ezscale(&restore));
        assert!(!into.exists() && !victim.exists(), "{what} by {by}");
        std::fs::write(manifest, &whole).unwrap();
    }
    // A part that is a link to elsewhere.
    let database = manifest.with_file_name("database");
    let elsewhere = data.scratch().join("elsewhere");
    std::fs::rename(&database, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &database).unwrap();
    let said = fails(&mut ezscale(&restore));
    assert!(said.contains("leads out of"), "{said}");
    assert!(!into.exists());
    std::fs::rename(&elsewhere, &database).unwrap();
    run(&restore);
}

#[test]
fn a_full_disk_leaves_the_backups_that_were_there_and_no_half_folder() {
    let data = small();
    let path = data.path().display().to_string();
    let small_disk = data.scratch().join("disk");
    std::fs::create_dir(&small_disk).unwrap();
    let disk = Disk::mount(&small_disk, 8 << 10);
    let to = small_disk.join("backups").display().to_string();
    let on_disk = |arguments: &[&str]| {
        let mut command = disk.command(BINARY);
        command.args(arguments).stdin(Stdio::null());
        command
    };
    let backup = ["backup", "--to", &to, "--data-dir", &path, "--with-key"];
    output_of(&mut on_disk(&backup));
    // As much is free as the database needs, and then less and less: it ends at another file each time.
    disk.fill();
    let said = fails(&mut on_disk(&backup));
    assert!(said.contains("full") || said.contains("No space"), "{said}");
    disk.free();
    let verified = output_of(&mut on_disk(&["backup", "verify", "--to", &to]));
    assert!(
        verified.contains("1 backup,") && verified.contains("0 problems"),
        "{verified}"
    );
    disk.fill();
    let into = small_disk.join("restored");
    let said = fails(&mut on_disk(&[
        "restore",
        "--from",
        &to,
        "--data-dir",
        &into.display().to_string(),
    ]));
    assert!(
        said.contains("full") || said.contains("No space") || said.contains("make"),
        "{said}"
    );
    disk.free();
    let there = output_of(disk.command("ls").arg("-A").arg(&small_disk));
    assert!(!there.contains("restored"), "{there}");
    output_of(&mut on_disk(&[
        "restore",
        "--from",
        &to,
        "--data-dir",
        &into.display().to_string(),
    ]));
    output_of(&mut on_disk(&[
        "ledger",
        "check",
        "--data-dir",
        &into.display().to_string(),
    ]));
    output_of(&mut on_disk(&backup));
}

#[test]
fn to_a_bucket_and_back_only_what_is_new_is_sent() {
    let server = S3Server::start();
    let data = small();
    let section = server.config().replace(
        "[storage]\nurl = 's3://flows/site/nyc1'",
        "[backup]\nurl = 's3://flows/backups'",
    );
    assert!(section.starts_with("[backup]"), "{section}");
    let config = data.path().join("ezscale.toml");
    let text = std::fs::read_to_string(&config).unwrap() + &section;
    std::fs::write(&config, &text).unwrap();
    let path = data.path().display().to_string();
    let expected = small_books(&path);
    let first = data.run(&["backup", "--with-key"]);
    assert!(first.contains("s3://flows/backups"), "{first}");
    let second = data.run(&["backup", "--with-key"]);
    assert!(second.contains("; 0 of them new"), "{second}");
    assert!(data.run(&["backup", "verify"]).contains("0 problems"));
    assert!(!data.path().join("backup-1.tmp").exists());
    let kept = data.scratch().join("restore.toml");
    std::fs::write(&kept, section).unwrap();
    std::fs::remove_dir_all(data.path()).unwrap();
    let kept = kept.display().to_string();
    let restore = [
        "restore",
        "--from",
        "s3://flows/backups",
        "--config",
        &kept,
        "--data-dir",
        &path,
    ];
    run(&restore);
    assert_eq!(small_books(&path), expected);
}

#[test]
fn a_postgresql_database_comes_back_into_an_empty_one() {
    let postgres = Shared::find();
    let databases = [postgres.empty(), postgres.empty()];
    let data = DataDir::new();
    let path = data.path().display().to_string();
    // With a password, which is not asked for, so that it is passed on.
    let url = |database: &TestDatabase| database.url().replace("ezscale@", "ezscale:any@");
    let [old, new] = databases.each_ref().map(url);
    let on = |url: &str, data_dir: &str, arguments: &[&str]| {
        run(&[arguments, &["--database", url, "--data-dir", data_dir]].concat())
    };
    on(
        &old,
        &path,
        &["customer", "add", "--name", "Ada", "--email", "ada@example.net"],
    );
    on(
        &old,
        &path,
        &[
            "credit", "grant", "cus_1", "7.50", "--for", "test:1", "--reason", "test",
        ],
    );
    let to = data.scratch().join("backups").display().to_string();
    let made = on(&old, &path, &["backup", "--to", &to, "--with-key"]);
    assert!(made.contains("read back"), "{made}");
    let expected = on(&old, &path, &["ledger", "balance"]);
    let into = data.scratch().join("restored").display().to_string();
    let mut full = ezscale(&["restore", "--from", &to, "--data-dir", &into, "--database", &old]);
    assert!(fails(&mut full).contains("is not empty"));
    let none = fails(&mut ezscale(&["restore", "--from", &to, "--data-dir", &into]));
    assert!(none.contains("createdb"), "{none}");
    let said = on(&new, &into, &["restore", "--from", &to]);
    assert!(
        said.contains("set EZSCALE_DATABASE") && !said.contains("any@"),
        "{said}"
    );
    // As it is printed: with the database, or refused, and never an empty one of SQLite.
    let check = ["ledger", "check", "--data-dir", &into];
    assert!(said.contains(&format!("ezscale {}", check.join(" "))), "{said}");
    let forgotten = fails(&mut ezscale(&check));
    assert!(
        forgotten.contains("none is named") && forgotten.contains("ezscale:(hidden)@"),
        "{forgotten}"
    );
    assert!(!Path::new(&into).join("ezscale.db").exists());
    let checked = output_of(ezscale(&check).env("EZSCALE_DATABASE", &new));
    assert!(
        checked.contains("no violations") && !checked.contains("0 transactions"),
        "{checked}"
    );
    assert_eq!(on(&new, &into, &["ledger", "balance"]), expected);
    assert!(on(&new, &into, &["ledger", "check"]).contains("no violations"));
    assert!(on(&new, &into, &["audit", "list"]).contains("backup.restore"));
}

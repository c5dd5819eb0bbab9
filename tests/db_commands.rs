//! `ezscale db`: what a data folder of an earlier version is told and how it is upgraded, and that nothing of a newer version is
//! touched.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fixtures::postgres::Shared;
use schemas::db::Database;
use serde_json::Value;

use crate::support::ezscale::DataDir;
use crate::upgrade::folder_of_7bef553;

/// Standard output of a command that must fail, and standard error.
fn refused(data: &DataDir, arguments: &[&str]) -> (String, String) {
    let output = data.command(arguments).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success(), "{arguments:?} succeeds: {stdout}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

fn rows_of(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn status(data: &DataDir) -> Vec<Value> {
    rows_of(&data.run(&["db", "status", "--format", "json"]))
}

fn of_kind<'a>(rows: &'a [Value], kind: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["kind"] == kind).collect()
}

fn states(rows: &[Value], kind: &str) -> Vec<String> {
    let state = |row: &&Value| row["state"].as_str().expect("a text").to_owned();
    of_kind(rows, kind).iter().map(state).collect()
}

fn upgrades(data: &DataDir) -> Vec<Value> {
    rows_of(&data.run(&["audit", "list", "--action", "db.migrate", "--format", "json"]))
}

fn sql(data: &DataDir, statement: &'static str) {
    let execute = async {
        let database = Database::open(&Database::default_url(&data.path()))
            .await
            .expect("it is today's");
        sqlx::query(statement)
            .execute(database.pool())
            .await
            .expect("the statement is right");
        database.pool().close().await;
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(execute);
}

#[test]
fn a_postgresql_that_lacks_the_database_says_what_to_do_and_one_that_is_there_makes_no_noise() {
    let postgres = Shared::find();
    let data = DataDir::new();
    let nowhere = postgres.url("ezscale_is_not_here");
    for arguments in [&["init"][..], &["db", "status"], &["customer", "list"]] {
        let (_, said) = refused(&data, &[arguments, &["--database", &nowhere]].concat());
        assert!(
            said.contains("database \"ezscale_is_not_here\" does not exist (make it, empty: `createdb`)"),
            "{said}"
        );
        assert!(!said.contains("at line"), "{said}");
    }
    let database = postgres.empty();
    let url = database.url();
    for command in ["init", "customer list"] {
        let words: Vec<&str> = command.split(' ').chain(["--database", &url]).collect();
        let output = data.command(&words).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("skipping") && !said.contains("INFO"), "{said}");
    }
}

#[test]
fn a_folder_of_7bef553_says_what_is_missing_and_is_upgraded_once() {
    let data = folder_of_7bef553();
    let files = ["ezscale.db", "ezscale.db-wal"].map(|name| data.path().join(name));
    let bytes = || files.each_ref().map(|path| std::fs::read(path).expect("it is there"));
    let before = bytes();
    let rows = status(&data);
    let known = Database::known_version();
    let missing = Database::migrations().len() - 1;
    let database = of_kind(&rows, "database")[0];
    assert_eq!(database["version"], 1);
    assert_eq!(database["known"], known);
    let expected = format!("{missing} migrations to apply");
    assert_eq!(database["state"], expected.as_str());
    let migrations = states(&rows, "migration");
    assert_eq!(migrations[0], "applied");
    assert!(migrations[1..].iter().all(|state| state == "pending"), "{migrations:?}");
    // Before there were formats, all were the first.
    for row in of_kind(&rows, "manifest") {
        assert_eq!(row["version"], 1, "{row}");
        assert_eq!(row["state"], "older, read", "{row}");
    }
    assert!(of_kind(&rows, "table").len() >= 4, "{rows:?}");
    let segments = of_kind(&rows, "journal segment");
    assert_eq!(segments[0]["name"], "journal/segment-0000000001.journal");
    assert!(data.run(&["db", "status"]).contains("pending"));
    assert!(
        data.run(&["db", "status", "--format", "csv"])
            .starts_with("kind,name,version,known,")
    );
    assert_eq!(bytes(), before, "looking changes nothing");
    assert!(!data.path().join("FORMAT").exists());

    let would = data.run(&["db", "migrate", "--dry-run"]);
    assert!(would.contains("which is at version 1:"), "{would}");
    assert!(would.contains("  002 exporter corrections\n"), "{would}");
    assert_eq!(of_kind(&status(&data), "database")[0]["version"], 1);

    let done = data.run(&["db", "migrate"]);
    assert!(done.starts_with("applied 002 exporter corrections\n"), "{done}");
    assert!(
        done.ends_with(&format!("the schema is at version {known}, before at 1\n")),
        "{done}"
    );
    let rows = status(&data);
    assert_eq!(states(&rows, "database"), ["current, every checksum agrees"]);
    assert!(states(&rows, "migration").iter().all(|state| state == "applied"));
    let last = of_kind(&rows, "migration").pop().expect("there are migrations");
    assert_eq!(last["program"], env!("CARGO_PKG_VERSION"));
    assert_eq!(last["checksum"].as_str().map(str::len), Some(64));

    for again in [
        &["db", "migrate"][..],
        &["db", "migrate", "--dry-run"],
        &["customer", "list"],
    ] {
        data.run(again);
    }
    let entries = upgrades(&data);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["risk"], "high");
    assert_eq!(entries[0]["subject"], "schema");
    let change = &entries[0]["change"];
    assert_eq!(change["before"]["schema_version"], 1);
    assert_eq!(change["after"]["schema_version"], known);
    assert_eq!(change["after"]["migrations"].as_array().map(Vec::len), Some(missing));
    assert!(data.run(&["ledger", "check"]).contains("no violations"));
}

#[test]
fn every_command_upgrades_and_audits_it_and_none_below_a_running_collector() {
    let data = folder_of_7bef553();
    // As the earlier version does while it runs.
    let lock = File::options()
        .write(true)
        .open(data.path().join("journal/LOCK"))
        .expect("the folder has a journal");
    lock.lock().expect("nobody else has it");
    for command in [
        &["db", "migrate"][..],
        &["customer", "list"],
        &["secrets", "status"],
        &["collect", "--netflow", "127.0.0.1:0"],
    ] {
        let (_, said) = refused(&data, command);
        assert!(
            said.contains("must be upgraded")
                && said.contains("of the earlier version works in")
                && said.contains("stop it"),
            "{command:?}: {said}"
        );
    }
    assert_eq!(of_kind(&status(&data), "database")[0]["version"], 1);
    let would = data.run(&["db", "migrate", "--dry-run"]);
    assert!(would.contains("now it would be refused: another process"), "{would}");
    drop(lock);
    data.run(&["customer", "list"]);
    assert_eq!(upgrades(&data).len(), 1);

    // A process of today holds up nothing: there is nothing to upgrade.
    let lock = File::options()
        .write(true)
        .open(data.path().join("journal/LOCK"))
        .expect("the folder has a journal");
    lock.lock().expect("nobody else has it");
    data.run(&["customer", "list"]);
    assert!(data.run(&["db", "migrate"]).contains("nothing to apply"));
}

#[test]
fn a_new_database_is_no_upgrade() {
    let data = DataDir::made();
    assert_eq!(states(&status(&data), "database"), ["current, every checksum agrees"]);
    assert_eq!(upgrades(&data), Vec::<Value>::new());
}

#[test]
fn a_database_of_a_newer_version_is_refused_by_every_command() {
    let data = DataDir::made();
    sql(
        &data,
        "INSERT INTO schema_migrations (version, name, applied_at_ms, checksum, program) \
         VALUES (9001, 'next century', 0, 'ff', '9.9.9')",
    );
    for command in [
        &["customer", "list"][..],
        &["db", "migrate"],
        &["db", "migrate", "--dry-run"],
        &["serve", "--netflow", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        &["db", "status"],
    ] {
        let (_, said) = refused(&data, command);
        for part in [
            "has the schema version 9001 (next century), written by ezscale 9.9.9",
            "restore a backup from before the upgrade",
        ] {
            assert!(said.contains(part), "{command:?}: {part:?} in {said}");
        }
    }
    let (json, _) = refused(&data, &["db", "status", "--format", "json"]);
    let rows = rows_of(&json);
    assert_eq!(states(&rows, "database"), ["NEWER"]);
    assert_eq!(states(&rows, "migration").last().map(String::as_str), Some("unknown"));
}

#[test]
fn a_database_whose_migrations_were_changed_is_refused() {
    let data = DataDir::made();
    sql(&data, "UPDATE schema_migrations SET checksum = 'ff' WHERE version = 3");
    for command in [&["customer", "list"][..], &["db", "status"]] {
        let (_, said) = refused(&data, command);
        assert!(said.contains("migration 3 (given back)"), "{command:?}: {said}");
    }
    let (json, _) = refused(&data, &["db", "status", "--format", "json"]);
    assert_eq!(states(&rows_of(&json), "migration")[2], "differs");
}

/// The checksum that manifests and journals use (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// Gives a file another content, and takes it back when the value goes.
struct Changed<'a> {
    path: &'a Path,
    before: Option<Vec<u8>>,
}

impl<'a> Changed<'a> {
    fn to(path: &'a Path, content: &[u8]) -> Changed<'a> {
        let before = std::fs::read(path).ok();
        std::fs::write(path, content)
            // As the program makes its files: wider ones are refused for that.
            .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o600)))
            .expect("the folder is writable");
        Changed { path, before }
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        match &self.before {
            Some(content) => std::fs::write(self.path, content),
            None => std::fs::remove_file(self.path),
        }
        .expect("the folder is writable");
    }
}

#[test]
fn files_of_a_newer_format_are_refused_with_their_name_and_left_as_they_are() {
    let data = folder_of_7bef553();
    data.run(&["customer", "list"]);
    let at = |name: &str| data.path().join(name);
    let manifest = at("tables/flows/MANIFEST");
    let text = std::fs::read_to_string(&manifest).expect("it is text");
    let (_, commits) = text.split_once('\n').expect("it has lines");
    let line = |json: &str| format!("{:08x} {json}\n", crc32(json.as_bytes()));
    let newer_manifest = line(r#"{"generation":1,"format":9,"index":"new"}"#) + commits;
    let table = r#"{"sequence":9001,"set":{"table_format":"9"}}"#;
    let newer_table = format!("{text}{}", line(table));
    let segment = at("journal/segment-0000000001.journal");
    let mut newer_segment = std::fs::read(&segment).expect("it waits");
    newer_segment[7] = b'9';
    let crc = crc32(&newer_segment[..28]);
    newer_segment[28..32].copy_from_slice(&crc.to_le_bytes());
    let key_file = at("secrets.key");
    let keys = std::fs::read_to_string(&key_file).expect("a command made it");
    let (checkpoint, format) = (at("journal/CHECKPOINT"), at("FORMAT"));

    let query = &["query", "SELECT count(*) FROM flows"][..];
    let collect = &["collect", "--netflow", "127.0.0.1:0"][..];
    let list = &["customer", "list"][..];
    for (path, content, kind, command) in [
        (&manifest, newer_manifest.into_bytes(), "manifest", query),
        (&manifest, newer_table.into_bytes(), "table", query),
        (&segment, newer_segment, "journal segment", collect),
        (
            &checkpoint,
            br#"{"version":9,"next_segment":"one"}"#.to_vec(),
            "checkpoint",
            collect,
        ),
        (
            &key_file,
            keys.replace("# format: 1", "# format: 9").into_bytes(),
            "key file",
            list,
        ),
        (&format, b"9\n".to_vec(), "data folder", list),
    ] {
        let changed = Changed::to(path, &content);
        let (_, said) = refused(&data, command);
        let words = format!("is a {kind} of format 9, and this ezscale");
        assert!(
            said.contains(&words) && said.contains("restore a backup"),
            "{kind}: {said}"
        );
        let named = if kind == "table" {
            path.parent().expect("a folder")
        } else {
            path
        };
        assert!(said.contains(&named.display().to_string()), "{kind}: {said}");
        let (json, said) = refused(&data, &["db", "status", "--format", "json"]);
        assert!(said.contains(&words), "{kind}: {said}");
        assert!(
            states(&rows_of(&json), kind).contains(&"NEWER".to_owned()),
            "{kind}: {json}"
        );
        assert_eq!(std::fs::read(path).expect("it is there"), content, "{kind}");
        drop(changed);
        data.run(&["db", "status"]);
    }
    // Back as they were, everything goes on.
    data.run(query);
}

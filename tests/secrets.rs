//! What nobody else may read: the data folder is its owner's alone, secrets are sealed under a key that can be replaced at any
//! moment, and neither logs nor the shown configuration repeat them.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use activity::event::{EventType, NewEvent};
use billing::event::publish;
use schemas::db::Database;
use schemas::fault;
use schemas::ids::CustomerId;
use serde_json::json;

use crate::support::command::output_of;
use crate::support::ezscale::{BINARY, DataDir, Start};
use crate::support::hooks::HookServer;
use crate::support::wait::wait_until;

/// In everything that must not be shown.
const PLANTED: &str = "hush4711";
const LIMIT: Duration = Duration::from_secs(60);

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything in a folder, and the folder.
fn all_of(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_of(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn assert_private(dir: &Path) {
    for path in all_of(dir) {
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), private, "{}: {:o}", path.display(), mode(&path));
    }
}

fn fails(data: &DataDir, arguments: &[&str]) -> String {
    let output = data.command(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} went well");
    String::from_utf8(output.stderr).unwrap()
}

/// The command between backquotes.
fn command_in(said: &str) -> String {
    said.split('`')
        .nth(1)
        .unwrap_or_else(|| panic!("no command in {said}"))
        .to_owned()
}

#[test]
fn the_data_folder_is_its_owners_alone_and_a_wider_one_is_refused_with_the_command_that_mends_it() {
    let data = DataDir::new();
    // As an administrator makes it.
    std::fs::create_dir(data.path()).unwrap();
    set_mode(&data.path(), 0o755);
    let serve = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0");
    let server = serve.on(&data);
    assert!(
        server.stderr().contains("it is its owner's alone now"),
        "{}",
        server.stderr()
    );
    let to = server.netflow[0].to_string();
    data.run_simulate(&["--to", &to, "--protocol", "v9", "--flows", "2000"]);
    wait_until("flows are stored", LIMIT, || {
        data.query_numbers("SELECT count(*) AS n FROM flows", ["n"]) != [0]
    });
    server.terminate();
    data.run(&["customer", "add", "--name", "Ada", "--email", "ada@example.net"]);
    assert_private(&data.path());

    let manifest = data.path().join("tables/flows/MANIFEST");
    for (path, wide) in [
        (data.path(), 0o750),
        (data.path().join("ezscale.db"), 0o644),
        (manifest, 0o604),
    ] {
        set_mode(&path, wide);
        let said = fails(&data, &["customer", "list"]);
        assert!(said.contains(&path.display().to_string()), "{said}");
        let mut process = serve.spawn_on(&data);
        assert!(!process.wait_for_end(LIMIT).success());
        assert!(process.stderr().contains("chmod -R go-rwx"), "{}", process.stderr());
        output_of(Command::new("sh").args(["-c", &command_in(&said)]));
        assert_private(&data.path());
        data.run(&["customer", "list"]);
    }
}

#[test]
fn root_writes_nothing_into_the_folder_of_a_services_account() {
    let data = DataDir::made();
    // The account of a service; tests run as root.
    const NOBODY: u32 = 65_534;
    for path in all_of(&data.path()) {
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for arguments in [
        &["customer", "add", "--name", "Ada", "--email", "ada@example.net"][..],
        &["storage", "compact", "--unfinished"],
        &["usage", "--from", "2026-11-29"],
        &["serve"],
    ] {
        let said = fails(&data, arguments);
        assert!(said.contains("`sudo -u nobody ezscale …`"), "{arguments:?}: {said}");
    }
    // What only looks may.
    data.run(&["db", "status"]);
    let found = all_of(&data.path());
    for path in &found {
        let owner = std::fs::symlink_metadata(path).unwrap().uid();
        assert_eq!(owner, NOBODY, "{}", path.display());
    }

    // Who restores must be root, because the folder gets its name by a rename: the account gets what was its.
    for path in found {
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    }
    let (to, empty) = (data.scratch().join("backups"), data.scratch().join("restored"));
    data.run(&["backup", "--to", &to.display().to_string()]);
    std::fs::create_dir(&empty).unwrap();
    std::os::unix::fs::chown(&empty, Some(NOBODY), Some(NOBODY)).unwrap();
    let said = output_of(
        Command::new(BINARY)
            .args(["restore", "--from"])
            .arg(&to)
            .arg("--data-dir")
            .arg(&empty),
    );
    assert!(said.contains("the folder is nobody's"), "{said}");
    for path in all_of(&empty) {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
}

#[test]
fn a_configuration_with_secrets_that_others_can_read_is_refused() {
    let mut data = DataDir::new();
    data.set_config("[payments.stripe]\nsecret_key = 'sk_live_x'\n");
    let config = data.scratch().join("config.toml");
    set_mode(data.scratch(), 0o755);
    set_mode(&config, 0o644);
    let config = config.display().to_string();
    let said = fails(&data, &["init", "--config", &config]);
    assert!(said.contains("can be read by others"), "{said}");
    output_of(Command::new("sh").args(["-c", &command_in(&said)]));
    data.run(&["init", "--config", &config]);
    data.run(&["customer", "list", "--config", &config]);
    // Without secrets it may be read by anybody.
    data.change_config("own_networks = ['198.51.100.0/24']\n");
    set_mode(Path::new(&config), 0o644);
    data.run(&["customer", "list", "--config", &config]);
}

/// A customer with an endpoint; answers its secret.
fn endpoint(data: &DataDir, hooks: &HookServer) -> String {
    data.run(&["customer", "add", "--name", "Bob Ltd", "--email", "bob@example.net"]);
    let added = data.run(&["webhook", "add", &hooks.url(), "--customer", "cus_1"]);
    added.trim().split_once(' ').unwrap().1.to_owned()
}

fn allow_private(data: &DataDir) {
    std::fs::create_dir(data.path()).unwrap();
    std::fs::write(data.path().join("ezscale.toml"), "[webhooks]\nallow_private = true\n").unwrap();
}

/// How many endpoints' secrets each key seals.
fn status(data: &DataDir) -> Vec<(String, String)> {
    let said = data.run(&["secrets", "status"]);
    let rows = said
        .lines()
        .filter(|line| line.trim_start().starts_with("webhook_endpoints.secret"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split_whitespace().collect();
        (cells[1].to_owned(), cells[2].to_owned())
    })
    .collect()
}

async fn publish_one(data: &DataDir) {
    let database = Database::open(&Database::default_url(&data.path())).await.unwrap();
    let mut transaction = database.begin_write().await.unwrap();
    let new = NewEvent {
        event_type: EventType::InvoiceFinalised,
        customer: Some(CustomerId(1)),
        subject: "inv_1".to_owned(),
        payload: json!({
            "invoice": "inv_1", "number": "2023-0001", "amount_minor": 1, "currency": "EUR", "due_at_ms": 0,
        }),
    };
    publish(&mut transaction, new, 0).await.unwrap();
    transaction.commit().await.unwrap();
}

#[test]
fn a_rotation_that_is_killed_anywhere_is_finished_and_the_running_server_goes_on_signing() {
    let hooks = HookServer::start();
    let data = DataDir::new();
    allow_private(&data);
    let secret = endpoint(&data, &hooks);
    let bytes = std::fs::read(data.path().join("ezscale.db")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains(&secret[6..]), "it is sealed");
    let server = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0").on(&data);
    for point in fault::SECRET_POINTS {
        let before = status(&data);
        let killed = data
            .command(&["secrets", "rotate"])
            .env("EZSCALE_FAULT", point)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!killed.status.success(), "{point} is passed");
        let said = data.run(&["secrets", "status"]);
        assert!(said.contains("secrets rotate"), "{point}: {said}");
        // Whatever is half done, everything is readable.
        data.run(&["webhook", "list"]);
        let said = data.run(&["secrets", "rotate"]);
        assert!(said.contains("that was interrupted is finished"), "{point}: {said}");
        let after = status(&data);
        assert_eq!((after.len(), after[0].1.as_str()), (1, "1"), "{point}");
        assert_ne!(after[0].0, before[0].0, "{point}");
        let lines = std::fs::read_to_string(data.path().join("secrets.key")).unwrap();
        assert_eq!(
            lines.lines().filter(|line| !line.starts_with('#')).count(),
            1,
            "{point}"
        );
    }
    // The server has known none of the new keys: it reads the file again.
    tokio::runtime::Runtime::new().unwrap().block_on(publish_one(&data));
    wait_until("an event", LIMIT, || !hooks.requests().is_empty());
    assert_eq!(hooks.requests()[0].signatures_by(&secret), 1);
    let rotated = data.run(&["webhook", "rotate", "whk_1"]);
    assert!(rotated.starts_with("whsec_"), "{rotated}");
    assert!(data.run(&["audit", "list"]).contains("secrets.rotate"));
    server.terminate();
    assert_private(&data.path());
}

#[test]
fn without_its_key_file_the_program_does_not_start_and_says_what_to_do() {
    let hooks = HookServer::start();
    let data = DataDir::new();
    allow_private(&data);
    endpoint(&data, &hooks);
    let key = data.path().join("secrets.key");
    let kept = data.scratch().join("kept.key");
    std::fs::rename(&key, &kept).unwrap();
    let serve = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0");
    let mut process = serve.spawn_on(&data);
    assert!(!process.wait_for_end(LIMIT).success());
    let said = process.stderr();
    assert!(
        said.contains("is missing") && said.contains("put it back from its copy"),
        "{said}"
    );
    assert!(!key.exists());
    // Another installation's.
    let other = DataDir::new();
    other.run(&["customer", "add", "--name", "Eve", "--email", "eve@example.net"]);
    std::fs::copy(other.path().join("secrets.key"), &key).unwrap();
    let said = fails(&data, &["webhook", "list"]);
    assert!(said.contains("does not hold the key"), "{said}");
    std::fs::remove_file(&key).unwrap();
    // Kept elsewhere, and named.
    let config = data.path().join("ezscale.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[secrets]\nkey_file = '{}'\n", kept.display())).unwrap();
    data.run(&["webhook", "list"]);
    std::fs::write(&config, text).unwrap();
    // Lost for good.
    let said = data.run(&["secrets", "discard"]);
    assert!(
        said.contains("whk_1: disabled") && said.contains("nothing was changed"),
        "{said}"
    );
    data.run(&["secrets", "discard", "--yes"]);
    serve.on(&data).terminate();
    data.run(&["webhook", "rotate", "whk_1"]);
    assert!(data.run(&["audit", "list"]).contains("secrets.discard"));
}

#[test]
fn what_was_planted_is_in_no_log_and_in_no_shown_configuration() {
    let mut data = DataDir::new();
    let config = |more: &str| {
        format!(
            "[portal]\npublic_url = 'http://portal.example.net'\n\
             [mail]\nsmtp_url = 'smtp://me:{PLANTED}@127.0.0.1:1?tls=none'\nfrom = 'Ada <billing@ada.example>'\n\
             [webhooks]\nallow_private = true\n\
             [payments.stripe]\nsecret_key = 'sk_{PLANTED}'\nwebhook_secret = 'whsec_{PLANTED}'\nbase_url = 'http://127.0.0.1:1'\n\
             [payments.paypal]\nclient_id = 'id'\nclient_secret = '{PLANTED}'\nbase_url = 'http://127.0.0.1:1'\n\
             [backup]\nurl = 's3://b/p'\naccess_key_id = 'AKIA'\nsecret_access_key = '{PLANTED}'\n\
             [vies]\nenabled = true\nbase_url = 'http://me:{PLANTED}@127.0.0.1:1'\ntimeout_seconds = 1\n\
             [[exporter]]\naddress = '127.0.0.1'\nsnmp = {{ community = '{PLANTED}', interval_seconds = 10, timeout_ms = 100 }}\n{more}"
        )
    };
    data.set_config(&config(""));
    let path = data.scratch().join("config.toml").display().to_string();
    let customer = [
        "customer",
        "add",
        "--name",
        "Bob",
        "--email",
        "bob@example.net",
        "--config",
        &path,
    ];
    data.run(&customer);
    let hook = format!("http://127.0.0.1:1/{PLANTED}");
    let added = data.run(&["webhook", "add", &hook, "--customer", "cus_1", "--config", &path]);
    let secret = added.trim().split_once(' ').unwrap().1.to_owned();
    let server = Start::new("serve")
        .netflow("127.0.0.1:0")
        .http("127.0.0.1:0")
        .arguments(&["--log", "debug"])
        .on(&data);
    let base = server.http.clone().unwrap();
    let to = server.netflow[0].to_string();
    data.run_simulate(&["--to", &to, "--protocol", "v9", "--flows", "300"]);
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    for target in [
        format!("/verify-email/{PLANTED}"),
        format!("/invoices?setup={PLANTED}"),
        format!("/api/v1/usage?token={PLANTED}"),
        format!("/{PLANTED}"),
    ] {
        // Whatever it answers: the log must not repeat it.
        let _ = agent
            .get(format!("{base}{target}"))
            .header("Cookie", format!("ezscale_session={PLANTED}"))
            .header("Authorization", format!("Bearer {PLANTED}"))
            .call()
            .unwrap();
    }
    let form = format!("email=bob%40example.net&password={PLANTED}&csrf_token={PLANTED}");
    let _ = agent
        .post(format!("{base}/signin"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .send(form)
        .unwrap();
    let stripe = agent
        .post(format!("{base}/hooks/stripe"))
        .header("Stripe-Signature", format!("t=1,v1={PLANTED}"))
        .send(format!("{{\"id\":\"{PLANTED}\"}}"))
        .unwrap();
    assert_eq!(stripe.status().as_u16(), 400);
    data.run(&["customer", "email", "cus_1", "new@bob.example", "--config", &path]);
    for mistake in [
        format!("[secrets]\nkey_file = {PLANTED}\n"),
        format!("[storage]\nsecret_access_key = \"{PLANTED}\n"),
    ] {
        let refusals = server.stderr().matches("changed configuration is not used").count();
        data.change_config(&config(&mistake));
        server.signal("HUP");
        wait_until("the configuration is refused", LIMIT, || {
            server.stderr().matches("changed configuration is not used").count() > refusals
        });
        let checked = Command::new(env!("CARGO_BIN_EXE_ezscale"))
            .args(["config", "check", &path])
            .output()
            .unwrap();
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(!checked.status.success() && said.contains("line "), "{said}");
        assert!(!said.contains(PLANTED), "{said}");
    }
    data.change_config(&config(""));
    let log = server.stderr();
    assert!(log.contains("request"), "the log is that of a debug run");
    server.terminate();
    let shown = data.run(&["config", "show", "--config", &path]);
    for text in [&log, &shown] {
        for planted in [PLANTED, &secret] {
            let line = text.lines().find(|line| line.contains(planted));
            assert!(line.is_none(), "{line:?}");
        }
    }
}

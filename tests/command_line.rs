//! The command line as scripts and people use it: every listing in every form, into a pipe that is closed, and every command
//! on a data folder that is not there.
//!
//! The commands come from the program's own man pages: one that is added fails these tests until it is listed here.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::acts::account;
use crate::support::clock;
use crate::support::command::wait_for_exit;
use crate::support::ezscale::{DataDir, run};

/// What needs no data, or makes it: `config` reads a file, `backup` looks where backups are, `simulate` sends, the rest begins
/// something.
const WITHOUT_DATA: &[&str] = &[
    "backup list",
    "backup prune",
    "backup verify",
    "collect",
    "completions",
    "config check",
    "config example",
    "config show",
    "coupon add",
    "customer add",
    "demo",
    "entity add",
    "init",
    "man",
    "plan add",
    "restore",
    "serve",
    "simulate",
    "tax add",
    "user add",
    "webhook add",
];

/// Every other command, with what it asks for.
const ON_DATA: &[(&str, &str)] = &[
    ("approval approve", "apr_1"),
    ("approval list", ""),
    ("approval reject", "apr_1 --reason x"),
    ("approval rules", ""),
    ("approval show", "apr_1"),
    (
        "attack flag",
        "svc_1 --from 2026-01-01T00:00:00Z --to 2026-01-01T01:00:00Z --reason x",
    ),
    ("attack list", ""),
    ("attack revoke", "exc_1"),
    ("attack show", "exc_1"),
    ("audit list", ""),
    ("audit show", "aud_1"),
    ("audit verify", ""),
    ("budget clear", "cus_1"),
    ("budget exclude", "cus_1 svc_1"),
    ("budget include", "cus_1 svc_1"),
    ("budget list", ""),
    ("budget set", "cus_1 10"),
    ("budget show", "cus_1"),
    ("budget unlock", "cus_1 --reason x"),
    ("check truth", ""),
    ("clock confirm", ""),
    ("clock set", "2030-01-01T00:00:00Z"),
    ("clock show", ""),
    ("coupon archive", "cpn_1"),
    ("coupon list", ""),
    ("coupon show", "cpn_1"),
    ("credit grant", "cus_1 10 --for x --reason x"),
    ("credit list", ""),
    ("credit show", "cus_1"),
    ("credit topup", "cus_1"),
    ("customer email", "cus_1 a@example.net"),
    ("customer list", ""),
    ("customer profile", "cus_1"),
    ("customer reseller", "cus_1"),
    ("customer show", "cus_1"),
    ("customer vat-accept", "cus_1 --reason x"),
    ("customer vat-check", "cus_1"),
    ("customer vat-checks", "cus_1"),
    ("db migrate", ""),
    ("db status", ""),
    ("dunning list", ""),
    ("dunning show", "inv_1"),
    ("dunning terms", ""),
    ("entity list", ""),
    ("entity set", "--name x"),
    ("entity show", ""),
    ("event deliver", ""),
    ("event list", ""),
    ("event owner", ""),
    ("event replay", "evt_1 --endpoint whk_1"),
    ("event show", "evt_1"),
    (
        "exporter correct",
        "192.0.2.1 --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z --sampling-rate 10",
    ),
    ("exporter corrections", ""),
    ("exporter list", ""),
    ("exporter show", "192.0.2.1"),
    ("interface list", ""),
    ("interface show", "192.0.2.1 17"),
    ("invoice check", "--all"),
    ("invoice close", ""),
    ("invoice confirm", "cus_1 --reason x"),
    ("invoice credit", "inv_1 --reason x"),
    ("invoice list", ""),
    ("invoice preview", "--customer cus_1"),
    ("invoice show", "inv_1"),
    ("invoice unmeasured", ""),
    ("job history", ""),
    ("job list", ""),
    ("job run", "prune"),
    ("job show", "prune"),
    ("ledger aging", ""),
    ("ledger balance", ""),
    ("ledger check", ""),
    ("ledger list", ""),
    ("ledger show", "txn_1"),
    ("mail list", ""),
    ("mail show", "dlv_1"),
    ("payment charge", "inv_1"),
    ("payment list", ""),
    ("payment methods", "cus_1"),
    ("payment reconcile", ""),
    ("payment record", "inv_1 --amount 1 --reference x"),
    ("payment refund", "pay_1 --amount 1"),
    ("payment reverse", "pay_1 --reason x"),
    ("payment show", "pay_1"),
    ("payment top-up", "cus_1 --amount 1"),
    ("plan archive", "pln_1"),
    ("plan edit", "pln_1 --description x"),
    ("plan list", ""),
    ("plan price", "pln_1 --price 1"),
    ("plan show", "pln_1"),
    ("plan stock", "pln_1"),
    ("price list", ""),
    ("price show", "prc_1"),
    ("query", "SELECT_1"),
    ("replay", "none.pcap"),
    ("secrets discard", ""),
    ("secrets rotate", ""),
    ("secrets status", ""),
    ("service add", "--name x --customer cus_1"),
    ("service assign", "svc_1 --prefix 192.0.2.0/28"),
    ("service list", ""),
    ("service release", "asg_1"),
    ("service show", "svc_1"),
    ("storage", ""),
    ("storage compact", ""),
    ("storage files", "--table flows"),
    ("storage list", ""),
    ("storage retain", ""),
    ("storage show", "flows"),
    ("storage vacuum", ""),
    ("subscription add", "svc_1 --price prc_1"),
    ("subscription cancel", "sub_1"),
    ("subscription change", "sub_1 --price prc_1"),
    ("subscription list", ""),
    ("subscription resume", "sub_1"),
    ("subscription show", "sub_1"),
    ("subscription suspend", "sub_1 --reason x"),
    ("subscription unschedule", "chg_1"),
    ("subscription unsuspend", "sub_1"),
    ("tax end", "tax_1"),
    ("tax list", ""),
    ("tax show", "tax_1"),
    ("usage", "--from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z"),
    ("user disable", "a@example.net"),
    ("user enable", "a@example.net"),
    ("user list", ""),
    ("user reset-password", "a@example.net"),
    ("user reset-two-factor", "a@example.net"),
    ("user sessions", "a@example.net"),
    ("user set-password", "a@example.net"),
    ("user set-role", "a@example.net ops"),
    ("user show", "a@example.net"),
    ("user sign-ins", ""),
    ("user token add", "a@example.net"),
    ("user token list", "a@example.net"),
    ("user token revoke", "tok_1"),
    ("webhook enable", "whk_1"),
    ("webhook list", ""),
    ("webhook remove", "whk_1"),
    ("webhook rotate", "whk_1"),
    ("webhook show", "whk_1"),
];

/// Listings that have rows in [`world`].
const WITH_ROWS: &[&str] = &[
    "attack list",
    "audit list",
    "budget list",
    "coupon list",
    "credit list",
    "customer list",
    "entity list",
    "event list",
    "exporter list",
    "invoice list",
    "ledger aging",
    "ledger balance",
    "ledger list",
    "payment list",
    "plan list",
    "price list",
    "query",
    "service list",
    "storage list",
    "subscription list",
    "tax list",
    "usage",
    "user list",
    "webhook list",
];

fn arguments(words: &'static str, asked: &'static str) -> Vec<&'static str> {
    let asked = asked.split_whitespace().map(|word| match word {
        "SELECT_1" => "SELECT 1 AS one",
        word => word,
    });
    words.split_whitespace().chain(asked).collect()
}

/// A little of everything.
fn world() -> DataDir {
    let data = DataDir::new();
    data.run(&["init"]);
    let config = "[webhooks]\nallow_private = true\n[[exporter]]\naddress = '192.0.2.1'\nname = 'mx1'\n";
    let path = data.path().join("ezscale.toml");
    std::fs::write(&path, config).expect("the data folder is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is the test's own");
    let customer = [
        "customer",
        "add",
        "--name",
        "Acme, \"Inc\"",
        "--email",
        "a@example.net",
        "--currency",
        "EUR",
    ];
    let customer = data.add(&customer, "cus_");
    let service = data.add(&["service", "add", "--name", "web1", "--customer", &customer], "svc_");
    data.run(&["service", "assign", &service, "--prefix", "192.0.2.0/28"]);
    let plan = [
        "plan",
        "add",
        "--name",
        "VPS S",
        "--price",
        "1234.50",
        "--currency",
        "EUR",
    ];
    let price = data.add(&plan, "prc_");
    data.run(&["subscription", "add", &service, "--price", &price]);
    data.run(&["coupon", "add", "TEN", "--percent", "10"]);
    data.run(&["tax", "add", "--country", "DE", "--rate", "19"]);
    data.run(&["webhook", "add", "http://127.0.0.1:9/hook"]);
    data.set_issuer();
    data.run(&["invoice", "close"]);
    data.run(&["payment", "record", "inv_1", "--amount", "10", "--reference", "T-1"]);
    data.run(&[
        "credit", "grant", &customer, "5", "--for", "ticket:1", "--reason", "sorry",
    ]);
    data.run(&["budget", "set", &customer, "5000"]);
    let user = [
        "user",
        "add",
        "--email",
        "a@example.net",
        "--name",
        "Ada",
        "--role",
        "ops",
    ];
    let mut adding = data
        .command(&user)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut password = adding.stdin.take().expect("standard input is piped");
    std::io::Write::write_all(&mut password, b"kettle marble orchard 47\n").expect("it is read");
    drop(password);
    assert!(wait_for_exit(&mut adding, "user add", Duration::from_secs(60)).success());
    let hour = clock::began() - jiff::SignedDuration::from_hours(2);
    let until = (hour + jiff::SignedDuration::from_mins(30)).to_string();
    data.run(&[
        "attack",
        "flag",
        &service,
        "--from",
        &hour.to_string(),
        "--to",
        &until,
        "--reason",
        "flood",
    ]);
    data
}

/// Every command of the program, from its man pages: `plan add`, `usage`.
fn commands() -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    run(&["man", "--to", &folder.path().display().to_string()]);
    let entries = std::fs::read_dir(folder.path()).expect("the pages are there");
    let names = entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let known: Vec<&str> = WITHOUT_DATA
        .iter()
        .copied()
        .chain(ON_DATA.iter().map(|(words, _)| *words))
        .collect();
    let mut found = BTreeSet::new();
    for name in names {
        let name = name
            .trim_end_matches(".1")
            .trim_start_matches("ezscale")
            .trim_start_matches('-');
        // A command's name may have a hyphen of its own.
        let words = known.iter().find(|words| words.replace(' ', "-") == name);
        found.insert(words.map_or(name.to_owned(), |words| (*words).to_owned()));
    }
    found.remove("");
    // Of what has commands beneath it only these are asked, but for `storage`, which is a command too.
    let all = found.clone();
    let prefix = |name: &str| format!("{name}-");
    found.retain(|name| {
        let has_more = all
            .iter()
            .any(|other| other.replace(' ', "-").starts_with(&prefix(&name.replace(' ', "-"))));
        name == "storage" || !has_more
    });
    found
}

#[test]
fn every_command_is_listed_here() {
    let listed: BTreeSet<String> = WITHOUT_DATA
        .iter()
        .copied()
        .chain(ON_DATA.iter().map(|(words, _)| *words))
        .map(str::to_owned)
        .collect();
    let missing: Vec<String> = commands().difference(&listed).cloned().collect();
    assert!(missing.is_empty(), "commands that these tests do not know: {missing:?}");
}

fn help(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().chain(["--help"]).collect();
    run(&words)
}

/// The commands that list: they have CSV.
fn listings() -> Vec<(&'static str, &'static str)> {
    let found: Vec<_> = ON_DATA
        .iter()
        .copied()
        .filter(|(words, _)| {
            let help = help(words);
            help.contains("--format") && help.contains("csv")
        })
        .collect();
    assert!(found.len() >= 30, "{found:?}");
    // What lists is called so, and has every form.
    for (words, _) in ON_DATA.iter().filter(|(words, _)| words.ends_with(" list")) {
        assert!(
            found.iter().any(|(listing, _)| listing == words),
            "{words} has no --format csv"
        );
    }
    found
}

#[test]
fn every_noun_that_is_listed_is_shown() {
    let commands: BTreeSet<&str> = ON_DATA.iter().map(|(words, _)| *words).collect();
    // A token is shown once, when it is made: the list has all else of it.
    let commands_listed = commands.iter().filter(|words| **words != "user token list");
    for noun in commands_listed.filter_map(|words| words.strip_suffix(" list")) {
        let show = format!("{noun} show");
        assert!(commands.contains(show.as_str()), "there is no `ezscale {show}`");
        let help = help(&show);
        assert!(help.contains("--format") && help.contains("json"), "{show}: {help}");
    }
}

#[test]
fn every_listing_says_the_same_as_table_json_and_csv() {
    let data = world();
    for (words, asked) in listings() {
        let of = |format: &str| data.run(&[&arguments(words, asked)[..], &["--format", format]].concat());
        let table = of("table");
        let text = of("json");
        let json: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error}\n{text}"));
        let text = of("csv");
        let mut csv = csv::ReaderBuilder::new().from_reader(text.as_bytes());
        let columns: Vec<String> = csv.headers().expect("a header").iter().map(str::to_owned).collect();
        let rows: Vec<csv::StringRecord> = csv.records().map(|row| row.expect("a row")).collect();
        assert_eq!(rows.len(), json.len(), "{words}: as many rows");
        if WITH_ROWS.contains(&words) {
            assert!(!json.is_empty(), "{words} has rows");
            assert!(
                table.lines().count() > json.len(),
                "{words}: a header and rows\n{table}"
            );
        }
        if words != "query" {
            assert!(
                text.lines().count() == 0 || text.ends_with("\r\n"),
                "{words} ends its lines as RFC 4180 says"
            );
            for column in &columns {
                let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(
                    !column.is_empty() && column.chars().all(is_plain),
                    "{words}: {column:?}"
                );
            }
        }
        for (row, object) in rows.iter().zip(&json) {
            let object = object.as_object().expect("an object");
            let fields: BTreeSet<&String> = object.keys().collect();
            assert_eq!(fields, columns.iter().collect(), "{words}: the same fields");
            for (column, value) in columns.iter().zip(row) {
                match &object[column] {
                    Value::String(text) => assert_eq!(value, text, "{words} {column}"),
                    Value::Null => assert_eq!(value, "", "{words} {column}"),
                    Value::Number(number) => assert_eq!(value, number.to_string(), "{words} {column}"),
                    Value::Bool(flag) => assert_eq!(value, flag.to_string(), "{words} {column}"),
                    // Settings and lists are shown in their own way.
                    Value::Array(_) | Value::Object(_) => {}
                }
            }
        }
    }
    let invoices: Value = serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("JSON");
    assert_eq!(
        invoices[0]["total"], "1234.50",
        "an exact decimal in text, with its currency: {invoices}"
    );
    assert_eq!(invoices[0]["currency"], "EUR");
    assert_eq!(invoices[0]["customer_name"], "Acme, \"Inc\"");
    // Figures stand to the right, and what no terminal has room for is left to JSON and CSV.
    let table = data.run(&["invoice", "list"]);
    let (head, row) = table.split_once('\n').expect("a header and a row");
    let end = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
    assert_eq!(end(head, "TOTAL"), end(row, "EUR 1,234.50"), "{table}");
    for words in WITH_ROWS.iter().filter(|words| words.ends_with(" list")) {
        let table = data.run(&words.split_whitespace().collect::<Vec<_>>());
        let width = table.lines().map(|line| line.chars().count()).max();
        assert!(width.is_some_and(|width| width <= 150), "{words}:\n{table}");
    }
    // What there is none of is null.
    let events: Value = serde_json::from_str(&data.run(&["audit", "list", "--format", "json"])).expect("JSON");
    assert_eq!(events[0]["ip"], Value::Null, "a command has none: {events}");
}

#[test]
fn everything_that_is_shown_is_an_object_in_json() {
    let data = world();
    let mut shown = 0;
    for (words, asked) in ON_DATA.iter().filter(|(words, _)| words.ends_with(" show")) {
        let command = arguments(words, asked);
        let json = data
            .command(&command)
            .args(["--format", "json"])
            .output()
            .expect("the binary runs");
        if !json.status.success() {
            // Of what this world has none.
            let said = said(&json);
            assert!(said.contains("error:") && !said.contains("panicked"), "{words}: {said}");
            continue;
        }
        let object: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|error| panic!("{words}: {error}"));
        assert!(object.is_object(), "{words}: {object}");
        let empty = object
            .as_object()
            .into_iter()
            .flatten()
            .find(|(_, value)| **value == "");
        assert!(
            *words == "config show" || empty.is_none(),
            "{words}: what there is none of is null, not {empty:?}"
        );
        assert!(!data.run(&command).is_empty(), "{words}");
        shown += 1;
    }
    assert!(shown >= 15, "{shown} of them are in this world");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `ezscale … | head -1`, whose reader is gone before anything is written.
fn into_a_closed_pipe(command: &mut Command, what: &str) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let status = wait_for_exit(&mut child, what, Duration::from_secs(60));
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("standard error is piped");
    std::io::Read::read_to_string(&mut pipe, &mut stderr).expect("it is text");
    assert!(status.success(), "{what}: {status}\n{stderr}");
    for word in ["panicked", "Broken pipe", "os error"] {
        assert!(!stderr.contains(word), "{what}: {stderr}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_ends_nothing_with_a_panic() {
    let data = world();
    for (words, asked) in listings() {
        for format in ["table", "json", "csv"] {
            let mut command = data.command(&arguments(words, asked));
            into_a_closed_pipe(
                command.args(["--format", format]),
                &format!("{words} --format {format}"),
            );
        }
    }
    for words in [
        "config example",
        "config show",
        "ledger check",
        "invoice check --all",
        "clock show",
        "invoice show inv_1",
    ] {
        let mut command = data.command(&words.split_whitespace().collect::<Vec<_>>());
        if words == "config example" {
            command = Command::new(env!("CARGO_BIN_EXE_ezscale"));
            command.args(["config", "example"]);
        }
        into_a_closed_pipe(&mut command, words);
    }
    // More than a pipe holds: the writer is in the middle when the reader goes.
    let many = "SELECT * FROM generate_series(1, 200000)";
    for format in ["table", "json", "csv"] {
        into_a_closed_pipe(&mut data.command(&["query", many, "--format", format]), format);
    }
    // And what does its work to the end although nobody reads what it says.
    let mut command = data.command(&["customer", "add", "--name", "Second", "--email", "b@example.net"]);
    into_a_closed_pipe(&mut command, "customer add");
    assert!(data.run(&["customer", "list"]).contains("Second"));
    // Both outputs gone.
    let mut child = data
        .command(&["customer", "list", "--log", "debug"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop((child.stdout.take(), child.stderr.take()));
    let status = wait_for_exit(&mut child, "customer list", Duration::from_secs(60));
    assert!(status.success(), "{status}");
}

/// clap would list what the environment gave as if it had to be typed.
#[test]
fn a_usage_line_needs_nothing_that_the_environment_gave() {
    let call = |arguments: &[&str], variable: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ezscale"));
        command.args(arguments).env("EZSCALE_LOG", "warn").env(variable, value);
        let output = command.output().expect("the binary runs");
        assert!(!output.status.success(), "{arguments:?}");
        said(&output)
    };
    for (arguments, why) in [
        (&["service", "list", "--colour"][..], "unexpected argument '--colour'"),
        (&["service", "show"], "required arguments were not provided"),
    ] {
        let text = call(arguments, "EZSCALE_CONFIG", "/nowhere.toml");
        assert!(text.contains(why) && text.contains("Usage:"), "{text}");
        assert!(!text.contains("--config") && !text.contains("--log"), "{text}");
    }
    // What is wrong with the environment is said.
    let text = call(&["service", "list"], "EZSCALE_LOG_FORMAT", "loud");
    assert!(text.contains("'loud'"), "{text}");
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let data = world();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let output = data
        .command(&["customer", "list"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("the binary runs");
    assert!(!output.status.success());
    assert!(
        said(&output).contains("write standard output: No space left"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_data_folder_that_is_not_there_is_an_error_and_not_made() {
    let data = DataDir::new();
    for (words, asked) in ON_DATA {
        let output = data
            .command(&arguments(words, asked))
            .output()
            .expect("the binary runs");
        let said = said(&output);
        assert!(!output.status.success(), "{words}: {said}");
        assert!(said.contains("does not exist"), "{words}: {said}");
        assert!(
            said.contains("ezscale init") && said.contains("--data-dir"),
            "{words}: {said}"
        );
        assert!(!data.path().exists(), "{words} made the folder");
    }
    // A folder that holds something else is none either.
    std::fs::create_dir(data.path()).expect("the test's directory is writable");
    let output = data.command(&["customer", "list"]).output().expect("the binary runs");
    assert!(said(&output).contains("holds no data"), "{}", said(&output));
    let left = std::fs::read_dir(data.path()).expect("readable").count();
    assert_eq!(left, 0, "nothing was put into it");
}

#[test]
fn what_adds_something_makes_the_data_folder() {
    for words in [
        vec!["init"],
        vec!["customer", "add", "--name", "A", "--email", "a@example.net"],
        vec!["plan", "add", "--name", "A", "--price", "1"],
        vec!["coupon", "add", "A", "--percent", "1"],
        vec!["tax", "add", "--country", "DE", "--rate", "19"],
        vec![
            "entity",
            "add",
            "--name",
            "A",
            "--country",
            "DE",
            "--number-prefix",
            "A",
        ],
    ] {
        let data = DataDir::new();
        data.run(&words);
        assert!(data.path().join("ezscale.db").is_file(), "{words:?}");
        data.run(&["customer", "list"]);
    }
}

/// `docs/errors.md` and `docs/command-line.md` say them.
#[test]
fn the_exit_code_tells_what_kind_of_thing_went_wrong() {
    let data = DataDir::made();
    data.run(&["coupon", "add", "SPRING", "--percent", "10"]);
    for (words, code) in [
        (&["plan", "show", "pln_99"][..], 4),
        (&["coupon", "add", "SPRING", "--percent", "10"], 3),
        (&["plan", "list", "--nonsense"], 2),
        (&["query", "SELECT nothing FROM nowhere"], 3),
        (&["plan", "list", "--config", "/nowhere/config.toml"], 1),
        (&["plan", "list"], 0),
    ] {
        let output = data.command(words).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
    }
}

#[test]
fn a_setting_of_another_model_is_refused() {
    let data = DataDir::new();
    let plan = ["plan", "add", "--name", "A", "--price", "1"];
    for (more, expected) in [
        (
            "--model percentile --included 10",
            "--included does not fit --model percentile",
        ),
        ("--model percentile --unit GB", "--commit-mbps"),
        (
            "--model transfer --commit-mbps 10",
            "--commit-mbps does not fit --model transfer",
        ),
        ("--model flat --mode max", "--mode does not fit --model flat"),
        ("--preset free --included 10", "cannot be used with"),
    ] {
        let more: Vec<&str> = more.split_whitespace().collect();
        let output = data
            .command(&[&plan[..], &more].concat())
            .output()
            .expect("the binary runs");
        assert!(!output.status.success(), "{more:?}");
        assert!(said(&output).contains(expected), "{more:?}: {}", said(&output));
        assert!(!data.path().exists(), "{more:?} made nothing");
    }
    let made = data.add(
        &[&plan[..], &["--model", "percentile", "--commit-mbps", "100"]].concat(),
        "pln_",
    );
    let shown = data.run(&["plan", "show", &made]);
    assert!(shown.contains("100") && shown.contains("Mbit/s"), "{shown}");

    // What the catalog becomes by commands is in the audit log.
    data.run(&["plan", "price", &made, "--price", "2", "--usage-rate", "1.5"]);
    // A new version without a usage price keeps it; a first one of a cycle has none to keep.
    let kept = data.run(&["plan", "price", &made, "--price", "2.5"]);
    let kept = data.run(&["price", "show", kept.trim(), "--format", "json"]);
    assert!(kept.contains("1.5"), "{kept}");
    let yearly = ["plan", "price", &made, "--price", "20", "--months", "12"];
    let output = data.command(&yearly).output().expect("the binary runs");
    assert!(said(&output).contains("0 charges nothing"), "{}", said(&output));
    let past = ["plan", "price", &made, "--price", "3", "--from", "2020-01-01T00:00:00Z"];
    let output = data.command(&past).output().expect("the binary runs");
    assert!(said(&output).contains("holds from today"), "{}", said(&output));
    data.run(&["plan", "stock", &made, "7"]);
    data.run(&["coupon", "add", "TEN", "--percent", "10"]);
    data.run(&["coupon", "archive", "cpn_1"]);
    data.run(&["plan", "archive", &made]);
    let log: Vec<Value> = serde_json::from_str(&data.run(&["audit", "list", "--format", "json"])).expect("JSON");
    let actions: Vec<&str> = log.iter().rev().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(
        actions,
        [
            "plan.create",
            "price.add",
            "price.add",
            "plan.stock",
            "coupon.create",
            "coupon.archive",
            "plan.archive"
        ]
    );
    assert!(log.iter().all(|entry| entry["actor"] == account()), "{log:?}");
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        for word in ["subscription", "completions", "reset-two-factor"] {
            assert!(script.contains(word), "{shell} knows {word}");
        }
    }
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    run(&["man", "--to", &folder.path().display().to_string()]);
    let page = |name: &str| {
        std::fs::read_to_string(folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("ezscale.1").starts_with(".ie"), "{}", &page("ezscale.1")[..200]);
    let add = page("ezscale-plan-add.1");
    assert!(add.contains("commit") && add.contains("ezscale plan add"), "{add}");
    let assign = page("ezscale-service-assign.1").replace('\\', "");
    for expected in [
        "[--prefix <PREFIX>]",
        "[<SERVICE>]",
        "EZSCALE_CONFIG",
        "EZSCALE_DATA_DIR",
        "EZSCALE_DATABASE",
    ] {
        assert!(assign.contains(expected), "{expected}: {assign}");
    }
}

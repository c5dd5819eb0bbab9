//! Background jobs with the built binary: listed, run by a command with and without a server, taken over from a process that was
//! killed, and shown to operations.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::acts::account;
use crate::support::command::Background;
use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::http::Person;
use crate::support::wait::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery";

fn rows(data: &DataDir, arguments: &[&str]) -> Vec<Value> {
    let printed = data.run(&[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("an array of objects ({error}): {printed}"))
}

/// The job of a name, of the first instance.
fn listed(data: &DataDir, name: &str) -> Option<Value> {
    let all = rows(data, &["job", "list"]);
    all.into_iter().find(|job| job["job"] == name)
}

fn process_of(data: &DataDir, name: &str) -> Option<String> {
    listed(data, name)?["process"].as_str().map(str::to_owned)
}

fn refused(data: &DataDir, arguments: &[&str]) -> String {
    let output = data.command(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} is refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn serve(data: &DataDir) -> Ezscale {
    Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0").on(data)
}

/// Adds somebody of the staff.
fn add_user(data: &DataDir, role: &str) {
    let email = format!("{role}@example.net");
    let mut add = data.command(&["user", "add", "--email", &email, "--name", role, "--role", role]);
    let mut added = add.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(added.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(added.wait().unwrap().success());
}

#[test]
fn a_command_runs_a_job_where_no_process_does_and_it_is_recorded() {
    let data = DataDir::made();
    assert_eq!(rows(&data, &["job", "list"]).len(), 0);
    let ran = data.run(&["job", "run", "prune"]);
    assert_eq!(ran.trim(), "prune succeeded: nothing to do");
    let prune = listed(&data, "prune").unwrap();
    assert_eq!(
        (&prune["state"], &prune["last_outcome"]),
        (&"no process".into(), &"succeeded".into())
    );
    assert_eq!(prune["schedule"], "every 1 h");
    let runs = rows(&data, &["job", "history", "prune"]);
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&runs[0]["cause"], &runs[0]["outcome"]),
        (&"request".into(), &"succeeded".into())
    );
    let csv = data.run(&["job", "history", "--outcome", "succeeded", "--format", "csv"]);
    assert!(csv.starts_with("id,job,cause,started_at,ended_at,outcome,did"), "{csv}");
    assert_eq!(rows(&data, &["job", "history", "--outcome", "failed"]).len(), 0);
    let audited = data.run(&["audit", "list", "--action", "job.run"]);
    assert!(audited.contains("prune") && audited.contains(&account()), "{audited}");
    let unknown = refused(&data, &["job", "run", "prunes"]);
    assert!(
        unknown.contains("no job is called \"prunes\"") && unknown.contains("lifecycle"),
        "{unknown}"
    );
}

#[test]
fn a_server_runs_what_a_command_asks_for() {
    let data = DataDir::made();
    let server = serve(&data);
    wait_until("the jobs to be known", LIMIT, || {
        listed(&data, "lifecycle").is_some_and(|job| job["last_outcome"] == "succeeded")
    });
    let jobs = rows(&data, &["job", "list"]);
    let names: Vec<&str> = jobs.iter().map(|job| job["job"].as_str().unwrap()).collect();
    for name in [
        "assignments",
        "billing_clock",
        "close",
        "collect",
        "configuration",
        "dispatch_mail",
        "mail",
        "traffic",
        "truth",
        "usage",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let ran = data.run(&["job", "run", "close"]);
    assert_eq!(ran.trim(), "close succeeded: nothing to do");
    // Also a job that belongs to its process.
    let ran = data.run(&["job", "run", "configuration"]);
    assert!(ran.starts_with("configuration succeeded"), "{ran}");
    let runs = rows(&data, &["job", "history", "close"]);
    let asked = runs.iter().find(|run| run["cause"] == "request").unwrap();
    assert_eq!(asked["process"].as_str(), process_of(&data, "close").as_deref());
    server.terminate();
    // It has given back what it had: nobody waits.
    let ran = data.run(&["job", "run", "close"]);
    assert_eq!(ran.trim(), "close succeeded: nothing to do");
    let bound = refused(&data, &["job", "run", "configuration"]);
    assert!(bound.contains("belongs to a process"), "{bound}");
}

#[test]
fn a_second_process_on_the_database_takes_over_from_one_that_was_killed() {
    let data = DataDir::made();
    let first = serve(&data);
    wait_until("the first to run the jobs of the books", LIMIT, || {
        listed(&data, "lifecycle").is_some_and(|job| job["last_outcome"] == "succeeded")
    });
    let before = process_of(&data, "lifecycle").unwrap();

    let mut beside = DataDir::new();
    let of_first = |file: &str| data.path().join(file).display().to_string();
    beside.set_config(&format!(
        "database = 'sqlite://{}'\n[secrets]\nkey_file = '{}'\n",
        of_first("ezscale.db"),
        of_first("secrets.key")
    ));
    let second = serve(&beside);
    // Each has the jobs of its own folder; those of the books stay where they are.
    wait_until("both to have jobs of their folders", LIMIT, || {
        let jobs = rows(&data, &["job", "list"]);
        let usage: Vec<&Value> = jobs.iter().filter(|job| job["job"] == "usage").collect();
        usage.len() == 2 && usage.iter().all(|job| job["state"] == "ok")
    });
    assert_eq!(process_of(&data, "lifecycle").as_ref(), Some(&before));

    first.kill9();
    let after = wait_for("the second to take over", LIMIT, || {
        process_of(&data, "lifecycle").filter(|process| !process.is_empty() && *process != before)
    });
    data.run(&["job", "run", "lifecycle"]);
    let runs = rows(&data, &["job", "history", "lifecycle", "--limit", "1"]);
    assert_eq!(runs[0]["process"], after.as_str());
    let ready = Person::new("127.0.0.1", second.http.as_deref().unwrap())
        .get("/readyz")
        .unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    second.terminate();
}

#[test]
fn operations_and_admins_see_the_jobs_and_run_them_and_nobody_else() {
    let data = DataDir::made();
    for role in ["ops", "admin", "network", "finance"] {
        add_user(&data, role);
    }
    let server = serve(&data);
    let base = server.http.clone().unwrap();
    let mut nobody = Person::new("127.0.0.1", &base);
    assert_eq!(nobody.get("/ops/jobs").unwrap().status, 303);
    for role in ["network", "finance"] {
        let mut person = Person::new("127.0.0.1", &base);
        person.sign_in(&format!("{role}@example.net"), PASSWORD);
        assert_eq!(person.get("/ops/jobs").unwrap().status, 403, "{role}");
        assert_eq!(person.get("/ops/jobs/close").unwrap().status, 403, "{role}");
    }
    for role in ["ops", "admin"] {
        let mut person = Person::new("127.0.0.1", &base);
        person.sign_in(&format!("{role}@example.net"), PASSWORD);
        let page = wait_for("the jobs to be known", LIMIT, || {
            let page = person.get("/ops/jobs").unwrap();
            assert_eq!(page.status, 200, "{role}: {}", page.body);
            page.body.contains("Invoices due charges").then_some(page)
        });
        assert!(page.body.contains("Run now"), "{}", page.body);
        let page = person.get("/ops/jobs/prune").unwrap();
        let (csrf, token) = (page.hidden("csrf_token"), page.hidden("form_token"));
        let without = person.post("/ops/jobs/prune/run", &[("form_token", &token)]).unwrap();
        assert_eq!(without.status, 403, "{role}");
        let fields = [("csrf_token", csrf.as_str()), ("form_token", token.as_str())];
        let asked = person.post("/ops/jobs/prune/run", &fields).unwrap();
        assert_eq!(
            (asked.status, asked.header("location")),
            (303, "/ops/jobs/prune?done=run"),
            "{role}"
        );
    }
    wait_until("what was asked for to run", LIMIT, || {
        let runs = rows(&data, &["job", "history", "prune"]);
        runs.iter()
            .any(|run| run["cause"] == "request" && run["outcome"] == "succeeded")
    });
    for role in ["ops", "admin"] {
        let audited = data.run(&[
            "audit",
            "list",
            "--action",
            "job.run",
            "--actor",
            &format!("{role}@example.net"),
        ]);
        assert!(audited.contains("prune"), "{role}: {audited}");
    }
    let names = [
        "runs_total",
        "failures_total",
        "last_success_timestamp_seconds",
        "last_duration_seconds",
        "running_seconds",
        "late",
    ];
    wait_until("the metrics of a job", LIMIT, || {
        let metrics = nobody.get("/metrics").unwrap().body;
        let has = |name: &&str| metrics.contains(&format!("ezscale_job_{name}{{job=\"lifecycle\"}}"));
        names.iter().all(has)
    });
    server.terminate();
}

#[test]
fn a_job_that_is_switched_off_says_so_and_cannot_be_asked_for() {
    let mut data = DataDir::made();
    add_user(&data, "ops");
    data.set_config("[billing]\nclose_automatically = false\n");
    let server = serve(&data);
    let close = wait_for("the jobs to be known", LIMIT, || {
        let runs = listed(&data, "lifecycle").is_some_and(|job| job["last_outcome"] == "succeeded");
        listed(&data, "close").filter(|_| runs)
    });
    assert_eq!(close["state"], "switched off");
    assert_eq!(listed(&data, "vat_numbers").unwrap()["state"], "switched off");
    // What it came before goes on.
    data.run(&["job", "run", "collect"]);
    for (job, instead) in [
        ("close", "`ezscale invoice close`"),
        ("vat_numbers", "[vies] enabled = false"),
    ] {
        let said = refused(&data, &["job", "run", job]);
        assert!(said.contains("switched off") && said.contains(instead), "{said}");
    }
    let mut person = Person::new("127.0.0.1", server.http.as_deref().unwrap());
    person.sign_in("ops@example.net", PASSWORD);
    let page = person.get("/ops/jobs").unwrap();
    assert!(page.body.contains("switched off"), "{}", page.body);
    assert!(page.body.contains("Run collect now"), "{}", page.body);
    assert!(!page.body.contains("Run close now"), "{}", page.body);
    let other = person.get("/ops/jobs/prune").unwrap();
    let (csrf, token) = (other.hidden("csrf_token"), other.hidden("form_token"));
    let fields = [("csrf_token", csrf.as_str()), ("form_token", token.as_str())];
    let asked = person.post("/ops/jobs/close/run", &fields).unwrap();
    assert_eq!(asked.status, 422, "{}", asked.body);
    assert!(asked.body.contains("ezscale invoice close"), "{}", asked.body);
    server.terminate();
    // Nor does a command run it by itself.
    let config = data.scratch().join("config.toml").display().to_string();
    let said = refused(&data, &["job", "run", "close", "--config", &config]);
    assert!(said.contains("`ezscale invoice close`"), "{said}");

    // Switched on again it runs by its schedule, and nothing that was refused comes after all.
    data.set_config("[billing]\nclose_automatically = true\n");
    let server = serve(&data);
    wait_until("it to be on", LIMIT, || {
        listed(&data, "close").is_some_and(|job| job["state"] == "ok")
    });
    let runs = rows(&data, &["job", "history", "close"]);
    assert!(runs.iter().all(|run| run["cause"] != "request"), "{runs:?}");
    let audited = data.run(&["audit", "list", "--action", "job.run"]);
    assert!(!audited.contains("close"), "{audited}");
    server.terminate();
}

/// A job that is due every second anyway: a run that began for its schedule served a request, and who asked waited for ever.
#[test]
fn everybody_who_asks_at_once_is_answered() {
    let data = DataDir::made();
    let server = serve(&data);
    wait_until("the jobs to be known", LIMIT, || {
        listed(&data, "billing_clock").is_some_and(|job| job["last_outcome"] == "succeeded")
    });
    for _ in 0..3 {
        let asked = |number: i32| {
            let mut run = data.command(&["job", "run", "billing_clock"]);
            Background::start(&format!("run-{number}"), &mut run, data.scratch())
        };
        let mut asked: Vec<Background> = (0..6).map(asked).collect();
        for one in &mut asked {
            assert!(one.wait_for_exit(LIMIT).success());
        }
    }
    server.terminate();
}

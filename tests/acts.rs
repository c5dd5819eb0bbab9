//! Every command that changes something leaves exactly one entry in the audit log, in the name of the account that runs it, or two
//! where it takes several transactions: what began, and what came of it. What only reads leaves none. The commands are taken from
//! the program's own definition (its man pages): one that is in no list here fails.

mod world;

use schemas::db::Database;
use serde_json::Value;

use crate::support::ezscale::{self, DataDir};
use crate::upgrade::folder_of_7bef553;
pub(crate) use world::{World, account};
use world::{day, save_card, with_password};

/// Commands that change nothing of their own, each as it is called: they show, print, or compute anew what can be computed.
const READS: &[&str] = &[
    "approval list",
    "approval rules",
    "approval show",
    "attack list",
    "attack show",
    "audit list",
    "audit show",
    "audit verify",
    "backup list",
    "backup verify",
    "budget list",
    "budget show",
    "check truth",
    "clock show",
    "completions",
    "config check",
    "config example",
    "config show",
    "coupon list",
    "coupon show",
    "credit list",
    "credit show",
    "customer list",
    "customer show",
    "customer vat-checks",
    "db status",
    "dunning list",
    "dunning show",
    "dunning terms",
    "entity list",
    "entity show",
    "event list",
    "event show",
    "exporter corrections",
    "exporter list",
    "exporter show",
    "interface list",
    "interface show",
    "invoice check",
    "invoice list",
    "invoice preview",
    "invoice show",
    "invoice unmeasured",
    "job history",
    "job list",
    "job show",
    "ledger aging",
    "ledger balance",
    "ledger check",
    "ledger list",
    "ledger show",
    "mail list",
    "mail show",
    "man",
    "payment list",
    "payment methods",
    "payment show",
    "plan list",
    "plan show",
    "price list",
    "price show",
    "query",
    "secrets status",
    "service list",
    "service show",
    // It sends datagrams elsewhere.
    "simulate",
    "storage",
    "storage files",
    "storage list",
    "storage show",
    "subscription list",
    "subscription show",
    "tax list",
    "tax show",
    "usage",
    "user list",
    "user show",
    "user sign-ins",
    "user token list",
    "webhook list",
    "webhook show",
];

/// Commands that run until they are stopped. What their jobs do is nobody's act; a test clock that `serve --clock` begins is one,
/// and driven below.
const SERVERS: &[&str] = &["collect", "demo", "serve"];

/// A command that changes something, and the entries it leaves.
struct Case {
    command: &'static str,
    /// `payment.charge` or, of what takes several transactions, `payment.charge+`: then `payment.charge.done` follows.
    action: &'static str,
    subject: &'static str,
    /// What must be there before it.
    prepare: fn(&World),
}

const fn case(command: &'static str, action: &'static str, subject: &'static str) -> Case {
    Case {
        command,
        action,
        subject,
        prepare: |_| {},
    }
}

impl Case {
    const fn after(self, prepare: fn(&World)) -> Case {
        Case { prepare, ..self }
    }
}

/// In order, on one data folder. Words in capitals are places and times: see [`World::words`].
const CASES: &[Case] = &[
    case("init --test-books", "books.mark_test", "books"),
    case(
        "customer add --name Acme --email a@example.net --currency EUR --country FR",
        "customer.create",
        "cus_1",
    ),
    case(
        "customer profile cus_1 --city Paris --vat-id FR40303265045",
        "customer.billing_profile",
        "cus_1",
    ),
    case("customer email cus_1 b@example.net", "customer.email", "cus_1"),
    case("customer vat-check cus_1", "customer.vat_check+", "cus_1"),
    case(
        "customer vat-accept cus_1 --reason register",
        "customer.vat_accept",
        "cus_1",
    ),
    case("service add --name web1 --customer cus_1", "service.create", "svc_1"),
    case(
        "service assign svc_1 --prefix 192.0.2.0/28",
        "service.assign",
        "svc_1",
    ),
    case("service release asg_1", "service.release", "asg_1"),
    case("service add --file SERVICES", "service.create_list", "services"),
    case(
        "service assign --file ASSIGNMENTS",
        "service.assign_list",
        "services",
    ),
    case(
        "plan add --name VPS --price 10 --currency EUR",
        "plan.create",
        "pln_1",
    ),
    case(
        "plan price pln_1 --price 12 --usage-rate 0 --currency USD --all-cycles",
        "price.add",
        "pln_1",
    ),
    case("plan edit pln_1 --description small", "plan.edit", "pln_1"),
    case("plan stock pln_1 70", "plan.stock", "pln_1"),
    case("coupon add TEN --percent 10", "coupon.create", "cpn_1"),
    case("coupon archive cpn_1", "coupon.archive", "cpn_1"),
    case("tax add --country FR --rate 20 --from 2020-01-01", "tax.add", "tax_1"),
    case("tax end tax_1 --at 2040-01-01", "tax.end", "tax_1"),
    case(
        "entity add --name B --country DE --number-prefix B",
        "entity.create",
        "ent_2",
    ),
    case(
        "entity set --name C --street S --city Paris --country FR",
        "entity.change",
        "ent_1",
    ),
    case("webhook add http://127.0.0.1:9/hook", "webhook.add", "whk_1"),
    case(
        "webhook add --discord http://127.0.0.1:9/api/webhooks/1/x",
        "webhook.add",
        "whk_2",
    ),
    case("subscription add svc_1 --price prc_1", "subscription.add", "sub_1"),
    case(
        "subscription change sub_1 --price prc_1 --quantity 2",
        "subscription.change",
        "sub_1",
    ),
    case(
        "subscription change sub_1 --price prc_1 --quantity 3 --at LATER",
        "subscription.schedule",
        "sub_1",
    ),
    case(
        "subscription unschedule chg_1",
        "subscription.unschedule",
        "sub_1",
    ),
    case(
        "subscription suspend sub_1 --reason x",
        "subscription.suspend",
        "sub_1",
    ),
    case("subscription unsuspend sub_1", "subscription.unsuspend", "sub_1"),
    case("subscription cancel sub_1", "subscription.cancel", "sub_1"),
    case("subscription resume sub_1", "subscription.resume", "sub_1"),
    case("invoice close", "invoice.close+", "all customers"),
    case(
        "payment record inv_1 --amount 1 --reference T-1",
        "payment.record_transfer",
        "inv_1",
    ),
    case(
        "payment reverse pay_1 --reason mistaken",
        "payment.reverse",
        "pay_1",
    ),
    case("payment charge inv_1", "payment.charge+", "inv_1").after(save_card),
    case("payment top-up cus_1 --amount 25", "payment.top_up+", "cus_1"),
    case(
        "payment record cus_1 --amount 3 --reference T-2",
        "payment.record_transfer",
        "cus_1",
    ),
    case(
        "payment refund PAID --amount 1 --reference R-1",
        "payment.refund",
        "PAID",
    ),
    case(
        "payment refund pay_2 --amount 1 --credit-note",
        "payment.refund",
        "pay_2",
    ),
    case("payment reconcile", "payment.reconcile+", "payments"),
    case(
        "invoice credit inv_1 --amount 1 --reason sorry",
        "invoice.credit",
        "inv_1",
    ),
    case(
        "credit grant cus_1 5 --for t:1 --reason sorry",
        "credit.grant",
        "cus_1",
    ),
    case(
        "credit topup cus_1 --threshold 10 --amount 50",
        "top_up.set",
        "cus_1",
    ),
    case("credit topup cus_1 --off", "top_up.disable", "cus_1"),
    case("budget set cus_1 5000", "budget.set", "cus_1"),
    case("budget exclude cus_1 svc_1", "budget.exclude", "cus_1"),
    case("budget include cus_1 svc_1", "budget.include", "cus_1"),
    case("budget unlock cus_1 --reason called", "budget.unlock", "cus_1"),
    case("budget clear cus_1", "budget.clear", "cus_1"),
    case(
        "attack flag svc_1 --from 2026-01-01 --to 2026-01-02 --reason flood",
        "usage.exclude",
        "exc_1",
    ),
    case("attack revoke exc_1", "usage.include", "exc_1"),
    case(
        "user add --email ada@example.net --name Ada --role admin",
        "user.add",
        "usr_1",
    ),
    case(
        "user token add usr_1 --name laptop",
        "user.token_add",
        "usr_1",
    ),
    case("user token revoke tok_1", "user.token_revoke", "usr_1"),
    case(
        "user add --email cus@example.net --name Cus --role customer --customer cus_1",
        "user.add",
        "usr_2",
    ),
    case(
        "user set-role cus@example.net ops",
        "user.set_role",
        "usr_2",
    ),
    case("user disable usr_2", "user.disable", "usr_2"),
    case("user enable usr_2", "user.enable", "usr_2"),
    case("user set-password usr_2", "user.set_password", "usr_2"),
    case(
        "user reset-password usr_2",
        "user.password_reset_request",
        "usr_2",
    ),
    case(
        "user reset-two-factor usr_2",
        "user.two_factor_reset",
        "usr_2",
    )
    .after(|world| world.sql("UPDATE users SET two_factor_at_ms = 1 WHERE id = 2")),
    case(
        "user sessions usr_2 --revoke-all",
        "user.end_sessions",
        "usr_2",
    )
    .after(|world| {
        world.sql(
            "INSERT INTO sessions (token_hash, user_id, csrf_token, created_at_ms, last_seen_at_ms, expires_at_ms, user_agent, ip) \
             VALUES ('t', 2, 'x', 0, 0, 9000000000000, '', '')",
        );
    }),
    case("event deliver", "event.deliver+", "outbox"),
    case("event replay evt_1 --endpoint whk_1", "event.replay", "whk_1"),
    case("event owner boss@example.net", "owner.email", "owner"),
    case("webhook rotate whk_1", "webhook.rotate", "whk_1"),
    case("webhook enable whk_1", "webhook.enable", "whk_1"),
    case("webhook remove whk_1", "webhook.remove", "whk_1"),
    case("replay CAPTURE", "flows.replay+", "CAPTURE"),
    case(
        "exporter correct 198.51.100.1 --from DAY --to NEXT --sampling-rate 1000 --apply --reason wrong",
        "exporter.correct",
        "cor_1",
    ),
    case("storage compact --unfinished", "storage.compact+", "storage"),
    case("storage vacuum", "storage.vacuum+", "storage"),
    case("storage retain", "storage.retain+", "storage"),
    case("clock confirm", "billing.confirm_clock", "clock").after(|world| {
        world.sql(
            "INSERT INTO billing_clock (id, good_ms, stopped_at_ms) VALUES (1, 1, 2) \
             ON CONFLICT (id) DO UPDATE SET good_ms = 1, stopped_at_ms = 2",
        );
    }),
    case(
        "invoice confirm cus_1 --reason outage",
        "invoice.confirm_coverage",
        "cus_1",
    )
    .after(|world| {
        world.sql(
            "INSERT INTO unmeasured_periods (customer_id, due_ms, period_start_ms, period_end_ms, reason, coverage_percent, \
             held_at_ms, note) VALUES (1, 1, 0, 1, 'low_coverage', 50, 1, '')",
        );
    }),
    case("customer reseller cus_1", "customer.reseller", "cus_1"),
    case("plan archive pln_1", "plan.archive", "pln_1"),
    case("job run prune", "job.run", "prune"),
    case("secrets rotate", "secrets.rotate+", "secrets"),
    case("backup --to BACKUPS", "backup.create+", "BACKUPS"),
    case("backup prune --keep 1 --to BACKUPS", "backup.prune+", "BACKUPS"),
    case("secrets discard --yes", "secrets.discard", "").after(|world| {
        std::fs::remove_file(world.data.path().join("secrets.key")).expect("the key file is there");
    }),
];

/// Driven by tests of their own, on other folders.
const ELSEWHERE: &[&str] = &[
    "approval approve",
    "approval reject",
    "clock set",
    "db migrate",
    "restore",
];

/// The commands of the program: its man pages but those of groups, which do nothing by themselves.
fn commands() -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    ezscale::run(&["man", "--to", &folder.path().display().to_string()]);
    let pages = std::fs::read_dir(folder.path()).expect("it was made");
    let mut names: Vec<(String, bool)> = pages
        .map(|page| {
            let path = page.expect("it can be read").path();
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("a man page");
            // `<COMMAND>` must be given; `[COMMAND]` may be.
            (name, text.contains("<COMMAND>"))
        })
        .collect();
    names.retain(|(_, is_group)| !is_group);
    names
        .into_iter()
        .filter_map(|(name, _)| name.strip_prefix("ezscale-").map(str::to_owned))
        .collect()
}

/// The command that words call, as its man page is named.
fn named(commands: &[String], words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let names = (1..=words.len().min(3)).rev().map(|count| words[..count].join("-"));
    names
        .into_iter()
        .find(|name| commands.contains(name))
        .unwrap_or_else(|| panic!("{words:?} calls no command"))
}

#[test]
fn every_command_is_read_only_or_driven() {
    let commands = commands();
    assert!(commands.len() > 140, "{} commands", commands.len());
    let driven = CASES.iter().map(|case| case.command);
    let others = READS.iter().chain(SERVERS).chain(ELSEWHERE).copied();
    let known: Vec<String> = driven.chain(others).map(|words| named(&commands, words)).collect();
    let unknown: Vec<_> = commands.iter().filter(|name| !known.contains(name)).collect();
    assert!(
        unknown.is_empty(),
        "these commands are in none of the lists of this file: {unknown:?}"
    );
    for read in READS.iter().chain(SERVERS) {
        let read = named(&commands, read);
        let is_driven = CASES.iter().any(|case| named(&commands, case.command) == read);
        assert!(!is_driven, "{read} is in two lists");
    }
}

#[test]
fn every_act_leaves_its_entry_and_the_chain_holds() {
    let world = World::new();
    let account = account();
    let mut known = 0;
    for case in CASES {
        (case.prepare)(&world);
        let (words, subject) = (world.words(case.command), world.words(case.subject).join(" "));
        let output = world.run(&words);
        assert!(
            output.status.success(),
            "`{}` failed: {}",
            case.command,
            String::from_utf8_lossy(&output.stderr)
        );
        let left = world.after(known);
        let expected: Vec<String> = match case.action.strip_suffix('+') {
            Some(action) => vec![action.to_owned(), format!("{action}.done")],
            None => vec![case.action.to_owned()],
        };
        let actions: Vec<&str> = left.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, expected, "`{}`", case.command);
        for entry in &left {
            let told = (entry.actor.as_str(), entry.user, entry.ip.as_str());
            assert_eq!(told, (account.as_str(), None, ""), "`{}`: {entry:?}", case.command);
            assert!(
                subject.is_empty() || entry.subject.ends_with(&subject),
                "`{}`: {entry:?}",
                case.command
            );
            known = entry.id.0;
        }
        world.assert_chain_holds(case.command);
    }
    for read in [
        "customer list",
        "db migrate",
        "db status",
        "job list",
        "ledger check",
        "storage",
        "usage",
        "audit verify",
        "secrets status",
    ] {
        let output = world.run(&world.words(read));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.after(known), [], "`{read}` left an entry");
    }
}

#[test]
fn what_changed_nothing_or_failed_leaves_no_act_behind() {
    let world = World::new();
    let run = |words: &str| world.run(&world.words(words));
    for words in ["customer add --name A --email a@example.net", "init --test-books"] {
        assert!(run(words).status.success(), "{words}");
    }
    let known = world.after(0).last().expect("a customer was added").id.0;
    for (words, is_done) in [
        ("init --test-books", true),
        ("credit topup cus_1", true),
        ("budget clear cus_1", false),
        ("plan stock pln_9 1", false),
        ("secrets discard --yes", true),
        ("storage retain --dry-run", true),
    ] {
        assert_eq!(run(words).status.success(), is_done, "{words}");
        assert_eq!(world.after(known), [], "`{words}` left an entry");
    }
    // What takes several transactions was asked for all the same, and the log says that it failed.
    assert!(!run("customer vat-check cus_1").status.success());
    let left = world.after(known);
    let actions: Vec<&str> = left.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["customer.vat_check", "customer.vat_check.failed"]);
    assert_eq!(left[1].change["entry"], left[0].id.to_string());
    let error = left[1].change["error"].as_str().expect("it says why");
    assert!(error.contains("no VAT number"), "{error}");
    world.assert_chain_holds("customer vat-check");
}

#[test]
fn whom_sudo_acts_for_is_told_as_a_claim() {
    let world = World::new();
    let mut command = world
        .data
        .command(&["customer", "add", "--name", "A", "--email", "a@example.net"]);
    let output = with_password(command.env("SUDO_USER", "mallory"));
    assert!(output.status.success());
    for actor in [account().as_str(), "os:mallory"] {
        let log = world.data.run(&["audit", "list", "--actor", actor, "--format", "json"]);
        let log: Value = serde_json::from_str(&log).expect("a JSON array");
        assert_eq!(log[0]["action"], "customer.create", "{actor}: {log}");
        assert_eq!(log[0]["actor"], account());
        assert_eq!(log[0]["claimed_by"], "os:mallory");
    }
}

#[test]
fn a_test_clock_is_begun_and_set_by_somebody() {
    let world = World::new();
    let begun = async {
        let mut connection = world.database.pool().acquire().await.expect("a connection");
        schemas::clock::begin(&mut connection, day(-2))
            .await
            .expect("it is begun");
    };
    world.runtime.block_on(begun);
    let output = world.run(&world.words("clock set NEXT"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [entry] = &world.after(0)[..] else {
        panic!("one entry")
    };
    assert_eq!((entry.action.as_str(), entry.subject.as_str()), ("clock.set", "clock"));
    assert_eq!(entry.at_ms, day(-1).as_millisecond());
}

#[test]
fn an_upgrade_is_an_act_and_seals_the_log_of_before() {
    let data = folder_of_7bef553();
    data.run(&["db", "migrate"]);
    let log = data.run(&["audit", "list", "--format", "json"]);
    let log: Vec<Value> = serde_json::from_str(&log).expect("a JSON array");
    let upgrades: Vec<&Value> = log.iter().filter(|entry| entry["action"] == "db.migrate").collect();
    assert_eq!(upgrades.len(), 1, "{log:?}");
    assert_eq!(
        (&upgrades[0]["actor"], &upgrades[0]["id"]),
        (&account().into(), &log[0]["id"])
    );
    // Who acted before the upgrade is still told as it was.
    assert!(log[1..].iter().all(|entry| entry["actor"] != account()), "{log:?}");
    let verified = data.run(&["audit", "verify", "--format", "json"]);
    let verified: Value = serde_json::from_str(&verified).expect("a JSON object");
    assert_eq!(verified["entries"], log.len());
    assert_eq!(verified["broken_at"], Value::Null);
    assert_eq!(verified["last_entry"], log[0]["id"]);
}

/// The restore drill: the chain of the backup goes on in what was restored, and a break in it is found there.
#[test]
fn a_restored_log_is_whole_and_goes_on() {
    let world = World::new();
    for words in [
        "customer add --name A --email a@example.net",
        "backup --with-key --to BACKUPS",
    ] {
        assert!(world.run(&world.words(words)).status.success(), "{words}");
    }
    let restored = DataDir::new();
    restored.run(&["restore", "--from", &world.place("backups")]);
    let verified = restored.run(&["audit", "verify", "--format", "json"]);
    let verified: Value = serde_json::from_str(&verified).expect("a JSON object");
    // The customer, what began when the backup was written, and that it was restored.
    assert_eq!(verified["entries"], 3);
    assert_eq!(verified["broken_at"], Value::Null);
    assert_eq!(verified["last_entry"], "aud_3");
    let show = |entry: &str| -> Value {
        let shown = restored.run(&["audit", "show", entry, "--format", "json"]);
        serde_json::from_str(&shown).expect("a JSON object")
    };
    assert_eq!(show("aud_3")["action"], "backup.restore");
    assert_eq!(show("aud_3")["hash"], verified["hash"]);
    restored.run(&["event", "owner", "boss@example.net"]);

    let url = Database::default_url(&restored.path());
    let tampered = async {
        let database = Database::open(&url).await.expect("it is there");
        sqlx::query("UPDATE audit_log SET subject = 'cus_2' WHERE id = 1")
            .execute(database.pool())
            .await
            .expect("whoever has the file can");
        database.pool().close().await;
    };
    world.runtime.block_on(tampered);
    let output = restored
        .command(&["audit", "verify", "--format", "json"])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).expect("a JSON object");
    assert_eq!(found["broken_at"], "aud_1");
    assert_eq!(found["differs"], "content");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the audit log is broken at aud_1 (content)"), "{said}");
}

/// What `audit verify` finds wrong: at which entry, and what. It must find something.
fn broken(world: &World) -> (String, String) {
    let output = world
        .data
        .command(&["audit", "verify", "--format", "json"])
        .output()
        .expect("the binary runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("a JSON object");
    assert_eq!(output.status.code(), Some(1), "{found}");
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("broken_at"), text("differs"))
}

/// Whoever may write the database and computes no hash is found out, also after the next entry.
#[test]
fn a_log_that_was_forged_with_plain_sql_is_broken() {
    let world = World::new();
    let add = |name: &str| {
        let words = format!("customer add --name {name} --email {name}@example.net");
        assert!(world.run(&world.words(&words)).status.success(), "{words}");
    };
    ["a", "b", "c", "d"].into_iter().for_each(add);
    world.assert_chain_holds("customer add");
    let verified = world.data.run(&["audit", "verify", "--format", "json"]);
    let verified: Value = serde_json::from_str(&verified).expect("a JSON object");
    assert_eq!(verified["erased_texts"], 0);

    // Texts of people may be erased: how many is told.
    world.sql("DELETE FROM audit_personal");
    world.sql("UPDATE audit_actors SET name = NULL, salt = NULL");
    let verified = world.data.run(&["audit", "verify", "--format", "json"]);
    let verified: Value = serde_json::from_str(&verified).expect("a JSON object");
    assert!(verified["erased_texts"].as_u64() >= Some(1), "{verified}");

    // The end is cut off, and the head put back: the ids were given.
    let last = verified["last_entry"].as_str().expect("an id").to_owned();
    world.sql("DELETE FROM audit_log WHERE id = (SELECT last_id FROM audit_head)");
    world.sql(
        "UPDATE audit_head SET last_id = last_id - 1, \
         hash = (SELECT hash FROM audit_log WHERE audit_log.id = audit_head.last_id - 1)",
    );
    assert_eq!(broken(&world), (last, "missing".to_owned()));

    // Without head and hashes it is no log of before the chain.
    world.sql("DELETE FROM audit_head");
    world.sql("UPDATE audit_log SET hash = '', previous_hash = ''");
    world.sql("UPDATE audit_log SET change = '{}' WHERE id = 1");
    let head_is_gone = ("aud_1".to_owned(), "head".to_owned());
    assert_eq!(broken(&world), head_is_gone);
    add("e");
    assert_eq!(broken(&world), head_is_gone);
}

/// What opens a transaction to write in the portal or a command without being an act of somebody, and why it may.
const NO_ACTS: &[(&str, &str)] = &[
    (
        "portal/src/sign_in/last_seen.rs",
        "when a session was last used, each minute",
    ),
    ("portal/src/pages/notifications.rs", "what a customer has read"),
    ("portal/src/pages/signin.rs", "a try to sign in has a list of its own"),
    ("portal/src/pages/signin/code.rs", "the second step of that"),
];

/// The program's files below a folder, with their text up to their tests.
fn sources(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the folder of sources") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "testing"].contains(&name.as_str()) {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs" {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let path = path.strip_prefix(root).expect("it is below the root");
            found.push((path.display().to_string(), program.to_owned()));
        }
    }
}

#[test]
fn what_is_written_by_portal_and_commands_is_an_act() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "portal/src"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "{} files", files.len());
    let writes = |text: &str| text.contains("begin_write(") || text.contains("audit::record(");
    let writing = files.iter().filter(|(_, text)| writes(text));
    let mut found: Vec<&str> = writing.map(|(path, _)| path.as_str()).collect();
    let mut allowed: Vec<&str> = NO_ACTS.iter().map(|(path, _)| *path).collect();
    allowed.sort_unstable();
    found.sort_unstable();
    assert_eq!(
        found, allowed,
        "what somebody changes goes through `activity::act::Act`; anything else needs its line and reason in NO_ACTS"
    );
}

//! F-60 on the command line: what is above a threshold waits for a second admin, leaves one entry when it is asked for and one when
//! it is decided, and is done by the decision. The same for forms: `portal/src/risk_tests.rs`; the rules: `activity/src/risk.rs`.

use crate::acts::{World, account};

/// A command above its threshold.
struct Case {
    command: &'static str,
    kind: &'static str,
    /// What being done adds one to, or takes one from.
    counts: &'static str,
}

const fn case(command: &'static str, kind: &'static str, counts: &'static str) -> Case {
    Case { command, kind, counts }
}

const ADMINS: &str = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at_ms IS NULL";

/// In order, on one data folder, with ada and ben as admins.
const CASES: &[Case] = &[
    case(
        "credit grant cus_1 1000.01 --for t:1 --reason sorry",
        "credit_grant",
        "SELECT count(*) FROM ledger_transactions WHERE idempotency_key LIKE 'grant:%'",
    ),
    case(
        "attack flag svc_1 --from 2026-01-01 --to 2026-01-03 --reason flood",
        "usage_exclusion",
        "SELECT count(*) FROM usage_exclusions",
    ),
    case(
        "payment refund PAID --amount 2000 --reference R-1",
        "refund",
        "SELECT count(*) FROM refunds",
    ),
    case(
        "user add --email cleo@example.net --name Cleo --role admin",
        "admin_created",
        ADMINS,
    ),
    case("user disable cleo@example.net", "admin_deleted", ADMINS),
    case("user enable cleo@example.net", "admin_created", ADMINS),
    case("user set-role cleo@example.net ops", "admin_role", ADMINS),
    case("user set-role fay@example.net admin", "admin_role", ADMINS),
];

fn run(world: &World, words: &str) -> (bool, String) {
    let output = world.run(&world.words(words));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn done(world: &World, words: &str) -> String {
    let (is_done, said) = run(world, words);
    assert!(is_done, "`{words}` failed: {said}");
    said
}

/// Makes a token of a user, in a file of their name.
fn issue(world: &World, name: &str) {
    let output = world.run(&world.words(&format!("user token add {name}@example.net")));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(world.place(name), &output.stdout).expect("it is writable");
}

/// A customer with a service and a paid-in transfer; ada and ben are admins, fay is of finance. Their tokens are in files.
fn world() -> World {
    let world = World::with_test_books();
    for words in [
        "customer add --name Acme --email a@example.net --currency EUR",
        "service add --name web1 --customer cus_1",
        "payment record cus_1 --amount 3000 --reference T-1",
        "user add --email ada@example.net --name Ada --role admin",
        "user add --email ben@example.net --name Ben --role admin",
        "user add --email fay@example.net --name Fay --role finance",
    ] {
        // The second admin is made alone as well: until then there is one.
        assert!(!done(&world, words).contains("waits for a second admin"), "{words}");
    }
    for name in ["ada", "ben", "fay"] {
        issue(&world, name);
    }
    world
}

/// The request that a command left.
fn asked(world: &World, words: &str) -> String {
    let said = done(world, words);
    let line = said.lines().find(|line| line.contains("waits for a second admin"));
    let line = line.unwrap_or_else(|| panic!("`{words}` did not wait: {said}"));
    line.split(' ').next().expect("it begins with the id").to_owned()
}

fn decide(world: &World, what: &str, name: &str) -> (bool, String) {
    run(world, &format!("approval {what} --token-file {}", world.place(name)))
}

fn last_entry(world: &World) -> i64 {
    world.after(0).last().map_or(0, |entry| entry.id.0)
}

#[test]
fn f60_every_command_above_a_threshold_waits_and_is_done_by_the_decision() {
    let world = world();
    for case in CASES {
        let (command, known, before) = (case.command, last_entry(&world), world.number(case.counts));
        let id = asked(&world, command);
        let left = world.after(known);
        let [entry] = &left[..] else {
            panic!("`{command}` left {left:?}")
        };
        assert_eq!(entry.action, "approval.request", "`{command}`");
        assert_eq!((entry.actor.as_str(), entry.user), (account().as_str(), None));
        assert_eq!(entry.change["approval"], id);
        assert_eq!(entry.change["parameters"]["action"], case.kind, "`{command}`");
        assert_eq!(
            world.number(case.counts),
            before,
            "`{command}` was done before anybody decided"
        );

        // Asked for again it is refused, and leaves nothing.
        let known = entry.id.0;
        let (is_done, said) = run(&world, command);
        assert!(!is_done, "`{command}` was asked for twice: {said}");
        // Who does not prove to be an admin decides nothing.
        let (is_done, said) = run(&world, &format!("approval approve {id}"));
        assert!(!is_done && said.contains("ezscale user token add"), "{said}");
        let (is_done, said) = decide(&world, &format!("approve {id}"), "fay");
        assert!(!is_done && said.contains("is not an active admin"), "{said}");
        assert_eq!(world.after(known), [], "`{command}`");

        let (is_done, said) = decide(&world, &format!("approve {id}"), "ben");
        assert!(is_done, "`{command}` was not approved: {said}");
        let left = world.after(known);
        let [decided] = &left[..] else {
            panic!("approving `{command}` left {left:?}")
        };
        assert_eq!(
            (decided.action.as_str(), decided.actor.as_str()),
            ("approval.approve", "ben@example.net")
        );
        assert_eq!(decided.change["account"], account());
        assert_eq!(decided.change["approval"], id);
        assert_eq!((world.number(case.counts) - before).abs(), 1, "`{command}`: {said}");
        let shown = done(&world, &format!("approval show {id} --format json"));
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("a JSON object");
        assert_eq!(shown["request_entry"], entry.id.to_string());
        assert_eq!(shown["decision_entry"], decided.id.to_string());
        assert_eq!(shown["requested_by"], account());
        world.assert_chain_holds(command);
    }
}

#[test]
fn f60_what_changed_or_was_decided_or_expired_is_not_done() {
    let world = world();
    // Rejected, then approved.
    let id = asked(&world, "credit grant cus_1 5000 --for t:1 --reason sorry");
    let (is_done, said) = decide(&world, &format!("reject {id} --reason no"), "ben");
    assert!(is_done, "{said}");
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ada");
    assert!(!is_done && said.contains("is rejected already"), "{said}");
    // Requested, then what it is about is gone.
    let id = asked(&world, "payment refund PAID --amount 2000 --reference R-1");
    done(&world, "payment reverse PAID --reason mistaken");
    let known = last_entry(&world);
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ben");
    assert!(!is_done, "{said}");
    assert_eq!(world.after(known), [], "what cannot be done is not approved");
    // Requested, and nobody decided in time.
    let id = asked(&world, "credit grant cus_1 5000 --for t:2 --reason sorry");
    world.sql("UPDATE approvals SET expires_at_ms = 1 WHERE status = 'pending'");
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ben");
    assert!(!is_done && said.contains("has expired"), "{said}");
    // Somebody who sets the password of another admin does not decide through them, with whatever token.
    let id = asked(&world, "credit grant cus_1 5000 --for t:3 --reason sorry");
    done(&world, "user set-password ben@example.net");
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ben");
    assert!(!is_done && said.contains("the token is not valid"), "{said}");
    issue(&world, "ben");
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ben");
    assert!(!is_done && said.contains("from somebody else"), "{said}");
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ada");
    assert!(is_done, "{said}");
    // A name that is not proved is no argument any more.
    let (is_done, said) = run(&world, "payment refund PAID --amount 1 --requested-by usr_1");
    assert!(!is_done && said.contains("--requested-by"), "{said}");
}

#[test]
fn f60_subscriptions_that_are_ended_one_by_one_are_ended_together() {
    let world = world();
    done(&world, "plan add --name Flat --price 10 --currency EUR --months 1");
    for number in 2..=7 {
        done(&world, &format!("service add --name web{number} --customer cus_1"));
        done(&world, &format!("subscription add svc_{number} --price prc_1"));
    }
    for number in 1..=5 {
        let cancelled = done(&world, &format!("subscription cancel sub_{number} --now"));
        assert!(!cancelled.contains("waits"), "{cancelled}");
    }
    let id = asked(&world, "subscription cancel sub_6 --now");
    let running = "SELECT count(*) FROM subscriptions WHERE status <> 'ended'";
    assert_eq!(world.number(running), 1);
    let (is_done, said) = decide(&world, &format!("approve {id}"), "ben");
    assert!(is_done, "{said}");
    assert_eq!(world.number(running), 0);
}

#[test]
fn f60_parts_of_one_grant_are_one_grant() {
    let world = world();
    done(&world, "credit grant cus_1 600 --for t:1 --reason sorry");
    // Granted before, it waits for nobody.
    done(&world, "credit grant cus_1 600 --for t:1 --reason sorry");
    asked(&world, "credit grant cus_1 600 --for t:2 --reason sorry");
    // What waits counts too.
    asked(&world, "credit grant cus_1 400 --for t:3 --reason sorry");
}

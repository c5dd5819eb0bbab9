//! A year of billing in a minute: `serve` goes by a test clock, and what is due is charged, changed and told as it is set.

use std::time::Duration;

use crate::support::ezscale::{DataDir, Start, cents};
use crate::support::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// Totals of the invoices and credit notes there are, in minor units, oldest first.
fn totals(data: &DataDir) -> Vec<i64> {
    let listed: serde_json::Value =
        serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("an array of invoices");
    let invoices = listed.as_array().expect("an array");
    let totals = invoices.iter().map(|invoice| cents(&invoice["total"]));
    totals.rev().collect()
}

/// The plan of each row that is listed of plans or prices.
fn plans_of(data: &DataDir, noun: &str) -> Vec<String> {
    let listed: Vec<serde_json::Value> =
        serde_json::from_str(&data.run(&[noun, "list", "--format", "json"])).expect("an array");
    listed.iter().map(|row| row["plan"].to_string()).collect()
}

#[test]
fn a_subscription_is_charged_changed_reminded_and_ended_as_the_clock_is_set() {
    let data = DataDir::new();
    let start = Start::new("serve")
        .netflow("127.0.0.1:0")
        .http("127.0.0.1:0")
        .arguments(&["--clock", "2024-01-31T10:00:00Z"]);
    let server = start.on(&data);
    data.set_issuer();
    let shown = data.run(&["clock", "show"]);
    assert!(
        shown.contains("2024-01-31T10:00:00Z") && shown.contains("test"),
        "{shown}"
    );
    let customer = data.add(
        &[
            "customer",
            "add",
            "--name",
            "Ada",
            "--email",
            "ada@example.net",
            "--currency",
            "USD",
        ],
        "cus_",
    );
    let service = data.add(&["service", "add", "--name", "web-1", "--customer", &customer], "svc_");
    let add_plan = |name: &str, price: &str| {
        let printed = data.run(&["plan", "add", "--name", name, "--model", "flat", "--price", price]);
        let price = printed.split_whitespace().find(|word| word.starts_with("prc_"));
        price
            .unwrap_or_else(|| panic!("`plan add` prints the price: {printed}"))
            .to_owned()
    };
    let (small, large) = (add_plan("small", "29.00"), add_plan("large", "58.00"));
    let subscription = data.add(&["subscription", "add", &service, "--price", &small], "sub_");
    let set = |to: &str| data.run(&["clock", "set", to]);

    // Charged in advance, on the last day of each month.
    set("2024-01-31T10:00:01Z");
    wait_until("January's invoice", LIMIT, || totals(&data) == [2_900]);
    set("2024-02-29T00:00:00Z");
    wait_until("February's invoice", LIMIT, || totals(&data) == [2_900, 2_900]);

    // F-25: a change at a time is reminded of 24 hours before, and made at its time.
    let change = [
        "subscription",
        "change",
        &subscription,
        "--price",
        &large,
        "--at",
        "2024-03-10T12:00:00Z",
    ];
    data.add(&change, "chg_");
    set("2024-03-09T11:59:59Z");
    let reminded = || data.run(&["event", "list"]).contains("subscription.change_reminder");
    assert!(!reminded());
    set("2024-03-09T12:00:00Z");
    wait_until("the reminder", LIMIT, reminded);
    set("2024-03-10T12:00:00Z");
    // 21 of 31 days: 39.29 and -19.65.
    wait_until("the change's invoice", LIMIT, || totals(&data) == [2_900, 2_900, 1_964]);
    set("2024-03-31T00:00:00Z");
    wait_until("March's invoice", LIMIT, || totals(&data).last() == Some(&5_800));

    // A process that was not there catches up to the same books.
    server.terminate();
    data.run(&["subscription", "cancel", &subscription, "--reason", "moved away"]);
    set("2024-12-24T00:00:00Z");
    let server = start.on(&data);
    let ended = || data.run(&["subscription", "show", &subscription]).contains("ended");
    wait_until("the end", LIMIT, ended);
    assert_eq!(
        totals(&data),
        [2_900, 2_900, 1_964, 5_800],
        "nothing is charged after the end"
    );
    let audited = data.run(&["audit", "list", "--action", "clock.set", "--format", "json"]);
    assert!(audited.contains("2024-12-24T00:00:00Z"), "{audited}");
    let shown = data.run(&["subscription", "show", &subscription]);
    assert!(shown.contains("2024-04-30"), "{shown}");
    assert!(data.run(&["ledger", "check"]).contains("no violations"));
    server.terminate();

    let back = data
        .command(&["clock", "set", "2024-12-23T00:00:00Z"])
        .output()
        .expect("the binary runs");
    assert!(String::from_utf8_lossy(&back.stderr).contains("only goes forward"));
}

#[test]
fn real_books_get_no_test_clock() {
    let data = DataDir::made();
    let refused = data
        .command(&["clock", "set", "2024-01-01T00:00:00Z"])
        .output()
        .expect("the binary runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the system's clock"));
}

/// What a command says that is refused.
fn refused(data: &DataDir, arguments: &[&str]) -> String {
    let output = data.command(arguments).output().expect("the binary runs");
    assert!(!output.status.success(), "{arguments:?} is refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn commands_go_by_the_test_clock_and_take_no_amount_that_is_too_fine() {
    let data = DataDir::new();
    let start = Start::new("serve")
        .netflow("127.0.0.1:0")
        .http("127.0.0.1:0")
        .arguments(&["--clock", "2030-01-01T00:00:00Z"]);
    let server = start.on(&data);
    let customer = [
        "customer",
        "add",
        "--name",
        "Ada",
        "--email",
        "ada@example.net",
        "--currency",
        "USD",
        "--country",
        "US",
    ];
    data.set_issuer();
    let customer = data.add(&customer, "cus_");
    let service = data.add(&["service", "add", "--name", "web-1", "--customer", &customer], "svc_");
    let plan = ["plan", "add", "--name", "small", "--model", "flat", "--price", "119.00"];
    let price = data.add(&plan, "prc_");
    data.add(&["subscription", "add", &service, "--price", &price], "sub_");
    data.run(&["invoice", "close"]);
    data.run(&["credit", "grant", &customer, "5", "--for", "t:1", "--reason", "a test"]);
    data.run(&["clock", "set", "2030-01-20T00:00:00Z"]);
    wait_until("the overdue invoice", LIMIT, || {
        data.run(&["dunning", "list", "--overdue"]).contains("inv_1")
    });
    let used = data.run(&["usage"]);
    assert!(used.contains("2029-12-21T00:00:00Z to 2030-01-20T00:00:00Z"), "{used}");
    let budget = data.run(&["budget", "set", &customer, "100", "--reset-day", "1"]);
    assert!(budget.contains("2030-02-01"), "{budget}");

    for arguments in [
        &[
            "plan",
            "add",
            "--name",
            "Z",
            "--model",
            "flat",
            "--price",
            "10.5",
            "--currency",
            "JPY",
        ][..],
        &["plan", "add", "--name", "Y", "--model", "flat", "--price", "19.995"],
        &["coupon", "add", "R", "--amount", "0.005"],
        &["payment", "record", "inv_1", "--amount", "118.995", "--reference", "a"],
        &["budget", "set", &customer, "99.999"],
        &[
            "credit", "grant", &customer, "0.001", "--for", "t:2", "--reason", "a test",
        ],
    ] {
        let said = refused(&data, arguments);
        assert!(
            said.contains("is finer than the smallest unit of"),
            "{arguments:?}: {said}"
        );
    }
    // Ordered again before its end, it goes on.
    data.run(&["subscription", "cancel", "sub_1"]);
    let again = data.add(&["subscription", "add", &service, "--price", &price], "sub_");
    assert_eq!(again, "sub_1");
    let past = refused(&data, &["subscription", "cancel", "sub_1", "--on", "2030-01-11"]);
    assert!(past.contains("cannot be dated back"), "{past}");
    let past = refused(
        &data,
        &[
            "coupon",
            "add",
            "OLD",
            "--percent",
            "5",
            "--expires",
            "2030-01-01T00:00:00Z",
        ],
    );
    assert!(past.contains("must lie ahead"), "{past}");
    data.add(&["plan", "add", "--preset", "free"], "pln_");
    let plans = data.run(&["plan", "list"]);
    assert!(plans.contains("Development"), "{plans}");
    let prices = data.run(&["price", "list"]);
    assert!(
        prices.contains("Development") && prices.contains("USD 0.00"),
        "{prices}"
    );
    let mut of_prices = plans_of(&data, "price");
    of_prices.dedup();
    assert_eq!(plans_of(&data, "plan"), of_prices, "a plan is listed once");
    server.terminate();
}

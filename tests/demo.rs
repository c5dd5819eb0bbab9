//! The demo as its user sees it: one command, then each role signs in with a real browser and finds what it came for.
//! An invoice of the demo is recomputed from flows alone and comes out the same (B5). And an installation that nobody has connected
//! anything to says on each page what to do next.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::{Client, Locator};
use serde_json::Value;

use crate::support::browser::{Browser, sign_in};
use crate::support::ezscale::{DataDir, Start};

/// As the demo prints them.
const PASSWORD: &str = "amber-lantern-walk";

/// Pages of each role, with a text that must be on them.
const PAGES: [(&str, &[(&str, &str)]); 4] = [
    (
        "customer@demo.example",
        &[("/usage", "Usage"), ("/invoices", "Invoices")],
    ),
    ("ops@demo.example", &[("/ops", "Traffic"), ("/exporters", "Exporters")]),
    (
        "network@demo.example",
        &[("/exporters", "mx1.nyc1"), ("/ops", "Traffic")],
    ),
    (
        "finance@demo.example",
        &[("/finance", "Invoices"), ("/finance/held", "Lucia Bianchi")],
    ),
];

/// Waits until the page's source holds a text: pages load, and payments take a moment.
async fn until(client: &Client, text: &str) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let source = client.source().await.expect("the page's source");
        if source.contains(text) {
            return source;
        }
        let late = tokio::time::Instant::now() >= deadline;
        assert!(!late, "the page says {text:?}:\n{source}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn click(client: &Client, selector: &str) {
    let button = client.find(Locator::Css(selector)).await;
    let button = button.unwrap_or_else(|error| panic!("there is {selector}: {error}"));
    button.click().await.expect("it can be clicked");
}

/// The range of the traffic page can be sent at any minute; the hour that was chosen is the hour on the page of a service, and
/// on the way back; and the next names behind “Other” add up to the same.
async fn follow_an_hour(client: &Client, base: &str) {
    sign_in(client, base, "ops@demo.example", PASSWORD).await;
    client
        .set_window_size(1440, 1000)
        .await
        .expect("the window can be resized");
    visit(client, base, "/ops").await;
    // Two days ago, at a minute that is no window's.
    let script = "const at = new Date(Date.now() - 2 * 86400000); at.setUTCHours(10, 3, 0, 0); \
         const field = (name, ms) => { document.querySelector(`[name=${name}]`).value = new Date(ms).toISOString().slice(0, 16); }; \
         field('from', at.getTime()); field('to', at.getTime() + 3540000); \
         const form = document.querySelector('main form'); form.requestSubmit(); return form.checkValidity();";
    let is_valid = client.execute(script, Vec::new()).await.expect("scripts can be run");
    assert_eq!(is_valid, Value::Bool(true), "the browser takes any minute");
    until(client, "10:00 – ").await;
    let source = client.source().await.expect("the page's source");
    assert!(source.contains("11:05 UTC"), "whole windows: {source}");
    let total = |source: &str| {
        let data = source.split("id=\"overview-data\"").nth(1).expect("the figures");
        let json = data
            .split_once('>')
            .expect("an element")
            .1
            .split("</script>")
            .next()
            .expect("its end");
        let json: Value = serde_json::from_str(json).expect("JSON");
        (
            json["total_bytes"].as_u64().expect("a number"),
            json["keys_total"].as_u64().expect("a number"),
        )
    };
    let (all, keys) = total(&source);
    assert!(all > 0 && keys > 20, "{all} bytes of {keys} services");
    let other = client
        .find(Locator::LinkText("Other"))
        .await
        .expect("the sum of the smaller ones leads to their names")
        .attr("href")
        .await
        .expect("a link")
        .expect("it leads somewhere");
    client.goto(&other).await.expect("the next ones");
    let next = until(client, "11–20 of").await;
    assert_eq!(total(&next), (all, keys), "the same sum whatever is named");
    assert!(next.contains(">Larger<"));

    let service = client
        .find(Locator::Css("#overview-table td.key a[href^='/ops/services/']"))
        .await;
    service.expect("a service").click().await.expect("a link");
    let source = until(client, "times in UTC").await;
    assert!(
        source.contains("T10:00\"") && source.contains("T11:05\""),
        "the same hour: {source}"
    );
    let crumb = client.find(Locator::Css(".ez-crumb a")).await.expect("the way back");
    let back = crumb.attr("href").await.expect("an attribute").expect("an address");
    assert!(back.contains("T10:00:00Z") && back.contains("T11:05:00Z"), "{back}");
}

/// The key / leads to the search from every page; what is typed is found.
async fn search(client: &Client, base: &str) {
    sign_in(client, base, "admin@demo.example", PASSWORD).await;
    client
        .set_window_size(1440, 1000)
        .await
        .expect("the window can be resized");
    for (page, typed, found) in [
        ("/ops", "alpenblick", "Alpenblick Software GmbH"),
        ("/exporters", "mx1", "mx1.nyc1"),
        ("/finance", "198.18.0.0/15", "holds 198.18"),
        ("/admin/plans", "svc_1", "svc_1"),
        ("/finance/ledger", "inv_1", "Invoice"),
    ] {
        visit(client, base, page).await;
        let page = client.active_element().await.expect("the page has the focus");
        page.send_keys("/").await.expect("a key can be pressed");
        let focused = client.active_element().await.expect("something has the focus");
        focused
            .send_keys(&format!("{typed}\u{e007}"))
            .await
            .expect("the box takes text");
        until(client, "found for").await;
        until(client, found).await;
    }
}

/// A customer pays by hand: a card that the bank wants confirmed, and one that is declined.
async fn pay(client: &Client, base: &str) {
    sign_in(client, base, "customer@demo.example", PASSWORD).await;
    client
        .set_window_size(1200, 1000)
        .await
        .expect("the window can be resized");
    visit(client, base, "/payment-methods").await;
    click(client, "form[action='/payment-methods/add'] button").await;
    until(client, "Choose a test card").await;
    click(client, "input[value=confirms]").await;
    click(client, "button.btn-primary").await;
    until(client, "The payment method was saved.").await;
    visit(client, base, "/credit").await;
    let source = client.source().await.expect("the page's source");
    assert!(source.contains("Test card, to confirm"), "the card can be paid with");
    let buy = client
        .find(Locator::Css("form[action='/credit/buy'] button[type=submit]"))
        .await;
    buy.expect("credit can be bought").click().await.expect("a button");
    until(client, "Confirm with your bank").await;
    client
        .find(Locator::LinkText("Confirm with your bank"))
        .await
        .expect("a link to the test bank")
        .click()
        .await
        .expect("a link");
    until(client, "Test bank").await;
    click(client, "button[value=confirm]").await;
    until(client, "The payment went through").await;
}

/// What the demo's books hold, as the command line lists it.
fn check_books(data: &DataDir) {
    let json = |arguments: &[&str]| -> Vec<Value> {
        let listed: Value = serde_json::from_str(&data.run(arguments)).expect("JSON");
        listed.as_array().expect("an array").clone()
    };
    let invoices = json(&["invoice", "list", "--format", "json"]);
    let of = |status: &str| invoices.iter().filter(|invoice| invoice["status"] == status).count();
    for status in ["finalised", "partially_paid", "paid", "void", "uncollectible", "held"] {
        assert!(of(status) > 0, "an invoice is {status}");
    }
    let is_credit_note = |invoice: &&Value| invoice["number"].as_str().is_some_and(|number| number.contains("CN-"));
    assert!(invoices.iter().filter(is_credit_note).count() >= 2, "credit notes");
    let ledger = data.run(&["ledger", "check"]);
    assert!(ledger.contains("no violations"), "{ledger}");
    for who in [
        "admin@demo.example",
        "admin2@demo.example",
        "finance@demo.example",
        "ops@demo.example",
    ] {
        let audit = data.run(&["audit", "list", "--actor", who]);
        assert!(audit.contains(who), "{who} did something:\n{audit}");
    }
}

async fn visit(client: &Client, base: &str, path: &str) -> String {
    client
        .goto(&format!("{base}{path}"))
        .await
        .unwrap_or_else(|error| panic!("{path} opens: {error}"));
    client
        .find(Locator::Css("main"))
        .await
        .unwrap_or_else(|error| panic!("{path} has a main part: {error}"));
    client.source().await.expect("the page's source")
}

/// Nothing scrolls sideways at a phone's width.
async fn fits(client: &Client, path: &str) {
    let overflow = client
        .execute(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth",
            Vec::new(),
        )
        .await
        .expect("scripts can be run");
    assert!(
        overflow.as_i64().is_some_and(|pixels| pixels <= 0),
        "{path} is {overflow} pixels wider than a phone"
    );
}

async fn check_pages(base: &str) {
    let browser = Browser::start().await;
    let client = &browser.client;
    for (email, pages) in PAGES {
        sign_in(client, base, email, PASSWORD).await;
        for (path, text) in pages {
            for (width, height) in [(1440, 1000), (390, 844)] {
                client
                    .set_window_size(width, height)
                    .await
                    .expect("the window can be resized");
                let source = visit(client, base, path).await;
                assert!(source.contains(text), "{path} for {email} says {text}");
                if width < 400 {
                    fits(client, path).await;
                }
            }
        }
    }
    follow_an_hour(client, base).await;
    search(client, base).await;
    pay(client, base).await;
    // S1: a customer who asks for staff pages or for somebody else's service gets nothing.
    sign_in(client, base, "customer@demo.example", PASSWORD).await;
    for path in ["/ops", "/exporters", "/finance", "/search?q=mx1"] {
        let source = client.goto(&format!("{base}{path}")).await.map(|()| client.source());
        let source = source.expect("an answer").await.expect("a page");
        assert!(
            !source.contains("mx1.nyc1") && !source.contains("trial balance"),
            "{path} shows a customer nothing"
        );
    }
    browser.close().await;
}

#[test]
fn the_demo_shows_every_role_its_pages_and_its_invoices_hold() {
    let data = DataDir::new();
    let demo = Start::new("demo")
        .http("127.0.0.1:0")
        .arguments(&["--density", "1"])
        .starting_within(Duration::from_secs(300))
        .on(&data);
    let base = demo.http.clone().expect("the demo prints the portal's address");
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(check_pages(&base));

    check_books(&data);
    // The switches' counters are there for the hours before, and what was sampled agrees with them.
    let compared = data.run(&["check", "truth"]);
    assert!(compared.contains("agrees"), "{compared}");
    assert!(!compared.contains("mismatch"), "{compared}");
    // B5: every closed invoice, recomputed from flows alone.
    let invoices: Value =
        serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("a JSON array");
    let invoices = invoices.as_array().expect("an array").clone();
    assert!(
        invoices.len() >= 50,
        "the demo closed last month's invoices: {}",
        invoices.len()
    );
    let usage_lines = data.run(&["invoice", "check", "--all"]);
    assert!(
        usage_lines.contains("0 differ"),
        "recomputed from flows alone:\n{usage_lines}"
    );
    demo.terminate();
}

/// Pages of an installation to which nothing is connected, with what they say to do next.
const EMPTY_PAGES: [(&str, &str); 12] = [
    ("/ops", "ezscale simulate --to"),
    ("/exporters", "ezscale simulate --to"),
    ("/finance", "ezscale plan add"),
    ("/finance/customers", "ezscale customer add"),
    ("/finance/payments", "appear here"),
    ("/finance/held", "waits here"),
    ("/finance/aging", "appears here"),
    ("/finance/ledger", "What it takes to issue an invoice"),
    ("/finance/export", "What it takes to issue one"),
    ("/admin/plans", "ezscale plan add"),
    ("/admin/approvals", "appear here"),
    ("/search", "What are you looking for?"),
];

async fn check_empty_pages(base: &str) {
    let browser = Browser::start().await;
    let client = &browser.client;
    sign_in(client, base, "first@example.net", PASSWORD).await;
    for (width, height) in [(1440, 1000), (390, 844)] {
        client
            .set_window_size(width, height)
            .await
            .expect("the window can be resized");
        for (path, text) in EMPTY_PAGES {
            let source = visit(client, base, path).await;
            assert!(source.contains(text), "{path} says {text:?}:\n{source}");
            assert!(
                !source.contains("none silent"),
                "{path}: nobody is silent who is not there"
            );
            if width < 400 {
                fits(client, path).await;
            }
        }
    }
    browser.close().await;
}

#[test]
fn an_empty_installation_says_on_each_page_what_to_do_next() {
    let data = DataDir::new();
    let serve = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0").on(&data);
    let base = serve.http.clone().expect("serve prints the portal's address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let page = runtime.block_on(async {
        let answer = reqwest::get(format!("{base}/signin")).await.expect("the sign-in page");
        answer.text().await.expect("a text")
    });
    assert!(page.contains("Nobody can sign in yet"), "{page}");
    let mut add = data.command(&[
        "user",
        "add",
        "--role",
        "admin",
        "--email",
        "first@example.net",
        "--name",
        "First",
    ]);
    let mut child = add
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ezscale runs");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    writeln!(stdin, "{PASSWORD}").expect("the password is read");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "a user can be added");
    runtime.block_on(check_empty_pages(&base));
    serve.terminate();
}

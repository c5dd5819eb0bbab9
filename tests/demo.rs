//! The demo as its user sees it: one command, then each role signs in with a real browser and finds what it came for.
//! An invoice of the demo is recomputed from flows alone and comes out the same (B5).

mod support;

use std::time::Duration;

use fantoccini::{Client, Locator};
use serde_json::Value;
use support::browser::{Browser, sign_in};
use support::ezscale::{DataDir, Start};

/// As the demo prints them.
const PASSWORD: &str = "demo-ezscale-2026";

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
    ("finance@demo.example", &[("/finance", "Invoices")]),
];

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
    // S1: a customer who asks for staff pages or for somebody else's service gets nothing.
    sign_in(client, base, "customer@demo.example", PASSWORD).await;
    for path in ["/ops", "/exporters", "/finance"] {
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

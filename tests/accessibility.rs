//! Every page of the portal, as each role that may see it, in a real browser with the demo's data, against WCAG 2.2 AA by axe-core:
//! wide and phone, light and dark. No violation is known to be left.
//!
//! Pages are found by following the links of the pages themselves, one of each kind, so a new page is looked at without being
//! named here; a page's route that no link leads to fails the test, unless it is listed with the reason.
//!
//! axe-core (MPL-2.0) is no part of this repository: `tests/run` fetches it. Its script is injected by the driver, which the
//! pages' content security policy does not stop.

mod routes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use fantoccini::Client;
use fantoccini::wd::TimeoutConfiguration;
use serde_json::{Value, json};

use crate::support::browser::{Browser, sign_in};
use crate::support::demo::{demo_data, start_demo};
use crate::support::ezscale::DataDir;

/// As the demo prints it.
const PASSWORD: &str = "amber-lantern-walk";
/// Who looks, in this order; nobody is signed in at first.
const VISITORS: [Option<&str>; 6] = [
    None,
    Some("customer@demo.example"),
    Some("ops@demo.example"),
    Some("network@demo.example"),
    Some("finance@demo.example"),
    Some("admin@demo.example"),
];
/// Where each begins, beside what the navigation links to.
const STARTS: [&str; 3] = ["/", "/signin", "/account"];
/// Shown to admins with more than to others: looked at by every role.
const BY_EVERY_ROLE: [&str; 2] = ["/finance/customers/{}", "/account"];
/// One of a kind need not link to what another does: of these, so many are followed.
const FOLLOWED: [(&str, usize); 3] = [
    ("/finance/invoices/{}", 5),
    ("/invoices/{}", 3),
    ("/subscriptions/{}", 3),
];
/// What no link leads to, and why.
const UNLINKED: [(&str, &str); 21] = [
    ("/reset-password/{}", "a link of a mail"),
    ("/account/tokens/{}/revoke", REDIRECT),
    ("/account/sessions/others", REDIRECT),
    ("/account/sessions/{}/end", REDIRECT),
    ("/test-gateway/setups/{}", "where a form of a payment leads"),
    ("/test-gateway/charges/{}", "where a form of a payment leads"),
    (
        "/webhooks/{}",
        "the demo has no endpoint: its name would have to be resolved",
    ),
    ("/signin/code", "between a password and a second factor"),
    ("/verify-email", "after the link of a mail"),
    ("/verify-email/{}", "a link of a mail"),
    ("/payment-methods/return", "redirects from a gateway"),
    ("/exporters/list", "a part of /exporters"),
    ("/account/password", REDIRECT),
    ("/account/address", REDIRECT),
    ("/account/address/verify", REDIRECT),
    ("/account/two-factor/begin", REDIRECT),
    ("/account/two-factor/cancel", REDIRECT),
    ("/account/two-factor/confirm", REDIRECT),
    ("/account/two-factor/recovery-codes", REDIRECT),
    ("/account/two-factor/off", REDIRECT),
    ("/admin", REDIRECT),
];
const REDIRECT: &str = "redirects to its page, where a form's answer is loaded again";
/// Errors are pages too: of who asks for what is not there, and for what is not theirs.
const ERRORS: [(&str, Option<&str>); 2] = [("/nothing", None), ("/ops", Some("customer@demo.example"))];
/// Widths and heights of the window.
const WINDOWS: [(u32, u32); 2] = [(1280, 900), (390, 844)];
/// Files and redirects.
const NOT_PAGES: [&str; 9] = [
    "/api/",
    ".csv",
    ".xlsx",
    "/pdf",
    "/xml",
    "/signout",
    "/assets",
    "/hooks",
    "/export/{}",
];

/// The script of axe-core, as tests/run fetched it.
fn axe() -> String {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/axe/axe.min.js");
    let path = std::env::var_os("EZSCALE_AXE_JS").map_or(default, PathBuf::from);
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "axe-core is not at {} ({error}): run tests/run, which fetches it, or name axe.min.js in EZSCALE_AXE_JS",
            path.display()
        )
    })
}

/// What is wrong on a page: the rule, and the elements.
type Violations = BTreeMap<String, BTreeSet<String>>;

/// Opens what is folded and stops what moves, so that all of the page is looked at, in its final colours. Of long tables and
/// lists the first rows stay: the others are made by the same lines, and the contrast of each would be computed four times.
const PREPARE: &str = "\
    const links = [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href')); \
    for (const rows of document.querySelectorAll('main tbody, main ul, main table, main, main div')) \
      for (const row of [...rows.children].filter(one => one.matches('tr, li, tbody, section, article')).slice(6)) row.remove(); \
    for (const one of document.querySelectorAll('main select')) \
      for (const option of [...one.querySelectorAll('option')].slice(8)) option.remove(); \
    for (const one of document.querySelectorAll('main details')) one.open = true; \
    const still = new CSSStyleSheet(); \
    still.replaceSync('*, *::before, *::after { transition: none !important; animation: none !important; }'); \
    document.adoptedStyleSheets = [still]; \
    return links;";

const RUN: &str = "\
    const done = arguments[arguments.length - 1]; \
    document.documentElement.setAttribute('data-bs-theme', arguments[0]); \
    document.dispatchEvent(new CustomEvent('ez:theme')); \
    requestAnimationFrame(() => requestAnimationFrame(() => axe.run(document, { \
      runOnly: { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }, \
      resultTypes: ['violations'], elementRef: false \
    }).then(found => done(found.violations.map(v => ({ \
      id: v.id, help: v.help, \
      nodes: v.nodes.map(n => n.target.join(' ') + ' | ' + n.html.slice(0, 160) + ' | ' + \
        (n.any.concat(n.all, n.none)[0] || { message: '' }).message) \
    }))), error => done([{ id: 'axe failed', help: String(error), nodes: [''] }]))));";

/// The pages one visitor finds.
struct Tour<'a> {
    client: &'a Client,
    base: &'a str,
    axe: &'a str,
    visitor: &'static str,
    seen: &'a mut BTreeSet<String>,
    found: &'a mut BTreeMap<String, Violations>,
}

impl Tour<'_> {
    async fn follow(&mut self, starts: &[&str]) {
        let mut queue: VecDeque<String> = starts.iter().map(ToString::to_string).collect();
        let mut queued: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut done = BTreeSet::new();
        while let Some(path) = queue.pop_front() {
            let kind = kind_of(&path);
            let is_new = !self.seen.contains(&kind) || BY_EVERY_ROLE.contains(&kind.as_str()) || path == "/";
            let links = if is_new && done.insert(kind.clone()) {
                self.look(&path, &kind).await
            } else if FOLLOWED.iter().any(|(followed, _)| *followed == kind) {
                self.open(&path).await;
                self.links().await
            } else {
                continue;
            };
            for link in links {
                let kind = kind_of(&link);
                let most = FOLLOWED
                    .iter()
                    .find(|(followed, _)| *followed == kind)
                    .map_or(1, |(_, most)| *most);
                let of_kind = queued.entry(kind).or_default();
                if of_kind.len() < most && of_kind.insert(link.clone()) {
                    queue.push_back(link);
                }
            }
        }
    }

    async fn open(&self, path: &str) {
        self.client
            .goto(&format!("{}{path}", self.base))
            .await
            .unwrap_or_else(|error| panic!("{path} opens for {}: {error}", self.visitor));
    }

    /// Looks at a page, and returns the links on it.
    async fn look(&mut self, path: &str, kind: &str) -> Vec<String> {
        let (client, visitor) = (self.client, self.visitor);
        set_window(client, WINDOWS[0]).await;
        self.open(path).await;
        let at = client.current_url().await.expect("an address");
        // Where it led: a redirect is no page of its own.
        let reached = kind_of(at.path());
        if reached != kind && self.seen.contains(&reached) {
            self.seen.insert(kind.to_owned());
            return self.links().await;
        }
        let status = client
            .execute(
                "const s = document.querySelector('p.ez-status'); return s ? s.textContent : ''",
                Vec::new(),
            )
            .await
            .expect("scripts can be run");
        let is_error = ERRORS
            .iter()
            .any(|(error, who)| *error == path && who.unwrap_or("nobody") == visitor);
        if (status == json!("")) == is_error {
            let page = self.found.entry(format!("{path} ({visitor})")).or_default();
            let rule = page.entry("where a link leads: a page".to_owned()).or_default();
            rule.insert(format!("its status is {status}"));
            return Vec::new();
        }
        if !is_error {
            self.seen.insert(kind.to_owned());
            self.seen.insert(reached);
        }
        let links = self.links().await;
        client
            .execute(&format!("if (!window.axe) {{ {} }}", self.axe), Vec::new())
            .await
            .unwrap_or_else(|error| panic!("axe-core loads on {path}: {error}"));
        for (at, window) in WINDOWS.into_iter().enumerate() {
            if at > 0 {
                set_window(client, window).await;
            }
            for theme in ["light", "dark"] {
                let violations = client
                    .execute_async(RUN, vec![json!(theme)])
                    .await
                    .unwrap_or_else(|error| panic!("axe-core runs on {path}: {error}"));
                self.note(path, &format!("{} {theme}", window.0), &violations);
            }
        }
        links
    }

    /// Opens what is folded; the links of the page, to pages of ours.
    async fn links(&self) -> Vec<String> {
        let links = self
            .client
            .execute(PREPARE, Vec::new())
            .await
            .expect("scripts can be run");
        let links = links.as_array().expect("an array").iter();
        links
            .filter_map(Value::as_str)
            .filter(|href| href.starts_with('/') && !href.starts_with("//"))
            .filter(|href| {
                let kind = kind_of(href);
                !NOT_PAGES.iter().any(|not| kind.contains(not))
            })
            .map(|href| href.split('#').next().unwrap_or(href).to_owned())
            .collect()
    }

    fn note(&mut self, path: &str, mode: &str, violations: &Value) {
        for violation in violations.as_array().expect("an array") {
            let rule = format!(
                "{}: {}",
                violation["id"].as_str().unwrap_or(""),
                violation["help"].as_str().unwrap_or("")
            );
            for node in violation["nodes"].as_array().expect("an array") {
                let place = format!("[{mode}] {}", node.as_str().unwrap_or(""));
                let page = self.found.entry(format!("{path} ({})", self.visitor)).or_default();
                page.entry(rule.clone()).or_default().insert(place);
            }
        }
    }
}

async fn set_window(client: &Client, (width, height): (u32, u32)) {
    client
        .set_window_size(width, height)
        .await
        .expect("the window can be resized");
}

/// A path as it is registered, with its ids left open and without its query: `/invoices/inv_7?x=y` → `/invoices/{}`.
fn kind_of(path: &str) -> String {
    static ROUTES: LazyLock<Vec<String>> = LazyLock::new(routes::pages);
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let is_open = |part: &str| part.starts_with('{');
    let fits = |route: &&String| {
        let of_route: Vec<&str> = route.split('/').collect();
        of_route.len() == parts.len() && of_route.iter().zip(&parts).all(|(of, part)| of == part || is_open(of))
    };
    // A page with a name of its own before one for every name.
    let fitting = ROUTES.iter().filter(fits);
    let route = fitting.min_by_key(|route| route.split('/').filter(|part| is_open(part)).count());
    let shown = route.map_or(path, String::as_str).split('/');
    let shown: Vec<&str> = shown.map(|part| if is_open(part) { "{}" } else { part }).collect();
    shown.join("/")
}

/// A page of many rows takes its time on a small machine.
const SCRIPT_LIMIT: Duration = Duration::from_secs(120);

async fn tour(base: &str) -> (BTreeSet<String>, BTreeMap<String, Violations>) {
    let axe = axe();
    let browser = Browser::start().await;
    let limits = TimeoutConfiguration::new(Some(SCRIPT_LIMIT), Some(SCRIPT_LIMIT), Some(Duration::ZERO));
    browser.client.update_timeouts(limits).await.expect("limits can be set");
    let (mut seen, mut found) = (BTreeSet::new(), BTreeMap::new());
    for visitor in VISITORS {
        if let Some(email) = visitor {
            sign_in(&browser.client, base, email, PASSWORD).await;
        }
        let mut tour = Tour {
            client: &browser.client,
            base,
            axe: &axe,
            visitor: visitor.unwrap_or("nobody"),
            seen: &mut seen,
            found: &mut found,
        };
        let starts: &[&str] = match visitor {
            None => &["/signin"],
            Some("customer@demo.example") => &STARTS,
            // What is found is linked, not the search itself.
            Some(_) => &["/", "/signin", "/account", "/search?q=nyc"],
        };
        tour.follow(starts).await;
        for (path, _) in ERRORS.iter().filter(|(_, who)| *who == visitor) {
            tour.look(path, "error").await;
        }
    }
    browser.close().await;
    (seen, found)
}

/// What the demo may have none of: a payment that can be refunded.
fn add_what_is_linked_to(data: &DataDir) {
    let invoices: Value =
        serde_json::from_str(&data.run(&["invoice", "list", "--format", "json"])).expect("a JSON array");
    let invoices = invoices.as_array().expect("an array");
    let open = invoices.iter().find(|one| {
        one["customer"] == "cus_1" && one["status"] == "finalised" && one["total_minor"].as_i64() > Some(100)
    });
    if let Some(open) = open {
        let id = open["id"].as_str().expect("an id");
        data.run(&["payment", "record", id, "--amount", "1", "--reference", "MT-axe"]);
    }
}

#[test]
fn every_page_meets_wcag_2_2_aa() {
    let data = demo_data();
    let demo = start_demo(&data);
    let base = demo.http.clone().expect("the demo prints the portal's address");
    add_what_is_linked_to(&data);
    let begun = Instant::now();
    let (seen, found) = tokio::runtime::Runtime::new().expect("a runtime").block_on(tour(&base));
    println!("{} kinds of pages in {} s", seen.len(), begun.elapsed().as_secs());
    demo.terminate();

    let mut report = String::new();
    let mut count = 0;
    for (page, violations) in &found {
        report.push_str(&format!("\n{page}\n"));
        for (rule, places) in violations {
            report.push_str(&format!("  {rule}\n"));
            for place in places {
                report.push_str(&format!("    {place}\n"));
                count += 1;
            }
        }
    }
    assert_eq!(count, 0, "violations of WCAG 2.2 AA:\n{report}");

    let unlinked: Vec<&str> = UNLINKED.iter().map(|(path, _)| *path).collect();
    let missed: Vec<String> = routes::pages()
        .into_iter()
        .map(|route| kind_of(&route))
        .filter(|route| !NOT_PAGES.iter().any(|not| route.contains(not)))
        .filter(|route| !seen.contains(route) && !unlinked.contains(&route.as_str()))
        .collect();
    assert!(
        missed.is_empty(),
        "no link of the demo leads to these pages; make one, or list them with the reason: {missed:#?}"
    );
}

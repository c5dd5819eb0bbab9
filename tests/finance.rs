//! Finance's month in a real browser: from the list of invoices it is two clicks to why any line says what it says, the month's
//! files hold what the pages and the books do, and each currency sums to zero.
//!
//! The demo's month is made worth looking at first, by commands and by finance's own forms: a coupon, a change in mid-cycle, a
//! price in tiers, traffic that was assigned to another service afterwards, a charge by hand, a credit note.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, Locator};
use jiff::ToSpan as _;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::support::browser::{Browser, sign_in};
use crate::support::clock;
use crate::support::command::output_of;
use crate::support::demo::{demo_data, start_demo};
use crate::support::ezscale::DataDir;
use crate::support::wait::wait_until;

const EMAIL: &str = "finance@demo.example";
/// As the demo prints it.
const PASSWORD: &str = "amber-lantern-walk";
/// For a page, and for what it fetches.
const LIMIT: Duration = Duration::from_secs(30);
/// Until stored flows have the service that their addresses were given to, on a busy machine.
const CORRECTION_LIMIT: Duration = Duration::from_secs(240);

/// A sheet, from CSV or from a workbook.
#[derive(Debug)]
struct Sheet {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    fn of_csv(bytes: &[u8]) -> Sheet {
        let mut reader = csv::Reader::from_reader(bytes);
        let head = reader.headers().expect("a header line");
        let head = head.iter().map(str::to_owned).collect();
        let row = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        let rows = reader.records().map(|record| row(record.expect("a row of CSV")));
        Sheet {
            rows: rows.collect(),
            head,
        }
    }

    fn cell<'a>(&self, row: &'a [String], column: &str) -> &'a str {
        let position = self.head.iter().position(|name| name == column);
        let position = position.unwrap_or_else(|| panic!("a column {column} in {:?}", self.head));
        row.get(position).map_or("", String::as_str)
    }

    /// Sums of a column of amounts, by currency, over the rows that are wanted.
    fn sums(&self, column: &str, wanted: impl Fn(&[String]) -> bool) -> BTreeMap<String, Decimal> {
        let mut sums = BTreeMap::new();
        for row in self.rows.iter().filter(|row| wanted(row)) {
            let amount = match self.cell(row, column) {
                "" => Decimal::ZERO,
                text => decimal(text),
            };
            *sums.entry(self.cell(row, "currency").to_owned()).or_default() += amount;
        }
        sums
    }

    fn all(&self, column: &str) -> BTreeMap<String, Decimal> {
        self.sums(column, |_| true)
    }
}

fn decimal(text: &str) -> Decimal {
    text.replace(',', "")
        .parse()
        .unwrap_or_else(|error| panic!("{text:?} is a decimal: {error}"))
}

/// `EUR 1,234.50`, `-EUR 1,234.50`.
fn money(text: &str) -> (String, Decimal) {
    let (code, size) = text.trim().split_once(' ').expect("a currency and its amount");
    match code.strip_prefix('-') {
        Some(code) => (code.to_owned(), -decimal(size)),
        None => (code.to_owned(), decimal(size)),
    }
}

async fn open(client: &Client, base: &str, path: &str) {
    client
        .goto(&format!("{base}{path}"))
        .await
        .unwrap_or_else(|error| panic!("{path} opens: {error}"));
}

async fn text(element: &Element) -> String {
    element.text().await.expect("an element has text")
}

async fn shown(client: &Client, css: &str) -> Element {
    let found = client.wait().at_most(LIMIT).for_element(Locator::Css(css)).await;
    match found {
        Ok(element) => element,
        Err(error) => panic!(
            "{css} is on the page ({error}):\n{}",
            client.source().await.unwrap_or_default()
        ),
    }
}

/// A click on what may be below the fold.
async fn press(client: &Client, element: &Element) {
    let script = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})";
    let argument = serde_json::to_value(element).expect("an element can be named");
    client
        .execute(script, vec![argument])
        .await
        .expect("scripts can be run");
    element.click().await.expect("it can be clicked");
}

/// A file behind the sign-in, as the browser gets it.
async fn download(client: &Client, path: &str) -> Vec<u8> {
    let script = "const [path, done] = arguments; fetch(path).then(answer => answer.ok ? answer.arrayBuffer() : \
                  Promise.reject(answer.status)).then(bytes => done(Array.from(new Uint8Array(bytes))), done);";
    let answer = client
        .execute_async(script, vec![path.into()])
        .await
        .expect("scripts can be run");
    serde_json::from_value(answer.clone()).unwrap_or_else(|_| panic!("{path} is answered with {answer}"))
}

/// Fills one of the forms of a page, sends it and waits until the page says that it was done.
async fn fill(client: &Client, action: &str, fields: &[(&str, &str)]) {
    send(client, action, fields).await;
    until_done(client, action).await;
}

/// Fills one of the forms of a page, which are folded away, and sends it.
async fn send(client: &Client, action: &str, fields: &[(&str, &str)]) {
    client
        .execute(
            "document.querySelectorAll('details').forEach(one => one.open = true)",
            Vec::new(),
        )
        .await
        .expect("scripts can be run");
    let css = format!("form[action$='/{action}']");
    let form = shown(client, &css).await;
    for (name, value) in fields {
        let css = format!("[name='{name}']");
        let field = form.find(Locator::Css(&css)).await.expect("a field of the form");
        field.clear().await.expect("a field can be emptied");
        field.send_keys(value).await.expect("a field can be filled");
    }
    let button = form.find(Locator::Css("button[type=submit]")).await;
    press(client, &button.expect("a button to send it")).await;
}

async fn until_done(client: &Client, action: &str) {
    // The page may change while it is read: then it is read again.
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let said = shown(client, "[role=status]").await.text().await;
        if said.is_ok_and(|said| !said.is_empty()) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{action} says that it was done");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A price that held before the demo's month, of a plan that is made for it.
fn old_price(data: &DataDir, name: &str, model: &[&str], price: &[&str]) -> String {
    let plan = [
        "plan",
        "add",
        "--name",
        name,
        "--currency",
        "EUR",
        "--from",
        "2020-01-01T00:00:00Z",
    ];
    data.add(&[&plan[..], model, price].concat(), "prc_")
}

/// What happens to a customer whose service used more than it included.
struct Customer<'a> {
    customer: &'a str,
    service: &'a str,
    subscription: &'a str,
}

/// The month's events: every kind of line there is on invoices.
fn make_events(data: &DataDir, of: &Customer<'_>) {
    let days_ago = |days: i64| {
        let now = clock::began().to_zoned(jiff::tz::TimeZone::UTC);
        let then = now.checked_sub(days.days()).and_then(|then| then.start_of_day());
        then.expect("a day of the calendar").timestamp().to_string()
    };
    data.run(&["coupon", "add", "WALK25", "--percent", "25"]);
    let small = old_price(data, "Rack S", &["--model", "flat"], &["--price", "31"]);
    let large = old_price(data, "Rack L", &["--model", "flat"], &["--price", "62"]);
    let tiered = old_price(
        data,
        "Tiered",
        &["--included", "1"],
        &["--price", "5", "--usage-rate", "graduated:10=1.5,110=1,*=0.5"],
    );

    // In advance with a coupon, and changed in mid-cycle.
    let rack = data.add(
        &["service", "add", "--name", "rack-1", "--customer", of.customer],
        "svc_",
    );
    let rack = data.add(
        &[
            "subscription",
            "add",
            &rack,
            "--price",
            &small,
            "--coupon",
            "WALK25",
            "--from",
            &days_ago(10),
        ],
        "sub_",
    );
    data.run(&["invoice", "close", "--customer", of.customer]);
    data.run(&["subscription", "change", &rack, "--price", &large]);

    // Its addresses were another service's for the last days of what was charged already.
    let listed = data.run(&["service", "list"]);
    let held = listed
        .lines()
        .find(|line| line.split_whitespace().next() == Some(of.service));
    let held: Vec<&str> = held.expect("the service is listed").split_whitespace().collect();
    let assignment = held
        .iter()
        .find(|word| word.starts_with("asg_"))
        .expect("an assignment");
    let prefix = held.iter().find(|word| word.contains('/')).expect("a prefix");
    let site = held
        .iter()
        .find(|word| word.len() == 4 && word.ends_with('1'))
        .expect("a site");
    let since = days_ago(8);
    let tiers = [
        "service",
        "add",
        "--name",
        "tiers-1",
        "--customer",
        of.customer,
        "--site",
        site,
    ];
    let tiers = data.add(&tiers, "svc_");
    data.run(&["service", "release", assignment, "--at", &since]);
    data.run(&["service", "assign", &tiers, "--prefix", prefix, "--from", &since]);
    let tiers = data.add(
        &["subscription", "add", &tiers, "--price", &tiered, "--from", &since],
        "sub_",
    );
    data.run(&["subscription", "cancel", &tiers, "--now"]);
    data.run(&["subscription", "cancel", of.subscription, "--now"]);
    // The correction is charged once the stored flows have their new service: a job of the demo sees to that.
    wait_until("the correction on an invoice", CORRECTION_LIMIT, || {
        data.run(&["invoice", "close", "--customer", of.customer]);
        let listed = data.run(&["invoice", "list", "--customer", of.customer, "--format", "json"]);
        let invoices: Vec<Value> = serde_json::from_str(&listed).expect("an array of invoices");
        let mut ids = invoices.iter().filter_map(|invoice| invoice["id"].as_str());
        ids.any(|id| data.run(&["invoice", "show", id]).contains("correction of"))
    });
}

/// Two clicks from the list: the document, and why the line says what it says. Returns the positions that were explained.
async fn walk(client: &Client, base: &str, list: &str, number: &str) -> BTreeSet<String> {
    open(client, base, list).await;
    let link = client.find(Locator::LinkText(number)).await;
    let link = link.unwrap_or_else(|error| panic!("{number} is in the list: {error}"));
    press(client, &link).await;
    shown(client, ".ez-lines").await;
    let mut explained = BTreeSet::new();
    for line in client.find_all(Locator::Css(".ez-lines > tbody")).await.expect("lines") {
        let position = text(&line.find(Locator::Css("td")).await.expect("its number")).await;
        let amount = text(&line.find(Locator::Css("td b")).await.expect("its amount")).await;
        let what = format!("line {position} of {number}");
        let why = line.find(Locator::Css("summary")).await;
        let why = why.unwrap_or_else(|error| panic!("{what} can be asked why: {error}"));
        press(client, &why).await;
        let steps = text(&line.find(Locator::Css(".ez-steps")).await.expect("its calculation")).await;
        assert!(steps.lines().count() >= 2, "{what} is explained: {steps}");
        assert!(steps.contains(&amount), "{what} ends with {amount}: {steps}");
        // What was measured is fetched: usage lines have a place for it.
        if line.find(Locator::Css("details[hx-get]")).await.is_ok() {
            let deadline = tokio::time::Instant::now() + LIMIT;
            while line.find(Locator::Css(".ez-days tbody tr")).await.is_err() {
                assert!(tokio::time::Instant::now() < deadline, "{what} shows its days");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(
                steps.contains("5-minute windows"),
                "{what} says what was measured: {steps}"
            );
        }
        explained.insert(position);
    }
    for tax in client
        .find_all(Locator::Css(".ez-lines > tfoot details"))
        .await
        .expect("taxes")
    {
        let why = tax.find(Locator::Css("summary")).await.expect("a tax can be asked why");
        press(client, &why).await;
        let steps = text(&tax.find(Locator::Css(".ez-steps")).await.expect("its calculation")).await;
        for part in ["Seller in", "Customer in", "Rate", "Charged on"] {
            assert!(steps.contains(part), "the tax of {number} says {part}: {steps}");
        }
    }
    explained
}

/// The workbook, read by another program.
fn workbook(bytes: &[u8], scratch: &Path) -> BTreeMap<String, Sheet> {
    let path = scratch.join("month.xlsx");
    std::fs::write(&path, bytes).expect("the test's directory is writable");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xlsx.py");
    let printed = output_of(Command::new("python3").arg(script).arg(&path));
    let sheets: BTreeMap<String, Vec<Vec<String>>> = serde_json::from_str(&printed).expect("sheets as JSON");
    let sheet = |(name, mut rows): (String, Vec<Vec<String>>)| {
        let head = rows.remove(0);
        (name, Sheet { head, rows })
    };
    sheets.into_iter().map(sheet).collect()
}

/// The month's files against each other, the pages and the books.
async fn check_export(client: &Client, base: &str, month: &str, scratch: &Path) -> BTreeSet<String> {
    open(client, base, &format!("/finance?month={month}")).await;
    let mut on_page = BTreeMap::new();
    for tile in client.find_all(Locator::Css(".ez-tile .value")).await.expect("sums") {
        let (currency, total) = money(&text(&tile).await);
        on_page.insert(currency, total);
    }
    assert!(on_page.len() >= 2, "the demo sells in several currencies: {on_page:?}");

    open(client, base, "/finance/export").await;
    let row = client
        .find(Locator::XPath("//table/tbody/tr[1]"))
        .await
        .expect("the newest month");
    let mut hrefs = Vec::new();
    for link in row.find_all(Locator::Css("a")).await.expect("files") {
        hrefs.push(link.attr("href").await.expect("a link").expect("an address"));
    }
    assert!(hrefs.iter().all(|href| href.ends_with(month)), "{hrefs:?}");
    let mut sheets = BTreeMap::new();
    for name in ["documents", "taxes", "lines", "payments", "postings"] {
        let href = hrefs.iter().find(|href| href.contains(&format!("/{name}.csv")));
        let href = href.unwrap_or_else(|| panic!("{name} can be had: {hrefs:?}"));
        sheets.insert(name, Sheet::of_csv(&download(client, href).await));
    }
    let xlsx = hrefs.iter().find(|href| href.contains(".xlsx")).expect("a workbook");
    let workbook = workbook(&download(client, xlsx).await, scratch);
    for (name, sheet) in &sheets {
        let other = &workbook[*name];
        assert_eq!(sheet.head, other.head, "{name}");
        assert_eq!(sheet.rows.len(), other.rows.len(), "{name}");
    }

    let documents = &sheets["documents"];
    assert_eq!(documents.all("total"), on_page, "the files sum to what the page says");
    for column in ["subtotal", "tax", "total"] {
        assert_eq!(documents.all(column), workbook["documents"].all(column), "{column}");
    }
    assert_eq!(
        sheets["lines"].all("net"),
        documents.all("subtotal"),
        "lines and documents"
    );
    assert_eq!(workbook["lines"].all("net"), documents.all("subtotal"));
    assert_eq!(sheets["taxes"].all("tax"), documents.all("tax"), "taxes and documents");

    // The books: debits are credits, and revenue and tax are what the documents say.
    let postings = &sheets["postings"];
    assert_eq!(
        postings.all("debit"),
        postings.all("credit"),
        "each currency sums to zero"
    );
    let posted = |prefixes: &[&str]| {
        let wanted = |row: &[String]| {
            let account = postings.cell(row, "account");
            prefixes.iter().any(|prefix| account.starts_with(prefix))
        };
        let mut sums = postings.sums("credit", wanted);
        for (currency, debit) in postings.sums("debit", wanted) {
            *sums.entry(currency).or_default() -= debit;
        }
        sums.retain(|_, sum| !sum.is_zero());
        sums
    };
    let without_zeros = |mut sums: BTreeMap<String, Decimal>| {
        sums.retain(|_, sum| !sum.is_zero());
        sums
    };
    assert_eq!(
        posted(&["revenue:", "discounts:"]),
        without_zeros(documents.all("subtotal")),
        "revenue"
    );
    assert_eq!(posted(&["tax:"]), without_zeros(documents.all("tax")), "tax");
    on_page.into_keys().collect()
}

async fn check_trial_balance(client: &Client, base: &str, currencies: &BTreeSet<String>) {
    open(client, base, "/finance/ledger").await;
    let source = client.source().await.expect("the page's source");
    assert!(source.contains("Books are consistent"), "{source}");
    let mut balanced = BTreeSet::new();
    for card in client
        .find_all(Locator::Css(".ez-card-head"))
        .await
        .expect("currencies")
    {
        let currency = text(&card.find(Locator::Css("h2")).await.expect("a currency")).await;
        let badge = text(&card.find(Locator::Css(".ez-badge")).await.expect("its sum")).await;
        assert_eq!(badge, format!("Sum {currency} 0.00"));
        balanced.insert(currency);
    }
    assert_eq!(&balanced, currencies, "every currency is balanced");
    for foot in client.find_all(Locator::Css("tfoot tr")).await.expect("sums") {
        let cells = foot.find_all(Locator::Css("td.num")).await.expect("two sums");
        let (debits, credits) = (text(&cells[0]).await, text(&cells[1]).await);
        assert_eq!(debits, credits);
        assert!(decimal(&debits) > Decimal::ZERO);
    }
}

async fn finance_s_month(data: &DataDir, base: &str) {
    let browser = Browser::start().await;
    let client = &browser.client;
    client
        .set_window_size(1440, 1000)
        .await
        .expect("the window can be resized");
    sign_in(client, base, EMAIL, PASSWORD).await;

    open(client, base, "/finance").await;
    let month = client
        .find(Locator::Css("select[name=month] option:checked"))
        .await
        .expect("the newest month is shown");
    let month = month.attr("value").await.expect("an option").expect("a month");
    let lines = format!("/finance/export/lines.csv?month={month}");
    let before = Sheet::of_csv(&download(client, &lines).await);
    let is_large = |row: &&Vec<String>| {
        before.cell(row, "currency") == "EUR"
            && before.cell(row, "kind") == "transfer_overage"
            && decimal(before.cell(row, "net")) >= Decimal::ONE
    };
    let large = before
        .rows
        .iter()
        .find(is_large)
        .expect("somebody in EUR used more than was included");
    let of = Customer {
        customer: before.cell(large, "customer"),
        service: before.cell(large, "service"),
        subscription: before.cell(large, "subscription"),
    };
    open(client, base, &format!("/finance/customers/{}", of.customer)).await;
    let charge = [("description", "Remote hands, one hour"), ("amount", "45.50")];
    fill(client, "charge", &charge).await;
    make_events(data, &of);
    let invoiced = before.cell(large, "number").to_owned();
    open(client, base, "/finance").await;
    let link = client.find(Locator::LinkText(&invoiced)).await.expect("in the list");
    press(client, &link).await;
    shown(client, ".ez-lines").await;
    let fields = [("amount", "1.00"), ("reason", "goodwill for a late reply")];
    send(client, "credit", &fields).await;
    let issue = shown(client, "form[action$='/credit'] button[value=issue]").await;
    let says = text(&issue).await;
    // With tax, of several lines: each is rounded, and what comes of it is shown first.
    assert!(says.contains("for EUR 1.0"), "{says:?}");
    press(client, &issue).await;
    until_done(client, "credit").await;

    let after = Sheet::of_csv(&download(client, &lines).await);
    let list = format!("/finance?month={month}&customer={}", of.customer);
    let mut documents: BTreeSet<(String, &str)> = BTreeSet::new();
    for row in &after.rows {
        if after.cell(row, "customer") == of.customer {
            documents.insert((after.cell(row, "number").to_owned(), list.as_str()));
        }
    }
    let percentile = after
        .rows
        .iter()
        .find(|row| after.cell(row, "kind") == "percentile_overage");
    let percentile = percentile.expect("somebody pays by the percentile");
    documents.insert((after.cell(percentile, "number").to_owned(), "/finance"));

    let mut kinds = BTreeSet::new();
    for (number, list) in &documents {
        let explained = walk(client, base, list, number).await;
        for row in after.rows.iter().filter(|row| after.cell(row, "number") == number) {
            let position = after.cell(row, "position");
            assert!(
                explained.contains(position),
                "line {position} of {number} is explained: {explained:?}"
            );
            kinds.insert(after.cell(row, "kind"));
        }
    }
    let every = [
        "adjustment",
        "base",
        "discount",
        "item",
        "percentile_overage",
        "reversal",
        "transfer_overage",
        "unused",
    ];
    assert_eq!(kinds, BTreeSet::from(every), "every kind of line was asked why");

    let currencies = check_export(client, base, &month, data.scratch()).await;
    check_trial_balance(client, base, &currencies).await;
    browser.close().await;
}

#[test]
fn finance_finds_in_two_clicks_why_a_line_says_what_it_says_and_its_files_and_books_agree() {
    let data = demo_data();
    let demo = start_demo(&data);
    let base = demo.http.clone().expect("the demo prints the portal's address");
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(finance_s_month(&data, &base));
    assert!(data.run(&["ledger", "check"]).contains("no violations"));
    demo.terminate();
}

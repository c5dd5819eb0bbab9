//! A customer in a real browser: the address is verified by the link of a real mail, the second factor is set up with a code
//! computed here, and then the free plan can be ordered, with every click as a person makes it.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fantoccini::{Client, Locator};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use crate::support::browser::Browser;
use crate::support::clock;
use crate::support::ezscale::{DataDir, Start};
use crate::support::smtp::MailServer;
use crate::support::wait::wait_for;

const EMAIL: &str = "bob@example.net";
const PASSWORD: &str = "correct horse battery";
/// Until a page that was asked for is there: a password's check takes its time on a busy machine.
const PAGE_LIMIT: Duration = Duration::from_secs(30);
/// Until the outbox has sent a mail.
const MAIL_LIMIT: Duration = Duration::from_secs(60);

/// RFC 6238 with a secret in base32, so many steps from now.
fn code(secret: &str, steps_ahead: i64) -> String {
    let mut bits = String::new();
    for symbol in secret.chars().filter(|c| !c.is_whitespace()) {
        let value = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(symbol).unwrap();
        bits.push_str(&format!("{value:05b}"));
    }
    let key: Vec<u8> = (0..bits.len() / 8)
        .map(|at| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).unwrap())
        .collect();
    let step = clock::running().as_second() / 30 + steps_ahead;
    let mut mac = Hmac::<Sha1>::new_from_slice(&key).unwrap();
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let at = usize::from(hash[19] & 15);
    let number = u32::from_be_bytes(hash[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

struct Customer<'a> {
    client: &'a Client,
    base: String,
}

impl Customer<'_> {
    async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.base)).await.unwrap();
    }

    /// Fills in the form that goes to `action` and presses its button.
    async fn send(&self, action: &str, fields: &[(&str, &str)]) {
        let at = format!("form[action='{action}']");
        let form = self.client.form(Locator::Css(&at)).await.unwrap();
        for (name, value) in fields {
            form.set_by_name(name, value).await.unwrap();
        }
        form.submit().await.unwrap();
    }

    /// The text of what is there soon.
    async fn text(&self, css: &str) -> String {
        self.text_with(css, "").await
    }

    /// The text of what is there soon and has these words. What is read while the page changes is read again.
    async fn text_with(&self, css: &str, words: &str) -> String {
        let deadline = Instant::now() + PAGE_LIMIT;
        loop {
            let read = match self.client.find(Locator::Css(css)).await {
                Ok(element) => element.text().await,
                Err(error) => Err(error),
            };
            match read {
                Ok(text) if text.contains(words) => return text,
                _ if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!(
                    "{words:?} in {css} at {}: {other:?}\n{}",
                    self.client.current_url().await.unwrap(),
                    self.client.source().await.unwrap()
                ),
            }
        }
    }

    async fn give_password(&self) {
        self.client.delete_all_cookies().await.unwrap();
        self.open("/signin").await;
        self.send("/signin", &[("email", EMAIL), ("password", PASSWORD)]).await;
    }
}

/// What a mail's link leads to.
fn link(mail: &str) -> String {
    // As a mail program joins lines that were too long.
    let text = mail.replace("=\n", "");
    let start = text.find("/verify-email/").unwrap();
    let path = text[start..].split_whitespace().next().unwrap();
    assert_eq!(path.len(), "/verify-email/".len() + 64, "{path}");
    path.to_owned()
}

async fn go_the_whole_way(data: &DataDir, mail: &MailServer, base: String, plan: &str) {
    let browser = Browser::start().await;
    // Every button is in view: the pages scroll smoothly, and the driver does not wait for that.
    browser.client.set_window_size(1280, 1400).await.unwrap();
    let bob = Customer {
        client: &browser.client,
        base,
    };
    bob.give_password().await;
    bob.text(".ez-side").await;
    let checkout = format!("/plans/{plan}/checkout");
    bob.open(&checkout).await;
    let lacking = bob.text(".alert-info").await;
    assert!(
        lacking.contains("not verified") && lacking.contains("second factor"),
        "{lacking}"
    );

    // The mail that adding the user has sent.
    let mails = wait_for("a mail with a link", MAIL_LIMIT, || {
        Some(mail.mails()).filter(|mails| !mails.is_empty())
    });
    assert_eq!(mails[0].to, EMAIL);
    assert_eq!(mails[0].header("Subject"), "Please confirm your email address");
    let link = link(&mails[0].text);
    let token = link.rsplit('/').next().unwrap();
    let event = data.run(&["event", "show", "evt_1"]);
    assert!(event.contains("email.verification_requested"), "{event}");
    assert!(!event.contains(token), "only the mail has it");
    bob.open(&link).await;
    let button = bob.client.find(Locator::Css("form button")).await.unwrap();
    button.click().await.unwrap();
    bob.text_with("h1", "Your email address").await;

    bob.open("/account/two-factor").await;
    bob.send("/account/two-factor/begin", &[("password", PASSWORD)]).await;
    let secret = bob.text("#secret").await;
    bob.send("/account/two-factor/confirm", &[("code", &code(&secret, 0))])
        .await;
    let recovery_codes = bob.text("#codes").await;
    assert_eq!(recovery_codes.split_whitespace().count(), 10, "{recovery_codes}");

    // Signing in takes the next code now.
    bob.give_password().await;
    bob.text("#code").await;
    bob.open("/account").await;
    let at = bob.client.current_url().await.unwrap();
    assert_eq!(at.path(), "/signin", "there is no session before the code");
    bob.give_password().await;
    bob.text("#code").await;
    let wrong = if code(&secret, 1) == "000000" {
        "111111"
    } else {
        "000000"
    };
    let form = bob.client.form(Locator::Css("form")).await.unwrap();
    form.set_by_name("code", wrong).await.unwrap();
    form.submit().await.unwrap();
    assert!(bob.text(".alert-danger").await.contains("not right"));
    let form = bob.client.form(Locator::Css("form")).await.unwrap();
    // That of the step after the one that was used.
    form.set_by_name("code", &code(&secret, 1)).await.unwrap();
    form.submit().await.unwrap();
    bob.text(".ez-side").await;

    bob.open(&checkout).await;
    let name = bob.client.find(Locator::Id("name")).await.unwrap();
    name.send_keys("dev-1").await.unwrap();
    let button = bob.client.find(Locator::Css("button[value=order]")).await.unwrap();
    button.click().await.unwrap();
    let done = bob.text(".alert-success").await;
    assert!(!done.is_empty());
    let subscribed = data.run(&["subscription", "list"]);
    assert!(subscribed.contains("Development"), "{subscribed}");

    // Who lost the app is let in by the operator.
    data.run(&["user", "reset-two-factor", EMAIL]);
    assert!(data.run(&["audit", "list"]).contains("user.two_factor_reset"));
    bob.open("/account").await;
    let at = bob.client.current_url().await.unwrap();
    assert_eq!(at.path(), "/signin", "sessions were ended");
    bob.give_password().await;
    bob.text(".ez-side").await;

    // A new address is not verified, and gets a mail of its own.
    let customers = data.run(&["customer", "list"]);
    assert!(
        customers.contains("yes") && !customers.contains("billing@bob.example"),
        "{customers}"
    );
    let config = data.scratch().join("config.toml").display().to_string();
    let changed = data.run(&["customer", "email", "cus_1", "billing@bob.example", "--config", &config]);
    assert!(changed.contains("is on its way"), "{changed}");
    assert!(!data.run(&["customer", "list"]).contains("yes"));
    wait_for("a mail to the new address", MAIL_LIMIT, || {
        let mails = mail.mails();
        mails.into_iter().find(|mail| mail.to == "billing@bob.example")
    });
    browser.close().await;
}

#[test]
fn a_customer_verifies_the_address_sets_up_a_second_factor_and_orders_the_free_plan() {
    let mail = MailServer::start();
    let mut data = DataDir::new();
    data.set_config(&format!(
        "[mail]\nsmtp_url = '{}'\nfrom = 'Ada Hosting <billing@ada.example>'\n",
        mail.url()
    ));
    let customer = data.add(&["customer", "add", "--name", "Bob Ltd", "--email", EMAIL], "cus_");
    let plan = data.add(
        &[
            "plan",
            "add",
            "--name",
            "Development",
            "--type",
            "vps",
            "--model",
            "flat",
            "--price",
            "0",
            "--free",
        ],
        "pln_",
    );
    let add = [
        "user",
        "add",
        "--email",
        EMAIL,
        "--name",
        "Bob",
        "--role",
        "customer",
        "--customer",
    ];
    let mut add = data.command(&[&add[..], &[&customer]].concat());
    let mut added = add.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(added.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(added.wait().unwrap().success());

    let server = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0").on(&data);
    let base = server.http.clone().unwrap();
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(go_the_whole_way(&data, &mail, base, &plan));
    server.terminate();
}

//! Attacks on signing in, against the built program: guessing from one address and from many, having somebody else wait, links to
//! set a password that are used again, guessed, old or led elsewhere, planted sessions, and learning who signs in here. And what
//! the operator does about users from the command line, while the portal runs.
//!
//! Strangers come from addresses of 127.0.0.0/8. Where time goes by, the program goes by a test clock.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

use crate::acts::account;
use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::smtp::{Mail, MailServer};
use crate::support::wait::wait_for;

const BOB: &str = "bob@example.net";
const PASSWORD: &str = "correct horse battery";
const NEW_PASSWORD: &str = "fjord lantern pickle";
const PUBLIC_URL: &str = "http://portal.ada.example:8443";
/// Until the outbox has sent a mail.
const MAIL_LIMIT: Duration = Duration::from_secs(60);

/// An installation with a customer's user, two admins, a mail server and a portal.
struct World {
    data: DataDir,
    mail: MailServer,
    server: Ezscale,
    base: String,
}

impl World {
    fn start(arguments: &[&str]) -> World {
        let mail = MailServer::start();
        let mut data = DataDir::new();
        data.set_config(&format!(
            "[mail]\nsmtp_url = '{}'\nfrom = 'Ada Hosting <billing@ada.example>'\n\
             [portal]\npublic_url = '{PUBLIC_URL}'\nmetrics_allow = ['127.0.0.0/8']\n",
            mail.url()
        ));
        let start = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0");
        let server = start.arguments(arguments).on(&data);
        let customer = data.add(&["customer", "add", "--name", "Bob Ltd", "--email", BOB], "cus_");
        let world = World {
            base: server.http.clone().unwrap(),
            data,
            mail,
            server,
        };
        let of_customer = ["--role", "customer", "--customer", &customer];
        world.piped(&[&["user", "add", "--email", BOB, "--name", "Bob"][..], &of_customer].concat());
        for admin in ["root", "second"] {
            let email = format!("{admin}@example.net");
            world.piped(&["user", "add", "--email", &email, "--name", admin, "--role", "admin"]);
        }
        world
    }

    /// Runs a command that reads a password.
    fn piped(&self, arguments: &[&str]) {
        self.piped_with(arguments, PASSWORD);
    }

    fn piped_with(&self, arguments: &[&str], password: &str) {
        let mut command = self.data.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }

    /// A command that must fail, and what it says.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.data.command(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} is refused");
        String::from_utf8(output.stderr).unwrap()
    }

    fn listed(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.data.run(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&output).unwrap()
    }

    fn visitor(&self, from: [u8; 4]) -> Visitor {
        Visitor {
            client: reqwest::Client::builder()
                .local_address(IpAddr::from(from))
                .redirect(Policy::none())
                .build()
                .unwrap(),
            base: self.base.clone(),
            cookies: BTreeMap::new(),
        }
    }

    /// The mails of a subject to an address, once there are so many.
    fn mails(&self, to: &str, subject: &str, count: usize) -> Vec<Mail> {
        wait_for(&format!("mail {subject:?} to {to}"), MAIL_LIMIT, || {
            let found: Vec<Mail> = self
                .mail
                .mails()
                .into_iter()
                .filter(|mail| mail.to == to && mail.header("Subject") == subject)
                .collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// The link of the latest of so many mails, without what it must begin with.
    fn reset_link(&self, to: &str, count: usize) -> String {
        let mails = self.mails(to, "Set a new password", count);
        // As a mail program joins lines that were too long.
        let text = mails[count - 1].text.replace("=\n", "");
        let at = text.find("/reset-password/").unwrap();
        let path = text[at..].split_whitespace().next().unwrap();
        assert_eq!(path.len(), "/reset-password/".len() + 64, "{path}");
        assert!(
            text[..at].ends_with(PUBLIC_URL),
            "the link is of the configured address:\n{text}"
        );
        path.to_owned()
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = reqwest::get(format!("{}/metrics", self.base)).await.unwrap();
        let text = text.text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A browser at an address, which keeps cookies and follows nothing by itself.
#[derive(Clone)]
struct Visitor {
    client: reqwest::Client,
    base: String,
    cookies: BTreeMap<String, String>,
}

struct Answer {
    status: StatusCode,
    location: String,
    retry_after_s: u64,
    body: String,
}

impl Answer {
    fn csrf_token(&self) -> String {
        let found = self.body.split("name=\"csrf_token\" value=\"").nth(1);
        let found = found.unwrap_or_else(|| panic!("no form in\n{}", self.body));
        found.split('"').next().unwrap().to_owned()
    }
}

impl Visitor {
    async fn send(&mut self, request: RequestBuilder) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = request.header("cookie", cookies.join("; "));
        let response = request.header("user-agent", "Visitor/1").send().await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        Answer {
            status: response.status(),
            location: header("location"),
            retry_after_s: header("retry-after").parse().unwrap_or(0),
            body: response.text().await.unwrap(),
        }
    }

    async fn get(&mut self, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.base));
        self.send(request).await
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base)).form(form);
        self.send(request).await
    }

    async fn sign_in(&mut self, email: &str, password: &str) -> Answer {
        let token = self.get("/signin").await.csrf_token();
        let form = [("csrf_token", token.as_str()), ("email", email), ("password", password)];
        self.post("/signin", &form).await
    }

    async fn ask_for_link(&mut self, email: &str) -> Answer {
        let token = self.get("/forgot-password").await.csrf_token();
        self.post("/forgot-password", &[("csrf_token", &token), ("email", email)])
            .await
    }

    async fn set_password(&mut self, link: &str, new: &str) -> Answer {
        // Of a link that is void there is no form, which keeps nobody from sending one.
        let token = self.get("/forgot-password").await.csrf_token();
        let form = [("csrf_token", token.as_str()), ("new", new), ("again", new)];
        self.post(link, &form).await
    }

    async fn is_signed_in(&mut self) -> bool {
        self.get("/account").await.status == StatusCode::OK
    }

    /// The session's cookie, whatever it is called.
    fn session(&self) -> Option<(String, String)> {
        let mut cookies = self.cookies.iter();
        let found = cookies.find(|(name, _)| name.ends_with("ezscale_session"));
        found.map(|(name, value)| (name.clone(), value.clone()))
    }
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

/// Failures beyond the free ones after which a wait that began at `base_s` and doubled each time is longer than `elapsed`.
fn doublings(elapsed: Duration, base_s: u64) -> usize {
    let mut waited_s = 0;
    (0u32..)
        .take_while(|n| {
            waited_s += base_s << n;
            waited_s <= elapsed.as_secs() + 1
        })
        .count()
}

#[test]
fn guesses_from_one_address_and_from_many_wait_and_the_owner_gets_in() {
    let world = World::start(&[]);
    block_on(async {
        let mut laptop = world.visitor([127, 0, 0, 1]);
        assert_eq!(laptop.sign_in(BOB, PASSWORD).await.status, StatusCode::SEE_OTHER);
        let token = laptop.get("/account").await.csrf_token();
        laptop.post("/signout", &[("csrf_token", &token)]).await;

        // One stranger, as fast as it goes.
        let begun = Instant::now();
        let mut stranger = world.visitor([127, 0, 0, 9]);
        let (mut looked_at, mut held_back) = (0, 0);
        for guess in 0..60 {
            let answer = stranger.sign_in(BOB, &format!("not the password {guess}")).await;
            match answer.status {
                StatusCode::UNAUTHORIZED => looked_at += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    assert!((1..=900).contains(&answer.retry_after_s));
                    held_back += 1;
                }
                other => panic!("{other}: {}", answer.body),
            }
        }
        let most = 5 + doublings(begun.elapsed(), 2);
        println!("one address: {looked_at} of 60 guesses looked at, {held_back} held back");
        assert!(looked_at <= most, "{looked_at} guesses of {most}");
        // A browser that nobody knows, elsewhere, does not wait for that.
        let mut phone = world.visitor([127, 0, 0, 2]);
        assert_eq!(phone.sign_in(BOB, PASSWORD).await.status, StatusCode::SEE_OTHER);

        // Many strangers, each with a few guesses that are its own.
        let begun = Instant::now();
        let (mut looked_at, mut held_back) = (0, 0);
        for n in 1..=120 {
            let mut stranger = world.visitor([127, 0, 1, n]);
            match stranger.sign_in(BOB, "not the password").await.status {
                StatusCode::UNAUTHORIZED => looked_at += 1,
                StatusCode::TOO_MANY_REQUESTS => held_back += 1,
                other => panic!("{other}"),
            }
        }
        // What one stranger had used up of the account's free ones is less than all of them.
        let most = 20 + doublings(begun.elapsed(), 1);
        println!("120 addresses: {looked_at} guesses looked at, {held_back} held back");
        assert!(looked_at <= most, "{looked_at} guesses of {most}");
        assert!(held_back > 0);

        // The owner, at the browser that signed him in before, while strangers are held back.
        let mut held = false;
        for n in 1..=250 {
            let mut stranger = world.visitor([127, 0, 2, n]);
            held = stranger.sign_in(BOB, "not the password").await.status == StatusCode::TOO_MANY_REQUESTS;
            if held {
                break;
            }
        }
        assert!(held);
        let wrong = laptop.sign_in(BOB, "a slip of the finger").await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "looked at");
        let answer = laptop.sign_in(BOB, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert!(laptop.is_signed_in().await);
        // Signed in, strangers' guesses hold up no change of the password either.
        let token = laptop.get("/account").await.csrf_token();
        let form = [
            ("csrf_token", token.as_str()),
            ("current", PASSWORD),
            ("new", NEW_PASSWORD),
            ("again", NEW_PASSWORD),
        ];
        let changed = laptop.post("/account/password", &form).await;
        assert_eq!(changed.location, "/account?changed=password", "{}", changed.body);

        // At a browser that nobody knows he is led around it by mail.
        let mut tablet = world.visitor([127, 0, 0, 3]);
        tablet.ask_for_link(BOB).await;
        let link = world.reset_link(BOB, 1);
        let set = tablet.set_password(&link, "orchid kettle winter").await;
        assert_eq!(set.location, "/signin?done=password", "{}", set.body);
        for n in 1..=5 {
            world.visitor([127, 0, 3, n]).sign_in(BOB, "not the password").await;
        }
        let answer = tablet.sign_in(BOB, "orchid kettle winter").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);

        assert!(world.metric("ezscale_sign_in_held_back_total").await > 0);
        let attempts = world.listed(&["user", "sign-ins", BOB, "--limit", "1000"]);
        let wrong: Vec<&Value> = attempts
            .iter()
            .filter(|attempt| attempt["result"] == "wrong_password" && attempt["user"] == "usr_1")
            .collect();
        assert!(wrong.iter().any(|attempt| attempt["ip"] == "127.0.0.9"), "{wrong:?}");
        assert!(wrong.iter().all(|attempt| attempt["browser"] == "Visitor/1"));
        assert_eq!(attempts[0]["result"], "signed_in");
        let page = tablet.get("/account/sessions").await.body;
        assert!(page.contains("127.0.0.9") && page.contains("Wrong password"), "{page}");
    });
    // Each change was told to him.
    assert_eq!(world.mails(BOB, "Your password was changed", 2).len(), 2);
    world.server.terminate();
}

#[test]
fn a_link_is_of_the_configured_address_for_one_use_within_an_hour() {
    let world = World::start(&["--clock", "2026-03-01T12:00:00Z"]);
    block_on(async {
        let mut bob = world.visitor([127, 0, 0, 1]);
        assert_eq!(bob.sign_in(BOB, PASSWORD).await.status, StatusCode::SEE_OTHER);

        // Whatever the request says of the portal's address.
        let mut stranger = world.visitor([127, 0, 0, 9]);
        let token = stranger.get("/forgot-password").await.csrf_token();
        let forged = stranger
            .client
            .post(format!("{}/forgot-password", world.base))
            .header("host", "evil.example")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "https")
            .header("forwarded", "host=evil.example;proto=https")
            .form(&[("csrf_token", token.as_str()), ("email", BOB)]);
        let asked = stranger.send(forged).await;
        assert_eq!(asked.location, "/forgot-password?asked=yes");
        let link = world.reset_link(BOB, 1);
        let mail = &world.mails(BOB, "Set a new password", 1)[0];
        assert!(!mail.text.contains("evil.example"), "{}", mail.text);
        assert!(mail.text.contains("127.0.0.9"), "it says who asked:\n{}", mail.text);

        // Guessed, cut, of another case: none of these is one.
        let token = link.rsplit('/').next().unwrap();
        let other = if token.starts_with('0') { "1" } else { "0" };
        for guess in [
            format!("{other}{}", &token[1..]),
            token[..63].to_owned(),
            token.to_uppercase().replace(char::is_numeric, "A"),
            "%00".to_owned(),
            "' OR 1=1 --".to_owned(),
        ] {
            let answer = stranger.get(&format!("/reset-password/{guess}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{guess}");
        }
        for guess in 0..20 {
            let answer = world
                .visitor([127, 0, 0, 10])
                .get(&format!("/reset-password/{guess:064x}"))
                .await;
            let expected = if guess < 10 {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::TOO_MANY_REQUESTS
            };
            assert_eq!(answer.status, expected, "guess {guess}");
        }
        assert!(bob.is_signed_in().await, "asking and looking change nothing");
        // It is nowhere but in the mail.
        let event = world.data.run(&["event", "list", "--format", "json"]);
        assert!(event.contains("user.password_reset_requested") && !event.contains(token));
        assert!(!world.server.stderr().contains(token), "nor in the log");

        // After an hour it is void.
        world.data.run(&["clock", "set", "2026-03-01T12:59:59Z"]);
        wait_until_clock(&mut bob, &link, StatusCode::OK).await;
        world.data.run(&["clock", "set", "2026-03-01T13:00:00Z"]);
        wait_until_clock(&mut bob, &link, StatusCode::NOT_FOUND).await;
        let late = bob.set_password(&link, NEW_PASSWORD).await;
        assert_eq!(late.status, StatusCode::NOT_FOUND);
        assert!(bob.is_signed_in().await);

        // A fresh one sets the password, once, and ends every session.
        let mut fresh = world.visitor([127, 0, 0, 4]);
        fresh.ask_for_link(BOB).await;
        let link = world.reset_link(BOB, 2);
        let common = fresh.set_password(&link, "passwordpassword").await;
        assert_eq!(common.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(common.body.contains("easy to guess"), "{}", common.body);
        let (first, second) = tokio::join!(
            async { fresh.clone().set_password(&link, NEW_PASSWORD).await.status },
            async {
                world
                    .visitor([127, 0, 0, 5])
                    .set_password(&link, "orchid kettle winter")
                    .await
                    .status
            },
        );
        let mut both = [first, second];
        both.sort();
        assert_eq!(
            both,
            [StatusCode::SEE_OTHER, StatusCode::NOT_FOUND],
            "of two at once one is taken"
        );
        assert!(!bob.is_signed_in().await);
        let again = fresh.set_password(&link, NEW_PASSWORD).await;
        assert_eq!(again.status, StatusCode::NOT_FOUND, "used up");
        assert_eq!(fresh.sign_in(BOB, PASSWORD).await.status, StatusCode::UNAUTHORIZED);
        let new = if first == StatusCode::SEE_OTHER {
            NEW_PASSWORD
        } else {
            "orchid kettle winter"
        };
        assert_eq!(fresh.sign_in(BOB, new).await.status, StatusCode::SEE_OTHER);
        let log = world.data.run(&["audit", "list"]);
        assert!(
            log.contains("user.password_reset_request ") && log.contains("user.password_reset "),
            "{log}"
        );
    });
    world.mails(BOB, "Your password was changed", 1);
    world.server.terminate();
}

/// The program takes a test clock's time within a second.
async fn wait_until_clock(visitor: &mut Visitor, link: &str, expected: StatusCode) {
    let deadline = Instant::now() + MAIL_LIMIT;
    loop {
        let answer = visitor.get(link).await.status;
        if answer == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{answer}, not {expected}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn a_planted_session_is_nobodys_and_nobody_learns_who_signs_in_here() {
    let world = World::start(&[]);
    world.piped(&[
        "user",
        "add",
        "--email",
        "third@example.net",
        "--name",
        "third",
        "--role",
        "ops",
    ]);
    block_on(async {
        // A session that an attacker has, and a token that is none, planted in the browser of who signs in next.
        let mut attacker = world.visitor([127, 0, 0, 9]);
        attacker.sign_in("second@example.net", PASSWORD).await;
        let (cookie, theirs) = attacker.session().unwrap();
        for planted in [theirs.clone(), "0".repeat(64)] {
            let mut bob = world.visitor([127, 0, 0, 1]);
            // The cookie is sent with the form alone: with it the page would lead on at once.
            let token = bob.get("/signin").await.csrf_token();
            bob.cookies.insert(cookie.clone(), planted.clone());
            let form = [("csrf_token", token.as_str()), ("email", BOB), ("password", PASSWORD)];
            let answer = bob.post("/signin", &form).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER);
            assert_ne!(bob.session().unwrap().1, planted);
            let mut holder = world.visitor([127, 0, 0, 9]);
            holder.cookies.insert(cookie.clone(), planted);
            assert!(!holder.is_signed_in().await, "what was planted opens nothing");
            assert!(bob.is_signed_in().await);
        }
        // A token of the sign-in form that is not of this browser is refused.
        let foreign = world.visitor([127, 0, 0, 9]).get("/signin").await.csrf_token();
        let mut bob = world.visitor([127, 0, 0, 1]);
        bob.get("/signin").await;
        let form = [("csrf_token", foreign.as_str()), ("email", BOB), ("password", PASSWORD)];
        assert_eq!(bob.post("/signin", &form).await.status, StatusCode::FORBIDDEN);

        // One wrong password each: of somebody who is here, who is disabled, and who is not here.
        world.data.run(&["user", "disable", "third@example.net"]);
        let checks = "ezscale_sign_in_password_checks_total";
        let mut bodies = Vec::new();
        for (n, name) in ["bob", "third", "nobody"].into_iter().enumerate() {
            let before = (world.metric(checks).await, world.listed(&["user", "sign-ins"]).len());
            let mut visitor = world.visitor([127, 0, 4, u8::try_from(n).unwrap() + 1]);
            let answer = visitor
                .sign_in(&format!("{name}@example.net"), "not the password")
                .await;
            let after = (world.metric(checks).await, world.listed(&["user", "sign-ins"]).len());
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert_eq!(
                (after.0 - before.0, after.1 - before.1),
                (1, 1),
                "{name}: the same is done"
            );
            let token = answer.csrf_token();
            bodies.push(answer.body.replace(&token, "").replace(&format!("{name}@"), ""));
            // The right one of who is disabled says no more.
            let answer = visitor.sign_in("third@example.net", PASSWORD).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "the same is said");
        // Being held back, too, says nothing of whom.
        let mut held_bodies = Vec::new();
        for (n, name) in ["third", "nobody"].into_iter().enumerate() {
            let mut visitor = world.visitor([127, 0, 5, u8::try_from(n).unwrap() + 1]);
            let mut looked_at = 0;
            let held = loop {
                let answer = visitor.sign_in(&format!("{name}@example.net"), "x").await;
                match answer.status {
                    StatusCode::UNAUTHORIZED if looked_at < 15 => looked_at += 1,
                    _ => break answer,
                }
            };
            assert!(looked_at >= 5, "{name}: {looked_at}");
            assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
            held_bodies.push(
                held.body
                    .replace(&held.csrf_token(), "")
                    .replace(&format!("{name}@"), ""),
            );
        }
        let words = |body: &String| body.split("Wait ").next().unwrap().to_owned();
        assert_eq!(words(&held_bodies[0]), words(&held_bodies[1]));
        // Nor does asking for a link.
        let mut answers = Vec::new();
        for name in ["bob", "third", "nobody"] {
            let mut visitor = world.visitor([127, 0, 6, 1]);
            let asked = visitor.ask_for_link(&format!("{name}@example.net")).await;
            let shown = visitor.get(&asked.location).await;
            answers.push((asked.status, asked.location, asked.body, shown.body));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    });
    world.mails(BOB, "Set a new password", 1);
    let asked: Vec<Mail> = world.mail.mails();
    let to: Vec<&str> = asked
        .iter()
        .filter(|mail| mail.header("Subject") == "Set a new password")
        .map(|mail| mail.to.as_str())
        .collect();
    assert_eq!(to, [BOB], "only who is here and enabled is mailed");
    world.server.terminate();
}

#[test]
fn users_are_managed_from_the_command_line_while_the_portal_runs() {
    let world = World::start(&[]);
    let (root, second) = ("root@example.net", "second@example.net");
    block_on(async {
        let mut bob = world.visitor([127, 0, 0, 1]);
        bob.sign_in(BOB, PASSWORD).await;
        let mut admin = world.visitor([127, 0, 0, 2]);
        admin.sign_in(root, PASSWORD).await;

        let users = world.listed(&["user", "list"]);
        assert_eq!(users.len(), 3);
        assert_eq!((&users[0]["email"], &users[0]["sessions"]), (&BOB.into(), &1.into()));
        assert!(users[2]["signed_in_at"].is_null() && users[1]["signed_in_at"].is_string());
        assert_eq!(
            world
                .listed(&["user", "list", "--role", "admin", "--search", "ROOT"])
                .len(),
            1
        );
        let shown = world.data.run(&["user", "show", "usr_1"]);
        assert!(shown.contains(BOB) && shown.contains("Bob Ltd"), "{shown}");
        assert!(
            world
                .refused(&["user", "show", "eve@example.net"])
                .contains("no user eve@example.net")
        );

        // Sessions: one, then all.
        let sessions = world.listed(&["user", "sessions", BOB]);
        assert_eq!((sessions.len(), sessions[0]["ip"].as_str()), (1, Some("127.0.0.1")));
        assert!(
            world
                .refused(&["user", "sessions", BOB, "--revoke", "0"])
                .contains("no session 0")
        );
        let name = sessions[0]["session"].as_str().unwrap();
        assert!(
            world
                .refused(&["user", "sessions", root, "--revoke", name])
                .contains("no session")
        );
        world.data.run(&["user", "sessions", BOB, "--revoke", name]);
        assert!(!bob.is_signed_in().await);
        bob.sign_in(BOB, PASSWORD).await;
        world.data.run(&["user", "sessions", BOB, "--revoke-all"]);
        assert!(!bob.is_signed_in().await);

        // Disabled, at once.
        bob.sign_in(BOB, PASSWORD).await;
        assert!(bob.is_signed_in().await);
        world.data.run(&["user", "disable", BOB]);
        assert!(!bob.is_signed_in().await);
        assert_eq!(bob.sign_in(BOB, PASSWORD).await.status, StatusCode::UNAUTHORIZED);
        assert!(world.refused(&["user", "disable", BOB]).contains("is disabled"));
        assert!(world.refused(&["user", "reset-password", BOB]).contains("is disabled"));
        world.data.run(&["user", "enable", BOB]);
        assert_eq!(bob.sign_in(BOB, PASSWORD).await.status, StatusCode::SEE_OTHER);

        // Another password, another role.
        world.piped_with(&["user", "set-password", BOB], NEW_PASSWORD);
        assert!(!bob.is_signed_in().await);
        assert_eq!(bob.sign_in(BOB, NEW_PASSWORD).await.status, StatusCode::SEE_OTHER);
        assert!(
            world
                .refused(&["user", "set-role", second, "customer"])
                .contains("belongs to a customer")
        );
        // Of an admin, once another one has approved it.
        world.data.run(&["user", "set-role", second, "finance"]);
        let token = world.data.scratch().join("root.token");
        let mut add = world.data.command(&["user", "token", "add", root]);
        add.stdin(Stdio::piped()).stdout(File::create(&token).unwrap());
        let mut adding = add.spawn().unwrap();
        writeln!(adding.stdin.take().unwrap(), "{PASSWORD}").unwrap();
        assert!(adding.wait().unwrap().success());
        let token = token.display().to_string();
        world
            .data
            .run(&["approval", "approve", "apr_1", "--token-file", &token]);
        for last in [&["user", "disable", root][..], &["user", "set-role", root, "ops"]] {
            assert!(world.refused(last).contains("the last admin"), "{last:?}");
        }
        assert!(admin.is_signed_in().await);
        let unsent = world.refused(&["user", "reset-password", second]);
        assert!(unsent.contains("no mail is sent"), "{unsent}");
        let config = world.data.scratch().join("config.toml").display().to_string();
        world.data.run(&["user", "reset-password", second, "--config", &config]);

        // The portal has the same checks, and shows what was done.
        let page = admin.get("/admin/users/usr_2").await;
        assert!(page.body.contains("This is you"), "{}", page.body);
        let form_token = page.body.split("name=\"form_token\" value=\"").nth(1).unwrap();
        let form = [
            ("csrf_token", page.csrf_token()),
            ("form_token", form_token.split('"').next().unwrap().to_owned()),
        ];
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let refused = admin.post("/admin/users/usr_2/disable", &form).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        let list = admin.get("/admin/users?search=second").await.body;
        assert!(list.contains("Finance") && list.contains(second), "{list}");
    });
    let entries = world.listed(&["audit", "list", "--actor", &account()]);
    let done: Vec<(&str, &str)> = entries
        .iter()
        .rev()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["subject"].as_str().unwrap()))
        .filter(|(action, _)| action.starts_with("user."))
        .collect();
    assert_eq!(
        done,
        [
            ("user.add", "usr_1"),
            ("user.add", "usr_2"),
            ("user.add", "usr_3"),
            ("user.end_sessions", "usr_1"),
            ("user.end_sessions", "usr_1"),
            ("user.disable", "usr_1"),
            ("user.enable", "usr_1"),
            ("user.set_password", "usr_1"),
            ("user.token_add", "usr_2"),
            ("user.password_reset_request", "usr_3"),
        ]
    );
    let told = &world.mails(BOB, "Your password was changed", 1)[0];
    assert!(told.text.contains("by an operator"), "{}", told.text);
    world.mails(second, "Set a new password", 1);
    world.server.terminate();
}

//! Events to people and programs, with the built binary, a real mail server and a real endpoint: who is told, how often, and
//! what is left when a process dies on the way.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::process::{Command, Stdio};

use activity::event::{EventType, NewEvent};
use billing::event::publish;
use schemas::db::Database;
use schemas::fault;
use schemas::ids::{CustomerId, EventId};
use serde_json::{Value, json};

use crate::support::command::output_of;
use crate::support::ezscale::DataDir;
use crate::support::hooks::HookServer;
use crate::support::smtp::MailServer;

const NOW_MS: i64 = 1_700_000_000_000;

/// An installation with one customer and their endpoint, a mail server and a program that listens.
struct World {
    data: DataDir,
    mail: MailServer,
    hooks: HookServer,
    secret: String,
}

impl World {
    fn new() -> World {
        let (mail, hooks) = (MailServer::start(), HookServer::start());
        let data = DataDir::new();
        std::fs::create_dir(data.path()).expect("the test's directory is writable");
        let config = format!(
            "[mail]\nsmtp_url = '{}'\nfrom = 'Ada Hosting <billing@ada.example>'\n\
             [portal]\npublic_url = 'https://portal.ada.example'\n[webhooks]\nallow_private = true\n",
            mail.url()
        );
        std::fs::write(data.path().join("ezscale.toml"), config).expect("the test's directory is writable");
        let added = data.run(&["customer", "add", "--name", "Bob Ltd", "--email", "bob@example.net"]);
        assert_eq!(added.trim(), "cus_1");
        let added = data.run(&["webhook", "add", &hooks.url(), "--customer", "cus_1"]);
        let (id, secret) = added.trim().split_once(' ').expect("an id and a secret");
        assert_eq!(id, "whk_1");
        World {
            data,
            mail,
            hooks,
            secret: secret.to_owned(),
        }
    }

    async fn database(&self) -> Database {
        Database::open(&Database::default_url(&self.data.path()))
            .await
            .expect("the test's own data is sound")
    }

    async fn publish(&self, count: i64) {
        let database = self.database().await;
        let mut transaction = database.begin_write().await.expect("the test's own data is sound");
        for number in 1..=count {
            let new = NewEvent {
                event_type: EventType::InvoiceFinalised,
                customer: Some(CustomerId(1)),
                subject: format!("inv_{number}"),
                payload: json!({
                    "invoice": format!("inv_{number}"), "number": format!("2023-{number:04}"),
                    "amount_minor": 123_450, "currency": "EUR", "due_at_ms": NOW_MS,
                }),
            };
            publish(&mut transaction, new, NOW_MS)
                .await
                .expect("the test's own data is sound");
        }
        transaction.commit().await.expect("the test's own data is sound");
    }

    /// What waits for a retry, or for a lease to end, is due now.
    async fn let_time_pass(&self) {
        let database = self.database().await;
        sqlx::query("UPDATE deliveries SET next_at_ms = 0 WHERE status = 'pending'")
            .execute(database.pool())
            .await
            .expect("the database opens");
    }

    fn deliver(&self) -> String {
        self.data.run(&["event", "deliver"])
    }

    fn deliveries(&self, event: EventId) -> Vec<Value> {
        let shown = self
            .data
            .run(&["event", "show", &event.to_string(), "--format", "json"]);
        let shown: Value = serde_json::from_str(&shown).expect("the test's own data is sound");
        shown["deliveries"]
            .as_array()
            .expect("the test's own data is sound")
            .clone()
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self
            .data
            .command(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the test's own data is sound");
        assert!(!output.status.success(), "{arguments:?} went well");
        String::from_utf8(output.stderr).expect("the test's own data is sound")
    }
}

#[tokio::test]
async fn a_customer_gets_a_mail_and_their_program_a_signed_request_after_some_failures() {
    let world = World::new();
    world.publish(1).await;
    world.mail.refuse_next("451 4.7.1 greylisted, come again");
    world.hooks.fail_next("503 Service Unavailable");
    assert!(
        world
            .deliver()
            .contains("1 event dispatched; 0 delivered, 2 to retry, 0 failed")
    );
    let deliveries = world.deliveries(EventId(1));
    let errors: Vec<&str> = deliveries
        .iter()
        .map(|delivery| delivery["error"].as_str().unwrap())
        .collect();
    assert!(
        errors[0].contains("greylisted") && errors[1].contains("503"),
        "{errors:?}"
    );
    assert!(
        world.deliver().contains("0 delivered, 0 to retry"),
        "nothing is sent before its time"
    );

    world.let_time_pass().await;
    assert!(world.deliver().contains("2 delivered, 0 to retry, 0 failed"));
    let mails = world.mail.mails();
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert_eq!(
        (mail.from.as_str(), mail.to.as_str()),
        ("billing@ada.example", "bob@example.net")
    );
    assert_eq!(
        mail.header("Subject"),
        "Invoice 2023-0001: EUR 1,234.50, due on 14 Nov 2023"
    );
    assert!(
        mail.header("Message-ID").starts_with("<dlv_1.evt_1."),
        "{}",
        mail.header("Message-ID")
    );
    assert!(
        mail.text.contains("https://portal.ada.example/invoices/inv_1"),
        "{}",
        mail.text
    );

    let requests = world.hooks.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.header("ezscale-event"), "evt_1");
        assert_eq!(request.signatures_by(&world.secret), 1);
        assert_eq!(request.signatures_by("whsec_guessed"), 0);
        assert_eq!(request.json()["data"]["amount_minor"], 123_450);
    }
    world.let_time_pass().await;
    assert!(world.deliver().contains("0 events dispatched; 0 delivered"));
    let listed = world.data.run(&["event", "list", "--customer", "cus_1"]);
    assert!(
        listed.contains("invoice.finalised") && listed.contains("2 delivered"),
        "{listed}"
    );
}

#[tokio::test]
async fn a_mailbox_that_does_not_exist_is_written_to_once() {
    let world = World::new();
    world.publish(1).await;
    world.mail.refuse_next("550 5.1.1 no such user");
    assert!(world.deliver().contains("1 delivered, 0 to retry, 1 failed"));
    world.let_time_pass().await;
    assert!(world.deliver().contains("0 delivered"));
    assert_eq!(world.mail.mails().len(), 0);
    let mail = &world.deliveries(EventId(1))[0];
    assert_eq!((&mail["status"], &mail["attempts"]), (&json!("failed"), &json!(1)));
    assert!(mail["error"].as_str().unwrap().contains("no such user"), "{mail}");
}

/// Whatever moment a process dies at, each delivery is dispatched once and arrives; only what was sent and not noted comes
/// twice, and can be told by its ids.
#[tokio::test]
async fn a_killed_process_loses_nothing_and_repeats_recognisably() {
    for point in fault::OUTBOX_POINTS {
        let world = World::new();
        world.publish(1).await;
        let output = world
            .data
            .command(&["event", "deliver"])
            .env("EZSCALE_FAULT", point)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("aborted at {point}")), "{point}: {said}");
        world.let_time_pass().await;
        world.deliver();

        let deliveries = world.deliveries(EventId(1));
        let told: Vec<_> = deliveries
            .iter()
            .map(|d| (d["channel"].as_str(), d["status"].as_str()))
            .collect();
        let delivered = Some("delivered");
        assert_eq!(
            told,
            [(Some("email"), delivered), (Some("webhook"), delivered)],
            "{point}"
        );
        let mails: Vec<_> = world
            .mail
            .mails()
            .iter()
            .map(|mail| mail.header("Message-ID").to_owned())
            .collect();
        let hooks: Vec<_> = world
            .hooks
            .requests()
            .iter()
            .map(|r| r.header("ezscale-delivery").to_owned())
            .collect();
        for sent in [&mails, &hooks] {
            assert!(!sent.is_empty(), "{point}");
            assert!(sent.iter().all(|id| *id == sent[0]), "{point}: {sent:?}");
            let may_repeat = *point == "event.sent";
            assert!(sent.len() == 1 || (may_repeat && sent.len() == 2), "{point}: {sent:?}");
        }
        if *point == "event.sent" {
            assert!(
                mails.len() + hooks.len() > 2,
                "what was sent and not noted is sent again"
            );
        }
    }
}

#[tokio::test]
async fn processes_side_by_side_send_each_delivery_once() {
    const EVENTS: i64 = 40;
    let world = World::new();
    world.publish(EVENTS).await;
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.data.command(&["event", "deliver"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mails = world
        .mail
        .mails()
        .into_iter()
        .map(|mail| mail.header("Message-ID").to_owned());
    let hooks = world
        .hooks
        .requests()
        .into_iter()
        .map(|r| r.header("ezscale-event").to_owned());
    for sent in [mails.collect::<Vec<_>>(), hooks.collect()] {
        let distinct: std::collections::BTreeSet<_> = sent.iter().collect();
        assert_eq!(distinct.len() as i64, EVENTS, "none is missing");
        assert_eq!(sent.len() as i64, EVENTS, "none is sent twice");
    }
}

#[tokio::test]
async fn endpoints_are_managed_replayed_to_and_audited() {
    let world = World::new();
    world.publish(3).await;
    world.deliver();
    let new_secret = world.data.run(&["webhook", "rotate", "whk_1"]);
    let said = world
        .data
        .run(&["event", "replay", "evt_2", "--to", "evt_3", "--endpoint", "whk_1"]);
    assert!(said.contains("2 events"), "{said}");
    world.deliver();
    let requests = world.hooks.requests();
    assert_eq!(requests.len(), 5);
    let replayed = &requests[3];
    assert_eq!(replayed.header("ezscale-event"), "evt_2");
    assert_eq!(replayed.signatures_by(new_secret.trim()), 1);
    assert_eq!(
        replayed.signatures_by(&world.secret),
        1,
        "the secret before signs for a day"
    );
    assert_eq!(world.mail.mails().len(), 3, "mail is not repeated");

    assert!(world.data.run(&["webhook", "list"]).contains("whk_1"));
    world.data.run(&["webhook", "remove", "whk_1"]);
    assert!(!world.data.run(&["webhook", "list"]).contains("whk_1"));
    assert!(
        world
            .fails(&["webhook", "rotate", "whk_1"])
            .contains("no endpoint whk_1")
    );
    assert_eq!(
        world.data.run(&["event", "owner", "boss@ada.example"]).trim(),
        "boss@ada.example"
    );

    let log = world.data.run(&["audit", "list", "--format", "json"]);
    let log: Vec<Value> = serde_json::from_str(&log).unwrap();
    let actions = log.iter().map(|entry| entry["action"].as_str().unwrap());
    let is_of_webhooks = |action: &&str| action.starts_with("webhook.") || action.starts_with("owner.");
    let actions: Vec<&str> = actions.filter(is_of_webhooks).collect();
    assert_eq!(
        actions,
        ["owner.email", "webhook.remove", "webhook.rotate", "webhook.add"]
    );
    let text = serde_json::to_string(&log).unwrap();
    assert!(!text.contains("whsec_"), "no secret is in the log");
}

#[tokio::test]
async fn a_discord_channel_shows_events_and_its_address_is_nowhere_to_be_read() {
    const TOKEN: &str = "tOken-9-of_a_channel";
    let world = World::new();
    let channel = HookServer::start();
    channel.fail_next("429 Too Many Requests\r\nRetry-After: 1");
    let address = channel.url().replace("/events", &format!("/api/webhooks/77/{TOKEN}"));
    let added = world.data.run(&["webhook", "add", "--discord", &address]);
    assert_eq!(added.trim(), "whk_2", "there is no secret to show");
    assert!(
        world
            .fails(&["webhook", "add", "--discord", &channel.url()])
            .contains("/api/webhooks/")
    );
    assert!(world.fails(&["webhook", "rotate", "whk_2"]).contains("has no secret"));
    world.publish(1).await;
    world.deliver();
    let asked: Vec<Value> = world.deliveries(EventId(1));
    let post = |deliveries: &[Value]| {
        let found = deliveries.iter().find(|delivery| delivery["channel"] == "discord");
        found.expect("a delivery to the channel").clone()
    };
    assert_eq!(post(&asked)["status"], "pending", "Discord asked for patience");
    world.let_time_pass().await;
    world.deliver();
    let taken = world.deliveries(EventId(1));
    assert_eq!(
        (&post(&taken)["status"], &post(&taken)["attempts"]),
        (&json!("delivered"), &json!(2))
    );
    let requests = channel.requests();
    assert_eq!(requests.len(), 2);
    let embed = &requests[1].json()["embeds"][0];
    assert_eq!(embed["title"], "Your invoice 2023-0001");
    assert_eq!(embed["url"], "https://portal.ada.example/invoices/inv_1");

    let database = std::fs::read(world.data.path().join("ezscale.db")).expect("the database is a file");
    let is_stored = database.windows(TOKEN.len()).any(|bytes| bytes == TOKEN.as_bytes());
    assert!(!is_stored, "it is sealed");
    for command in [
        vec!["webhook", "list"],
        vec!["webhook", "show", "whk_2"],
        vec!["event", "show", "evt_1", "--format", "json"],
        vec!["audit", "list", "--format", "json"],
    ] {
        let said = world.data.run(&command);
        assert!(!said.contains(TOKEN), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn s1_no_endpoint_inside_unless_the_operator_allows_it() {
    let world = World::new();
    std::fs::write(world.data.path().join("ezscale.toml"), "").unwrap();
    for (url, words) in [
        ("https://127.0.0.1/", "public Internet"),
        ("https://localhost/", "does not lead to a public address"),
        ("https://169.254.169.254/latest/meta-data", "public Internet"),
        ("http://example.net/", "use https://"),
    ] {
        let said = world.fails(&["webhook", "add", url, "--customer", "cus_1"]);
        assert!(said.contains(words), "{url}: {said}");
    }
    // The one that was let in while private addresses were allowed is not spoken to any more.
    world.publish(1).await;
    world.deliver();
    assert_eq!(world.hooks.requests().len(), 0);
}

/// The mail as people see it is the one that is shown, and its two forms say the same.
#[tokio::test]
async fn a_mail_can_be_looked_at() {
    let world = World::new();
    world.publish(1).await;
    let html = world.data.run(&["event", "show", "evt_1", "--mail", "html"]);
    let text = world.data.run(&["event", "show", "evt_1", "--mail", "text"]);
    for form in [&html, &text] {
        for words in [
            "EUR 1,234.50",
            "14 Nov 2023",
            "https://portal.ada.example/invoices/inv_1",
            "Hosting company",
        ] {
            assert!(form.contains(words), "no {words:?} in\n{form}");
        }
    }
    // As a parser of another make reads it.
    let script = "import html.parser, sys\np = html.parser.HTMLParser()\nopen_tags = []\n\
                  void = {'meta', 'br', 'img', 'link', 'hr'}\n\
                  p.handle_starttag = lambda tag, _: tag in void or open_tags.append(tag)\n\
                  def end(tag):\n    assert open_tags.pop() == tag, tag\n\
                  p.handle_endtag = end\np.feed(open(sys.argv[1]).read())\nassert not open_tags, open_tags\nprint('balanced')";
    let path = world.data.scratch().join("mail.html");
    std::fs::write(&path, html).unwrap();
    assert_eq!(
        output_of(Command::new("python3").args(["-c", script]).arg(path)).trim(),
        "balanced"
    );
}

#[tokio::test]
async fn without_a_mail_server_the_mails_that_wait_are_told() {
    let world = World::new();
    let config = world.data.path().join("ezscale.toml");
    std::fs::write(&config, "[webhooks]\nallow_private = true\n").unwrap();
    assert!(!world.deliver().contains("wait"), "nothing waits yet");
    world.publish(2).await;
    let said = world.deliver();
    assert!(
        said.contains("2 events dispatched; 2 delivered")
            && said.contains("2 mails wait for a mail server: set mail.smtp_url"),
        "{said}"
    );
    assert!(world.deliver().contains("2 mails wait"), "until there is one");
}

mod broken;
mod consumers;
mod discord;
mod fair;
mod hooks;
mod links;

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use schemas::db::Database;
use schemas::ids::{CustomerId, EndpointId, EventId};
use sqlx::Row as _;

use super::endpoint::{self, EndpointKind, NewEndpoint};
use super::*;
use crate::event::{
    Delivery, EventFilter, EventType, MAX_PAYLOAD_BYTES, NewEvent, deliveries_of, event, list, outbox_counts, publish,
};

const NOW_MS: i64 = 1_700_000_000_000;
const ADA: CustomerId = CustomerId(1);
const BEN: CustomerId = CustomerId(2);

struct World {
    database: Database,
    client: WebhookClient,
    _folder: tempfile::TempDir,
}

/// Two customers, Ada in Berlin and Ben in UTC, and one admin.
async fn world() -> World {
    let folder = fixtures::in_memory_folder();
    crate::testing::migrated(folder.path()).await;
    let database = Database::open(&Database::default_url(folder.path()))
        .await
        .unwrap()
        .with_vault(schemas::secret::Vault::random().unwrap());
    for (id, name, zone) in [(ADA, "ada", "Europe/Berlin"), (BEN, "ben", "UTC")] {
        sqlx::query(
            "INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms) \
             VALUES ($1, $2, $3, 'EUR', $4, 'DE', '0', 0)",
        )
        .bind(id.0)
        .bind(name)
        .bind(format!("{name}@example.net"))
        .bind(zone)
        .execute(database.pool())
        .await
        .unwrap();
    }
    sqlx::query(
        "INSERT INTO users (id, email, name, role, password_hash, created_at_ms) \
         VALUES (1, 'root@example.net', 'Root', 'admin', 'x', 0)",
    )
    .execute(database.pool())
    .await
    .unwrap();
    World {
        database,
        client: WebhookClient::new(true).unwrap(),
        _folder: folder,
    }
}

fn invoice(customer: CustomerId, number: i64) -> NewEvent {
    NewEvent {
        event_type: EventType::InvoiceFinalised,
        customer: Some(customer),
        subject: format!("inv_{number}"),
        payload: json!({"invoice": format!("inv_{number}"), "number": "2023-0007", "amount_minor": 1999, "currency": "EUR"}),
    }
}

impl World {
    async fn publish(&self, new: NewEvent) -> EventId {
        let mut transaction = self.database.begin_write().await.unwrap();
        let id = publish(&mut transaction, new, NOW_MS).await.unwrap();
        transaction.commit().await.unwrap();
        id
    }

    /// Adds an endpoint and returns its id and secret.
    async fn endpoint(&self, customer: Option<CustomerId>, url: &str, types: &[EventType]) -> (EndpointId, String) {
        let url = self.client.vet(EndpointKind::Webhook, url).await.unwrap();
        let mut transaction = self.database.begin_write().await.unwrap();
        let new = NewEndpoint {
            customer,
            url: &url,
            event_types: types,
        };
        let (added, _) = endpoint::add(&mut transaction, self.database.vault(), new, NOW_MS)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        (added.endpoint.id, added.secret.unwrap())
    }

    async fn run(&self, now_ms: i64) -> (Dispatched, Delivered) {
        run_once(&self.database, without_mail(&self.client), now_ms)
            .await
            .unwrap()
    }

    async fn deliveries(&self, event: EventId) -> Vec<Delivery> {
        deliveries_of(self.database.pool(), event).await.unwrap()
    }

    /// An event's first delivery to an endpoint.
    async fn hook_of(&self, event: EventId) -> Delivery {
        let mut hooks = self
            .deliveries(event)
            .await
            .into_iter()
            .filter(|d| d.channel == "webhook");
        hooks.next().unwrap()
    }

    /// Channel and target of an event's deliveries.
    async fn told(&self, event: EventId) -> Vec<(String, String)> {
        let deliveries = self.deliveries(event).await;
        deliveries.into_iter().map(|d| (d.channel, d.target)).collect()
    }
}

/// What sends where no mail server is configured.
fn without_mail(client: &WebhookClient) -> Transports<'_> {
    Transports {
        mailer: None,
        client,
        portal_url: "https://portal.ada.example",
    }
}

fn mail(address: &str) -> (String, String) {
    ("email".to_owned(), address.to_owned())
}

fn hook(endpoint: EndpointId) -> (String, String) {
    ("webhook".to_owned(), endpoint.to_string())
}

/// What an endpoint received: headers in lower case, and the body.
#[derive(Clone, Debug)]
struct Received {
    head: String,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

/// A customer's program: answers with the statuses it was given, then with 200, and keeps what it got.
#[derive(Clone, Debug)]
struct Receiver {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<Vec<&'static str>>>,
}

impl Receiver {
    async fn start(answers: &[&'static str]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            url: format!("http://{}/events", listener.local_addr().unwrap()),
            received: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().rev().copied().collect())),
        };
        let shared = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().answer(stream));
            }
        });
        receiver
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let (head, body) = loop {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let head = head.to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() == length.unwrap_or(0) {
                break (head, body.to_owned());
            }
        };
        self.received.lock().unwrap().push(Received { head, body });
        let answer = self.answers.lock().unwrap().pop().unwrap_or("200 OK");
        let text = format!(
            "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\nLocation: http://127.0.0.1:1/\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn an_event_is_as_true_as_its_transaction() {
    let world = world().await;
    let mut transaction = world.database.begin_write().await.unwrap();
    publish(&mut transaction, invoice(ADA, 7), NOW_MS).await.unwrap();
    transaction.rollback().await.unwrap();
    let all = list(world.database.pool(), EventFilter::default(), 10).await.unwrap();
    assert_eq!(all, []);
    let id = world.publish(invoice(ADA, 7)).await;
    assert_eq!(id, EventId(1), "a rollback leaves no gap");
    let stored = event(world.database.pool(), id).await.unwrap();
    assert_eq!((stored.subject.as_str(), stored.customer), ("inv_7", Some(ADA)));
    assert_eq!(stored.payload["amount_minor"], 1999);
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    let world = world().await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let good = invoice(ADA, 7);
    for (bad, words) in [
        (
            NewEvent {
                subject: String::new(),
                ..good.clone()
            },
            "an id such as inv_7",
        ),
        (
            NewEvent {
                subject: "inv 7\n".to_owned(),
                ..good.clone()
            },
            "an id such as inv_7",
        ),
        (
            NewEvent {
                payload: json!([1]),
                ..good.clone()
            },
            "no JSON object",
        ),
        (
            NewEvent {
                payload: json!({"amount": 19.99}),
                ..good.clone()
            },
            "float 19.99 in \"amount\"",
        ),
        (
            NewEvent {
                payload: json!({"lines": [{"price": 0.5}]}),
                ..good.clone()
            },
            "float 0.5 in \"lines\"",
        ),
        (
            NewEvent {
                payload: json!({"x": "x".repeat(MAX_PAYLOAD_BYTES)}),
                ..good
            },
            "bytes, more than",
        ),
    ] {
        let error = publish(&mut transaction, bad, NOW_MS).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
}

#[tokio::test]
async fn s1_everybody_hears_of_what_is_theirs_and_no_more() {
    let world = world().await;
    let (adas, _) = world.endpoint(Some(ADA), "http://127.0.0.1:1/ada", &[]).await;
    let (bens, _) = world.endpoint(Some(BEN), "http://127.0.0.1:1/ben", &[]).await;
    let (paid, _) = world
        .endpoint(Some(ADA), "http://127.0.0.1:1/paid", &[EventType::InvoicePaid])
        .await;
    let (ours, _) = world.endpoint(None, "http://127.0.0.1:1/ours", &[]).await;
    let of = |event_type, customer| NewEvent {
        event_type,
        customer,
        subject: "x_1".to_owned(),
        payload: json!({}),
    };
    let finalised = world.publish(invoice(ADA, 7)).await;
    let paid_event = world.publish(of(EventType::InvoicePaid, Some(ADA))).await;
    let dispute = world.publish(of(EventType::DisputeOpened, Some(BEN))).await;
    let risk = world.publish(of(EventType::HighRiskAction, Some(ADA))).await;
    let approval = world.publish(of(EventType::ApprovalRequested, None)).await;
    let dispatched = dispatch(&world.database, NOW_MS).await.unwrap();
    assert_eq!(dispatched.events, 5);

    assert_eq!(
        world.told(finalised).await,
        [mail("ada@example.net"), hook(adas), hook(ours)]
    );
    assert_eq!(world.told(paid_event).await, [hook(adas), hook(paid), hook(ours)]);
    // Nobody was named as the owner: the admins are.
    assert_eq!(
        world.told(dispute).await,
        [mail("root@example.net"), hook(bens), hook(ours)]
    );
    assert_eq!(world.told(risk).await, [mail("root@example.net"), hook(ours)]);
    assert_eq!(world.told(approval).await, [mail("root@example.net"), hook(ours)]);

    // A dispute is ours to answer, so Ben finds nothing; of Ada's two the latter is the later.
    assert_eq!(in_app::list(world.database.pool(), BEN, None, 10).await.unwrap(), []);
    let adas_list = in_app::list(world.database.pool(), ADA, None, 10).await.unwrap();
    let events: Vec<_> = adas_list.iter().map(|notification| notification.event).collect();
    assert_eq!(events, [paid_event, finalised]);
}

#[tokio::test]
async fn the_owner_is_alerted_where_they_said() {
    let world = world().await;
    let mut transaction = world.database.begin_write().await.unwrap();
    assert!(set_owner_email(&mut transaction, "nobody").await.is_err());
    set_owner_email(&mut transaction, "first@example.net").await.unwrap();
    set_owner_email(&mut transaction, " boss@example.net ").await.unwrap();
    transaction.commit().await.unwrap();
    let of = |event_type| NewEvent {
        event_type,
        customer: None,
        subject: "apr_1".to_owned(),
        payload: json!({}),
    };
    let risk = world.publish(of(EventType::HighRiskAction)).await;
    let approval = world.publish(of(EventType::ApprovalRequested)).await;
    dispatch(&world.database, NOW_MS).await.unwrap();
    assert_eq!(world.told(risk).await, [mail("boss@example.net")]);
    assert_eq!(
        world.told(approval).await,
        [mail("boss@example.net"), mail("root@example.net")]
    );
}

#[tokio::test]
async fn many_dispatchers_dispatch_each_event_once() {
    const EVENTS: i64 = 250;
    let world = world().await;
    world.endpoint(Some(ADA), "http://127.0.0.1:1/ada", &[]).await;
    for number in 1..=EVENTS {
        world.publish(invoice(ADA, number)).await;
    }
    let workers: Vec<_> = (0..6)
        .map(|_| {
            let database = world.database.clone();
            tokio::spawn(async move { dispatch(&database, NOW_MS).await.unwrap().events })
        })
        .collect();
    let mut events = 0;
    for worker in workers {
        events += worker.await.unwrap();
    }
    assert_eq!(events, EVENTS as u64);
    for table in [
        "SELECT event_id, count(*) FROM deliveries WHERE channel = 'email' GROUP BY event_id",
        "SELECT event_id, count(*) FROM deliveries WHERE channel = 'webhook' GROUP BY event_id",
        "SELECT event_id, count(*) FROM notifications GROUP BY event_id",
    ] {
        let rows = sqlx::query(table).fetch_all(world.database.pool()).await.unwrap();
        assert_eq!(rows.len() as i64, EVENTS, "{table}");
        for row in rows {
            assert_eq!(row.get::<i64, _>(1), 1, "{table}");
        }
    }
}

#[tokio::test]
async fn a_dispatch_that_did_not_commit_left_nothing() {
    let world = world().await;
    let id = world.publish(invoice(ADA, 7)).await;
    // Half a dispatch, as of a process that died: the mark is set in a transaction that never ends well.
    let mut transaction = world.database.begin_write().await.unwrap();
    sqlx::query("UPDATE events SET dispatched_at_ms = 1")
        .execute(&mut *transaction)
        .await
        .unwrap();
    drop(transaction);
    assert_eq!(dispatch(&world.database, NOW_MS).await.unwrap().events, 1);
    assert_eq!(world.told(id).await, [mail("ada@example.net")]);
    assert_eq!(dispatch(&world.database, NOW_MS).await.unwrap(), Dispatched::default());
}

#[tokio::test]
async fn notifications_are_read_up_to_what_was_shown() {
    let world = world().await;
    for number in 1..=3 {
        world.publish(invoice(ADA, number)).await;
    }
    world.publish(invoice(BEN, 4)).await;
    dispatch(&world.database, NOW_MS).await.unwrap();
    let mut connection = world.database.pool().acquire().await.unwrap();
    let shown = in_app::list(&mut *connection, ADA, None, 2).await.unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0].title, "Your invoice 2023-0007");
    assert_eq!(shown[0].link, "/invoices/inv_3");
    let rest = in_app::list(&mut *connection, ADA, Some(shown[1].id), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    in_app::mark_read(&mut connection, ADA, shown[1].id, NOW_MS)
        .await
        .unwrap();
    assert_eq!(in_app::unread(&mut *connection, ADA).await.unwrap(), 1);
    assert_eq!(in_app::unread(&mut *connection, BEN).await.unwrap(), 1);
}

#[tokio::test]
async fn without_a_mail_server_mail_waits_and_then_fails() {
    let world = world().await;
    let id = world.publish(invoice(ADA, 7)).await;
    world.run(NOW_MS).await;
    assert_eq!(world.deliveries(id).await[0].status, "pending");
    assert_eq!(outbox_counts(&world.database).await.unwrap().mails_pending, 1);
    let (_, delivered) = world.run(NOW_MS + MAIL_MAX_AGE_MS + 1).await;
    assert_eq!(delivered.failed, 1);
    let delivery = world.deliveries(id).await.remove(0);
    assert_eq!(delivery.status, "failed");
    assert!(delivery.error.contains("mail.smtp_url"), "{}", delivery.error);
}

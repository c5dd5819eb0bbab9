mod broken;

use std::sync::{Arc, Mutex};

use schemas::ids::DeliveryId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::webhook::{NewEndpoint, Owner};
use super::*;

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
    let folder = tempfile::tempdir().unwrap();
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
        let url = self.client.vet(url).await.unwrap();
        let mut transaction = self.database.begin_write().await.unwrap();
        let new = NewEndpoint {
            customer,
            url: &url,
            event_types: types,
        };
        let (endpoint, secret) = webhook::add(&mut transaction, self.database.vault(), new, NOW_MS)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        (endpoint.id, secret)
    }

    async fn run(&self, now_ms: i64) -> (Dispatched, Delivered) {
        run_once(&self.database, None, &self.client, now_ms).await.unwrap()
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
    assert_eq!(
        notification::list(world.database.pool(), BEN, None, 10).await.unwrap(),
        []
    );
    let adas_list = notification::list(world.database.pool(), ADA, None, 10).await.unwrap();
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
    let shown = notification::list(&mut *connection, ADA, None, 2).await.unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0].title, "Your invoice 2023-0007");
    assert_eq!(shown[0].link, "/invoices/inv_3");
    let rest = notification::list(&mut *connection, ADA, Some(shown[1].id), 2)
        .await
        .unwrap();
    assert_eq!(rest.len(), 1);
    notification::mark_read(&mut connection, ADA, shown[1].id, NOW_MS)
        .await
        .unwrap();
    assert_eq!(notification::unread(&mut *connection, ADA).await.unwrap(), 1);
    assert_eq!(notification::unread(&mut *connection, BEN).await.unwrap(), 1);
}

#[tokio::test]
async fn a_webhook_is_signed_retried_by_the_schedule_and_taken_once() {
    let world = world().await;
    let receiver = Receiver::start(&["500 Broken", "302 Found", "404 Not Found"]).await;
    let (endpoint, secret) = world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let id = world.publish(invoice(ADA, 7)).await;
    let mut now_ms = NOW_MS;
    for (try_number, words) in [
        (1, "answered 500"),
        (2, "redirects are not followed"),
        (3, "answered 404"),
    ] {
        world.run(now_ms).await;
        let delivery = world.hook_of(id).await;
        assert_eq!((delivery.status.as_str(), delivery.attempts), ("pending", try_number));
        assert!(delivery.error.contains(words), "{}", delivery.error);
        let next_ms = now_ms + RETRY_DELAYS_MS[usize::try_from(try_number).unwrap() - 1];
        assert_eq!(delivery.next_at_ms, Some(next_ms));
        world.run(next_ms - 1).await;
        assert_eq!(
            receiver.received().len() as i64,
            try_number,
            "nothing is sent before its time"
        );
        now_ms = next_ms;
    }
    let known = webhook::endpoint(world.database.pool(), endpoint, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(known.failures, 3);
    world.run(now_ms).await;
    let delivery = world.hook_of(id).await;
    assert_eq!((delivery.status.as_str(), delivery.attempts), ("delivered", 4));
    assert_eq!(delivery.delivered_at_ms, Some(now_ms));
    world.run(now_ms + 1_000_000_000).await;
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    let known = webhook::endpoint(world.database.pool(), endpoint, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(known.failures, 0);

    let last = &received[3];
    assert_eq!(last.header("ezscale-event"), "evt_1");
    assert_eq!(last.header("ezscale-delivery"), received[0].header("ezscale-delivery"));
    assert_eq!(last.header("content-type"), "application/json");
    let body: Value = serde_json::from_str(&last.body).unwrap();
    assert_eq!(
        (&body["id"], &body["type"]),
        (&json!("evt_1"), &json!("invoice.finalised"))
    );
    assert_eq!(
        (&body["customer"], &body["subject"]),
        (&json!("cus_1"), &json!("inv_7"))
    );
    assert_eq!(body["created_at"], "2023-11-14T22:13:20Z");
    assert_eq!(body["data"]["amount_minor"], 1999);
    let at_s = now_ms / 1000;
    let expected = hmac_by_definition(secret.as_bytes(), format!("{at_s}.{}", last.body).as_bytes());
    assert_eq!(last.header("ezscale-signature"), format!("t={at_s},v1={expected}"));
}

/// HMAC-SHA256 as RFC 2104 writes it down, for a key of more than one block or less.
fn hmac_by_definition(key: &[u8], message: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut block = [0u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let with = |pad: u8, rest: &[u8]| {
        let mut hash = Sha256::new();
        hash.update(block.map(|byte| byte ^ pad));
        hash.update(rest);
        hash.finalize().to_vec()
    };
    let outer = with(0x5c, &with(0x36, message));
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_for_a_day() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    let (endpoint, old) = world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let foreign = webhook::rotate(
        &mut transaction,
        world.database.vault(),
        endpoint,
        Owner::Customer(BEN),
        NOW_MS,
    )
    .await;
    assert!(foreign.is_err(), "S1");
    let new = webhook::rotate(
        &mut transaction,
        world.database.vault(),
        endpoint,
        Owner::Customer(ADA),
        NOW_MS,
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    for (at_ms, secrets) in [
        (NOW_MS + webhook::ROTATION_MS - 1, vec![&new, &old]),
        (NOW_MS + webhook::ROTATION_MS, vec![&new]),
    ] {
        world.publish(invoice(ADA, 7)).await;
        world.run(at_ms).await;
        let last = receiver.received().pop().unwrap();
        let at_s = at_ms / 1000;
        let message = format!("{at_s}.{}", last.body);
        let signed = secrets
            .iter()
            .map(|secret| format!(",v1={}", hmac_by_definition(secret.as_bytes(), message.as_bytes())));
        let expected: String = std::iter::once(format!("t={at_s}")).chain(signed).collect();
        assert_eq!(last.header("ezscale-signature"), expected);
    }
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_for_three_days_is_disabled_and_its_owner_told() {
    let world = world().await;
    let receiver = Receiver::start(&["500 Broken"; 40]).await;
    let (endpoint, _) = world
        .endpoint(Some(ADA), &receiver.url, &[EventType::InvoiceFinalised])
        .await;
    let first = world.publish(invoice(ADA, 7)).await;
    let mut now_ms = NOW_MS;
    world.run(now_ms).await;
    let second = world.publish(invoice(ADA, 8)).await;
    for delay_ms in RETRY_DELAYS_MS {
        let known = webhook::endpoint(world.database.pool(), endpoint, Owner::Anybody)
            .await
            .unwrap();
        assert_eq!(known.disabled_at_ms, None);
        now_ms += delay_ms;
        world.run(now_ms).await;
    }
    assert!(now_ms - NOW_MS >= 3 * 24 * 3_600_000, "the schedule lasts three days");
    let known = webhook::endpoint(world.database.pool(), endpoint, Owner::Anybody)
        .await
        .unwrap();
    assert_eq!(known.disabled_at_ms, Some(now_ms));
    for id in [first, second] {
        let hooks = world
            .deliveries(id)
            .await
            .into_iter()
            .filter(|d| d.channel == "webhook");
        for delivery in hooks {
            assert_eq!(delivery.status, "failed", "{delivery:?}");
        }
    }
    let events = list(world.database.pool(), EventFilter::default(), 1).await.unwrap();
    assert_eq!(
        (events[0].event_type, events[0].customer),
        (EventType::WebhookDisabled, Some(ADA))
    );
    assert_eq!(events[0].payload["url"], receiver.url);

    // Nothing goes there any more, until it is enabled; then what it missed is replayed.
    let third = world.publish(invoice(ADA, 9)).await;
    world.run(now_ms).await;
    assert_eq!(world.told(third).await, [mail("ada@example.net")]);
    let range = Replay {
        first,
        last: third,
        event_type: None,
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    let refused = replay(&mut transaction, range, endpoint, Owner::Anybody, now_ms).await;
    assert!(matches!(refused, Err(EventError::Disabled(_))), "{refused:?}");
    webhook::enable(&mut transaction, endpoint, Owner::Customer(ADA))
        .await
        .unwrap();
    receiver.answers.lock().unwrap().clear();
    assert_eq!(
        replay(&mut transaction, range, endpoint, Owner::Anybody, now_ms)
            .await
            .unwrap(),
        3
    );
    transaction.commit().await.unwrap();
    let before = receiver.received().len();
    let (_, delivered) = world.run(now_ms).await;
    assert_eq!(delivered.sent, 3);
    let replayed = receiver.received().split_off(before);
    let ids: Vec<_> = replayed
        .iter()
        .map(|received| received.header("ezscale-event").to_owned())
        .collect();
    assert_eq!(
        ids,
        [first, second, third].map(|id| id.to_string()),
        "in the order of events"
    );
}

#[tokio::test]
async fn an_endpoint_that_takes_some_events_stays() {
    let world = world().await;
    let receiver = Receiver::start(&["400 Bad Request"]).await;
    let (endpoint, _) = world.endpoint(Some(ADA), &receiver.url, &[]).await;
    world.publish(invoice(ADA, 7)).await;
    let mut now_ms = NOW_MS;
    world.run(now_ms).await;
    for delay_ms in RETRY_DELAYS_MS {
        now_ms += delay_ms;
        // The poisoned one is refused each time; another is taken on the way.
        receiver.answers.lock().unwrap().extend(["200 OK", "400 Bad Request"]);
        world.publish(invoice(ADA, 8)).await;
        world.run(now_ms).await;
    }
    let failed = outbox_counts(&world.database).await.unwrap();
    assert_eq!((failed.webhooks_failed, failed.webhooks_pending), (1, 0));
    let known = webhook::endpoint(world.database.pool(), endpoint, Owner::Anybody)
        .await
        .unwrap();
    assert_eq!(known.disabled_at_ms, None);
}

#[tokio::test]
async fn s1_events_of_others_are_not_replayed() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    let (bens, _) = world.endpoint(Some(BEN), &receiver.url, &[]).await;
    let first = world.publish(invoice(ADA, 7)).await;
    let last = world.publish(invoice(BEN, 8)).await;
    let range = Replay {
        first,
        last,
        event_type: None,
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    assert!(
        replay(&mut transaction, range, bens, Owner::Customer(ADA), NOW_MS)
            .await
            .is_err()
    );
    assert_eq!(
        replay(&mut transaction, range, bens, Owner::Customer(BEN), NOW_MS)
            .await
            .unwrap(),
        1
    );
    let other_type = Replay {
        event_type: Some(EventType::InvoicePaid),
        ..range
    };
    assert_eq!(
        replay(&mut transaction, other_type, bens, Owner::Anybody, NOW_MS)
            .await
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn many_workers_send_each_delivery_once() {
    const EVENTS: i64 = 60;
    let world = world().await;
    let receivers = [Receiver::start(&[]).await, Receiver::start(&[]).await];
    for receiver in &receivers {
        world.endpoint(Some(ADA), &receiver.url, &[]).await;
    }
    for number in 1..=EVENTS {
        world.publish(invoice(ADA, number)).await;
    }
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (database, client) = (world.database.clone(), world.client.clone());
            tokio::spawn(async move { run_once(&database, None, &client, NOW_MS).await.unwrap().1.sent })
        })
        .collect();
    let mut sent = 0;
    for worker in workers {
        sent += worker.await.unwrap();
    }
    assert_eq!(sent, 2 * EVENTS as u64);
    for receiver in &receivers {
        let mut events: Vec<_> = receiver
            .received()
            .iter()
            .map(|r| r.header("ezscale-event").to_owned())
            .collect();
        assert_eq!(events.len() as i64, EVENTS, "none twice");
        events.sort();
        events.dedup();
        assert_eq!(events.len() as i64, EVENTS, "none missing");
    }
}

#[tokio::test]
async fn what_a_dead_worker_held_is_sent_by_the_next_when_the_lease_ends() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let id = world.publish(invoice(ADA, 7)).await;
    dispatch(&world.database, NOW_MS).await.unwrap();
    // As a worker leaves it that claimed and died.
    sqlx::query("UPDATE deliveries SET attempts = 1, next_at_ms = $1 WHERE channel = 'webhook'")
        .bind(NOW_MS + 900_000)
        .execute(world.database.pool())
        .await
        .unwrap();
    world.run(NOW_MS + 899_999).await;
    assert_eq!(receiver.received().len(), 0);
    world.run(NOW_MS + 900_000).await;
    assert_eq!(receiver.received().len(), 1);
    let hook = world.deliveries(id).await.pop().unwrap();
    assert_eq!(
        (hook.status.as_str(), hook.attempts, hook.id),
        ("delivered", 2, DeliveryId(2))
    );
}

#[tokio::test]
async fn a_silent_endpoint_is_asked_once_a_minute_not_once_an_event() {
    let world = world().await;
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.endpoint(Some(ADA), &format!("http://{gone}/"), &[]).await;
    for number in 1..=20 {
        world.publish(invoice(ADA, number)).await;
    }
    let (_, delivered) = world.run(NOW_MS).await;
    assert_eq!((delivered.sent, delivered.postponed), (0, 1));
    let tried = "SELECT CAST(sum(attempts) AS BIGINT) FROM deliveries WHERE channel = 'webhook'";
    let row = sqlx::query(tried).fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 1);
    assert_eq!(outbox_counts(&world.database).await.unwrap().webhooks_pending, 20);
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

#[tokio::test]
async fn endpoints_are_limited_and_told_only_what_customers_may_hear() {
    let world = world().await;
    let url = world.client.vet("http://127.0.0.1:1/").await.unwrap();
    let mut connection = world.database.pool().acquire().await.unwrap();
    let new = |event_types| NewEndpoint {
        customer: Some(ADA),
        url: &url,
        event_types,
    };
    let hidden = webhook::add(
        &mut connection,
        world.database.vault(),
        new(&[EventType::HighRiskAction]),
        NOW_MS,
    )
    .await;
    assert!(hidden.unwrap_err().to_string().contains("admin.high_risk_action"));
    for _ in 0..webhook::MAX_ENDPOINTS {
        webhook::add(&mut connection, world.database.vault(), new(&[]), NOW_MS)
            .await
            .unwrap();
    }
    let one_more = webhook::add(&mut connection, world.database.vault(), new(&[]), NOW_MS).await;
    assert!(matches!(one_more, Err(WebhookError::TooMany)), "{one_more:?}");
    webhook::remove(&mut connection, EndpointId(3), Owner::Customer(ADA))
        .await
        .unwrap();
    assert!(
        webhook::remove(&mut connection, EndpointId(4), Owner::Customer(BEN))
            .await
            .is_err()
    );
    let left = webhook::endpoints(&mut *connection, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(left.len() as i64, webhook::MAX_ENDPOINTS - 1);
    assert_eq!(
        webhook::endpoints(&mut *connection, Owner::Customer(BEN))
            .await
            .unwrap(),
        []
    );
}

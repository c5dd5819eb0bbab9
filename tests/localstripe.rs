//! Against localstripe, somebody else's reading of Stripe's interface: a card is saved, charged, declined, confirmed with
//! the bank, refunded, and webhooks arrive. tests/run installs it from PyPI.
//!
//! It keeps no idempotency keys and lists PaymentIntents without filters: what those are for is tested in payments.rs.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use billing::ledger;
use billing::payment::gateway::{RefundRequest, SavedMethod};
use billing::payment::method::{self, PaymentMethod};
use billing::payment::stripe::{Stripe, StripeConfig};
use billing::payment::{self, GatewayName, Gateways, NewPayment, NewRefund, PaymentGateway, PaymentState, RefundState};
use billing::settlement;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemas::db::Database;
use schemas::ids::CustomerId;
use schemas::inventory::{self, NewCustomer};
use schemas::money::{Currency, Money};
use serde_json::Value;

use crate::support::command::Background;

const SECRET_KEY: &str = "sk_test_12345";
const WEBHOOK_SECRET: &str = "whsec_localstripe";
const START_LIMIT: Duration = Duration::from_secs(30);
const WEBHOOK_LIMIT: Duration = Duration::from_secs(20);

const GOOD_CARD: &str = "4242424242424242";
/// Can be saved and not charged.
const DECLINED_CARD: &str = "4000000000000341";
/// Wants to be confirmed with the bank.
const CONFIRMED_CARD: &str = "4000002500003155";

struct World {
    _localstripe: Background,
    _folder: tempfile::TempDir,
    base_url: String,
    client: reqwest::Client,
    database: Database,
    gateway: Arc<Stripe>,
    customer: CustomerId,
}

fn now_ms() -> i64 {
    schemas::clock::machine_now_ms()
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/bin");
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("localstripe");
        command
            .args(["--from-scratch", "--port", &port.to_string()])
            .env("PATH", path);
        let mut localstripe = Background::start("localstripe", &mut command, folder.path());
        localstripe.wait_until("localstripe to listen", START_LIMIT, |_| {
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
        });
        let base_url = format!("http://127.0.0.1:{port}");
        let mut config = StripeConfig::new(SECRET_KEY, WEBHOOK_SECRET);
        config.base_url.clone_from(&base_url);
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        let mut transaction = database.begin_write().await.unwrap();
        let new = NewCustomer {
            name: "Ada Hosting",
            email: "ada@example.net",
            currency: "USD",
            time_zone: "UTC",
            country: "US",
            tax_rate_percent: "0",
        };
        let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap().id;
        transaction.commit().await.unwrap();
        World {
            _localstripe: localstripe,
            _folder: folder,
            base_url,
            client: reqwest::Client::new(),
            database,
            gateway: Arc::new(Stripe::new(config).unwrap()),
            customer,
        }
    }

    /// What a browser or Stripe's pages would do.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request = self
            .client
            .post(format!("{}{path}", self.base_url))
            .bearer_auth(SECRET_KEY);
        let answer = request.form(form).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null)
    }

    fn card(number: &str) -> [(String, String); 5] {
        let field = |name: &str, value: &str| (format!("payment_method_data[{name}]"), value.to_owned());
        [
            field("type", "card"),
            field("card][number", number),
            field("card][exp_month", "12"),
            field("card][exp_year", "2030"),
            field("card][cvc", "123"),
        ]
    }

    /// The customer enters a card on the page that the setup opened.
    async fn save_card(&self, number: &str) -> PaymentMethod {
        // localstripe has no Checkout, whose page this is in the end: a SetupIntent that says whose it is.
        let ours = self.customer.to_string();
        let gateway_customer = self.post("/v1/customers", &[("name", "Ada Hosting")]).await;
        let form = [
            ("customer", gateway_customer["id"].as_str().unwrap()),
            ("usage", "off_session"),
            ("metadata[ezscale_customer]", ours.as_str()),
        ];
        let setup = self.post("/v1/setup_intents", &form).await;
        let reference = setup["id"].as_str().unwrap();
        let early = method::finish_setup(&self.database, self.gateway.as_ref(), self.customer, reference, 1).await;
        assert!(
            matches!(early, Err(payment::PaymentError::SetupUnfinished { .. })),
            "{early:?}"
        );
        let card = World::card(number);
        let mut form: Vec<(&str, &str)> = card
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        form.push(("client_secret", setup["client_secret"].as_str().unwrap()));
        self.post(&format!("/v1/setup_intents/{reference}/confirm"), &form)
            .await;
        // S1: somebody else cannot take it.
        let other = CustomerId(self.customer.0 + 1);
        let stolen = self.gateway.finish_setup(other, reference).await.unwrap();
        assert!(format!("{stolen:?}").contains("not this customer's"), "{stolen:?}");
        method::finish_setup(&self.database, self.gateway.as_ref(), self.customer, reference, 2)
            .await
            .unwrap()
    }

    async fn top_up(&self, method: &PaymentMethod, minor: i64) -> payment::Payment {
        let new = NewPayment {
            customer: self.customer,
            invoice: None,
            amount: Some(usd(minor)),
            method: method.id,
            note: "",
            return_url: None,
        };
        payment::start(&self.database, self.gateway.as_ref(), &new, now_ms())
            .await
            .unwrap()
    }

    async fn credit_minor(&self) -> i64 {
        let report = ledger::check(&self.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let credit = settlement::credit_balance(self.database.pool(), self.customer, Currency::USD).await;
        credit.unwrap().minor
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_saved_charged_and_refunded() {
    let world = World::new().await;
    let (url, webhooks) = receive_webhooks();
    let form = [("url", url.as_str()), ("secret", WEBHOOK_SECRET)];
    world.post("/_config/webhooks/ours", &form).await;

    let card = world.save_card(GOOD_CARD).await;
    assert_eq!(
        (card.label.as_str(), card.expires.as_str()),
        ("visa •••• 4242", "2030-12")
    );
    assert!(card.is_default);
    let paid = world.top_up(&card, 2_500).await;
    assert_eq!(paid.state, PaymentState::Succeeded, "{paid:?}");
    assert_eq!(world.credit_minor().await, 2_500);

    // Its webhook says the same, and is counted once.
    let (headers, body) = loop {
        let (headers, body) = webhooks
            .recv_timeout(WEBHOOK_LIMIT)
            .expect("localstripe sends webhooks");
        if String::from_utf8_lossy(&body).contains("payment_intent.succeeded") {
            break (headers, body);
        }
    };
    for expected in [payment::WebhookOutcome::Applied, payment::WebhookOutcome::Repeated] {
        let gateway = world.gateway.as_ref();
        let received = payment::receive_webhook(&world.database, gateway, &headers, &body, now_ms(), now_ms())
            .await
            .unwrap();
        assert_eq!(received, expected);
    }
    let mut forged = body.clone();
    forged.push(b' ');
    let refused = payment::receive_webhook(
        &world.database,
        world.gateway.as_ref(),
        &headers,
        &forged,
        now_ms(),
        now_ms(),
    )
    .await;
    assert!(
        matches!(refused, Err(payment::PaymentError::Webhook { .. })),
        "{refused:?}"
    );
    assert_eq!(world.credit_minor().await, 2_500);

    let new = NewRefund {
        payment: paid.id,
        amount: usd(1_000),
        reason: "asked for",
        created_by: "test",
    };
    let refund = payment::refund(&world.database, world.gateway.as_ref(), &new, now_ms())
        .await
        .unwrap();
    assert_eq!(refund.state, RefundState::Succeeded);
    assert_eq!(world.credit_minor().await, 1_500);
    let request = RefundRequest {
        refund: refund.id,
        idempotency_key: &refund.idempotency_key,
        payment_reference: paid.reference.as_deref().unwrap(),
        reference: None,
        amount: refund.amount,
    };
    let found = world.gateway.find_refund(&request).await.unwrap().unwrap();
    assert_eq!(found.reference, refund.reference);

    method::remove(
        &world.database,
        world.gateway.as_ref(),
        world.customer,
        card.id,
        now_ms(),
    )
    .await
    .unwrap();
    let left = method::methods(world.database.pool(), world.customer).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_declined_and_nothing_is_booked() {
    let world = World::new().await;
    let card = world.save_card(DECLINED_CARD).await;
    let failed = world.top_up(&card, 2_500).await;
    assert_eq!(failed.state, PaymentState::Failed, "{failed:?}");
    assert!(failed.error.contains("declined"), "{failed:?}");
    assert_eq!(world.credit_minor().await, 0);
    // The next one is another payment.
    let card = world.save_card(GOOD_CARD).await;
    assert_eq!(world.top_up(&card, 2_500).await.state, PaymentState::Succeeded);
    assert_eq!(world.credit_minor().await, 2_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_wants_to_be_confirmed_is_paid_when_it_was() {
    let world = World::new().await;
    let good = world.save_card(GOOD_CARD).await;
    let form = [
        ("type", "card"),
        ("card[number]", CONFIRMED_CARD),
        ("card[exp_month]", "12"),
        ("card[exp_year]", "2030"),
        ("card[cvc]", "123"),
    ];
    let reference = world.post("/v1/payment_methods", &form).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let form = [("customer", good.gateway_customer.as_str())];
    world
        .post(&format!("/v1/payment_methods/{reference}/attach"), &form)
        .await;
    let saved = SavedMethod {
        gateway_customer: good.gateway_customer.clone(),
        reference,
        kind: "card".to_owned(),
        label: "visa •••• 3155".to_owned(),
        expires: "2030-12".to_owned(),
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    let card = method::save(&mut transaction, GatewayName::Stripe, world.customer, &saved, 1)
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    let gateways = Gateways::new(vec![world.gateway.clone()]);
    for (is_confirmed, state, credit_minor) in [
        (true, PaymentState::Succeeded, 2_500),
        (false, PaymentState::Cancelled, 2_500),
    ] {
        let waits = world.top_up(&card, 2_500).await;
        assert_eq!(waits.state, PaymentState::RequiresAction, "{waits:?}");
        let reference = waits.reference.clone().unwrap();
        if is_confirmed {
            let request = world
                .client
                .get(format!("{}/v1/payment_intents/{reference}", world.base_url));
            let answer = request
                .bearer_auth(SECRET_KEY)
                .send()
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            let intent: Value = serde_json::from_slice(&answer).unwrap();
            let form = [
                ("client_secret", intent["client_secret"].as_str().unwrap()),
                ("success", "true"),
            ];
            world
                .post(&format!("/v1/payment_intents/{reference}/_authenticate"), &form)
                .await;
            payment::reconcile(&world.database, &gateways, now_ms() + 120_000)
                .await
                .unwrap();
        } else {
            payment::cancel(&world.database, world.gateway.as_ref(), waits.id, now_ms())
                .await
                .unwrap();
        }
        let payment = payment::payment(world.database.pool(), waits.id).await.unwrap();
        assert_eq!(payment.state, state);
        assert_eq!(world.credit_minor().await, credit_minor);
    }
}

/// Where webhooks are sent, and what was: headers and body.
fn receive_webhooks() -> (String, Receiver<(HeaderMap, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
            let (headers, start, length) = loop {
                let count = stream.read(&mut chunk).unwrap();
                bytes.extend(&chunk[..count]);
                if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    let mut headers = HeaderMap::new();
                    for line in String::from_utf8_lossy(&bytes[..at]).lines() {
                        if let Some((name, value)) = line.split_once(": ") {
                            let name: HeaderName = name.parse().unwrap();
                            headers.insert(name, HeaderValue::from_str(value).unwrap());
                        }
                    }
                    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
                    break (headers, at + 4, length);
                }
                assert!(count > 0, "a whole request");
            };
            while bytes.len() < start + length {
                let count = stream.read(&mut chunk).unwrap();
                assert!(count > 0, "a whole body");
                bytes.extend(&chunk[..count]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
            if sender.send((headers, bytes[start..start + length].to_vec())).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

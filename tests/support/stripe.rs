//! A hostile payment gateway that speaks as much of Stripe's interface as payments need.
//!
//! It keeps the truth: which charges and refunds there are, by idempotency key, as Stripe does. How it answers is another
//! matter: each request that moves money meets the next scripted [`Fault`].

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What happens to a request that would charge or refund.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// Nothing is done and nothing said, until the client gives up.
    HangBefore,
    /// It is done and nothing said.
    HangAfter,
    /// It is done once the client has given up.
    DoneLate,
    ErrorBefore,
    ErrorAfter,
    ResetBefore,
    ResetAfter,
    Decline,
    /// It is accepted, and succeeds when it is looked at next.
    Processing,
    /// The bank wants the customer to confirm it.
    Asks,
}

impl Fault {
    pub(crate) const ALL: [Fault; 11] = [
        Fault::None,
        Fault::HangBefore,
        Fault::HangAfter,
        Fault::DoneLate,
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Decline,
        Fault::Processing,
        Fault::Asks,
    ];
}

/// What is true at the gateway.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// PaymentIntents and refunds, in the order they were made.
    pub(crate) intents: Vec<Value>,
    pub(crate) refunds: Vec<Value>,
    by_key: BTreeMap<String, Value>,
    pub(crate) faults: VecDeque<Fault>,
    /// Bodies of webhooks, not yet sent by anybody.
    pub(crate) events: Vec<String>,
    /// Sessions in which customers enter cards, and what they entered.
    objects: BTreeMap<String, Value>,
    next_id: u64,
}

impl Truth {
    /// Charges that have the money, by our key.
    pub(crate) fn charged(&self) -> BTreeMap<String, Vec<i64>> {
        let mut charged: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for intent in self.intents.iter().filter(|intent| intent["status"] == "succeeded") {
            let key = intent["metadata"]["ezscale_key"].as_str().expect("our key").to_owned();
            charged
                .entry(key)
                .or_default()
                .push(intent["amount"].as_i64().expect("an amount"));
        }
        charged
    }

    pub(crate) fn refunded_minor(&self) -> i64 {
        self.refunds.iter().filter_map(|refund| refund["amount"].as_i64()).sum()
    }

    /// The customer confirms a payment that waits, if one does.
    pub(crate) fn confirm(&mut self) -> Option<String> {
        let at = self.intents.iter().position(waits)?;
        self.intents[at]["status"] = "succeeded".into();
        let intent = self.intents[at].clone();
        self.tell("payment_intent.succeeded", &intent);
        intent["id"].as_str().map(str::to_owned)
    }

    /// Somebody refunds a charge at the gateway's own dashboard; the body of the webhook that tells of it.
    pub(crate) fn refund_at_the_dashboard(&mut self, intent: &str, minor: i64, status: &str) -> String {
        let refund = json!({
            "id": self.id("re"), "object": "refund", "amount": minor, "currency": "usd", "status": status,
            "payment_intent": intent, "metadata": {},
        });
        self.refunds.push(refund.clone());
        self.tell("refund.created", &refund)
    }

    /// What became of a refund; the body of the webhook.
    pub(crate) fn refund_becomes(&mut self, refund: &str, status: &str) -> String {
        let at = self
            .refunds
            .iter()
            .position(|one| one["id"] == refund)
            .expect("a refund");
        self.refunds[at]["status"] = status.into();
        let refund = self.refunds[at].clone();
        self.tell("refund.updated", &refund)
    }

    /// The payer's bank disputes a charge, or decided; the body of the webhook.
    pub(crate) fn dispute(&mut self, reference: &str, intent: &str, minor: i64, status: &str) -> String {
        let event_type = match status {
            "needs_response" => "charge.dispute.created",
            "won" | "lost" => "charge.dispute.closed",
            _ => "charge.dispute.updated",
        };
        let dispute = json!({
            "id": reference, "object": "dispute", "amount": minor, "currency": "usd", "status": status,
            "payment_intent": intent, "reason": "fraudulent",
        });
        self.tell(event_type, &dispute)
    }

    /// A card is entered on the page of a session; the body of the webhook.
    pub(crate) fn enter_card(&mut self, session: &str) -> String {
        let (setup, card) = (self.id("seti"), self.id("pm"));
        let mut session = self.objects[session].clone();
        let customer = session["customer"].clone();
        session["status"] = "complete".into();
        session["setup_intent"] = setup.as_str().into();
        self.keep(json!({
            "id": setup, "object": "setup_intent", "status": "succeeded", "customer": customer, "payment_method": card,
            "metadata": session["metadata"],
        }));
        self.keep(json!({
            "id": card, "object": "payment_method", "type": "card", "customer": customer,
            "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030},
        }));
        self.keep(session.clone());
        self.tell("checkout.session.completed", &session)
    }

    fn keep(&mut self, object: Value) {
        let id = object["id"].as_str().expect("an id").to_owned();
        self.objects.insert(id, object);
    }

    fn id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        format!("{prefix}_{}", self.next_id)
    }

    fn tell(&mut self, event_type: &str, object: &Value) -> String {
        let id = self.id("evt");
        let event = json!({ "id": id, "type": event_type, "data": { "object": object } }).to_string();
        self.events.push(event.clone());
        event
    }
}

/// Whether the customer can confirm it with the bank, or could if somebody asked.
fn waits(intent: &Value) -> bool {
    intent["status"] == "requires_action"
        || (intent["status"] == "requires_payment_method"
            && intent["last_payment_error"]["code"] == "authentication_required")
}

/// The gateway. It ends when dropped.
#[derive(Debug)]
pub(crate) struct HostileStripe {
    address: SocketAddr,
    truth: Arc<Mutex<Truth>>,
    ends: Arc<AtomicBool>,
    in_flight: Arc<AtomicUsize>,
}

impl HostileStripe {
    pub(crate) fn start() -> HostileStripe {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let truth = Arc::new(Mutex::new(Truth::default()));
        let ends = Arc::new(AtomicBool::new(false));
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (shared, stop, count) = (truth.clone(), ends.clone(), in_flight.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (truth, count) = (shared.clone(), count.clone());
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    if let Ok(stream) = stream {
                        serve(stream, &truth);
                    }
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        HostileStripe {
            address,
            truth,
            ends,
            in_flight,
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that it has not done with.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn truth(&self) -> std::sync::MutexGuard<'_, Truth> {
        self.truth.lock().expect("no thread of the gateway panics with it")
    }
}

impl Drop for HostileStripe {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

struct Request {
    method: String,
    path: String,
    key: Option<String>,
    fields: BTreeMap<String, String>,
}

fn serve(mut stream: TcpStream, truth: &Mutex<Truth>) {
    let Some(request) = read_request(&mut stream) else {
        return;
    };
    if request.method == "GET" {
        let (status, body) = look(&request, &mut truth.lock().expect("not poisoned"));
        answer(&mut stream, status, &body);
        return;
    }
    let fault = truth
        .lock()
        .expect("not poisoned")
        .faults
        .pop_front()
        .unwrap_or(Fault::None);
    match fault {
        Fault::HangBefore => wait_for_hangup(&mut stream),
        Fault::DoneLate => {
            wait_for_hangup(&mut stream);
            act(&request, fault, &mut truth.lock().expect("not poisoned"));
        }
        Fault::ErrorBefore => answer(&mut stream, 500, &json!({"error": {"type": "api_error"}})),
        // An unread byte on a closed socket makes a reset; a plain end does as well.
        Fault::ResetBefore => drop(stream.shutdown(Shutdown::Both)),
        Fault::HangAfter
        | Fault::ErrorAfter
        | Fault::ResetAfter
        | Fault::None
        | Fault::Decline
        | Fault::Processing
        | Fault::Asks => {
            let (status, body) = act(&request, fault, &mut truth.lock().expect("not poisoned"));
            match fault {
                Fault::HangAfter => wait_for_hangup(&mut stream),
                Fault::ErrorAfter => answer(&mut stream, 502, &Value::Null),
                Fault::ResetAfter => drop(stream.shutdown(Shutdown::Both)),
                _ => answer(&mut stream, status, &body),
            }
        }
    }
}

/// Charges or refunds, once per key: the same key gives the same answer.
fn act(request: &Request, fault: Fault, truth: &mut Truth) -> (u16, Value) {
    let words: Vec<&str> = request.path.trim_start_matches("/v1/").split('/').collect();
    match words[..] {
        ["payment_intents", id, "cancel"] => return cancel(id, truth),
        ["customers"] => return (200, json!({ "id": truth.id("cus"), "object": "customer" })),
        ["checkout", "sessions"] => return session(request, truth),
        ["payment_intents", id, "confirm"] => {
            let at = truth.intents.iter().position(|intent| intent["id"] == id);
            let intent = &mut truth.intents[at.expect("an intent")];
            intent["status"] = "requires_action".into();
            intent["last_payment_error"] = Value::Null;
            intent["next_action"] = json!({"redirect_to_url": {"url": format!("https://bank.example/{id}")}});
            return (200, intent.clone());
        }
        _ => {}
    }
    let key = request.key.clone().expect("who moves money sends a key");
    if let Some(before) = truth.by_key.get(&key) {
        let id = before["id"].clone();
        let now = truth
            .intents
            .iter()
            .chain(&truth.refunds)
            .find(|object| object["id"] == id);
        return reply(now.expect("what a key stands for is there"));
    }
    let field = |name: &str| request.fields.get(name).cloned().unwrap_or_default();
    let amount: i64 = field("amount").parse().expect("an amount");
    let metadata = json!({ "ezscale_key": field("metadata[ezscale_key]") });
    let object = match request.path.as_str() {
        "/v1/payment_intents" => {
            let status = match fault {
                Fault::Decline | Fault::Asks => "requires_payment_method",
                Fault::Processing => "processing",
                _ => "succeeded",
            };
            let intent = json!({
                "id": truth.id("pi"), "object": "payment_intent", "amount": amount, "currency": field("currency"),
                "customer": field("customer"), "metadata": metadata, "status": status,
                "last_payment_error": match fault {
                    Fault::Decline => json!({"code": "card_declined", "message": "no"}),
                    Fault::Asks => json!({"code": "authentication_required", "message": "confirm it"}),
                    _ => Value::Null,
                },
            });
            truth.intents.push(intent.clone());
            let event_type = match fault {
                Fault::Decline | Fault::Asks => "payment_intent.payment_failed",
                Fault::Processing => "payment_intent.processing",
                _ => "payment_intent.succeeded",
            };
            truth.tell(event_type, &intent);
            intent
        }
        "/v1/refunds" => {
            let refund = json!({
                "id": truth.id("re"), "object": "refund", "amount": amount, "currency": "usd", "status": "succeeded",
                "payment_intent": field("payment_intent"), "metadata": metadata,
            });
            truth.refunds.push(refund.clone());
            truth.tell("refund.created", &refund);
            refund
        }
        path => panic!("the hostile gateway does not know POST {path}"),
    };
    truth.by_key.insert(key, object.clone());
    reply(&object)
}

fn reply(object: &Value) -> (u16, Value) {
    match object["status"] == "requires_payment_method" {
        true => {
            let mut error = object["last_payment_error"].clone();
            error["type"] = "card_error".into();
            error["payment_intent"] = object.clone();
            (402, json!({ "error": error }))
        }
        false => (200, object.clone()),
    }
}

/// Gives a charge up, unless it is over already.
fn cancel(id: &str, truth: &mut Truth) -> (u16, Value) {
    let at = truth.intents.iter().position(|intent| intent["id"] == id);
    let intent = &mut truth.intents[at.expect("an intent")];
    if !["requires_action", "requires_payment_method", "canceled"].contains(&intent["status"].as_str().expect("text")) {
        let error = json!({"code": "payment_intent_unexpected_state", "message": "it is over"});
        return (400, json!({ "error": error }));
    }
    let was_open = intent["status"] != "canceled";
    intent["status"] = "canceled".into();
    let intent = intent.clone();
    if was_open {
        truth.tell("payment_intent.canceled", &intent);
    }
    (200, intent)
}

/// Opens a page on which a customer enters a card.
fn session(request: &Request, truth: &mut Truth) -> (u16, Value) {
    let field = |name: &str| request.fields.get(name).cloned().unwrap_or_default();
    let id = truth.id("cs_test");
    let session = json!({
        "id": id, "object": "checkout.session", "mode": field("mode"), "status": "open", "customer": field("customer"),
        "metadata": {"ezscale_customer": field("metadata[ezscale_customer]")}, "setup_intent": null,
        "url": format!("https://checkout.example/{id}"), "success_url": field("success_url"),
    });
    truth.keep(session.clone());
    (200, session)
}

fn look(request: &Request, truth: &mut Truth) -> (u16, Value) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if let Some(object) = truth.objects.get(path.rsplit('/').next().unwrap_or("")) {
        return (200, object.clone());
    }
    if ["/v1/checkout/", "/v1/setup_intents/", "/v1/payment_methods/"]
        .iter()
        .any(|kept| path.starts_with(kept))
    {
        return (404, json!({"error": {"code": "resource_missing"}}));
    }
    let query = fields(query);
    if let Some(id) = path.strip_prefix("/v1/payment_intents/") {
        let Some(at) = truth.intents.iter().position(|intent| intent["id"] == id) else {
            return (404, json!({"error": {"code": "resource_missing"}}));
        };
        if truth.intents[at]["status"] == "processing" {
            truth.intents[at]["status"] = "succeeded".into();
            let intent = truth.intents[at].clone();
            truth.tell("payment_intent.succeeded", &intent);
        }
        return (200, truth.intents[at].clone());
    }
    let data: Vec<Value> = match path {
        "/v1/payment_intents" => {
            let of = |intent: &&Value| intent["customer"].as_str() == query.get("customer").map(String::as_str);
            truth.intents.iter().filter(of).cloned().collect()
        }
        "/v1/refunds" => {
            let of =
                |refund: &&Value| refund["payment_intent"].as_str() == query.get("payment_intent").map(String::as_str);
            truth.refunds.iter().filter(of).cloned().collect()
        }
        path => panic!("the hostile gateway does not know GET {path}"),
    };
    (200, json!({ "data": data, "has_more": false }))
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend(&chunk[..count]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").map_or(0, |text| text.parse().expect("a length"));
    while bytes.len() < head_end + 4 + length {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend(&chunk[..count]),
        }
    }
    let mut words = head.lines().next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let body = String::from_utf8_lossy(&bytes[head_end + 4..]).into_owned();
    Some(Request {
        method,
        path,
        key: header("idempotency-key"),
        fields: fields(&body),
    })
}

/// `a=1&b%5Bc%5D=2`.
fn fields(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).expect("two hex digits")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("form fields are UTF-8")
}

fn answer(stream: &mut TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // The client may have been killed.
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Returns when the client has closed its side.
fn wait_for_hangup(stream: &mut TcpStream) {
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {}
}

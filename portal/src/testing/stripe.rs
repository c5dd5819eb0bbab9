//! Stripe's desk as far as the pages need it: cards are entered on its page, charges meet a script, and the customer confirms
//! at the bank when a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Form, FromRequest as _, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use billing::payment::Gateways;
use billing::payment::stripe::{Stripe, StripeConfig};
use serde_json::{Value, json};

/// How a charge ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ends {
    Paid,
    Declined,
    /// The bank wants it confirmed.
    Asked,
}

/// What the desk knows.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) script: VecDeque<Ends>,
    objects: BTreeMap<String, Value>,
    next_id: u64,
    /// It does not answer.
    pub(crate) is_down: bool,
}

impl Desk {
    pub(crate) fn of(&self, kind: &str) -> Vec<Value> {
        let of_kind = |object: &&Value| object["object"] == kind;
        self.objects.values().filter(of_kind).cloned().collect()
    }

    fn id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        format!("{prefix}_{}", self.next_id)
    }

    fn keep(&mut self, object: &Value) {
        let id = object["id"].as_str().unwrap().to_owned();
        self.objects.insert(id, object.clone());
    }

    /// The customer confirms the only payment that waits; its id.
    pub(crate) fn confirm(&mut self) -> String {
        let waits = |object: &&Value| object["status"] == "requires_action";
        let mut intent = self.objects.values().find(waits).unwrap().clone();
        intent["status"] = "succeeded".into();
        self.keep(&intent);
        intent["id"].as_str().unwrap().to_owned()
    }

    /// A card is entered on the page of a session.
    pub(crate) fn enter_card(&mut self, session: &str) {
        let (setup, card) = (self.id("seti"), self.id("pm"));
        let mut session = self.objects[session].clone();
        session["status"] = "complete".into();
        session["setup_intent"] = setup.as_str().into();
        let customer = &session["customer"];
        self.keep(&json!({
            "id": setup, "object": "setup_intent", "status": "succeeded", "customer": customer, "payment_method": card,
            "metadata": session["metadata"],
        }));
        self.keep(&json!({
            "id": card, "object": "payment_method", "type": "card", "customer": customer,
            "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030},
        }));
        self.keep(&session);
    }
}

/// Shared with the desk's task.
pub(crate) type SharedDesk = Arc<Mutex<Desk>>;

/// Opens a desk, and the gateways that lead there.
pub(crate) async fn open() -> (SharedDesk, Gateways) {
    let desk = SharedDesk::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = StripeConfig::new("sk_test_x", "whsec_test");
    config.base_url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(serve).with_state(desk.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (desk, Gateways::new(vec![Arc::new(Stripe::new(config).unwrap())]))
}

async fn serve(State(desk): State<SharedDesk>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let fields = match method {
        Method::POST => fields_of(request).await,
        _ => BTreeMap::new(),
    };
    let mut desk = desk.lock().unwrap();
    let (status, body) = match method {
        _ if desk.is_down => (503, json!({"error": {"type": "api_error"}})),
        Method::POST => act(&mut desk, &path, &fields),
        _ => match desk.objects.get(path.rsplit('/').next().unwrap()) {
            Some(object) => (200, object.clone()),
            None => (404, json!({"error": {"code": "resource_missing"}})),
        },
    };
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

/// Some posts have no body at all.
async fn fields_of(request: Request) -> BTreeMap<String, String> {
    let form = Form::<BTreeMap<String, String>>::from_request(request, &()).await;
    form.map_or_else(|_| BTreeMap::new(), |Form(fields)| fields)
}

fn act(desk: &mut Desk, path: &str, fields: &BTreeMap<String, String>) -> (u16, Value) {
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let words: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let object = match words[..] {
        ["customers"] => json!({ "id": desk.id("cus"), "object": "customer" }),
        ["checkout", "sessions"] => {
            assert_eq!(
                (field("mode"), field("currency")),
                ("setup".to_owned(), "usd".to_owned())
            );
            let id = desk.id("cs_test");
            let ours = field("metadata[ezscale_customer]");
            assert_eq!(ours, field("setup_intent_data[metadata][ezscale_customer]"));
            json!({
                "id": id, "object": "checkout.session", "mode": "setup", "status": "open", "customer": field("customer"),
                "metadata": {"ezscale_customer": ours}, "url": format!("https://pay.example/{id}"),
                "success_url": field("success_url").replace("{CHECKOUT_SESSION_ID}", &id), "cancel_url": field("cancel_url"),
            })
        }
        ["payment_intents"] => {
            let ends = desk.script.pop_front().unwrap_or(Ends::Paid);
            let error = match ends {
                Ends::Paid => Value::Null,
                Ends::Declined => json!({"code": "card_declined", "decline_code": "insufficient_funds",
                    "message": "Your card has insufficient funds."}),
                Ends::Asked => json!({"code": "authentication_required", "message": "Confirm it."}),
            };
            let intent = json!({
                "id": desk.id("pi"), "object": "payment_intent", "amount": field("amount").parse::<i64>().unwrap(),
                "currency": field("currency"), "customer": field("customer"),
                "metadata": {"ezscale_key": field("metadata[ezscale_key]")}, "last_payment_error": error,
                "status": if ends == Ends::Paid { "succeeded" } else { "requires_payment_method" },
            });
            desk.keep(&intent);
            if ends != Ends::Paid {
                let mut error = intent["last_payment_error"].clone();
                error["payment_intent"] = intent;
                return (402, json!({ "error": error }));
            }
            intent
        }
        ["payment_intents", id, "confirm"] => {
            let mut intent = desk.objects[id].clone();
            intent["status"] = "requires_action".into();
            intent["last_payment_error"] = Value::Null;
            intent["next_action"] = json!({"redirect_to_url": {"url": format!("https://bank.example/{id}"),
                "return_url": field("return_url")}});
            intent
        }
        ["payment_intents", id, "cancel"] => {
            let mut intent = desk.objects[id].clone();
            if intent["status"] == "succeeded" {
                return (
                    400,
                    json!({"error": {"code": "payment_intent_unexpected_state", "message": "paid"}}),
                );
            }
            intent["status"] = "canceled".into();
            intent
        }
        ["payment_methods", id, "detach"] => desk.objects[id].clone(),
        _ => return (404, json!({"error": {"code": "unknown_path", "message": path}})),
    };
    desk.keep(&object);
    (200, object)
}

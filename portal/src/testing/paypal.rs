//! PayPal's vault as far as the pages need it: an account is approved when a test says so, and becomes one payment token.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use billing::payment::Gateways;
use billing::payment::paypal::{Paypal, PaypalConfig};
use serde_json::{Value, json};

/// Setup tokens that their payers approved.
pub(crate) type Approved = Arc<Mutex<BTreeSet<String>>>;

#[derive(Clone)]
struct Vault {
    approved: Approved,
    /// Setup tokens, by their number.
    setups: Arc<Mutex<Vec<Value>>>,
    base_url: String,
}

pub(crate) async fn open() -> (Approved, Gateways) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let vault = Vault {
        approved: Approved::default(),
        setups: Arc::default(),
        base_url: base_url.clone(),
    };
    let mut config = PaypalConfig::new("id", "secret", "webhook");
    config.base_url = base_url;
    config.timeout = Duration::from_secs(10);
    let approved = vault.approved.clone();
    let app = Router::new().fallback(serve).with_state(vault);
    tokio::spawn(async move { axum::serve(listener, app).await });
    (approved, Gateways::new(vec![Arc::new(Paypal::new(config).unwrap())]))
}

async fn serve(State(vault): State<Vault>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap_or(Value::Null);
    let missing = || (404, json!({"name": "RESOURCE_NOT_FOUND", "message": "none"}));
    let mut setups = vault.setups.lock().unwrap();
    let (status, answer) = match (&parts.method, parts.uri.path()) {
        (_, "/v1/oauth2/token") => (200, json!({"access_token": "t", "expires_in": 3600})),
        (&Method::POST, "/v3/vault/setup-tokens") => {
            let mut setup = body.clone();
            let id = format!("SETUP-{}", setups.len());
            setup["id"] = id.as_str().into();
            setup["customer"]["id"] = "PAYER-1".into();
            setup["links"] =
                json!([{"rel": "approve", "href": format!("{}/agreements/approve?token={id}", vault.base_url)}]);
            setups.push(setup.clone());
            (201, setup)
        }
        (&Method::POST, "/v3/vault/payment-tokens") => {
            let id = body["payment_source"]["token"]["id"].as_str().unwrap();
            match vault.approved.lock().unwrap().contains(id) {
                true => (
                    201,
                    json!({
                        "id": format!("PAY-{id}"), "customer": {"id": "PAYER-1"},
                        "payment_source": {"paypal": {"email_address": "ada@example.net"}},
                    }),
                ),
                false => (422, json!({"details": [{"issue": "TOKEN_NOT_APPROVED"}]})),
            }
        }
        (_, path) => {
            let id = path.rsplit('/').next().unwrap();
            let found = setups.iter().find(|setup| setup["id"] == id);
            found.map_or_else(missing, |setup| (200, setup.clone()))
        }
    };
    (StatusCode::from_u16(status).unwrap(), Json(answer)).into_response()
}

//! What tests of the portal share: a server on a database of its own, and a browser that keeps cookies.

pub(crate) mod paypal;
pub(crate) mod stripe;
pub(crate) mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use analytics::Analytics;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use billing::payment::gateway::SavedMethod;
use billing::payment::trial::TestGateway;
use billing::payment::{GatewayName, Gateways, method};
use jiff::Timestamp;
use schemas::db::Database;
use schemas::ids::{CustomerId, PaymentMethodId};
use schemas::inventory::{NewCustomer, create_customer};
use schemas::metering::MeteringConfig;
use tower::ServiceExt as _;

use crate::auth::{NewUser, Role, create_user};
use crate::state::{AppState, HttpSettings, Options};

/// The password of every user that tests make.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// When tests happen, unless they move the clock: 2025-06-15T12:00:00Z.
pub(crate) const NOW_MS: i64 = 1_749_988_800_000;

/// A portal with a clock that tests move.
#[derive(Debug)]
pub(crate) struct TestPortal {
    pub(crate) state: AppState,
    pub(crate) router: Router,
    now_ms: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl TestPortal {
    pub(crate) async fn new() -> TestPortal {
        TestPortal::with(|_| {}).await
    }

    /// With stored tables that `fill` writes under the data directory first.
    pub(crate) async fn with(fill: impl FnOnce(&std::path::Path)) -> TestPortal {
        TestPortal::build(fill, false, |_| Gateways::default()).await
    }

    /// With Stripe as its gateway, whose desk the test looks at.
    pub(crate) async fn with_stripe() -> (TestPortal, stripe::SharedDesk) {
        let (desk, gateways) = stripe::open().await;
        (TestPortal::build(|_| {}, false, |_| gateways).await, desk)
    }

    /// With PayPal as its gateway; setup tokens that are approved are named to it.
    pub(crate) async fn with_paypal() -> (TestPortal, paypal::Approved) {
        let (approved, gateways) = paypal::open().await;
        (TestPortal::build(|_| {}, false, |_| gateways).await, approved)
    }

    pub(crate) async fn over_https() -> TestPortal {
        TestPortal::build(|_| {}, true, |_| Gateways::default()).await
    }

    /// With the test gateway, whose pages are the portal's own.
    pub(crate) async fn with_test_gateway() -> TestPortal {
        let gateways = |db: &Database| Gateways::new(vec![Arc::new(TestGateway::new(db, "http://portal.example"))]);
        TestPortal::build(|_| {}, false, gateways).await
    }

    async fn build(
        fill: impl FnOnce(&std::path::Path),
        secure_cookies: bool,
        gateways: impl FnOnce(&Database) -> Gateways,
    ) -> TestPortal {
        let dir = fixtures::in_memory_folder();
        fill(dir.path());
        // A copy, because migrating takes longer than most tests.
        let migrate = async |folder: PathBuf| {
            let db = Database::open(&Database::default_url(&folder)).await.unwrap();
            // As one that somebody added, whatever it is called: it issues invoices.
            let issuer = "UPDATE entities SET created_at_ms = 1";
            sqlx::query(issuer).execute(db.pool()).await.unwrap();
            db.pool().close().await;
        };
        fixtures::sqlite(dir.path(), env!("CARGO_PKG_NAME"), migrate).await;
        let db = Database::open(&Database::default_url(dir.path()))
            .await
            .unwrap()
            .with_vault(schemas::secret::Vault::random().unwrap());
        let (_, metering) = tokio::sync::watch::channel(Arc::new(MeteringConfig::default()));
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let options = Options {
            gateways: gateways(&db),
            db,
            flow_store: Analytics::open(dir.path()).unwrap().into(),
            data_dir: dir.path().to_owned(),
            metering,
            secure_cookies,
            webhooks: activity::channel::WebhookClient::new(true).unwrap(),
            guards: schemas::usage::MeasureGuards::NONE,
            portal_url: "http://portal.example".to_owned(),
            http: HttpSettings::default(),
            sessions: crate::auth::SessionLimits::default(),
            sends_mail: true,
        };
        let clock = Arc::clone(&now_ms);
        let state = AppState::with_clock(options, move || {
            Timestamp::from_millisecond(clock.load(Ordering::Relaxed)).unwrap()
        });
        TestPortal {
            router: crate::router(state.clone()),
            state,
            now_ms,
            _dir: dir,
        }
    }

    pub(crate) fn advance_ms(&self, by_ms: i64) {
        self.now_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Makes a customer with a user `<name>@example.net`.
    pub(crate) async fn customer(&self, name: &str) -> CustomerId {
        let mut transaction = self.state.db().begin_write().await.unwrap();
        let email = format!("{name}@example.net");
        let new = NewCustomer {
            name,
            email: &email,
            currency: "USD",
            time_zone: "UTC",
            country: "US",
            tax_rate_percent: "0",
        };
        let customer = create_customer(&mut transaction, new, 0).await.unwrap();
        transaction.commit().await.unwrap();
        self.user(name, Role::Customer, Some(customer.id)).await;
        customer.id
    }

    /// Saves a card of a customer's, as if it had been entered.
    pub(crate) async fn card(&self, customer: CustomerId, reference: &str) -> PaymentMethodId {
        let saved = SavedMethod {
            gateway_customer: "cus_x".to_owned(),
            reference: reference.to_owned(),
            kind: "card".to_owned(),
            label: "visa •••• 4242".to_owned(),
            expires: "2030-12".to_owned(),
        };
        let mut transaction = self.state.db().begin_write().await.unwrap();
        let method = method::save(&mut transaction, GatewayName::Stripe, customer, &saved, 0)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        method.id
    }

    /// Makes a user `<name>@example.net`.
    pub(crate) async fn user(&self, name: &str, role: Role, customer: Option<CustomerId>) {
        let email = format!("{name}@example.net");
        let user = NewUser {
            email: &email,
            name,
            role,
            customer,
            password: PASSWORD,
        };
        let by = activity::act::By::program("test");
        create_user(self.state.db(), &user, by).await.unwrap();
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser {
            router: self.router.clone(),
            cookies: BTreeMap::new(),
            from: None,
        }
    }

    /// A browser at an address.
    pub(crate) fn browser_at(&self, ip: &str) -> Browser {
        Browser {
            from: Some(SocketAddr::new(ip.parse().unwrap(), 40_000)),
            ..self.browser()
        }
    }

    /// A browser in which `<name>@example.net` is signed in.
    pub(crate) async fn signed_in(&self, name: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.sign_in(&format!("{name}@example.net"), PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }
}

/// Keeps cookies between requests.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) router: Router,
    pub(crate) cookies: BTreeMap<String, String>,
    /// Where it connects from.
    pub(crate) from: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn csrf_token(&self) -> String {
        self.hidden("csrf_token")
    }

    pub(crate) fn form_token(&self) -> String {
        self.hidden("form_token")
    }

    /// The value of the first hidden field of a name.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let start = self.body.find(&marker).unwrap() + marker.len();
        self.body[start..].split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    pub(crate) async fn send(&mut self, request: axum::http::request::Builder, body: String) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = request
            .header(header::HOST, "portal.example")
            .header(header::COOKIE, cookies.join("; "));
        let request = match self.from {
            Some(from) => request.extension(ConnectInfo(from)),
            None => request,
        };
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path), String::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let body = form
            .iter()
            .map(|(name, value)| {
                format!(
                    "{name}={}",
                    value.replace('%', "%25").replace('&', "%26").replace('+', "%2B")
                )
            })
            .collect::<Vec<String>>()
            .join("&");
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, body).await
    }

    /// Opens a page and sends one of its forms.
    pub(crate) async fn send_form(&mut self, page: &str, action: &str, fields: &[(&str, &str)]) -> Answer {
        let shown = self.get(page).await;
        assert_eq!(shown.status, 200, "{page}: {}", shown.body);
        let (csrf, token) = (shown.csrf_token(), shown.form_token());
        let mut form = vec![("csrf_token", csrf.as_str()), ("form_token", token.as_str())];
        form.extend_from_slice(fields);
        self.post(action, &form).await
    }

    /// Comes back from a gateway's page, and sends the form that is there.
    pub(crate) async fn come_back(&mut self, path: &str) -> Answer {
        let shown = self.get(path).await;
        if shown.status != StatusCode::OK {
            return shown;
        }
        let hidden = ["csrf_token", "gateway", "reference"].map(|name| (name, shown.hidden(name)));
        let form = hidden.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.post("/payment-methods/return", &form).await
    }

    pub(crate) async fn sign_in(&mut self, email: &str, password: &str) -> Answer {
        let form = self.get("/signin").await;
        let token = form.csrf_token();
        self.post(
            "/signin",
            &[("csrf_token", &token), ("email", email), ("password", password)],
        )
        .await
    }
}

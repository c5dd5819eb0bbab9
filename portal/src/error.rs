//! What goes wrong, and how it is told: a page for people, `application/problem+json` (RFC 9457) for programs.
//!
//! A [`Failure`] carries what may be shown. What happened inside is logged under an id and never sent: whoever asks is told the
//! id. What becomes of the class of an error is said in [`crate::outcome`].
//!
//! Nothing here knows of sign-in, pages or the API: they stand on this.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use schemas::error_class::{Classified, ErrorClass, ErrorCode, ErrorCodes};

use crate::links;
use crate::outcome::{UNKNOWN, outcome, words};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Also what a customer gets for what belongs to another (S1).
    #[error("not found")]
    NotFound,
    #[error("sign in first")]
    Unauthenticated { next: String },
    /// An API token that does not hold.
    #[error("the token is not valid")]
    BadToken,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("{0}")]
    BadRequest(String),
    #[error("too many attempts")]
    TooManyRequests { retry_after_s: u64 },
    /// Too much is being asked at this moment.
    #[error("busy")]
    Busy { retry_after_s: u64 },
    #[error("method not allowed")]
    MethodNotAllowed,
    /// By a rule of what was asked for: no fault, and never one.
    #[error("{words}")]
    Refused { code: ErrorCode, words: String },
    #[error("{context}")]
    Internal {
        context: &'static str,
        #[source]
        source: Source,
    },
}

const fn code(class: ErrorClass, code: &'static str) -> ErrorCode {
    ErrorCode { code, class }
}

const NOT_FOUND: ErrorCode = code(ErrorClass::NotFound, "not_found");
const SIGN_IN: ErrorCode = code(ErrorClass::Refused, "sign_in");
const BAD_TOKEN: ErrorCode = code(ErrorClass::Refused, "bad_token");
const FORBIDDEN: ErrorCode = code(ErrorClass::Refused, "forbidden");
const BAD_REQUEST: ErrorCode = code(ErrorClass::Refused, "bad_request");
const TOO_MANY_ATTEMPTS: ErrorCode = code(ErrorClass::Limit, "too_many_attempts");
const BUSY: ErrorCode = code(ErrorClass::Limit, "busy");
const METHOD_NOT_ALLOWED: ErrorCode = code(ErrorClass::Refused, "method_not_allowed");

impl ErrorCodes for Failure {
    const CODES: &'static [ErrorCode] = &[
        NOT_FOUND,
        SIGN_IN,
        BAD_TOKEN,
        FORBIDDEN,
        BAD_REQUEST,
        TOO_MANY_ATTEMPTS,
        BUSY,
        METHOD_NOT_ALLOWED,
    ];
}

impl Classified for Failure {
    fn error_code(&self) -> ErrorCode {
        match self {
            Failure::NotFound => NOT_FOUND,
            Failure::Unauthenticated { .. } => SIGN_IN,
            Failure::BadToken => BAD_TOKEN,
            Failure::Forbidden(_) => FORBIDDEN,
            Failure::BadRequest(_) => BAD_REQUEST,
            Failure::TooManyRequests { .. } => TOO_MANY_ATTEMPTS,
            Failure::Busy { .. } => BUSY,
            Failure::MethodNotAllowed => METHOD_NOT_ALLOWED,
            Failure::Refused { code, .. } => *code,
            // Which of ours it is, is for the log.
            Failure::Internal { .. } => UNKNOWN,
        }
    }
}

/// The status of a code. What HTTP has a status for has that; everything else has its class's.
pub(crate) fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        SIGN_IN | BAD_TOKEN => StatusCode::UNAUTHORIZED,
        FORBIDDEN => StatusCode::FORBIDDEN,
        BAD_REQUEST => StatusCode::BAD_REQUEST,
        BUSY => StatusCode::SERVICE_UNAVAILABLE,
        METHOD_NOT_ALLOWED => StatusCode::METHOD_NOT_ALLOWED,
        other => outcome(other.class).status,
    }
}

impl Failure {
    pub(crate) fn internal(context: &'static str) -> impl Fn(Source) -> Failure {
        move |source| Failure::Internal { context, source }
    }

    /// What a classified error comes to: not found, a refusal in its own words, or a fault.
    pub(crate) fn of(error: impl Classified + Send + Sync + 'static, context: &'static str) -> Failure {
        let code = error.error_code();
        match code.class {
            ErrorClass::NotFound => Failure::NotFound,
            ErrorClass::Fault => Failure::Internal {
                context,
                source: error.into(),
            },
            ErrorClass::Refused | ErrorClass::Conflict | ErrorClass::Limit => Failure::Refused {
                code,
                words: words(&error),
            },
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        status_of(self.error_code())
    }

    /// Title and text for people. `fault` is the id under which a fault was logged.
    fn words(&self, fault: &str) -> (&'static str, String) {
        match self {
            Failure::NotFound => (
                outcome(ErrorClass::NotFound).title,
                "There is nothing at this address, or it is not yours to see.".to_owned(),
            ),
            Failure::Unauthenticated { .. } => ("Sign in", "Send an API token or sign in.".to_owned()),
            Failure::BadToken => (
                "Not a valid token",
                "The token is unknown, has expired or was revoked, or ended with another password or role. Make another one on the \
                 page /account/tokens."
                    .to_owned(),
            ),
            Failure::Forbidden(why) => ("Not allowed", (*why).to_owned()),
            Failure::BadRequest(why) => ("That did not work", why.clone()),
            Failure::TooManyRequests { retry_after_s } => (
                "Too many attempts",
                format!("Wait {retry_after_s} seconds, then try again."),
            ),
            Failure::Busy { retry_after_s } => (
                "Busy",
                format!("Too many pages are being computed. Load this one again in {retry_after_s} seconds."),
            ),
            Failure::MethodNotAllowed => (
                "Method not allowed",
                "This address does not take requests of this method.".to_owned(),
            ),
            Failure::Refused { code, words } => (outcome(code.class).title, words.clone()),
            Failure::Internal { .. } => (
                outcome(ErrorClass::Fault).title,
                format!(
                    "The problem has been logged as {fault}. Try again in a moment; if it persists, send us this number."
                ),
            ),
        }
    }

    /// Logs a fault under a new id, which is returned; of everything else nothing is logged, and the id is empty.
    fn log(&self) -> String {
        let Failure::Internal { context, source } = self else {
            return String::new();
        };
        let fault = fault_id();
        let source: &(dyn std::error::Error + 'static) = source.as_ref();
        tracing::error!(error = source, context, fault, "request failed");
        fault
    }

    fn add_headers(&self, response: &mut Response) {
        if let Failure::TooManyRequests { retry_after_s } | Failure::Busy { retry_after_s } = self {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
        }
        // RFC 6750 §3: what to show, and whether what was shown is wrong.
        let challenge = match self {
            Failure::Unauthenticated { .. } => "Bearer",
            Failure::BadToken => "Bearer error=\"invalid_token\"",
            _ => return,
        };
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
}

/// By what a fault is found in the log: `flt-9f86d081884c`.
fn fault_id() -> String {
    let random: u64 = rand::random();
    format!("flt-{:012x}", random >> 16)
}

/// Errors of the crates beneath that go through their class.
macro_rules! by_class {
    ($($type:ty: $context:literal;)+) => {$(
        impl From<$type> for Failure {
            fn from(error: $type) -> Failure {
                Failure::of(error, $context)
            }
        }
    )+};
}

by_class! {
    sqlx::Error: "ask the database";
    activity::approval::ApprovalError: "read approvals";
    activity::audit::AuditError: "write or read the audit log";
    activity::channel::endpoint::EndpointError: "ask for webhooks";
    activity::channel::ReplayError: "replay an event";
    activity::event::EventError: "publish an event";
    activity::job::JobError: "read the jobs";
    activity::password_reset::PasswordResetError: "reset a password";
    activity::verification::VerificationError: "verify an address";
    billing::BillingError: "ask billing";
    billing::action::ActionError: "read what was asked for";
    billing::budget::BudgetError: "ask for a budget";
    billing::dunning::DunningError: "ask how invoices are collected";
    billing::export::ExportError: "export";
    billing::ledger::LedgerError: "ask the ledger";
    billing::payment::PaymentError: "ask for payments";
    billing::refund::RefundError: "read what can be refunded";
    billing::settlement::SettlementError: "ask what settles what";
    billing::top_up::TopUpError: "ask for credit";
    schemas::inventory::InventoryError: "read the inventory";
    schemas::secret::SecretError: "seal or open a secret";
}

impl From<analytics::StoreError> for Failure {
    fn from(error: analytics::StoreError) -> Failure {
        let code = error.error_code();
        match code.class {
            // Its cause says of the calendar what the question did not: the error itself is the words.
            ErrorClass::Refused => Failure::Refused {
                code,
                words: format!("That cannot be answered: {error}."),
            },
            _ => Failure::of(error, "ask the stored tables"),
        }
    }
}

impl From<askama::Error> for Failure {
    fn from(source: askama::Error) -> Failure {
        Failure::internal("render a page")(source.into())
    }
}

/// A failure told as a page; an anonymous visitor is sent to the sign-in page instead.
#[derive(Debug)]
pub(crate) struct PageError(pub(crate) Failure);

/// A failure told as `application/problem+json`.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Failure);

impl<E: Into<Failure>> From<E> for PageError {
    fn from(error: E) -> PageError {
        PageError(error.into())
    }
}

impl<E: Into<Failure>> From<E> for ApiError {
    fn from(error: E) -> ApiError {
        ApiError(error.into())
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    status: u16,
    title: &'static str,
    text: String,
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let PageError(failure) = self;
        let fault = failure.log();
        if let Failure::Unauthenticated { next } = &failure {
            return Redirect::to(&links::sign_in(next)).into_response();
        }
        let (title, text) = failure.words(&fault);
        let page = ErrorPage {
            status: failure.status().as_u16(),
            title,
            text,
        };
        let body = page.render().unwrap_or_else(|_| title.to_owned());
        let mut response = (failure.status(), Html(body)).into_response();
        failure.add_headers(&mut response);
        response
    }
}

/// Why a request of the API was not answered (RFC 9457).
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// Where the codes are explained: a page of the portal, from its root.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    /// Of the answer.
    status: u16,
    /// For people.
    detail: String,
    /// What programs compare: it never changes.
    code: &'static str,
    /// Of a fault on our side: the id under which it was logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// The page that explains the codes.
const EXPLAINED: &str = "/api#errors";

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError(failure) = self;
        let fault = failure.log();
        let (title, detail) = failure.words(&fault);
        let problem = Problem {
            kind: EXPLAINED,
            title,
            status: failure.status().as_u16(),
            detail,
            code: failure.code(),
            fault: Some(fault).filter(|fault| !fault.is_empty()),
        };
        let mut response = (failure.status(), axum::Json(problem)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        failure.add_headers(&mut response);
        response
    }
}

/// Renders a page that shows something else than what was asked for, and says why: 400. `false`: as asked, 200.
pub(crate) fn page_beside(template: &impl Template, is_refused: bool) -> Result<Response, PageError> {
    let mut response = page(template)?;
    if is_refused {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

/// Renders a template as a page.
pub(crate) fn page(template: &impl Template) -> Result<Response, PageError> {
    Ok(Html(template.render()?).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use schemas::ids::PlanId;

    use super::*;

    async fn body_of(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_fault_is_told_by_its_id_and_nothing_of_it() {
        let broken = || {
            Failure::from(billing::BillingError::Database(sqlx::Error::Protocol(
                "secret table".to_owned(),
            )))
        };
        for response in [PageError(broken()).into_response(), ApiError(broken()).into_response()] {
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = body_of(response).await;
            assert!(body.contains("flt-"), "{body}");
            assert!(!body.contains("secret table"), "{body}");
        }
    }

    #[tokio::test]
    async fn what_billing_refuses_is_no_fault() {
        let plan = PlanId(7);
        for (error, status, code) in [
            (billing::BillingError::NoPlan(plan), StatusCode::NOT_FOUND, "not_found"),
            (
                billing::BillingError::FreePlanCosts(plan),
                StatusCode::UNPROCESSABLE_ENTITY,
                "billing.free_plan_costs",
            ),
            (
                billing::BillingError::PlanArchived(plan),
                StatusCode::CONFLICT,
                "billing.plan_archived",
            ),
        ] {
            let response = ApiError(error.into()).into_response();
            assert_eq!(response.status(), status, "{code}");
            let problem: serde_json::Value = serde_json::from_str(&body_of(response).await).unwrap();
            assert_eq!(problem["code"], code);
            assert!(problem.get("fault").is_none(), "{problem}");
        }
    }

    #[test]
    fn ids_of_faults_differ() {
        let (one, two) = (fault_id(), fault_id());
        assert_ne!(one, two);
        assert_eq!(one.len(), "flt-".len() + 12);
    }
}

//! What goes wrong, and how it is told: a page for people, `application/problem+json` (RFC 9457) for programs.
//!
//! A [`Failure`] carries what may be shown. What happened inside is logged and never sent.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use billing::payment::PaymentError;
use schemas::error_class::ErrorClass;

use crate::admission::{Busy, RETRY_AFTER_S};

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Also what a customer gets for what belongs to another (S1).
    #[error("not found")]
    NotFound,
    #[error("sign in first")]
    Unauthenticated { next: String },
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
    #[error("{context}")]
    Internal {
        context: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Failure {
    pub(crate) fn internal(context: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Failure {
        move |source| Failure::Internal { context, source }
    }

    fn status(&self) -> StatusCode {
        match self {
            Failure::NotFound => StatusCode::NOT_FOUND,
            Failure::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Failure::Forbidden(_) => StatusCode::FORBIDDEN,
            Failure::BadRequest(_) => StatusCode::BAD_REQUEST,
            Failure::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Failure::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Failure::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Failure::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Title and text for people.
    fn words(&self) -> (&'static str, String) {
        match self {
            Failure::NotFound => (
                "Not found",
                "There is nothing at this address, or it is not yours to see.".to_owned(),
            ),
            Failure::Unauthenticated { .. } => ("Sign in", "Sign in to see this.".to_owned()),
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
            Failure::Internal { .. } => (
                "Something went wrong on our side",
                "The problem has been logged. Try again in a moment.".to_owned(),
            ),
        }
    }

    fn log(&self) {
        if let Failure::Internal { context, source } = self {
            let source: &(dyn std::error::Error + 'static) = source.as_ref();
            tracing::error!(error = source, context, "request failed");
        }
    }

    fn add_headers(&self, response: &mut Response) {
        if let Failure::TooManyRequests { retry_after_s } | Failure::Busy { retry_after_s } = self {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
        }
    }
}

impl From<Busy> for Failure {
    fn from(Busy: Busy) -> Failure {
        Failure::Busy {
            retry_after_s: RETRY_AFTER_S,
        }
    }
}

impl From<PaymentError> for Failure {
    fn from(error: PaymentError) -> Failure {
        match error {
            PaymentError::NoPayment(_)
            | PaymentError::NoMethod { .. }
            | PaymentError::UnknownGateway(_)
            | PaymentError::NotConfigured { .. } => Failure::NotFound,
            error => Failure::internal("ask for payments")(error.into()),
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(source: sqlx::Error) -> Failure {
        Failure::Internal {
            context: "ask the database",
            source: source.into(),
        }
    }
}

impl From<crate::auth::UserError> for Failure {
    fn from(source: crate::auth::UserError) -> Failure {
        match source {
            crate::auth::UserError::NoUser(_) => Failure::NotFound,
            source => Failure::internal("look after users")(source.into()),
        }
    }
}

impl From<activity::audit::AuditError> for Failure {
    fn from(source: activity::audit::AuditError) -> Failure {
        Failure::internal("read or write the audit log")(source.into())
    }
}

impl From<activity::event::EventError> for Failure {
    fn from(source: activity::event::EventError) -> Failure {
        Failure::internal("tell of an event")(source.into())
    }
}

impl From<activity::verification::VerificationError> for Failure {
    fn from(source: activity::verification::VerificationError) -> Failure {
        Failure::internal("verify an address")(source.into())
    }
}

impl From<activity::password_reset::PasswordResetError> for Failure {
    fn from(source: activity::password_reset::PasswordResetError) -> Failure {
        Failure::internal("reset a password")(source.into())
    }
}

impl From<schemas::secret::SecretError> for Failure {
    fn from(source: schemas::secret::SecretError) -> Failure {
        Failure::Internal {
            context: "seal or open a secret",
            source: source.into(),
        }
    }
}

impl From<analytics::StoreError> for Failure {
    fn from(source: analytics::StoreError) -> Failure {
        match source.class() {
            ErrorClass::Refused => Failure::BadRequest(format!("That cannot be answered: {source}.")),
            _ => Failure::internal("ask the stored tables")(source.into()),
        }
    }
}

impl From<schemas::inventory::InventoryError> for Failure {
    fn from(source: schemas::inventory::InventoryError) -> Failure {
        Failure::Internal {
            context: "read the inventory",
            source: source.into(),
        }
    }
}

impl From<billing::BillingError> for Failure {
    fn from(source: billing::BillingError) -> Failure {
        Failure::Internal {
            context: "ask billing",
            source: source.into(),
        }
    }
}

impl From<askama::Error> for Failure {
    fn from(source: askama::Error) -> Failure {
        Failure::Internal {
            context: "render a page",
            source: source.into(),
        }
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
        failure.log();
        if let Failure::Unauthenticated { next } = &failure {
            return axum::response::Redirect::to(&crate::pages::signin::address(next)).into_response();
        }
        let (title, text) = failure.words();
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

#[derive(serde::Serialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError(failure) = self;
        failure.log();
        let (title, detail) = failure.words();
        let problem = Problem {
            kind: "about:blank",
            title,
            status: failure.status().as_u16(),
            detail,
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

//! Cancelling, now or with the cycle that is paid for, with a reason; what would be given back is shown first.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use billing::catalog::BaseTiming;
use billing::quote::Request;
use billing::subscription::Contract;
use billing::subscription::change::{CancellationTime, MAX_REASON_CHARS};

use super::{PATH, done};
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::contract_of;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::once::{self, form_token};
use crate::pages::quotes::{self, Outcome, QuoteView};
use crate::path::Path;
use crate::query::{PageQuery, wrong};
use crate::shell::Shell;
use crate::state::AppState;

/// Why customers leave; the names are kept with the cancellation.
const REASONS: [(&str, &str); 6] = [
    ("no-need", "I do not need it any more"),
    ("too-expensive", "It is too expensive"),
    ("competitor", "I found another provider"),
    ("technical", "It did not work as I need it"),
    ("replaced", "I replace it by another service of yours"),
    ("other", "Another reason"),
];

struct Choice {
    value: &'static str,
    label: &'static str,
    selected: bool,
}

#[derive(Template)]
#[template(path = "subscription_cancel.html")]
struct CancelPage {
    shell: Shell,
    id: String,
    service: String,
    plan: String,
    ends_now: bool,
    /// The base price is paid ahead.
    is_prepaid: bool,
    /// Where there is a cycle to run out.
    cycle_ends: Option<String>,
    reasons: Vec<Choice>,
    comment: String,
    quote: Option<QuoteView>,
    problem: Option<String>,
    form_token: String,
    max_chars: usize,
}

#[derive(Default, serde::Deserialize)]
pub(crate) struct CancelForm {
    #[serde(default)]
    end: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    shown: String,
    #[serde(default)]
    form_token: String,
}

impl CancelForm {
    fn ends_now(&self) -> bool {
        self.end == "now"
    }

    /// What the address or a form says that no form of ours does.
    fn check(&self) -> Result<(), Failure> {
        if !["", "now", "cycle"].contains(&self.end.as_str()) {
            return Err(wrong("end", &self.end, "now or cycle"));
        }
        let is_known = self.reason.is_empty() || REASONS.iter().any(|(value, _)| *value == self.reason);
        match is_known {
            true => Ok(()),
            false => Err(wrong("reason", &self.reason, "one of the reasons to choose from")),
        }
    }

    fn end(&self) -> CancellationTime {
        if self.ends_now() {
            CancellationTime::Now
        } else {
            CancellationTime::CycleEnd
        }
    }

    /// As it is kept; `None` without a reason.
    fn reason_text(&self) -> Option<String> {
        let (_, label) = REASONS.iter().find(|(value, _)| *value == self.reason)?;
        let comment = self.comment.trim();
        Some(if comment.is_empty() {
            (*label).to_owned()
        } else {
            format!("{label}: {comment}")
        })
    }
}

async fn cancel_page(
    state: &AppState,
    customer: &Customer,
    contract: &Contract,
    asked: &CancelForm,
    problem: Option<String>,
) -> Result<Response, PageError> {
    let subscription = &contract.subscription;
    let zone = &subscription.time_zone;
    let now_ms = state.now_ms();
    // In a trial, or before the start, nothing is paid that could run out.
    let cycle_ends = match contract.base_period_at(now_ms) {
        Ok((_, charged)) if subscription.cancel_at_ms.is_none() => Some(format::date(charged.nominal.end_ms - 1, zone)),
        Ok(_) | Err(_) => None,
    };
    let ends_now = asked.ends_now() || cycle_ends.is_none();
    let request = Request::Cancel {
        subscription: subscription.id,
        end: if ends_now {
            CancellationTime::Now
        } else {
            CancellationTime::CycleEnd
        },
        reason: "asked",
    };
    let (quote, refused) = match quotes::quote(state, customer.id, request).await? {
        Ok(quote) => (Some(QuoteView::new(&quote, zone)), None),
        Err(refused) => (None, Some(refused)),
    };
    let reasons = REASONS.iter().map(|(value, label)| Choice {
        value,
        label,
        selected: *value == asked.reason,
    });
    page(&CancelPage {
        shell: Shell::new(&customer.who, format!("Cancel {}", contract.service.name), PATH),
        id: subscription.id.to_string(),
        service: contract.service.name.clone(),
        plan: contract.phase_at(now_ms)?.plan.name.clone(),
        is_prepaid: contract.phase_at(now_ms)?.plan.base_timing == BaseTiming::Advance,
        ends_now,
        cycle_ends,
        reasons: reasons.collect(),
        comment: asked.comment.clone(),
        quote,
        problem: problem.or(refused),
        form_token: form_token(),
        max_chars: MAX_REASON_CHARS - 60,
    })
}

pub(crate) async fn show(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    PageQuery(asked): PageQuery<CancelForm>,
) -> Result<Response, PageError> {
    asked.check()?;
    let mut connection = state.db().pool().acquire().await?;
    let contract = contract_of(&mut connection, customer.id, &id).await?;
    drop(connection);
    cancel_page(&state, &customer, &contract, &asked, None).await
}

pub(crate) async fn make(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, asked): CsrfForm<CancelForm>,
) -> Result<Response, PageError> {
    asked.check()?;
    let mut connection = state.db().pool().acquire().await?;
    let contract = contract_of(&mut connection, customer.id, &id).await?;
    drop(connection);
    let subscription = contract.subscription.id;
    if once::was_taken(state.db().pool(), &asked.form_token).await? {
        return Ok(done(subscription, "again"));
    }
    let Some(reason) = asked.reason_text() else {
        return again(
            &state,
            &customer,
            &contract,
            &asked,
            "Say why you cancel: it helps us to do better.".to_owned(),
        )
        .await;
    };
    let request = Request::Cancel {
        subscription,
        end: asked.end(),
        reason: &reason,
    };
    match quotes::quote(&state, customer.id, request).await? {
        Ok(quote) if quotes::shown(&quote) != asked.shown => {
            return again(
                &state,
                &customer,
                &contract,
                &asked,
                "The amounts changed since this page was loaded: look at them again.".to_owned(),
            )
            .await;
        }
        Ok(_) => {}
        Err(refused) => return again(&state, &customer, &contract, &asked, refused).await,
    }
    let ip = ip.to_string();
    match quotes::carry_out(&state, customer.id, request, who.actor(&ip), &asked.form_token).await? {
        Outcome::Done { .. } => Ok(done(subscription, "cancelled")),
        Outcome::Again => Ok(done(subscription, "again")),
        Outcome::Refused(problem) => again(&state, &customer, &contract, &asked, problem).await,
    }
}

async fn again(
    state: &AppState,
    customer: &Customer,
    contract: &Contract,
    asked: &CancelForm,
    problem: String,
) -> Result<Response, PageError> {
    let body = cancel_page(state, customer, contract, asked, Some(problem)).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
}

//! What is due and waits for a person, because too little of its usage was measured.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::invoice::{UnmeasuredPeriod, confirm_unmeasured, unmeasured};
use jiff::tz::TimeZone;
use schemas::ids::CustomerId;

use super::PATH;
use crate::action::{Action, ActionFailure, Draft, Fields};
use crate::auth::{ClientIp, CsrfForm, Finance};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

struct Row {
    customer: CustomerId,
    name: String,
    dates: String,
    coverage_percent: i64,
    why: String,
    since: String,
    confirmed_by: Option<String>,
}

#[derive(Template)]
#[template(path = "finance_unmeasured.html")]
struct UnmeasuredPage {
    shell: Shell,
    draft: Draft,
    rows: Vec<Row>,
    notice: Option<&'static str>,
}

#[derive(serde::Deserialize)]
pub(crate) struct UnmeasuredQuery {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    finance: Finance,
    PageQuery(shown): PageQuery<UnmeasuredQuery>,
) -> Result<Response, PageError> {
    let notice = (shown.done == "confirmed").then_some("Confirmed: the next closing finalises it as it was measured.");
    render(&state, &finance, Draft::default(), notice).await
}

fn row(waiting: UnmeasuredPeriod) -> Row {
    Row {
        customer: waiting.customer,
        name: waiting.customer_name,
        dates: format::dates(waiting.period_start_ms, waiting.period_end_ms - 1, &TimeZone::UTC),
        coverage_percent: waiting.coverage_percent,
        why: waiting.reason.to_string(),
        since: format::minute(waiting.held_at_ms, &TimeZone::UTC),
        confirmed_by: waiting.confirmed_by,
    }
}

async fn render(
    state: &AppState,
    finance: &Finance,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let waiting = unmeasured(state.db().pool()).await?;
    let body = page(&UnmeasuredPage {
        shell: Shell::new(&finance.0, "Unmeasured", PATH),
        rows: waiting.into_iter().map(row).collect(),
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn confirm(
    State(state): State<AppState>,
    finance: Finance,
    Path(customer): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer: CustomerId = customer.parse().map_err(|_| Failure::NotFound)?;
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let (connection, by) = action.parts();
        let (_, note) = confirm_unmeasured(connection, customer, fields.text("reason"), by.name, now_ms).await?;
        action.commit(note).await
    }
    .await;
    match done {
        Ok(()) => Ok(Redirect::to("/finance/unmeasured?done=confirmed").into_response()),
        Err(refused) => {
            let draft = Draft::refused(customer.to_string(), refused, fields)?;
            render(&state, &finance, draft, None).await
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::Role;
    use crate::testing::world::World;

    #[tokio::test]
    async fn finance_says_that_a_period_is_finalised_as_it_was_measured() {
        let world = World::new().await;
        world.portal.user("fin", Role::Finance, None).await;
        let mut finance = world.portal.signed_in("fin").await;
        let mut customer = world.portal.signed_in("ada").await;
        assert_eq!(customer.get("/finance/unmeasured").await.status, 403);
        assert!(
            finance
                .get("/finance/unmeasured")
                .await
                .body
                .contains("Nothing to confirm")
        );
        let ada = world.ada;
        let pool = world.portal.state.db().pool();
        sqlx::query(
            "INSERT INTO unmeasured_periods (customer_id, due_ms, period_start_ms, period_end_ms, reason, coverage_percent, \
             held_at_ms, note) VALUES ($1, 86400000, 0, 86400000, 'low_coverage', 87, 86400000, '')",
        )
        .bind(ada.0)
        .execute(pool)
        .await
        .unwrap();
        let shown = finance.get("/finance/unmeasured").await;
        assert!(shown.body.contains("87 %"), "{}", shown.body);
        assert!(shown.body.contains("too little of its usage was measured"));
        let action = format!("/finance/unmeasured/{ada}");
        let unsaid = finance
            .send_form("/finance/unmeasured", &action, &[("reason", " ")])
            .await;
        assert_eq!(unsaid.status, 422);
        let done = finance
            .send_form("/finance/unmeasured", &action, &[("reason", "the outage of Friday")])
            .await;
        assert_eq!(done.status, 303, "{}", done.body);
        let shown = finance.get("/finance/unmeasured").await;
        assert!(shown.body.contains("confirmed by fin@example.net"), "{}", shown.body);
        let again = finance
            .send_form(
                &format!("/finance/customers/{ada}"),
                &action,
                &[("reason", "the outage of Friday")],
            )
            .await;
        assert_eq!(again.status, 422);
        let audited = sqlx::query("SELECT id FROM audit_log WHERE action = 'invoice.confirm_coverage'")
            .fetch_all(pool)
            .await
            .unwrap();
        assert_eq!(audited.len(), 1);
    }
}

//! The clock that billing goes by: what it shows, and an admin's word that it is right after it moved.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::guard;
use jiff::tz::TimeZone;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{PageError, page};
use crate::format;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

struct StoppedView {
    believed: String,
    stopped_at: String,
}

#[derive(Template)]
#[template(path = "admin_clock.html")]
struct ClockPage {
    shell: Shell,
    draft: Draft,
    now: String,
    stopped: Option<StoppedView>,
    notice: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = (shown.done == "confirmed").then_some("Billing resumed.");
    render(&state, &admin, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let stopped = guard::stopped(state.db().pool()).await?.map(|stopped| StoppedView {
        believed: format::minute(stopped.good_ms, &TimeZone::UTC),
        stopped_at: format::minute(stopped.stopped_at_ms, &TimeZone::UTC),
    });
    let body = page(&ClockPage {
        shell: Shell::new(&admin.0, "Clock", PATH),
        now: format::minute(state.now_ms(), &TimeZone::UTC),
        stopped,
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn confirm(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let (connection, by) = action.parts();
        let note = guard::confirm(connection, by.name, now_ms).await?;
        action.commit(note).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/clock", "confirmed")),
        Err(refused) => render(&state, &admin, Draft::refused("confirm", refused, fields)?, None).await,
    }
}

#[cfg(test)]
mod tests {
    use billing::guard::ClockLimits;
    use schemas::window::DAY_MS;

    use super::*;
    use crate::auth::Role;
    use crate::testing::NOW_MS;
    use crate::testing::world::World;

    #[tokio::test]
    async fn staff_is_told_on_every_page_that_billing_is_stopped_and_an_admin_confirms_the_clock() {
        let world = World::new().await;
        world.portal.user("root", Role::Admin, None).await;
        world.portal.user("fin", Role::Finance, None).await;
        let (mut admin, mut finance) = (
            world.portal.signed_in("root").await,
            world.portal.signed_in("fin").await,
        );
        let mut customer = world.portal.signed_in("ada").await;
        let db = world.portal.state.db();
        let refused = admin.send_form("/admin/plans", "/admin/clock/confirm", &[]).await;
        assert_eq!(refused.status, 422, "{}", refused.body);

        guard::look(db, ClockLimits::default(), NOW_MS - 30 * DAY_MS)
            .await
            .unwrap();
        guard::look(db, ClockLimits::default(), NOW_MS).await.unwrap().unwrap();
        let health = admin.get("/healthz").await;
        assert_eq!(health.status, 503);
        assert!(health.body.contains("billing is stopped"), "{}", health.body);
        // That the clock moved is an event of a month ago, and nothing dispatches here.
        activity::channel::dispatch(db, NOW_MS).await.unwrap();
        let ready = admin.get("/readyz").await;
        assert_eq!(ready.status, 200);
        assert!(ready.body.contains("billing is stopped"), "{}", ready.body);
        assert!(finance.get("/finance").await.body.contains("Billing is stopped."));
        assert!(!customer.get("/usage").await.body.contains("Billing is stopped."));
        // Nobody orders by a time that is not believed.
        let subscription = "/subscriptions/sub_1/cancel";
        let shown = customer.get(subscription).await;
        assert!(shown.body.contains("billing is stopped until"), "{}", shown.body);

        let page = admin.get("/admin/clock").await;
        assert!(page.body.contains("Confirm the time"), "{}", page.body);
        let done = admin.send_form("/admin/clock", "/admin/clock/confirm", &[]).await;
        assert_eq!(done.status, 303, "{}", done.body);
        assert_eq!(admin.get("/healthz").await.status, 200);
        assert!(!finance.get("/finance").await.body.contains("Billing is stopped."));
        let audited = sqlx::query("SELECT id FROM audit_log WHERE action = 'billing.confirm_clock' AND risk = 'high'")
            .fetch_all(db.pool())
            .await
            .unwrap();
        assert_eq!(audited.len(), 1);
    }
}

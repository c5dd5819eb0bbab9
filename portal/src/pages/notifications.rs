//! What happened to a customer's account, latest first, with what is unread.

use activity::channel::in_app;
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use schemas::ids::NotificationId;
use schemas::inventory;

use crate::auth::{CsrfForm, Customer};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

const PATH: &str = "/notifications";
/// Notifications on one page.
const PAGE_ROWS: usize = 30;

struct Row {
    title: String,
    body: String,
    link: Option<String>,
    at: String,
    ago: String,
    is_unread: bool,
}

#[derive(Template)]
#[template(path = "notifications.html")]
struct NotificationsPage {
    shell: Shell,
    rows: Vec<Row>,
    unread: i64,
    /// The latest that is shown: what is marked as read goes up to it.
    latest: Option<String>,
    older_href: Option<String>,
    is_first_page: bool,
}

#[derive(serde::Deserialize)]
pub(crate) struct NotificationsPageQuery {
    #[serde(default)]
    before: String,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(asked): PageQuery<NotificationsPageQuery>,
) -> Result<Response, PageError> {
    let before = filter::<NotificationId>("before", &asked.before, "the id of a notification")?;
    let now_ms = state.now_ms();
    let limit = i64::try_from(PAGE_ROWS + 1).unwrap_or(i64::MAX);
    let zone = inventory::customer(state.db().pool(), customer.id).await?.time_zone;
    let mut found = in_app::list(state.db().pool(), customer.id, before, limit).await?;
    let has_older = found.len() > PAGE_ROWS;
    found.truncate(PAGE_ROWS);
    let older = found.last().filter(|_| has_older).map(|last| last.id);
    page(&NotificationsPage {
        shell: Shell::new(&customer.who, "Notifications", PATH),
        unread: customer.who.unread,
        latest: found.first().map(|first| first.id.to_string()),
        older_href: older.map(|id| format!("{PATH}?before={id}")),
        is_first_page: before.is_none(),
        rows: found
            .into_iter()
            .map(|one| Row {
                title: one.title,
                body: one.body,
                link: Some(one.link).filter(|link| link.starts_with('/')),
                at: format::minute_and_zone(one.created_at_ms, &zone),
                ago: format::ago(one.created_at_ms, now_ms),
                is_unread: one.read_at_ms.is_none(),
            })
            .collect(),
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct MarkReadForm {
    up_to: String,
}

pub(crate) async fn mark_read(
    State(state): State<AppState>,
    customer: Customer,
    CsrfForm(_, form): CsrfForm<MarkReadForm>,
) -> Result<Response, PageError> {
    let up_to: NotificationId = form.up_to.parse().map_err(|_| Failure::NotFound)?;
    let mut transaction = state.db().begin_write().await?;
    in_app::mark_read(&mut transaction, customer.id, up_to, state.now_ms()).await?;
    transaction.commit().await?;
    Ok(Redirect::to(PATH).into_response())
}

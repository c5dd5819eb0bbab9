//! The companies of ours that issue invoices.

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use schemas::ids::EntityId;
use schemas::inventory::{self, Entity, EntityProfile, InventoryError};
use serde_json::json;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError, page};
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "admin_entities.html")]
struct EntitiesPage {
    shell: Shell,
    draft: Draft,
    entities: Vec<Entity>,
    /// What the form of a new one starts with.
    blank: EntityProfile,
    notice: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = (shown.done == "saved").then_some("Saved. Documents that were issued keep what they say.");
    render(&state, &admin, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let body = page(&EntitiesPage {
        shell: Shell::new(&admin.0, "Entities", PATH),
        entities: inventory::entities(state.db().pool()).await?,
        blank: EntityProfile::default(),
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

fn profile(fields: &Fields) -> EntityProfile {
    let text = |name: &str| fields.text(name).to_owned();
    EntityProfile {
        name: text("name"),
        street: text("street"),
        postal_code: text("postal_code"),
        city: text("city"),
        region: text("region"),
        country: text("country"),
        vat_id: text("vat_id"),
        registration: text("registration"),
        email: text("email"),
        // A form ends its lines with CR LF.
        payment_instructions: text("payment_instructions").replace("\r\n", "\n"),
        number_prefix: text("number_prefix"),
    }
}

pub(crate) async fn add(
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
        let entity = inventory::create_entity(action.connection(), profile(&fields), now_ms).await?;
        let change = json!({"after": entity.profile});
        action
            .commit(Note::new("entity.create", entity.id).change(change))
            .await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/entities", "saved")),
        Err(refused) => render(&state, &admin, Draft::refused("new", refused, fields)?, None).await,
    }
}

pub(crate) async fn change(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id: EntityId = id.parse().map_err(|_| Failure::NotFound)?;
    let before = match inventory::entity(state.db().pool(), id).await {
        Err(InventoryError::NoEntity(_)) => return Err(Failure::NotFound.into()),
        found => found?,
    };
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        inventory::change_entity(action.connection(), id, profile(&fields)).await?;
        let after = inventory::entity(action.connection(), id).await?;
        let change = json!({"before": before.profile, "after": after.profile});
        action.commit(Note::new("entity.change", id).change(change)).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/entities", "saved")),
        Err(refused) => render(&state, &admin, Draft::refused(id.to_string(), refused, fields)?, None).await,
    }
}

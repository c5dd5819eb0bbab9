//! Those who sign in: the list with search, and one user with what can be done about them. Each change has its checks and its entry
//! in the audit log in `auth/manage.rs`, as it has from the command line.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, UserId};

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::manage::{self, ChangeContext, ManagedChange};
use crate::auth::{
    Account, Admin, ClientIp, CsrfForm, Filter, Role, SessionsToEnd, recent_attempts, revoke_token, sessions_of,
    tokens_of,
};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::pages::account::sessions::{AttemptRow, SessionRow};
use crate::pages::account::tokens::TokenRow;
use crate::pages::finance::url_encoded;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// Users on one page.
const PAGE_USERS: i64 = 100;
/// Characters that are searched for at most.
const MAX_SEARCH_CHARS: usize = 100;
/// Attempts on the page of a user.
const ATTEMPTS_SHOWN: i64 = 30;
/// Roles that are chosen from.

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct UsersQuery {
    #[serde(default)]
    search: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    state: String,
    /// The last user of the page before.
    #[serde(default)]
    after: String,
}

/// A user, in words.
struct Row {
    id: UserId,
    email: String,
    name: String,
    role: Role,
    customer: Option<CustomerId>,
    customer_name: String,
    is_disabled: bool,
    disabled: String,
    created: String,
    signed_in: String,
    two_factor: String,
    password_changed: String,
    sessions: i64,
}

impl Row {
    fn of(account: Account) -> Row {
        let day = |at_ms: Option<i64>| at_ms.map_or_else(String::new, |at_ms| format::date(at_ms, &TimeZone::UTC));
        Row {
            id: account.id,
            email: account.email,
            name: account.name,
            role: account.role,
            customer: account.customer,
            customer_name: account.customer_name.unwrap_or_default(),
            is_disabled: account.disabled_at_ms.is_some(),
            disabled: day(account.disabled_at_ms),
            created: day(Some(account.created_at_ms)),
            signed_in: account
                .signed_in_at_ms
                .map_or_else(|| "never".to_owned(), |at_ms| format::minute(at_ms, &TimeZone::UTC)),
            two_factor: day(account.two_factor_at_ms),
            password_changed: day(account.password_changed_at_ms),
            sessions: account.sessions,
        }
    }
}

#[derive(Template)]
#[template(path = "admin_users.html")]
struct UsersPage {
    shell: Shell,
    query: UsersQuery,
    roles: [Role; 5],
    rows: Vec<Row>,
    next_href: Option<String>,
    is_first: bool,
    is_filtered: bool,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    Admin(who): Admin,
    PageQuery(query): PageQuery<UsersQuery>,
) -> Result<Response, PageError> {
    let search: String = query.search.trim().chars().take(MAX_SEARCH_CHARS).collect();
    let wrong = |what: &str| Failure::BadRequest(format!("{what} is not understood"));
    let filter = Filter {
        search: &search,
        role: match query.role.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| wrong("role"))?),
        },
        is_disabled: match query.state.trim() {
            "" => None,
            "disabled" => Some(true),
            "enabled" => Some(false),
            _ => return Err(wrong("state").into()),
        },
        after: match query.after.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| wrong("after"))?),
        },
    };
    let limits = state.session_limits();
    let mut found = manage::accounts(state.db().pool(), filter, limits, state.now_ms(), PAGE_USERS + 1).await?;
    let most = usize::try_from(PAGE_USERS).unwrap_or(usize::MAX);
    let has_more = found.len() > most;
    found.truncate(most);
    let next_href = found.last().filter(|_| has_more).map(|last| {
        format!(
            "/admin/users?search={}&role={}&state={}&after={}",
            url_encoded(&search),
            url_encoded(query.role.trim()),
            url_encoded(query.state.trim()),
            last.id
        )
    });
    page(&UsersPage {
        shell: Shell::new(&who, "Users", PATH),
        roles: Role::ALL,
        is_first: filter.after.is_none(),
        is_filtered: !search.is_empty() || filter.role.is_some() || filter.is_disabled.is_some(),
        rows: found.into_iter().map(Row::of).collect(),
        next_href,
        query,
    })
}

#[derive(Template)]
#[template(path = "admin_user.html")]
struct UserPage {
    shell: Shell,
    user: Row,
    /// Who looks.
    is_oneself: bool,
    roles: [Role; 5],
    sends_mail: bool,
    sessions: Vec<SessionRow>,
    tokens: Vec<TokenRow>,
    attempts: Vec<AttemptRow>,
    draft: Draft,
    notice: Option<&'static str>,
}

impl UserPage {
    /// One's own session is ended by signing out.
    fn has_sessions_to_end(&self) -> bool {
        self.sessions.iter().any(|session| !session.is_this)
    }

    fn customer_id(&self) -> String {
        self.user.customer.map_or_else(String::new, |id| id.to_string())
    }
}

async fn render(
    state: &AppState,
    admin: &Admin,
    id: UserId,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let (pool, limits, now_ms) = (state.db().pool(), state.session_limits(), state.now_ms());
    let account = manage::account(pool, id, limits, now_ms).await?;
    let sessions = sessions_of(pool, id, limits, now_ms).await?;
    let tokens = tokens_of(pool, id).await?;
    let attempts = recent_attempts(pool, Some(id), now_ms, ATTEMPTS_SHOWN).await?;
    let body = page(&UserPage {
        shell: Shell::new(&admin.0, account.name.clone(), PATH),
        is_oneself: id == admin.0.user.id,
        user: Row::of(account),
        roles: Role::ALL,
        sends_mail: state.sends_mail(),
        sessions: sessions
            .into_iter()
            .map(|session| SessionRow::of(session, &admin.0.session, now_ms, &TimeZone::UTC))
            .collect(),
        tokens: tokens
            .into_iter()
            .map(|token| TokenRow::of(token, now_ms, &TimeZone::UTC))
            .collect(),
        attempts: attempts
            .into_iter()
            .map(|attempt| AttemptRow::of(attempt, &TimeZone::UTC))
            .collect(),
        draft: draft.clone(),
        notice,
    })?;
    Ok(draft.answer(body))
}

fn id_of(text: &str) -> Result<UserId, Failure> {
    text.parse().map_err(|_| Failure::NotFound)
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    Path(user): Path<String>,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = match shown.done.as_str() {
        "disable" => Some("Disabled: every session was ended, and no password signs in."),
        "enable" => Some("Enabled: the password signs in again."),
        "role" => Some("The role was changed, and every session was ended."),
        "reset-password" => Some("A mail with a link to set a new password is on its way."),
        "reset-two-factor" => Some("The second factor is off, and every session was ended."),
        "sessions" => Some("The sessions were ended."),
        "revoke-token" => Some("The token was revoked."),
        "asked" => Some("Requested. A second admin decides."),
        _ => None,
    };
    render(&state, &admin, id_of(&user)?, Draft::default(), notice).await
}

/// What a form asks for.
pub(crate) async fn act(
    State(state): State<AppState>,
    admin: Admin,
    Path((user, act)): Path<(String, String)>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id = id_of(&user)?;
    if ![
        "disable",
        "enable",
        "role",
        "reset-password",
        "reset-two-factor",
        "sessions",
        "revoke-token",
    ]
    .contains(&act.as_str())
    {
        return Err(Failure::NotFound.into());
    }
    let done: Result<&str, ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(act.as_str());
        };
        let address = action.ip.clone();
        let by = ChangeContext {
            actor: admin.0.actor(&address),
            now_ms: action.now_ms,
        };
        let connection = action.connection();
        let managed = match act.as_str() {
            "disable" => manage::disable(connection, id, by).await?,
            "enable" => manage::enable(connection, id, by).await?,
            "role" => {
                let role: Role = fields.text("role").parse()?;
                let customer = match (role, fields.text("customer")) {
                    (Role::Customer, "") => {
                        return Err(said("Name the customer, such as cus_9, for the role customer."));
                    }
                    (Role::Customer, text) => Some(text.parse::<CustomerId>()?),
                    _ => None,
                };
                manage::set_role(connection, id, role, customer, by).await?
            }
            "reset-password" => ManagedChange::Done(manage::send_reset(connection, id, by).await?),
            "reset-two-factor" => ManagedChange::Done(manage::reset_second_factor(connection, id, by).await?),
            "revoke-token" => ManagedChange::Done(revoke_token(connection, fields.id("token")?, Some(id)).await?),
            _ => {
                let ending = match fields.text("session") {
                    // One's own session goes on: signing out is another button.
                    "" if id == admin.0.user.id => SessionsToEnd::AllBut(&admin.0.session),
                    "" => SessionsToEnd::All,
                    name => SessionsToEnd::One(name),
                };
                ManagedChange::Done(manage::end_sessions(connection, id, ending).await?.1)
            }
        };
        match managed {
            ManagedChange::Done(note) => {
                action.commit(note).await?;
                Ok(act.as_str())
            }
            ManagedChange::Waits(requested) => {
                action.commit_entered(requested.entered).await?;
                Ok("asked")
            }
        }
    }
    .await;
    match done {
        Ok(what) => Ok(Redirect::to(&format!("/admin/users/{id}?done={what}")).into_response()),
        Err(refused) => render(&state, &admin, id, Draft::refused(act, refused, fields)?, None).await,
    }
}

//! Coupons: every one, a new one, and an end.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::catalog::{self, Discount, NewCoupon, Plan};
use billing::catalog_act;
use jiff::tz::TimeZone;
use schemas::ids::CouponId;
use schemas::percent::Percent;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

struct Row {
    id: CouponId,
    code: String,
    off: String,
    months: String,
    per_customer: String,
    plan: String,
    redeemed: String,
    expires: String,
    is_over: bool,
}

#[derive(Template)]
#[template(path = "admin_coupons.html")]
struct CouponsPage {
    shell: Shell,
    draft: Draft,
    rows: Vec<Row>,
    plans: Vec<Plan>,
    notice: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = match shown.done.as_str() {
        "add" => Some("Coupon added."),
        "archive" => Some("Coupon archived; existing redemptions continue."),
        _ => None,
    };
    render(&state, &admin, Draft::default(), notice).await
}

fn off(discount: Discount) -> String {
    match discount {
        Discount::Percent(percent) => percent.to_string(),
        Discount::Amount(amount) => amount.to_string(),
    }
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let now_ms = state.now_ms();
    let plans = catalog::plans(pool).await?;
    let coupons = catalog::coupons(pool).await?;
    let rows = coupons.into_iter().rev().map(|coupon| Row {
        off: off(coupon.discount),
        months: coupon
            .months
            .map_or_else(|| "no end".to_owned(), |months| months.to_string()),
        per_customer: coupon
            .per_customer
            .map_or_else(|| "unlimited".to_owned(), |times| times.to_string()),
        plan: coupon.plan.map_or_else(
            || "any".to_owned(),
            |id| {
                let plan = plans.iter().find(|plan| plan.id == id);
                plan.map_or_else(|| id.to_string(), |plan| plan.name.clone())
            },
        ),
        redeemed: match coupon.max_redemptions {
            Some(most) => format!("{} of {most}", coupon.redeemed),
            None => coupon.redeemed.to_string(),
        },
        expires: coupon
            .expires_at_ms
            .map_or_else(|| "never".to_owned(), |at_ms| format::date(at_ms, &TimeZone::UTC)),
        is_over: coupon.archived_at_ms.is_some() || coupon.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms),
        id: coupon.id,
        code: coupon.code,
    });
    let rows = rows.collect();
    let body = page(&CouponsPage {
        shell: Shell::new(&admin.0, "Coupons", PATH),
        rows,
        plans,
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn add(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done: Result<(), ActionFailure> = async {
        let discount = match fields.text("currency") {
            "" => Discount::Percent(Percent::new(fields.decimal("off", "The discount")?)?),
            currency => Discount::Amount(fields.money("off", currency.parse()?)?),
        };
        let new = NewCoupon {
            code: fields.text("code"),
            discount,
            months: fields.optional_integer("months", "The number of months")?,
            plan: match fields.text("plan") {
                "" => None,
                _ => Some(fields.id("plan")?),
            },
            max_redemptions: fields.optional_integer("max_redemptions", "The number of redemptions")?,
            per_customer: match fields.optional_integer("per_customer", "The number of redemptions by a customer")? {
                None => Some(1),
                Some(0) => None,
                times => times,
            },
            expires_at_ms: fields.day_ms("expires", &TimeZone::UTC)?,
        };
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let (_, note) = catalog_act::add_coupon(action.connection(), new, now_ms).await?;
        action.commit(note).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/coupons", "add")),
        Err(refused) => render(&state, &admin, Draft::refused("add", refused, fields)?, None).await,
    }
}

pub(crate) async fn archive(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id: CouponId = id.parse().map_err(|_| Failure::NotFound)?;
    match catalog::coupon(state.db().pool(), id).await {
        Err(BillingError::NoCoupon(_)) => return Err(Failure::NotFound.into()),
        found => found?,
    };
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let note = catalog_act::archive_coupon(action.connection(), id, now_ms).await?;
        action.commit(note).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/coupons", "archive")),
        Err(refused) => render(&state, &admin, Draft::refused("add", refused, fields)?, None).await,
    }
}

//! The API for people: its addresses, who may use them, and what its errors mean, from the same tables as the program.

use askama::Template;
use axum::response::Response;
use schemas::error_class::ErrorClass;

use super::{Area, ENDPOINTS, Endpoint};
use crate::auth::{Role, SignedIn};
use crate::error::{PageError, page, status_of};
use crate::error_table::codes;
use crate::shell::Shell;

struct EndpointRow {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    roles: String,
}

struct AreaRows {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    rows: Vec<EndpointRow>,
}

struct CodeRow {
    code: &'static str,
    class: &'static str,
    status: u16,
}

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage {
    shell: Shell,
    areas: Vec<AreaRows>,
    codes: Vec<CodeRow>,
}

fn row(endpoint: &Endpoint, area: Area) -> Option<EndpointRow> {
    let operation = endpoint.operation.as_ref().filter(|operation| operation.area == area)?;
    let roles = match endpoint.access.roles() {
        None => "anybody".to_owned(),
        Some(roles) => roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", "),
    };
    Some(EndpointRow {
        method: endpoint.method,
        path: endpoint.path,
        summary: operation.summary,
        roles,
    })
}

/// Of those addresses that the role may use; codes of faults are not for people to look up.
fn api_page(shell: Shell, role: Role) -> ApiPage {
    let may = |endpoint: &&Endpoint| endpoint.access.roles().is_none_or(|roles| roles.contains(&role));
    let areas = Area::ALL.map(|area| AreaRows {
        name: area.name(),
        title: area.title(),
        description: area.description(),
        rows: ENDPOINTS
            .iter()
            .filter(may)
            .filter_map(|endpoint| row(endpoint, area))
            .collect(),
    });
    let codes = codes().into_iter().filter(|code| code.class != ErrorClass::Fault);
    ApiPage {
        shell,
        areas: areas.into_iter().filter(|area| !area.rows.is_empty()).collect(),
        codes: codes
            .map(|code| CodeRow {
                code: code.code,
                class: code.class.name(),
                status: status_of(code).as_u16(),
            })
            .collect(),
    }
}

pub(crate) async fn show(who: SignedIn) -> Result<Response, PageError> {
    let shell = Shell::new(&who, "API", "/account");
    page(&api_page(shell, who.user.role))
}

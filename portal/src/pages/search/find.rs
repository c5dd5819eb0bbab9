//! From what was typed to what it names.

use billing::invoice::{InvoiceKind, InvoiceStatus};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, ServiceId};
use schemas::search::{self, PrefixHit};
use sqlx::Row as _;

use super::{Hit, PATH, SearchScope};
use crate::error::Failure;
use crate::exporters::{self, ExporterHit};
use crate::format;
use crate::pages::finance::{status_words, url_encoded};
use crate::state::AppState;

/// Found of one kind at most.
const MAX_OF_A_KIND: usize = 10;
/// Services of one customer at most.
const MAX_SERVICES: usize = 50;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct SearchResults {
    pub(super) hits: Vec<Hit>,
    pub(super) cut: Vec<&'static str>,
    pub(super) is_network: bool,
    pub(super) nothing: String,
}

impl SearchResults {
    /// Adds what is not there yet.
    fn add(&mut self, hit: Hit) {
        if !self.hits.contains(&hit) {
            self.hits.push(hit);
        }
    }
}

pub(super) async fn find(state: &AppState, sight: SearchScope, asked: &str) -> Result<SearchResults, Failure> {
    let mut found = SearchResults::default();
    if asked.is_empty() {
        return Ok(found);
    }
    by_id(state, sight, asked, &mut found).await?;
    if let Some(net) = network_of(asked) {
        found.is_network = true;
        by_address(state, sight, net, &mut found).await?;
    } else {
        by_name(state, sight, asked, &mut found).await?;
    }
    if found.hits.is_empty() && found.nothing.is_empty() {
        let whole = match sight.money {
            true => "An id is typed whole, like inv_12, and an invoice’s number as it is printed.",
            false => "An id is typed whole, like svc_12.",
        };
        found.nothing = format!("Words are found by their beginning; several must all be in one name. {whole}");
    }
    Ok(found)
}

/// An address, or a network in the way it is written everywhere.
fn network_of(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<Address>() {
        return Some(address.to_ip().into());
    }
    text.parse::<IpNet>().ok().map(|net| net.trunc())
}

async fn by_id(state: &AppState, sight: SearchScope, asked: &str, found: &mut SearchResults) -> Result<(), Failure> {
    let id = asked.to_lowercase();
    if let Ok(service) = id.parse::<ServiceId>()
        && let Some(hit) = service_hit(state, sight, service, String::new()).await?
    {
        found.add(hit);
    }
    if let Ok(customer) = id.parse::<CustomerId>()
        && let Some(hit) = customer_hit(state, sight, customer).await?
    {
        found.add(hit);
        services_of(state, sight, customer, found).await?;
    }
    if !sight.money {
        return Ok(());
    }
    let invoice = id.parse::<InvoiceId>().map_or(0, |id| id.0);
    let row = sqlx::query(
        "SELECT id, kind, number, customer_name, status, due_at_ms FROM invoices WHERE id = $1 OR number = $2 OR number = $3",
    )
    .bind(invoice)
    .bind(asked)
    .bind(asked.to_uppercase())
    .fetch_optional(state.db().pool())
    .await?;
    if let Some(row) = row {
        let id = InvoiceId(row.try_get(0)?);
        let (kind, customer): (String, String) = (row.try_get(1)?, row.try_get(3)?);
        let stored: String = row.try_get(4)?;
        let status = match (kind.parse::<InvoiceKind>(), stored.parse::<InvoiceStatus>()) {
            (Ok(kind), Ok(status)) => status_words(kind, status, row.try_get(5)?, state.now_ms()).0.to_owned(),
            _ => stored,
        };
        found.add(Hit {
            kind: if kind == "credit_note" {
                "Credit note"
            } else {
                "Invoice"
            },
            name: row.try_get(2)?,
            href: Some(format!("/finance/invoices/{id}")),
            detail: format!("{customer} · {status} · {id}"),
            by: String::new(),
        });
    }
    if let Ok(payment) = id.parse::<PaymentId>() {
        let row = sqlx::query(
            "SELECT p.state, c.name FROM payments p JOIN customers c ON c.id = p.customer_id WHERE p.id = $1",
        )
        .bind(payment.0)
        .fetch_optional(state.db().pool())
        .await?;
        if let Some(row) = row {
            let (payment_state, customer): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            found.add(Hit {
                kind: "Payment",
                name: payment.to_string(),
                href: Some(format!("/finance/payments/{payment}")),
                detail: format!("{customer} · {}", payment_state.replace('_', " ")),
                by: String::new(),
            });
        }
    }
    Ok(())
}

async fn by_address(
    state: &AppState,
    sight: SearchScope,
    net: IpNet,
    found: &mut SearchResults,
) -> Result<(), Failure> {
    if sight.network {
        let is_in = |address: Address| net.contains(&address.to_ip());
        let known = exporters::known(state).await?;
        let mut inside = known
            .iter()
            .filter(|known| known.address.is_some_and(is_in) || known.covers(net));
        for known in inside.by_ref().take(MAX_OF_A_KIND) {
            found.add(exporter_hit(known));
        }
        if inside.next().is_some() {
            found.cut.push("exporters");
        }
    }
    let mut connection = state.db().pool().acquire().await?;
    let held = search::assignments_at(&mut connection, net, MAX_OF_A_KIND + 1).await?;
    drop(connection);
    if held.len() > MAX_OF_A_KIND {
        found.cut.push("services");
    }
    let now_ms = state.now_ms();
    // What holds it now before what did.
    let (now, past): (Vec<_>, Vec<_>) = held.into_iter().partition(|hit| held_at(hit, now_ms));
    for hit in now.iter().chain(&past).take(MAX_OF_A_KIND) {
        let by = if held_at(hit, now_ms) {
            format!("holds {}", hit.prefix)
        } else {
            let day = |at_ms: i64| format::date(at_ms, &TimeZone::UTC);
            match hit.valid_to_ms {
                Some(to_ms) => format!("held {} until {}", hit.prefix, day(to_ms)),
                None => format!("holds {} from {}", hit.prefix, day(hit.valid_from_ms)),
            }
        };
        if let Some(hit) = service_hit(state, sight, hit.service, by).await? {
            found.add(hit);
        }
    }
    if found.hits.is_empty() {
        found.nothing = format!(
            "No service holds {net} or a part of it{}: its traffic counts as unattributed. “ezscale service assign” gives it to \
             a service.",
            if sight.network { ", and no exporter has it" } else { "" }
        );
    }
    Ok(())
}

fn held_at(hit: &PrefixHit, at_ms: i64) -> bool {
    hit.valid_from_ms <= at_ms && hit.valid_to_ms.is_none_or(|to_ms| at_ms < to_ms)
}

async fn by_name(state: &AppState, sight: SearchScope, asked: &str, found: &mut SearchResults) -> Result<(), Failure> {
    let pool = state.db().pool();
    let most = MAX_OF_A_KIND + 1;
    let customers = search::customers_named(pool, asked, most).await?;
    let services = search::services_named(pool, asked, most).await?;
    for (kind, count) in [("customers", customers.len()), ("services", services.len())] {
        if count == most {
            found.cut.push(kind);
        }
    }
    for id in customers.iter().take(MAX_OF_A_KIND) {
        if let Some(hit) = customer_hit(state, sight, *id).await? {
            found.add(hit);
        }
    }
    for id in services.iter().take(MAX_OF_A_KIND) {
        if let Some(hit) = service_hit(state, sight, *id, String::new()).await? {
            found.add(hit);
        }
    }
    if sight.network {
        let text = asked.to_lowercase();
        let known = exporters::known(state).await?;
        let mut named = known.iter().filter(|known| known.is_named(&text));
        for known in named.by_ref().take(MAX_OF_A_KIND) {
            found.add(exporter_hit(known));
        }
        if named.next().is_some() {
            found.cut.push("exporters");
        }
    }
    Ok(())
}

async fn customer_hit(state: &AppState, sight: SearchScope, id: CustomerId) -> Result<Option<Hit>, Failure> {
    let row = sqlx::query("SELECT name, email, country FROM customers WHERE id = $1")
        .bind(id.0)
        .fetch_optional(state.db().pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (email, country): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    let (href, detail) = match sight.money {
        true => (
            format!("/finance/customers/{id}"),
            format!("{email} · {country} · {id}"),
        ),
        // Those who watch the network have no page of a customer: its services are listed here.
        false => (
            format!("{PATH}?q={}", url_encoded(&id.to_string())),
            format!("{country} · {id} · services"),
        ),
    };
    Ok(Some(Hit {
        kind: "Customer",
        name: row.try_get(0)?,
        href: Some(href),
        detail,
        by: String::new(),
    }))
}

async fn services_of(
    state: &AppState,
    sight: SearchScope,
    customer: CustomerId,
    found: &mut SearchResults,
) -> Result<(), Failure> {
    let rows = sqlx::query("SELECT id FROM services WHERE customer_id = $1 ORDER BY id LIMIT $2")
        .bind(customer.0)
        .bind(i64::try_from(MAX_SERVICES + 1).unwrap_or(i64::MAX))
        .fetch_all(state.db().pool())
        .await?;
    for row in rows.iter().take(MAX_SERVICES) {
        let id = ServiceId(row.try_get(0)?);
        if let Some(hit) = service_hit(state, sight, id, String::new()).await? {
            found.add(hit);
        }
    }
    if rows.len() > MAX_SERVICES {
        found.cut.push("services");
    }
    Ok(())
}

async fn service_hit(state: &AppState, sight: SearchScope, id: ServiceId, by: String) -> Result<Option<Hit>, Failure> {
    let row = sqlx::query(
        "SELECT s.name, s.service_type, s.site, s.archived_at_ms, c.id, c.name FROM services s \
         JOIN customers c ON c.id = s.customer_id WHERE s.id = $1",
    )
    .bind(id.0)
    .fetch_optional(state.db().pool())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (kind, site): (String, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    let archived: Option<i64> = row.try_get(3)?;
    let customer = CustomerId(row.try_get(4)?);
    let customer_name: String = row.try_get(5)?;
    let mut detail = format!("{customer_name} · {kind}");
    for part in [site, archived.map(|_| "archived".to_owned()), Some(id.to_string())] {
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            detail.push_str(" · ");
            detail.push_str(&part);
        }
    }
    Ok(Some(Hit {
        kind: "Service",
        name: row.try_get(0)?,
        href: Some(match sight.network {
            true => format!("/ops/services/{id}"),
            false => format!("/finance/customers/{customer}"),
        }),
        detail,
        by,
    }))
}

fn exporter_hit(known: &ExporterHit) -> Hit {
    let address = known.address.map(|address| address.to_string());
    let mut detail = vec![match &address {
        Some(address) => address.clone(),
        None => known.network.clone(),
    }];
    detail.extend(known.site.clone());
    detail.push(known.hearing.to_owned());
    Hit {
        kind: "Exporter",
        name: known.name.clone(),
        href: Some(match &address {
            Some(address) => format!("/exporters?only={}", url_encoded(address)),
            None => "/exporters".to_owned(),
        }),
        detail: detail.join(" · "),
        by: String::new(),
    }
}

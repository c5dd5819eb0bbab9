//! A customer's services, periods, usage and invoices: what the pages and the API both tell.
//!
//! Functions that end in `_of` take the customer's id as the session gives it, and find nothing that belongs to anybody else
//! (S1). Those that end in `_for_staff` find anybody's; each takes the extractor of the role that may ask, so that no
//! handler can call it for anybody else.

use std::collections::HashMap;
use std::sync::Arc;

use analytics::{MeteredService, MeteredUsage, PeriodQuery, PeriodUsage, UsageMode};
use billing::BillingError;
use billing::catalog::Terms;
use billing::evidence::{Evidence, Measured, UsageCharge};
use billing::exclusion;
use billing::invoice::{Explanation, InvoiceLine, InvoiceWithLines, Share, pool_grants};
use billing::payment::{self, Payment, PaymentFilter};
use billing::rating::{rate_usage, usage_charge};
use billing::subscription::{ChargedPeriod, Contract, Phase, contract, contracts_of, subscription_of};
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::inventory::{self, Customer, InventoryError, Service};
use schemas::money::Money;
use schemas::period::{AnchorDay, Period};
use schemas::usage::{project, windows_of_period};
use sqlx::AnyConnection;

use crate::auth::{Finance, Ops, PrincipalExtractor};
use crate::error::Failure;
use crate::format::VolumeUnits;
use crate::state::AppState;

/// A service and what it is subscribed to, if anything.
#[derive(Clone, Debug)]
pub(crate) struct OwnService {
    pub(crate) service: Service,
    pub(crate) contract: Option<Contract>,
    /// What was measured before is not for who asks (S1): to its customer since it is theirs, to staff since ever.
    pub(crate) visible_from_ms: i64,
    /// Those who watch the network see all services in the units of the traffic overview, whatever their plans are sold by.
    pub(crate) is_for_staff: bool,
}

impl OwnService {
    /// Units of every volume on its pages.
    pub(crate) fn volume_units(&self) -> VolumeUnits {
        match self.is_for_staff {
            true => VolumeUnits::Decimal,
            false => self.sold_units().unwrap_or(VolumeUnits::Binary),
        }
    }

    /// The units that its plan sells transfer by; `None` where transfer is not sold.
    fn sold_units(&self) -> Option<VolumeUnits> {
        match &self.contract.as_ref()?.last_phase().plan.terms {
            Terms::Transfer { unit, .. } => Some((*unit).into()),
            Terms::Flat | Terms::Percentile { .. } => None,
        }
    }
}

/// The customer and all of their services, archived ones left out.
pub(crate) async fn services_of(state: &AppState, id: CustomerId) -> Result<(Customer, Vec<OwnService>), Failure> {
    let mut connection = state.db().pool().acquire().await?;
    let customer = inventory::customer(&mut *connection, id).await?;
    let contracts = contracts_of(&mut connection, id).await?;
    let services = inventory::services_of(&mut *connection, id).await?;
    let own = services
        .into_iter()
        .filter(|service| service.archived_at_ms.is_none())
        .map(|service| {
            let current =
                |contract: &&Contract| contract.service.id == service.id && contract.subscription.ended_at_ms.is_none();
            let contract = contracts.iter().find(current).cloned();
            OwnService {
                visible_from_ms: service.owned_from_ms,
                service,
                contract,
                is_for_staff: false,
            }
        });
    Ok((customer, own.collect()))
}

/// One service of the customer; whatever else the address names is not found (S1).
pub(crate) async fn service_of(
    state: &AppState,
    id: CustomerId,
    service: &str,
) -> Result<(Customer, OwnService), Failure> {
    let (customer, mut own) = service_where(state, service, |service| service.customer == id).await?;
    own.visible_from_ms = own.service.owned_from_ms;
    Ok((customer, own))
}

/// One service, whoever's it is.
pub(crate) async fn service_for_staff(
    state: &AppState,
    _: &Ops<impl PrincipalExtractor>,
    service: &str,
) -> Result<(Customer, OwnService), Failure> {
    let (customer, own) = service_where(state, service, |_| true).await?;
    let own = OwnService {
        is_for_staff: true,
        ..own
    };
    Ok((customer, own))
}

async fn service_where(
    state: &AppState,
    service: &str,
    may_be_seen: impl Fn(&Service) -> bool,
) -> Result<(Customer, OwnService), Failure> {
    let service: ServiceId = service.parse().map_err(|_| Failure::NotFound)?;
    let mut connection = state.db().pool().acquire().await?;
    let service = match inventory::service(&mut *connection, service).await {
        Err(InventoryError::NoService(_)) => return Err(Failure::NotFound),
        found => found?,
    };
    if !may_be_seen(&service) {
        return Err(Failure::NotFound);
    }
    let customer = inventory::customer(&mut *connection, service.customer).await?;
    let contract = match subscription_of(&mut *connection, service.id).await? {
        Some(subscription) => Some(contract(&mut connection, subscription.id).await?),
        None => None,
    };
    let own = OwnService {
        service,
        contract,
        visible_from_ms: 0,
        is_for_staff: false,
    };
    Ok((customer, own))
}

/// Usage as billing asks for it, by the metering exporters of the current configuration.
pub(crate) fn metered_usage(state: &AppState) -> MeteredUsage {
    MeteredUsage::new(Arc::clone(state.flow_store()), &state.metering()).guarded(state.guards())
}

pub(crate) fn metered(state: &AppState, service: &Service) -> MeteredService {
    metered_usage(state).metered(service)
}

/// The period a service is in: its subscription's, else the calendar month.
#[derive(Clone, Debug)]
pub(crate) struct CurrentPeriod {
    pub(crate) period: Period,
    charged: Option<(Phase, ChargedPeriod)>,
}

pub(crate) fn current_period(
    state: &AppState,
    customer: &Customer,
    own: &OwnService,
) -> Result<CurrentPeriod, Failure> {
    let now = state.now();
    // A subscription that starts later, or is in its trial, has no period yet.
    if let Some(contract) = &own.contract {
        match contract.usage_period_at(now.as_millisecond()) {
            Ok((phase, charged)) => {
                return Ok(CurrentPeriod {
                    period: charged.period,
                    charged: Some((phase.clone(), charged)),
                });
            }
            Err(BillingError::NoPeriod { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let month = AnchorDay::new(1).and_then(|first| Period::containing(now, first, &customer.time_zone));
    Ok(CurrentPeriod {
        period: month.map_err(BillingError::from)?,
        charged: None,
    })
}

/// What a service used of its period so far, and what that will come to.
#[derive(Clone, Debug)]
pub(crate) struct PeriodToDate {
    pub(crate) mode: UsageMode,
    pub(crate) usage: PeriodUsage,
    /// Times of attacks, whose windows are not charged.
    pub(crate) excluded: Vec<(i64, i64)>,
    /// With what other services leave of theirs so far, where usage is pooled.
    pub(crate) charge: Option<UsageCharge>,
    /// The same if all of them go on as they did.
    charge_projected: Option<UsageCharge>,
    /// Bytes that count, if the rest of the period goes on as the measured part did.
    pub(crate) projected_bytes: u64,
    /// What usage costs on top of the base price, by what was measured so far and by the projection; `None` where usage
    /// is not charged.
    pub(crate) cost_so_far: Option<Money>,
    pub(crate) cost_projected: Option<Money>,
    /// Whether services of the customer share what is included.
    pub(crate) is_pooled: bool,
}

/// Included bytes, those from other services among them.
fn free_bytes(charge: Option<&UsageCharge>) -> Option<u64> {
    match charge {
        Some(UsageCharge::Transfer {
            included_bytes,
            from_pool_bytes,
            ..
        }) => Some(included_bytes.saturating_add(*from_pool_bytes)),
        _ => None,
    }
}

impl PeriodToDate {
    /// So far.
    pub(crate) fn included_bytes(&self) -> Option<u64> {
        free_bytes(self.charge.as_ref())
    }

    /// At the period's end.
    pub(crate) fn included_bytes_projected(&self) -> Option<u64> {
        free_bytes(self.charge_projected.as_ref())
    }

    pub(crate) fn commit_bps(&self) -> Option<u64> {
        match &self.charge {
            Some(UsageCharge::Percentile {
                commit_bps,
                from_pool_bps,
                ..
            }) => Some(commit_bps.saturating_add(*from_pool_bps)),
            _ => None,
        }
    }
}

/// A period that was measured, before it is rated.
struct MeasuredPeriod {
    current: CurrentPeriod,
    query: PeriodQuery,
    usage: PeriodUsage,
}

impl MeasuredPeriod {
    fn projected_bytes(&self) -> u64 {
        let windows = windows_of_period(self.usage.from_ms, self.usage.to_ms);
        project(self.usage.billed_bytes, self.usage.windows_measured, windows)
    }

    fn charge(&self) -> Result<Option<UsageCharge>, Failure> {
        match &self.current.charged {
            Some((phase, charged)) => Ok(usage_charge(phase, charged)?),
            None => Ok(None),
        }
    }

    /// What it gives or takes where usage is pooled, when so many bytes count.
    fn share(&self, key: usize, billed_bytes: u64) -> Result<Option<Share>, Failure> {
        let (Some((phase, charged)), Some(charge)) = (&self.current.charged, self.charge()?) else {
            return Ok(None);
        };
        let used = match &charge {
            UsageCharge::Transfer { .. } => Some(billed_bytes),
            UsageCharge::Percentile { .. } => self.usage.percentile_95_bps,
        };
        Ok(Some(Share::new(key.to_string(), phase, charged.period, charge, used)))
    }
}

/// The periods to date of several services of a customer, with one scan of the stored usage.
///
/// Where the customer's usage is pooled, what the others leave is known only from all of them: then all are measured.
pub(crate) async fn periods_to_date(
    state: &AppState,
    customer: &Customer,
    services: &[OwnService],
) -> Result<Vec<PeriodToDate>, Failure> {
    if !customer.billing.pools_usage {
        let found = measure(state, customer, services).await?;
        return found.into_iter().map(|found| rated(found, None)).collect();
    }
    let (_, mut all) = services_of(state, customer.id).await?;
    all.retain(|own| services.iter().all(|asked| asked.service.id != own.service.id));
    all.extend_from_slice(services);
    // The order of the lines of an invoice.
    all.sort_by_key(|own| own.contract.as_ref().map(|contract| contract.subscription.id));
    let found = measure(state, customer, &all).await?;
    let (mut now, mut projected) = (Vec::new(), Vec::new());
    for (key, one) in found.iter().enumerate() {
        now.extend(one.share(key, one.usage.billed_bytes)?);
        projected.extend(one.share(key, one.projected_bytes())?);
    }
    let (now, projected) = (pool_grants(&now)?, pool_grants(&projected)?);
    let mut by_service = HashMap::new();
    for (key, (own, one)) in all.iter().zip(found).enumerate() {
        let grant = |grants: &HashMap<String, u64>| grants.get(&key.to_string()).copied().unwrap_or(0);
        by_service.insert(own.service.id, rated(one, Some((grant(&now), grant(&projected))))?);
    }
    let asked = services
        .iter()
        .map(|own| by_service.get(&own.service.id).cloned().ok_or(Failure::NotFound));
    asked.collect()
}

async fn measure(
    state: &AppState,
    customer: &Customer,
    services: &[OwnService],
) -> Result<Vec<MeasuredPeriod>, Failure> {
    let metered = metered_usage(state);
    let exclusions = exclusion::in_force(state.db().pool()).await?;
    let mut periods = Vec::with_capacity(services.len());
    let mut queries = Vec::with_capacity(services.len());
    for own in services {
        let current = current_period(state, customer, own)?;
        let terms = current.charged.as_ref().and_then(|(phase, _)| phase.plan.terms.mode());
        let from_ms = current.period.start_ms.max(own.visible_from_ms);
        queries.push(PeriodQuery {
            service: metered.metered(&own.service),
            from_ms,
            to_ms: current.period.end_ms,
            mode: terms.unwrap_or(UsageMode::Sum),
            excluded: exclusion::touching(
                exclusions.get(&own.service.id).map_or(&[][..], Vec::as_slice),
                from_ms,
                current.period.end_ms,
            ),
        });
        periods.push(current);
    }
    let used = state.flow_store().period_usage(&queries, state.now_ms()).await?;
    let found = periods.into_iter().zip(queries).zip(used);
    let found = found.map(|((current, query), usage)| MeasuredPeriod { current, query, usage });
    Ok(found.collect())
}

/// The period to date of one service.
pub(crate) async fn period_to_date(
    state: &AppState,
    customer: &Customer,
    own: &OwnService,
) -> Result<PeriodToDate, Failure> {
    let mut one = periods_to_date(state, customer, std::slice::from_ref(own)).await?;
    one.pop().ok_or(Failure::NotFound)
}

/// `pooled`: what it gets from other services so far and at the end; `None` where usage is not pooled.
fn rated(found: MeasuredPeriod, pooled: Option<(u64, u64)>) -> Result<PeriodToDate, Failure> {
    let (projected_bytes, charge) = (found.projected_bytes(), found.charge()?);
    let MeasuredPeriod { current, query, usage } = found;
    let mut to_date = PeriodToDate {
        mode: query.mode,
        usage,
        excluded: query.excluded.clone(),
        charge: None,
        charge_projected: None,
        projected_bytes,
        cost_so_far: None,
        cost_projected: None,
        is_pooled: pooled.is_some(),
    };
    let (Some((phase, _)), Some(charge)) = (&current.charged, charge) else {
        return Ok(to_date);
    };
    let currency = phase.price.currency();
    let measured = Measured::new(&to_date.usage, query.mode, &query.excluded);
    let projected = Measured {
        billed_bytes: projected_bytes,
        ..measured.clone()
    };
    let (from_pool, from_pool_projected) = pooled.unwrap_or_default();
    let charge_projected = charge.clone().with_pool(from_pool_projected);
    let charge = charge.with_pool(from_pool);
    to_date.cost_so_far = Some(rate_usage(&charge, &measured, currency)?.amount);
    to_date.cost_projected = Some(rate_usage(&charge_projected, &projected, currency)?.amount);
    to_date.charge = Some(charge);
    to_date.charge_projected = Some(charge_projected);
    Ok(to_date)
}

/// One invoice of the customer; whatever else the address names is not found (S1).
pub(crate) async fn invoice_of(state: &AppState, id: CustomerId, invoice: &str) -> Result<InvoiceWithLines, Failure> {
    let invoice: InvoiceId = invoice.parse().map_err(|_| Failure::NotFound)?;
    match billing::invoice::get_of(state.db(), id, invoice).await {
        Err(BillingError::NoInvoice(_)) => Err(Failure::NotFound),
        found => Ok(found?),
    }
}

/// One invoice, whoever's it is.
pub(crate) async fn invoice_for_staff(
    state: &AppState,
    _: &Finance,
    invoice: &str,
) -> Result<InvoiceWithLines, Failure> {
    let invoice: InvoiceId = invoice.parse().map_err(|_| Failure::NotFound)?;
    match billing::invoice::get(state.db(), invoice).await {
        Err(BillingError::NoInvoice(_)) => Err(Failure::NotFound),
        found => Ok(found?),
    }
}

/// A usage line of an invoice that was found, taken apart; whatever else the address names is not found (S1).
pub(crate) async fn explanation(
    state: &AppState,
    found: &InvoiceWithLines,
    line: &str,
) -> Result<Explanation, Failure> {
    let line: InvoiceLineId = line.parse().map_err(|_| Failure::NotFound)?;
    if !found.lines.iter().any(|own| own.id == line) {
        return Err(Failure::NotFound);
    }
    match billing::invoice::explain(state.db(), &metered_usage(state), line).await {
        Err(BillingError::NoUsage(_)) => Err(Failure::NotFound),
        explained => Ok(explained?),
    }
}

/// Why a line says what it says.
#[derive(Debug)]
pub(crate) enum LineExplanation {
    /// A line from usage, with what was measured.
    Usage(Box<Explanation>),
    /// Any other line: all there is to say is kept with it.
    Line(Box<InvoiceLine>),
}

/// Any line of an invoice that was found, explained; whatever else the address names is not found (S1).
pub(crate) async fn explained(
    state: &AppState,
    found: &InvoiceWithLines,
    line: &str,
) -> Result<LineExplanation, Failure> {
    let id: InvoiceLineId = line.parse().map_err(|_| Failure::NotFound)?;
    let own = found.lines.iter().find(|own| own.id == id).ok_or(Failure::NotFound)?;
    match &own.evidence {
        Evidence::Usage { .. } | Evidence::Adjustment { .. } => {
            Ok(LineExplanation::Usage(Box::new(explanation(state, found, line).await?)))
        }
        _ => Ok(LineExplanation::Line(Box::new(own.clone()))),
    }
}

/// One subscription of the customer with everything it refers to; whatever else the address names is not found (S1).
pub(crate) async fn contract_of(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: &str,
) -> Result<Contract, Failure> {
    let id: SubscriptionId = id.parse().map_err(|_| Failure::NotFound)?;
    match contract(connection, id).await {
        Ok(found) if found.subscription.customer == customer => Ok(found),
        Ok(_) | Err(BillingError::NoSubscription(_)) => Err(Failure::NotFound),
        Err(error) => Err(error.into()),
    }
}

/// Payments for credit that are shown.
const MAX_TOP_UPS: i64 = 10;

/// The customer's last payments for credit, the latest first: the first says whether one is under way.
pub(crate) async fn top_ups(state: &AppState, customer: CustomerId) -> Result<Vec<Payment>, Failure> {
    let filter = PaymentFilter {
        customer: Some(customer),
        top_ups: true,
        ..PaymentFilter::default()
    };
    Ok(payment::list(state.db().pool(), filter, MAX_TOP_UPS).await?)
}

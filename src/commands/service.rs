//! `ezscale service`: what sends and receives, and what belongs to it.

mod list;

use std::path::{Path, PathBuf};

use activity::act::Note;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use ipnet::IpNet;
use jiff::Timestamp;
use schemas::address::Address;
use schemas::assignment::Target;
use schemas::ids::{AssignmentId, CustomerId, ServiceId};
use schemas::inventory;
use schemas::window::instant_text;
use serde_json::json;

use super::audit;
use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a service, or those of a list, and print the ids
    Add {
        /// Name of the service, such as its host name
        #[arg(long, required_unless_present = "file")]
        name: Option<String>,
        /// Who pays for it (cus_N)
        #[arg(long, required_unless_present = "file")]
        customer: Option<CustomerId>,
        /// Kind of service: vps, dedicated, web, game, …
        #[arg(long = "type", default_value = "vps")]
        service_type: String,
        /// Site of the service, whose metering exporters measure it
        #[arg(long)]
        site: Option<String>,
        /// Many at once: CSV with a header line and the columns name, customer, type, site (the last two optional)
        #[arg(long, value_name = "CSV", conflicts_with_all = ["name", "customer", "service_type", "site"])]
        file: Option<PathBuf>,
        #[command(flatten)]
        data: Data,
    },
    /// List services with what they hold
    List {
        /// Of this customer (cus_N) [default: all]
        #[arg(long)]
        customer: Option<CustomerId>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a service with what it holds and held
    Show {
        /// The service (svc_N)
        service: ServiceId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Give a prefix, an interface or a VLAN to a service, or those of a list to many
    Assign(Assign),
    /// End an assignment (asg_N, as `service list` shows it)
    Release {
        /// The assignment (asg_N)
        assignment: AssignmentId,
        /// When it ends (RFC 3339, or a day) [default: now]
        #[arg(long, value_parser = crate::options::instant)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Assign {
    /// The service (svc_N)
    #[arg(required_unless_present = "file")]
    service: Option<ServiceId>,
    /// Addresses, such as 192.0.2.0/28 or 2001:db8:1::/64; at most a /8, of IPv6 a /16
    #[arg(long, conflicts_with_all = ["exporter", "interface", "vlan"], required_unless_present_any = ["exporter", "file"], value_parser = schemas::prefix::parse)]
    prefix: Option<IpNet>,
    /// Exporter of the interface or VLAN
    #[arg(long)]
    exporter: Option<Address>,
    /// SNMP index of the interface
    #[arg(long, requires = "exporter")]
    interface: Option<u32>,
    /// VLAN: on the interface, or on any interface of the exporter
    #[arg(long, requires = "exporter")]
    vlan: Option<u16>,
    /// From when on (RFC 3339, or a day); in the past, stored flows are re-attributed [default: now]
    #[arg(long, value_parser = crate::options::instant)]
    from: Option<Timestamp>,
    /// Until when (RFC 3339, or a day) [default: for good]
    #[arg(long, value_parser = crate::options::instant)]
    to: Option<Timestamp>,
    /// Many at once, all or none: CSV with a header line and the columns service, prefix, exporter, interface, vlan,
    /// from, to; of which service and what it gets are needed
    #[arg(long, value_name = "CSV", conflicts_with_all = ["service", "prefix", "exporter", "interface", "vlan", "from", "to"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    data: Data,
}

/// What the parts of an assignment mean together.
fn target(
    prefix: Option<IpNet>,
    exporter: Option<Address>,
    interface: Option<u32>,
    vlan: Option<u16>,
) -> anyhow::Result<Target> {
    match (prefix, exporter, interface, vlan) {
        (Some(prefix), None, None, None) => Ok(Target::Prefix(prefix)),
        (Some(_), ..) => bail!("a prefix has no exporter, interface or VLAN beside it"),
        (None, Some(exporter), Some(if_index), vlan) => Ok(Target::Interface {
            exporter,
            if_index,
            vlan,
        }),
        (None, Some(exporter), None, Some(vlan)) => Ok(Target::Vlan { exporter, vlan }),
        (None, Some(_), None, None) => bail!("an exporter needs an interface or a VLAN beside it"),
        (None, None, ..) => bail!("a prefix, or an exporter with an interface or a VLAN, is needed"),
    }
}

async fn assign(assign: Assign) -> anyhow::Result<()> {
    let (_, database) = assign.data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    let Some(service) = assign.service else {
        let file = assign.file.context("a service or --file is needed")?;
        let list = list::assignments(&file, now_ms)?;
        inventory::assign_all(act.connection(), &list, now_ms)
            .await
            .with_context(|| format!("assign the {} lines of {}", list.len(), file.display()))?;
        let change = json!({"after": {"file": file.display().to_string(), "assignments": list.len()}});
        act.commit(Note::new("service.assign_list", "services").change(change))
            .await?;
        say!("{} assigned", list.len());
        return Ok(());
    };
    let target = target(assign.prefix, assign.exporter, assign.interface, assign.vlan)?;
    let from_ms = assign.from.map_or(now_ms, Timestamp::as_millisecond);
    let to_ms = assign.to.map(Timestamp::as_millisecond);
    let row = inventory::assign(act.connection(), service, target, from_ms, to_ms, now_ms)
        .await
        .with_context(|| format!("assign {target} to {service}"))?;
    let change = json!({"after": {"assignment": row.id, "holds": row.target.to_string(),
        "from": instant_text(row.valid_from_ms), "to": row.valid_to_ms.map(instant_text)}});
    act.commit(Note::new("service.assign", service).change(change)).await?;
    say!("{}", row.id);
    Ok(())
}

/// What was added: a service, or a list of them.
fn added_note(file: Option<&Path>, added: &[list::TypedService], ids: &[ServiceId]) -> Note {
    match (file, added, ids) {
        (None, [service], [id]) => Note::new("service.create", id).change(json!({"after": {"name": service.name,
            "customer": service.customer, "type": service.service_type, "site": service.site}})),
        _ => Note::new("service.create_list", "services").change(json!({"after": {
            "file": file.map(|file| file.display().to_string()), "services": ids.len(), "first": ids.first(),
            "last": ids.last()}})),
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            name,
            customer,
            service_type,
            site,
            file,
            data,
        } => {
            let typed = match (&file, name, customer) {
                (Some(file), ..) => list::services(file)?,
                (None, Some(name), Some(customer)) => vec![list::TypedService {
                    name,
                    customer,
                    service_type,
                    site,
                    line: None,
                }],
                _ => bail!("a name and a customer, or --file, are needed"),
            };
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let mut ids = Vec::with_capacity(typed.len());
            for service in &typed {
                let created = inventory::create_service(act.connection(), service.as_new(), now_ms).await;
                let at = service.line.map_or_else(String::new, |line| format!("line {line}: "));
                let created = created.with_context(|| format!("{at}add service {:?}", service.name))?;
                ids.push(created.id);
            }
            act.commit(added_note(file.as_deref(), &typed, &ids)).await?;
            for id in ids {
                say!("{id}");
            }
        }
        Command::Assign(args) => assign(args).await?,
        Command::Release { assignment, at, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let at_ms = at.map_or(now_ms, Timestamp::as_millisecond);
            let mut act = audit::begin(&database, now_ms).await?;
            inventory::end_assignment(act.connection(), assignment, at_ms, now_ms).await?;
            let change = json!({"after": {"to": instant_text(at_ms)}});
            act.commit(Note::new("service.release", assignment).change(change))
                .await?;
        }
        Command::List { customer, format, data } => list_all(customer, format, &data).await?,
        Command::Show { service, format, data } => show(service, format, &data).await?,
    }
    Ok(())
}

/// A row for each assignment; a service that holds nothing has one row.
async fn list_all(customer: Option<CustomerId>, format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let services = match customer {
        Some(customer) => {
            inventory::customer(database.pool(), customer).await?;
            inventory::services_of(database.pool(), customer).await?
        }
        None => inventory::services(database.pool()).await?,
    };
    let assignments = inventory::assignments(database.pool()).await?;
    let mut listing = Listing::new([
        text("id"),
        text("name"),
        text("customer"),
        text("type"),
        text("site"),
        text("assignment"),
        text("holds").or("nothing"),
        text("from"),
        text("to"),
    ]);
    for service in services {
        let held: Vec<_> = assignments.iter().filter(|row| row.service == service.id).collect();
        let rows = held.iter().copied().map(Some).chain(held.is_empty().then_some(None));
        for row in rows {
            listing.row([
                shown(service.id),
                service.name.as_str().into(),
                shown(service.customer),
                service.service_type.as_str().into(),
                service.site.as_deref().into(),
                row.map(|row| shown(row.id)).into(),
                row.map(|row| shown(row.target)).into(),
                row.map(|row| at(row.valid_from_ms)).into(),
                row.and_then(|row| row.valid_to_ms).map(at).into(),
            ]);
        }
    }
    listing.print(format, "no services: add one with `ezscale service add`")
}

async fn show(service: ServiceId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let service = inventory::service(database.pool(), service).await?;
    let subscription = billing::subscription::subscription_of(database.pool(), service.id).await?;
    let mut assignments = Listing::new(["id", "holds", "from", "to"].map(text));
    for row in inventory::assignments(database.pool()).await? {
        if row.service == service.id {
            assignments.row([
                shown(row.id),
                shown(row.target),
                at(row.valid_from_ms),
                row.valid_to_ms.map(at).into(),
            ]);
        }
    }
    Record::new()
        .field(text("id"), shown(service.id))
        .field(text("name"), service.name)
        .field(text("customer"), shown(service.customer))
        .field(text("type"), service.service_type)
        .field(text("site"), service.site)
        .field(text("status"), service.status.name())
        .field(
            text("subscription").or("none"),
            subscription.map(|found| shown(found.id)),
        )
        .field(text("created_at"), at(service.created_at_ms))
        // 0: nobody owned it before.
        .field(
            text("owned_from").or("the beginning"),
            Some(service.owned_from_ms).filter(|&from_ms| from_ms > 0).map(at),
        )
        .field(text("archived_at"), service.archived_at_ms.map(at))
        .list("assignments", assignments)
        .print(format)
}

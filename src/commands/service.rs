//! `ezscale service`: what sends and receives, and what belongs to it.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use ipnet::IpNet;
use jiff::Timestamp;
use schemas::address::Address;
use schemas::assignment::Target;
use schemas::ids::{AssignmentId, CustomerId, ServiceId};
use schemas::inventory::{self, NewService};
use schemas::window::instant_text;

use crate::options::Data;
use crate::output::Listing;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a service and print its id
    Add {
        #[arg(long)]
        name: String,
        /// Who pays for it (cus_N)
        #[arg(long)]
        customer: CustomerId,
        /// Kind of service: vps, dedicated, web, game, …
        #[arg(long = "type", default_value = "vps")]
        service_type: String,
        /// Where it stands; the metering exporters of the site measure it
        #[arg(long)]
        site: Option<String>,
        #[command(flatten)]
        data: Data,
    },
    /// List services with what they hold
    List {
        #[command(flatten)]
        data: Data,
    },
    /// Give a prefix, an interface or a VLAN to a service
    Assign(Assign),
    /// End an assignment (asg_N, as `service list` shows it)
    Release {
        assignment: AssignmentId,
        /// When it ends (RFC 3339) [default: now]
        #[arg(long)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Assign {
    /// The service (svc_N)
    service: ServiceId,
    /// Addresses, such as 192.0.2.0/28 or 2001:db8:1::/64
    #[arg(long, conflicts_with_all = ["exporter", "interface", "vlan"], required_unless_present = "exporter")]
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
    /// From when on (RFC 3339); in the past, stored flows are attributed anew [default: now]
    #[arg(long)]
    from: Option<Timestamp>,
    /// Until when (RFC 3339) [default: for good]
    #[arg(long)]
    to: Option<Timestamp>,
    #[command(flatten)]
    data: Data,
}

impl Assign {
    fn target(&self) -> anyhow::Result<Target> {
        match (self.prefix, self.exporter, self.interface, self.vlan) {
            (Some(prefix), ..) => Ok(Target::Prefix(prefix)),
            (None, Some(exporter), Some(if_index), vlan) => Ok(Target::Interface {
                exporter,
                if_index,
                vlan,
            }),
            (None, Some(exporter), None, Some(vlan)) => Ok(Target::Vlan { exporter, vlan }),
            _ => bail!("--exporter needs --interface or --vlan beside it"),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let now_ms = Timestamp::now().as_millisecond();
    match args.command {
        Command::Add {
            name,
            customer,
            service_type,
            site,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let new = NewService {
                customer,
                name: &name,
                service_type: &service_type,
                site: site.as_deref(),
            };
            let mut transaction = database.begin_write().await?;
            let service = inventory::create_service(&mut transaction, new, now_ms).await?;
            transaction.commit().await?;
            println!("{}", service.id);
        }
        Command::Assign(assign) => {
            let (_, database) = assign.data.open_database().await?;
            let target = assign.target()?;
            let from_ms = assign.from.map_or(now_ms, Timestamp::as_millisecond);
            let to_ms = assign.to.map(Timestamp::as_millisecond);
            let mut transaction = database.begin_write().await?;
            let row = inventory::assign(&mut transaction, assign.service, target, from_ms, to_ms, now_ms)
                .await
                .with_context(|| format!("assign {target} to {}", assign.service))?;
            transaction.commit().await?;
            println!("{}", row.id);
        }
        Command::Release { assignment, at, data } => {
            let (_, database) = data.open_database().await?;
            let at_ms = at.map_or(now_ms, Timestamp::as_millisecond);
            let mut transaction = database.begin_write().await?;
            inventory::end_assignment(&mut transaction, assignment, at_ms, now_ms).await?;
            transaction.commit().await?;
        }
        Command::List { data } => {
            let (_, database) = data.open_database().await?;
            let assignments = inventory::assignments(database.pool()).await?;
            let mut listing = Listing::new(&[
                "id",
                "name",
                "customer",
                "type",
                "site",
                "assignment",
                "holds",
                "from",
                "to",
            ]);
            for service in inventory::services(database.pool()).await? {
                let held: Vec<_> = assignments.iter().filter(|row| row.service == service.id).collect();
                let mut first = [
                    service.id.to_string(),
                    service.name,
                    service.customer.to_string(),
                    service.service_type,
                    service.site.unwrap_or_default(),
                ];
                if held.is_empty() {
                    let [id, name, customer, kind, site] = first.clone();
                    listing.row([
                        id,
                        name,
                        customer,
                        kind,
                        site,
                        String::new(),
                        "nothing".to_owned(),
                        String::new(),
                        String::new(),
                    ]);
                }
                for row in held {
                    let [id, name, customer, kind, site] = std::mem::take(&mut first);
                    let to = row.valid_to_ms.map(instant_text).unwrap_or_default();
                    listing.row([
                        id,
                        name,
                        customer,
                        kind,
                        site,
                        row.id.to_string(),
                        row.target.to_string(),
                        instant_text(row.valid_from_ms),
                        to,
                    ]);
                }
            }
            listing.print("no services: add one with `ezscale service add`");
        }
    }
    Ok(())
}

//! What an installation still lacks before its pages have something to show: each step with the command or page that does it.
//!
//! Pages show the list as long as one of its steps is open, in place of figures about nothing.

use schemas::inventory::{self, FIRST_ENTITY};
use sqlx::Row as _;

use crate::auth::Role;
use crate::error::Failure;
use crate::exporters;
use crate::state::AppState;

/// Where flows are sent unless the collector says otherwise.
const NETFLOW_PORT: u16 = 2055;
const SFLOW_PORT: u16 = 6343;

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) title: &'static str,
    pub(crate) text: String,
    /// On the command line; empty where a page does it.
    pub(crate) command: String,
    pub(crate) href: Option<&'static str>,
    pub(crate) is_done: bool,
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FirstSteps {
    pub(crate) title: &'static str,
    pub(crate) steps: Vec<Step>,
}

/// What is there already.
struct SetupState {
    exporter_heard: bool,
    netflow_port: u16,
    sflow_port: u16,
    issuer: bool,
    price: bool,
    customer: bool,
    assignment: bool,
    subscription: bool,
}

impl SetupState {
    async fn of(state: &AppState) -> Result<SetupState, Failure> {
        let listening = exporters::listening(state).await?;
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM (SELECT id FROM prices LIMIT 1) p), \
             (SELECT count(*) FROM (SELECT id FROM customers LIMIT 1) c), \
             (SELECT count(*) FROM (SELECT id FROM assignments LIMIT 1) a), \
             (SELECT count(*) FROM (SELECT id FROM subscriptions LIMIT 1) s)",
        )
        .fetch_one(state.db().pool())
        .await?;
        let has = |column: usize| Ok::<bool, sqlx::Error>(row.try_get::<i64, _>(column)? > 0);
        Ok(SetupState {
            exporter_heard: listening.heard,
            netflow_port: listening.netflow_port.unwrap_or(NETFLOW_PORT),
            sflow_port: listening.sflow_port.unwrap_or(SFLOW_PORT),
            issuer: inventory::entity(state.db().pool(), FIRST_ENTITY).await?.is_issuer(),
            price: has(0)?,
            customer: has(1)?,
            assignment: has(2)?,
            subscription: has(3)?,
        })
    }

    fn flows(&self) -> Step {
        let (netflow, sflow) = (self.netflow_port, self.sflow_port);
        Step {
            title: "Let a router or switch send flows",
            text: format!(
                "Send NetFlow v5, v9 or IPFIX to UDP port {netflow} of this machine, or sFlow to {sflow}. The commands for Junos are \
                 on the exporters page. Without a router at hand, this sends some flows:"
            ),
            command: format!("ezscale simulate --to 127.0.0.1:{netflow} --protocol ipfix --flows 1000"),
            href: Some("/exporters#guide"),
            is_done: self.exporter_heard,
        }
    }

    fn customer(&self) -> Step {
        Step {
            title: "Add a customer",
            text: "Who pays, in which currency, by which time zone.".to_owned(),
            command: "ezscale customer add --name 'Example Ltd' --email it@example.net --currency EUR --country DE \
                      --time-zone Europe/Berlin"
                .to_owned(),
            href: None,
            is_done: self.customer,
        }
    }

    fn service(&self) -> Step {
        Step {
            title: "Give a service its addresses",
            text: "Traffic of these addresses is counted for it; that of others is unattributed.".to_owned(),
            command: "ezscale service add --name web-1 --customer cus_1 --site NYC1\nezscale service assign svc_1 --prefix 192.0.2.0/28"
                .to_owned(),
            href: None,
            is_done: self.assignment,
        }
    }

    fn issuer(&self, is_admin: bool) -> Step {
        Step {
            title: "Say who issues invoices",
            text: "Name, address, VAT number and bank account, as invoices print them. Invoices are held until there is a name and \
                   an address. An admin enters them under Entities, and the tax rates of the places you sell to under Taxes."
                .to_owned(),
            command: "ezscale entity set --name 'Example Hosting GmbH' --street 'Hauptstr. 1' --postal-code 10115 --city Berlin \
                      --country DE --vat-id DE136695976"
                .to_owned(),
            href: is_admin.then_some("/admin/entities"),
            is_done: self.issuer,
        }
    }

    fn plan(&self, is_admin: bool) -> Step {
        Step {
            title: "Add a plan with a price",
            text: "What a service costs, and what is included.".to_owned(),
            command: "ezscale plan add --name 'VPS S' --type vps --included 1000 --price 19.00 --currency EUR --usage-rate 0.01"
                .to_owned(),
            href: is_admin.then_some("/admin/plans"),
            is_done: self.price,
        }
    }

    fn subscription(&self) -> Step {
        Step {
            title: "Subscribe the service",
            text: "From then on its periods are invoiced automatically. Customers who can sign in also order in the portal."
                .to_owned(),
            command:
                "ezscale subscription add svc_1 --price prc_1\nezscale user add --email it@example.net --name 'Eve \
                      Example' --role customer --customer cus_1"
                    .to_owned(),
            href: None,
            is_done: self.subscription,
        }
    }
}

impl FirstSteps {
    /// Before there is traffic of somebody to see.
    pub(crate) async fn of_traffic(state: &AppState) -> Result<Option<FirstSteps>, Failure> {
        let present = SetupState::of(state).await?;
        Ok(FirstSteps {
            title: "First steps: traffic",
            steps: vec![present.flows(), present.customer(), present.service()],
        }
        .open())
    }

    /// Before there is something to invoice.
    pub(crate) async fn of_billing(state: &AppState, role: Role) -> Result<Option<FirstSteps>, Failure> {
        let present = SetupState::of(state).await?;
        let is_admin = role == Role::Admin;
        Ok(FirstSteps {
            title: "First steps: invoices",
            steps: vec![
                present.issuer(is_admin),
                present.plan(is_admin),
                present.customer(),
                present.service(),
                present.subscription(),
            ],
        }
        .open())
    }

    fn open(self) -> Option<FirstSteps> {
        self.steps.iter().any(|step| !step.is_done).then_some(self)
    }

    pub(crate) fn done(&self) -> usize {
        self.steps.iter().filter(|step| step.is_done).count()
    }
}

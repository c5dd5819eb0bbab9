//! Who can sign in to the demo, and what each came for.

use std::collections::HashMap;

use activity::audit::Actor;
use portal::{NewUser, Role};
use schemas::db::Database;
use schemas::ids::{CustomerId, UserId};

use crate::operator;

/// Everybody's password in the demo.
pub(crate) const PASSWORD: &str = "amber-lantern-walk";
/// Where staff of the demo sits (RFC 5737).
const OFFICE: &str = "192.0.2.44";

/// Somebody who can sign in to the demo.
#[derive(Debug)]
pub(crate) struct DemoUser {
    pub(crate) email: &'static str,
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) sees: &'static str,
}

pub(crate) const OPS: &str = "ops@demo.example";
pub(crate) const FINANCE: &str = "finance@demo.example";
pub(crate) const ADMIN: &str = "admin@demo.example";
pub(crate) const SECOND_ADMIN: &str = "admin2@demo.example";

/// Staff, whose acts the audit log holds.
pub(crate) const STAFF: [DemoUser; 5] = [
    DemoUser {
        email: OPS,
        name: "Olu Operations",
        role: Role::Ops,
        sees: "traffic, live",
    },
    DemoUser {
        email: "network@demo.example",
        name: "Nia Network",
        role: Role::Network,
        sees: "exporters and their configuration",
    },
    DemoUser {
        email: FINANCE,
        name: "Finn Finance",
        role: Role::Finance,
        sees: "invoices, payments, the ledger",
    },
    DemoUser {
        email: ADMIN,
        name: "Ada Admin",
        role: Role::Admin,
        sees: "everything",
    },
    DemoUser {
        email: SECOND_ADMIN,
        name: "Otto Other",
        role: Role::Admin,
        sees: "everything, and decides what needs two",
    },
];

/// Customers of different kinds, in the order in which their ids are given to [`add_customers`].
pub(crate) const CUSTOMERS: [DemoUser; 4] = [
    DemoUser {
        email: "customer@demo.example",
        name: "Casey Customer",
        role: Role::Customer,
        sees: "a company with many services; nothing paid yet",
    },
    DemoUser {
        email: "business@demo.example",
        name: "Berta Business",
        role: Role::Customer,
        sees: "a business in another EU state, paid by card",
    },
    DemoUser {
        email: "private@demo.example",
        name: "Jonas Klein",
        role: Role::Customer,
        sees: "a private person; the bank wants a payment confirmed",
    },
    DemoUser {
        email: "college@demo.example",
        name: "Connie College",
        role: Role::Customer,
        sees: "exempt from tax, pays by transfer, in parts",
    },
];

/// The staff by their addresses, as they are stored.
#[derive(Debug)]
pub(crate) struct People(HashMap<&'static str, UserId>);

impl People {
    /// Makes the staff.
    pub(crate) async fn add(database: &Database) -> anyhow::Result<People> {
        let mut people = HashMap::new();
        for user in &STAFF {
            people.insert(user.email, add_user(database, user, None).await?);
        }
        Ok(People(people))
    }

    /// One of staff, as the audit log names them.
    pub(crate) fn actor(&self, email: &'static str) -> Actor<'static> {
        Actor {
            name: email,
            user: self.0.get(email).copied(),
            ip: OFFICE,
        }
    }
}

/// Makes the sign-ins of customers.
pub(crate) async fn add_customers(database: &Database, customers: [CustomerId; 4]) -> anyhow::Result<()> {
    for (user, customer) in CUSTOMERS.iter().zip(customers) {
        add_user(database, user, Some(customer)).await?;
    }
    Ok(())
}

async fn add_user(database: &Database, user: &DemoUser, customer: Option<CustomerId>) -> anyhow::Result<UserId> {
    let new = NewUser {
        email: user.email,
        name: user.name,
        role: user.role,
        customer,
        password: PASSWORD,
    };
    Ok(portal::create_user(database, &new, operator::by()).await?)
}

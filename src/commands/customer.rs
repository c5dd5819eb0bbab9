//! `ezscale customer`: who pays.

use billing::verification::{self, Request};
use clap::Subcommand;
use schemas::ids::CustomerId;
use schemas::inventory::{self, NewCustomer};
use schemas::window::instant_text;

use crate::options::{Data, now_ms};
use crate::output::Listing;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a customer and print its id
    Add {
        #[arg(long)]
        name: String,
        #[arg(long)]
        email: String,
        /// Currency of the invoices (ISO 4217)
        #[arg(long, default_value = "USD")]
        currency: String,
        /// Time zone of the billing days (IANA name)
        #[arg(long, default_value = "UTC")]
        time_zone: String,
        /// Country (ISO 3166, two letters)
        #[arg(long, default_value = "US")]
        country: String,
        /// Tax in percent
        #[arg(long, default_value = "0")]
        tax_rate: String,
        #[command(flatten)]
        data: Data,
    },
    /// Write to a customer at another address from now on; a link to verify it is mailed there
    Email {
        /// The customer (cus_N)
        customer: CustomerId,
        email: String,
        #[command(flatten)]
        data: Data,
    },
    /// List customers
    List {
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            name,
            email,
            currency,
            time_zone,
            country,
            tax_rate,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let new = NewCustomer {
                name: &name,
                email: &email,
                currency: &currency,
                time_zone: &time_zone,
                country: &country,
                tax_rate_percent: &tax_rate,
            };
            let mut transaction = database.begin_write().await?;
            let customer = inventory::create_customer(&mut transaction, new, now_ms).await?;
            transaction.commit().await?;
            println!("{}", customer.id);
        }
        Command::Email { customer, email, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            let before = inventory::customer(&mut *transaction, customer).await?.email;
            let request = verification::change_address(&mut transaction, customer, &email, now_ms).await?;
            let after = inventory::customer(&mut *transaction, customer).await?.email;
            let change = serde_json::json!({ "before": before, "after": after });
            super::audit::note(
                &mut transaction,
                "customer.email",
                &customer.to_string(),
                change,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
            match request {
                Request::Mailed => println!("{after}: a link to verify it is on its way"),
                Request::Verified => println!("{after}: verified"),
                Request::TooMany { until_ms } => println!(
                    "{after}: enough links were mailed; the customer can ask for one after {}",
                    instant_text(until_ms)
                ),
            }
        }
        Command::List { data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new(&["id", "name", "email", "verified", "currency", "time zone", "country"]);
            for customer in inventory::customers(database.pool()).await? {
                let time_zone = customer.time_zone_name().to_owned();
                listing.row([
                    customer.id.to_string(),
                    customer.name,
                    customer.email,
                    if customer.email_verified_at_ms.is_some() {
                        "yes"
                    } else {
                        "no"
                    }
                    .to_owned(),
                    customer.currency.to_string(),
                    time_zone,
                    customer.country,
                ]);
            }
            listing.print("no customers: add one with `ezscale customer add`");
        }
    }
    Ok(())
}

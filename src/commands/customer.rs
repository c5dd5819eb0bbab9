//! `ezscale customer`: who pays.

use activity::act::Note;
use activity::verification::{self, VerificationMailOutcome};
use anyhow::Context as _;
use billing::{reseller, vat};
use clap::Subcommand;
use schemas::ids::{CustomerId, EntityId};
use schemas::inventory::{self, BillingProfile, NewCustomer};

use super::audit;
use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, shown, text, to_the_second};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a customer and print its id
    Add {
        /// Name of the company or person, as invoices print it
        #[arg(long)]
        name: String,
        /// Address that invoices and notices go to
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
        /// Address that invoices and notices go to
        email: String,
        #[command(flatten)]
        data: Data,
    },
    /// Change what invoices to a customer say and follow, from the next one on; what is not given stays
    Profile {
        /// The customer (cus_N)
        customer: CustomerId,
        #[command(flatten)]
        profile: ProfileFields,
        #[command(flatten)]
        data: Data,
    },
    /// Mark a customer as a reseller: the owner is notified of their deals and of new prices they pay
    Reseller {
        /// The customer (cus_N)
        customer: CustomerId,
        /// Remove the mark
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Ask VIES now whether the customer's VAT number was given out, and keep the answer
    VatCheck {
        /// The customer (cus_N)
        customer: CustomerId,
        #[command(flatten)]
        data: Data,
    },
    /// Take the customer's VAT number although VIES has not confirmed it
    VatAccept {
        /// The customer (cus_N)
        customer: CustomerId,
        /// Why, such as where it was looked up; kept as evidence
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// List what was found out about a customer's VAT numbers, latest first
    VatChecks {
        /// The customer (cus_N)
        customer: CustomerId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// List customers
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a customer with what invoices say and follow, and the services
    Show {
        /// The customer (cus_N)
        customer: CustomerId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
}

/// An empty text removes what was there.
#[derive(clap::Args, Debug)]
struct ProfileFields {
    /// Who invoices the customer (ent_N)
    #[arg(long)]
    entity: Option<EntityId>,
    /// Street and number
    #[arg(long)]
    street: Option<String>,
    /// Postal code
    #[arg(long)]
    postal_code: Option<String>,
    /// City
    #[arg(long)]
    city: Option<String>,
    /// State or province, as tax rates name it
    #[arg(long)]
    region: Option<String>,
    /// VAT number with its country's prefix, such as FR40303265045
    #[arg(long)]
    vat_id: Option<String>,
    /// The customer's own reference, printed on invoices
    #[arg(long)]
    purchase_order: Option<String>,
    /// Why no tax is charged; empty where it is
    #[arg(long)]
    tax_exempt_reason: Option<String>,
    /// Prices are what the customer pays, tax included
    #[arg(long, value_name = "true|false")]
    prices_include_tax: Option<bool>,
    /// Included transfer is counted over all of the customer's services
    #[arg(long, value_name = "true|false")]
    pools_usage: Option<bool>,
}

impl ProfileFields {
    fn over(self, old: BillingProfile) -> BillingProfile {
        BillingProfile {
            entity: self.entity.unwrap_or(old.entity),
            street: self.street.unwrap_or(old.street),
            postal_code: self.postal_code.unwrap_or(old.postal_code),
            city: self.city.unwrap_or(old.city),
            region: self.region.unwrap_or(old.region),
            vat_id: self.vat_id.unwrap_or(old.vat_id),
            purchase_order: self.purchase_order.unwrap_or(old.purchase_order),
            tax_exempt_reason: self.tax_exempt_reason.unwrap_or(old.tax_exempt_reason),
            prices_include_tax: self.prices_include_tax.unwrap_or(old.prices_include_tax),
            pools_usage: self.pools_usage.unwrap_or(old.pools_usage),
        }
    }
}

/// Findings about VAT numbers that are listed at most.
const CHECKS_SHOWN: i64 = 100;

async fn mark_reseller(customer: CustomerId, is_reseller: bool, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    if let Some(note) = reseller::mark(act.connection(), customer, is_reseller, now_ms).await? {
        act.commit(note).await?;
    }
    say!(
        "{customer} is {}",
        if is_reseller { "a reseller" } else { "no reseller" }
    );
    Ok(())
}

async fn change_profile(customer: CustomerId, profile: ProfileFields, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    let before = inventory::customer(act.connection(), customer).await?.billing;
    inventory::change_billing_profile(act.connection(), customer, &profile.over(before.clone())).await?;
    let after = inventory::customer(act.connection(), customer).await?.billing;
    let change = serde_json::json!({ "before": before, "after": after });
    act.commit(Note::new("customer.billing_profile", customer).personal(change))
        .await?;
    Ok(())
}

async fn check_vat(customer: CustomerId, data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let register = config.vies.register()?;
    let register = register.context("VIES is not switched on: set enabled = true under [vies] in the configuration")?;
    let check = audit::in_steps(&database, now_ms, Note::new("customer.vat_check", customer), async {
        let check = vat::ask(&database, register.as_ref(), customer, now_ms).await?;
        let check = check.with_context(|| format!("{customer} has no VAT number of a member state of the Union"))?;
        let result = serde_json::json!({"vat_id": check.vat_id, "answer": check.answer.name()});
        Ok((check, result))
    })
    .await?;
    let said = [&check.detail, &check.name, &check.consultation].map(String::as_str);
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    say!("{}: {} {}", check.vat_id, check.answer.name(), said.join(", "));
    Ok(())
}

async fn accept_vat(customer: CustomerId, reason: &str, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    let (connection, by) = act.parts();
    let check = vat::accept(connection, customer, reason, by.name, now_ms).await?;
    let change = serde_json::json!({"after": {"vat_id": check.vat_id, "reason": check.detail}});
    act.commit(Note::new("customer.vat_accept", customer).change(change))
        .await?;
    say!("{}: accepted", check.vat_id);
    Ok(())
}

async fn list_vat_checks(customer: CustomerId, format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    inventory::customer(database.pool(), customer).await?;
    let checks = vat::checks_of(database.pool(), customer, CHECKS_SHOWN).await?;
    let columns = [
        "checked_at",
        "vat_id",
        "answer",
        "consultation",
        "name",
        "address",
        "detail",
        "source",
    ];
    let mut listing = Listing::new(columns.map(text));
    for check in checks {
        listing.row([
            at(check.checked_at_ms),
            check.vat_id.into(),
            check.answer.name().into(),
            check.consultation.into(),
            check.name.into(),
            check.address.replace('\n', ", ").into(),
            check.detail.into(),
            check.source.into(),
        ]);
    }
    listing.print(format, "no VAT check of this customer yet")
}

async fn list(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let columns = [
        "id",
        "name",
        "email",
        "email_verified",
        "currency",
        "time_zone",
        "country",
        "deleted_at",
    ];
    let mut listing = Listing::new(columns.map(text));
    for customer in inventory::customers(database.pool()).await? {
        listing.row([
            shown(customer.id),
            customer.name.as_str().into(),
            customer.email.as_str().into(),
            customer.email_verified_at_ms.is_some().into(),
            shown(customer.currency),
            customer.time_zone_name().into(),
            customer.country.as_str().into(),
            customer.deleted_at_ms.map(at).into(),
        ]);
    }
    listing.print(format, "no customers: add one with `ezscale customer add`")
}

async fn show(customer: CustomerId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let customer = inventory::customer(database.pool(), customer).await?;
    let mut services = Listing::new(["id", "name", "type", "site", "status"].map(text));
    for service in inventory::services_of(database.pool(), customer.id).await? {
        services.row([
            shown(service.id),
            service.name.into(),
            service.service_type.into(),
            service.site.into(),
            service.status.name().into(),
        ]);
    }
    let time_zone = customer.time_zone_name().to_owned();
    let is_reseller = reseller::resellers(database.pool()).await?.contains(&customer.id);
    let billing = customer.billing;
    Record::new()
        .field(text("id"), shown(customer.id))
        .field(text("name"), customer.name)
        .field(text("email"), customer.email)
        .field(
            text("email_verified_at").or("no"),
            customer.email_verified_at_ms.map(at),
        )
        .field(text("currency"), shown(customer.currency))
        .field(text("time_zone"), time_zone)
        .field(text("country"), customer.country)
        .field(text("entity"), shown(billing.entity))
        .field(text("street"), billing.street)
        .field(text("postal_code"), billing.postal_code)
        .field(text("city"), billing.city)
        .field(text("region"), billing.region)
        .field(text("vat_id"), billing.vat_id)
        .field(text("purchase_order"), billing.purchase_order)
        .field(text("agreed_tax_percent"), customer.tax_rate.value())
        .field(text("tax_exempt_reason"), billing.tax_exempt_reason)
        .field(text("prices_include_tax"), billing.prices_include_tax)
        .field(text("pools_usage"), billing.pools_usage)
        .field(text("is_reseller"), is_reseller)
        .field(text("created_at"), at(customer.created_at_ms))
        .field(text("deleted_at").or("no"), customer.deleted_at_ms.map(at))
        .list("services", services)
        .print(format)
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
            let (_, database) = data.open_or_create().await?;
            let now_ms = now_ms(&database).await?;
            let new = NewCustomer {
                name: &name,
                email: &email,
                currency: &currency,
                time_zone: &time_zone,
                country: &country,
                tax_rate_percent: &tax_rate,
            };
            let mut act = audit::begin(&database, now_ms).await?;
            let customer = inventory::create_customer(act.connection(), new, now_ms).await?;
            let personal = serde_json::json!({"after": {"name": customer.name, "email": customer.email}});
            let change = serde_json::json!({"after": {
                "currency": customer.currency.code(), "time_zone": customer.time_zone_name(), "country": customer.country,
                "agreed_tax_percent": customer.tax_rate.value().to_string(),
            }});
            let note = Note::new("customer.create", customer.id).change(change);
            act.commit(note.personal(personal)).await?;
            say!("{}", customer.id);
        }
        Command::Email { customer, email, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let before = inventory::customer(act.connection(), customer).await?.email;
            let request = verification::change_address(act.connection(), customer, &email, now_ms).await?;
            let after = inventory::customer(act.connection(), customer).await?.email;
            let change = serde_json::json!({ "before": before, "after": after });
            act.commit(Note::new("customer.email", customer).personal(change))
                .await?;
            match request {
                VerificationMailOutcome::Mailed if config.mail.smtp_url.is_none() => say!(
                    "{after}: not verified, and no mail is sent: set mail.smtp_url, then the customer can ask for a link"
                ),
                VerificationMailOutcome::Mailed => say!("{after}: a link to verify it is on its way"),
                VerificationMailOutcome::Verified => say!("{after}: verified"),
                // Staff are told whose it is, by an error.
                VerificationMailOutcome::Unavailable => {}
                VerificationMailOutcome::TooMany { until_ms } => say!(
                    "{after}: enough links were mailed; the customer can ask for one after {}",
                    to_the_second(until_ms)
                ),
            }
        }
        Command::Profile {
            customer,
            profile,
            data,
        } => change_profile(customer, profile, &data).await?,
        Command::Reseller { customer, off, data } => mark_reseller(customer, !off, &data).await?,
        Command::VatCheck { customer, data } => check_vat(customer, &data).await?,
        Command::VatAccept { customer, reason, data } => accept_vat(customer, &reason, &data).await?,
        Command::VatChecks { customer, format, data } => list_vat_checks(customer, format, &data).await?,
        Command::List { format, data } => list(format, &data).await?,
        Command::Show { customer, format, data } => show(customer, format, &data).await?,
    }
    Ok(())
}

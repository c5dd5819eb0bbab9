//! `ezscale entity`: the companies that issue invoices, and what they say of themselves.

use activity::act::Note;
use clap::Subcommand;
use schemas::ids::EntityId;
use schemas::inventory::{self, EntityProfile};

use super::audit;
use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List entities
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show what an entity says of itself
    Show {
        /// The entity (ent_N)
        #[arg(default_value = "ent_1")]
        entity: EntityId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Change what an entity says of itself, on documents issued from now on; what is not given stays
    Set {
        /// The entity (ent_N)
        #[arg(default_value = "ent_1")]
        entity: EntityId,
        #[command(flatten)]
        profile: Profile,
        #[command(flatten)]
        data: Data,
    },
    /// Add an entity and print its id
    Add {
        #[command(flatten)]
        profile: Profile,
        #[command(flatten)]
        data: Data,
    },
}

/// An empty text removes what was there.
#[derive(clap::Args, Debug)]
struct Profile {
    /// Name of the company, as invoices print it
    #[arg(long)]
    name: Option<String>,
    /// Street and number
    #[arg(long)]
    street: Option<String>,
    /// Postal code
    #[arg(long)]
    postal_code: Option<String>,
    /// City
    #[arg(long)]
    city: Option<String>,
    /// State or province
    #[arg(long)]
    region: Option<String>,
    /// Country (ISO 3166, two letters)
    #[arg(long)]
    country: Option<String>,
    /// VAT number with its country's prefix, such as DE136695976
    #[arg(long)]
    vat_id: Option<String>,
    /// Number in a register of companies
    #[arg(long)]
    registration: Option<String>,
    /// Address that customers write to
    #[arg(long)]
    email: Option<String>,
    /// How a bank transfer is made, as printed on invoices
    #[arg(long)]
    payment_instructions: Option<String>,
    /// Prefix before INV-2026-000001 in this entity's invoice numbers: capital letters and digits
    #[arg(long)]
    number_prefix: Option<String>,
}

impl Profile {
    fn over(self, old: EntityProfile) -> EntityProfile {
        EntityProfile {
            name: self.name.unwrap_or(old.name),
            street: self.street.unwrap_or(old.street),
            postal_code: self.postal_code.unwrap_or(old.postal_code),
            city: self.city.unwrap_or(old.city),
            region: self.region.unwrap_or(old.region),
            country: self.country.unwrap_or(old.country),
            vat_id: self.vat_id.unwrap_or(old.vat_id),
            registration: self.registration.unwrap_or(old.registration),
            email: self.email.unwrap_or(old.email),
            payment_instructions: self.payment_instructions.unwrap_or(old.payment_instructions),
            number_prefix: self.number_prefix.unwrap_or(old.number_prefix),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { format, data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new(["id", "name", "country", "vat_id", "number_prefix"].map(text));
            for entity in inventory::entities(database.pool()).await? {
                listing.row([
                    shown(entity.id),
                    entity.profile.name.into(),
                    entity.profile.country.into(),
                    entity.profile.vat_id.into(),
                    entity.profile.number_prefix.into(),
                ]);
            }
            listing.print(format, "no entities")?;
        }
        Command::Show { entity, format, data } => {
            let (_, database) = data.open_database().await?;
            let entity = inventory::entity(database.pool(), entity).await?;
            let profile = entity.profile;
            Record::new()
                .field(text("id"), shown(entity.id))
                .field(text("name"), profile.name)
                .field(text("street"), profile.street)
                .field(text("postal_code"), profile.postal_code)
                .field(text("city"), profile.city)
                .field(text("region"), profile.region)
                .field(text("country"), profile.country)
                .field(text("vat_id"), profile.vat_id)
                .field(text("registration"), profile.registration)
                .field(text("email"), profile.email)
                .field(text("payment_instructions"), profile.payment_instructions)
                .field(text("number_prefix"), profile.number_prefix)
                .print(format)?;
        }
        Command::Set { entity, profile, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let old = inventory::entity(act.connection(), entity).await?;
            inventory::change_entity(act.connection(), entity, profile.over(old.profile.clone())).await?;
            let new = inventory::entity(act.connection(), entity).await?;
            let change = serde_json::json!({"before": old.profile, "after": new.profile});
            act.commit(Note::new("entity.change", entity).change(change)).await?;
        }
        Command::Add { profile, data } => {
            let (_, database) = data.open_or_create().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let profile = profile.over(EntityProfile::default());
            let entity = inventory::create_entity(act.connection(), profile, now_ms).await?;
            let change = serde_json::json!({"after": entity.profile});
            act.commit(Note::new("entity.create", entity.id).change(change)).await?;
            say!("{}", entity.id);
        }
    }
    Ok(())
}

//! Entities: the companies of ours that issue invoices.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{InventoryError, MAX_NAME_CHARS, MAX_PROFILE_CHARS, checked_optional, checked_text, country_named};
use crate::db::next_id;
use crate::ids::EntityId;
use crate::text::is_plain;

/// The entity that is there from the start.
pub const FIRST_ENTITY: EntityId = EntityId(1);
/// What it is called until somebody names it (`schemas/sql/001_schema.sql`).
const UNNAMED: &str = "Hosting company";
/// Characters in the prefix of an entity's invoice numbers at most.
const MAX_PREFIX_CHARS: usize = 10;
/// Characters in payment instructions at most.
const MAX_INSTRUCTIONS_CHARS: usize = 1000;

/// What an entity says of itself; what is not known is empty.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct EntityProfile {
    pub name: String,
    pub street: String,
    pub postal_code: String,
    pub city: String,
    pub region: String,
    /// ISO 3166-1, two letters.
    pub country: String,
    /// With its country's prefix: `DE123456789`.
    pub vat_id: String,
    /// Number in a register of companies.
    pub registration: String,
    pub email: String,
    /// How a bank transfer is made, as printed on invoices.
    pub payment_instructions: String,
    /// Before `INV-2026-000001`; capital letters and digits, one entity's own.
    pub number_prefix: String,
}

/// Who issues invoices.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Entity {
    pub id: EntityId,
    #[serde(flatten)]
    pub profile: EntityProfile,
    pub created_at_ms: i64,
}

impl Entity {
    /// Whether invoices can name it as who issues them. The one that is there from the start cannot until somebody gave it a name and
    /// an address: nobody is called so, nowhere. Those that are added were named by who added them.
    pub fn is_issuer(&self) -> bool {
        let EntityProfile {
            name,
            street,
            city,
            country,
            ..
        } = &self.profile;
        let is_from_the_start = self.created_at_ms == 0;
        let is_named = name != UNNAMED && [street, city, country].iter().all(|part| !part.is_empty());
        !is_from_the_start || is_named
    }
}

const SELECT: &str = "SELECT id, name, street, postal_code, city, region, country, vat_id, registration, email, \
     payment_instructions, number_prefix, created_at_ms FROM entities";

/// Checks and stores an entity.
///
/// # Errors
/// When a field is not valid or another entity has the prefix.
pub async fn create_entity(
    connection: &mut AnyConnection,
    profile: EntityProfile,
    now_ms: i64,
) -> Result<Entity, InventoryError> {
    // The first one is there without having taken a number.
    let id = EntityId(next_id(connection, "entity").await? + FIRST_ENTITY.0);
    let profile = checked(connection, id, profile).await?;
    sqlx::query(
        "INSERT INTO entities (id, name, street, postal_code, city, region, country, vat_id, registration, email, \
         payment_instructions, number_prefix, created_at_ms) VALUES ($1, '', '', '', '', '', '', '', '', '', '', $2, $3)",
    )
    .bind(id.0)
    .bind(&profile.number_prefix)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    update(connection, id, &profile).await?;
    Ok(Entity {
        id,
        profile,
        created_at_ms: now_ms,
    })
}

/// Changes what an entity says of itself, on documents issued from now on.
///
/// # Errors
/// When there is no such entity, a field is not valid, or another entity has the prefix.
pub async fn change_entity(
    connection: &mut AnyConnection,
    id: EntityId,
    profile: EntityProfile,
) -> Result<(), InventoryError> {
    entity(&mut *connection, id).await?;
    let profile = checked(connection, id, profile).await?;
    update(connection, id, &profile).await
}

async fn update(connection: &mut AnyConnection, id: EntityId, profile: &EntityProfile) -> Result<(), InventoryError> {
    sqlx::query(
        "UPDATE entities SET name = $1, street = $2, postal_code = $3, city = $4, region = $5, country = $6, vat_id = $7, \
         registration = $8, email = $9, payment_instructions = $10, number_prefix = $11 WHERE id = $12",
    )
    .bind(&profile.name)
    .bind(&profile.street)
    .bind(&profile.postal_code)
    .bind(&profile.city)
    .bind(&profile.region)
    .bind(&profile.country)
    .bind(&profile.vat_id)
    .bind(&profile.registration)
    .bind(&profile.email)
    .bind(&profile.payment_instructions)
    .bind(&profile.number_prefix)
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Every entity, by id.
///
/// # Errors
/// As the database answers.
pub async fn entities(db: impl AnyExecutor<'_>) -> Result<Vec<Entity>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// One entity.
///
/// # Errors
/// [`InventoryError::NoEntity`] when there is none of this id.
pub async fn entity(db: impl AnyExecutor<'_>, id: EntityId) -> Result<Entity, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(InventoryError::NoEntity(id))?)
}

async fn checked(
    connection: &mut AnyConnection,
    id: EntityId,
    profile: EntityProfile,
) -> Result<EntityProfile, InventoryError> {
    let prefix = profile.number_prefix.trim();
    let is_sound = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    if prefix.len() > MAX_PREFIX_CHARS || !prefix.chars().all(is_sound) {
        return Err(InventoryError::NumberPrefix(profile.number_prefix));
    }
    let holder = sqlx::query("SELECT id FROM entities WHERE number_prefix = $1 AND id <> $2")
        .bind(prefix)
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = holder {
        return Err(InventoryError::NumberPrefixTaken {
            prefix: prefix.to_owned(),
            holder: EntityId(row.try_get(0)?),
        });
    }
    let instructions = profile.payment_instructions.trim();
    let is_text = |c: char| is_plain(c) || c == '\n';
    if instructions.chars().count() > MAX_INSTRUCTIONS_CHARS || !instructions.chars().all(is_text) {
        return Err(InventoryError::Text {
            field: "text of payment instructions",
            max: MAX_INSTRUCTIONS_CHARS,
            text: profile.payment_instructions,
        });
    }
    let optional = |field, text: &str| checked_optional(field, text, MAX_PROFILE_CHARS);
    Ok(EntityProfile {
        name: checked_text("entity name", &profile.name, MAX_NAME_CHARS)?,
        street: optional("street", &profile.street)?,
        postal_code: optional("postal code", &profile.postal_code)?,
        city: optional("city", &profile.city)?,
        region: optional("region", &profile.region)?,
        country: country_named(&profile.country)?,
        vat_id: crate::vat_number::checked(&profile.vat_id)?,
        registration: optional("registration", &profile.registration)?,
        email: optional("email address", &profile.email)?,
        payment_instructions: instructions.to_owned(),
        number_prefix: prefix.to_owned(),
    })
}

fn read(row: &AnyRow) -> Result<Entity, InventoryError> {
    Ok(Entity {
        id: EntityId(row.try_get("id")?),
        profile: EntityProfile {
            name: row.try_get("name")?,
            street: row.try_get("street")?,
            postal_code: row.try_get("postal_code")?,
            city: row.try_get("city")?,
            region: row.try_get("region")?,
            country: row.try_get("country")?,
            vat_id: row.try_get("vat_id")?,
            registration: row.try_get("registration")?,
            email: row.try_get("email")?,
            payment_instructions: row.try_get("payment_instructions")?,
            number_prefix: row.try_get("number_prefix")?,
        },
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

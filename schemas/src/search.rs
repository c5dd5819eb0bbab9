//! What staff search for by name or address, without reading every row.
//!
//! `search_keys` holds the words of names and the first addresses of assigned prefixes as hex of their bytes, which SQLite and
//! PostgreSQL compare alike whatever their collation: what begins with a text is a range of the index. Whoever stores a name
//! or an assignment stores its keys in the same transaction; what was stored before the table existed is indexed by the
//! migration that made it.

use std::fmt::Write as _;

use ipnet::IpNet;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::address::Address;
use crate::ids::{AssignmentId, CustomerId, ServiceId};

/// Words of a name that are found.
const MAX_WORDS: usize = 12;
/// Words of a question that are looked at.
const MAX_ASKED_WORDS: usize = 4;
/// Characters of a word that are compared.
const MAX_WORD_CHARS: usize = 40;
/// Rows of one statement, three values each; both databases allow 32,767 values in one.
const ROWS_PER_STATEMENT: usize = 5_000;
/// Bits of an IPv4 address before it in its mapped form.
const MAPPED_BITS: u8 = 96;

/// What a key is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyKind {
    Customer,
    Service,
    Prefix,
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            KeyKind::Customer => "customer",
            KeyKind::Service => "service",
            KeyKind::Prefix => "prefix",
        }
    }
}

/// Runs of letters and digits in lower case, each once.
fn words(text: &str, most: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in text.to_lowercase().split(|letter: char| !letter.is_alphanumeric()) {
        let word: String = word.chars().take(MAX_WORD_CHARS).collect();
        if !word.is_empty() && !found.contains(&word) && found.len() < most {
            found.push(word);
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// First and last address of a prefix, as keys.
fn span(net: IpNet) -> (String, String) {
    let last = match net {
        IpNet::V4(net) => Address::from_v4(net.broadcast().octets()),
        IpNet::V6(net) => Address(net.broadcast().octets()),
    };
    (hex(&Address::from(net.network()).0), hex(&last.0))
}

/// The keys of every prefix that could hold this one: its first address with more and more bits cleared.
fn holders(net: IpNet) -> Vec<String> {
    let address = Address::from(net.network()).to_u128();
    let least_bits = if net.addr().is_ipv4() { MAPPED_BITS } else { 0 };
    let mut keys = Vec::new();
    for bits in least_bits..=least_bits + net.prefix_len() {
        let kept = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
        let key = hex(&(address & kept).to_be_bytes());
        if keys.last() != Some(&key) {
            keys.push(key);
        }
    }
    keys
}

async fn insert(connection: &mut AnyConnection, kind: KeyKind, keys: &[(String, i64)]) -> Result<(), sqlx::Error> {
    for chunk in keys.chunks(ROWS_PER_STATEMENT) {
        let mut sql = String::from("INSERT INTO search_keys (kind, key, subject_id) VALUES ");
        for row in 0..chunk.len() {
            let comma = if row == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}($1, ${}, ${})", row * 2 + 2, row * 2 + 3);
        }
        sql.push_str(" ON CONFLICT DO NOTHING");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(kind.name());
        for (key, subject) in chunk {
            query = query.bind(key).bind(*subject);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn customer_keys(id: CustomerId, name: &str, email: &str) -> Vec<(String, i64)> {
    keys_of(&format!("{name} {email}"), id.0)
}

fn service_keys(id: ServiceId, name: &str, site: Option<&str>) -> Vec<(String, i64)> {
    keys_of(&format!("{name} {}", site.unwrap_or_default()), id.0)
}

fn keys_of(text: &str, subject: i64) -> Vec<(String, i64)> {
    let words = words(text, MAX_WORDS).into_iter();
    words.map(|word| (hex(word.as_bytes()), subject)).collect()
}

/// Makes a customer found by these, and by nothing else.
pub(crate) async fn index_customer(
    connection: &mut AnyConnection,
    id: CustomerId,
    name: &str,
    email: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM search_keys WHERE kind = $1 AND subject_id = $2")
        .bind(KeyKind::Customer.name())
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    insert(connection, KeyKind::Customer, &customer_keys(id, name, email)).await
}

/// Makes a new service found.
pub(crate) async fn index_service(
    connection: &mut AnyConnection,
    id: ServiceId,
    name: &str,
    site: Option<&str>,
) -> Result<(), sqlx::Error> {
    insert(connection, KeyKind::Service, &service_keys(id, name, site)).await
}

/// Makes new assignments found by the addresses they hold.
pub(crate) async fn index_prefixes(
    connection: &mut AnyConnection,
    prefixes: &[(AssignmentId, IpNet)],
) -> Result<(), sqlx::Error> {
    let keys = prefixes.iter().map(|(id, net)| (span(*net).0, id.0));
    let keys: Vec<(String, i64)> = keys.collect();
    insert(connection, KeyKind::Prefix, &keys).await
}

/// Indexes everything that is stored: what the migration does that makes the table.
pub(crate) async fn index_all(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let mut keys = Vec::new();
    let rows = sqlx::query("SELECT id, name, email FROM customers")
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let (name, email): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        keys.extend(customer_keys(CustomerId(row.try_get(0)?), &name, &email));
    }
    insert(connection, KeyKind::Customer, &keys).await?;

    keys.clear();
    let rows = sqlx::query("SELECT id, name, site FROM services")
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let (name, site): (String, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
        keys.extend(service_keys(ServiceId(row.try_get(0)?), &name, site.as_deref()));
    }
    insert(connection, KeyKind::Service, &keys).await?;

    let mut prefixes = Vec::new();
    let rows = sqlx::query("SELECT id, prefix FROM assignments WHERE prefix IS NOT NULL")
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let prefix: String = row.try_get(1)?;
        // What is no prefix is refused where assignments are read.
        if let Ok(net) = prefix.parse() {
            prefixes.push((AssignmentId(row.try_get(0)?), net));
        }
    }
    index_prefixes(connection, &prefixes).await
}

/// Customers in whose name or address every word of `text` begins a word, at most `most`.
///
/// # Errors
/// As the database answers.
pub async fn customers_named(
    db: impl AnyExecutor<'_>,
    text: &str,
    most: usize,
) -> Result<Vec<CustomerId>, sqlx::Error> {
    Ok(named(db, KeyKind::Customer, text, most)
        .await?
        .into_iter()
        .map(CustomerId)
        .collect())
}

/// Services in whose name or site every word of `text` begins a word, at most `most`.
///
/// # Errors
/// As the database answers.
pub async fn services_named(db: impl AnyExecutor<'_>, text: &str, most: usize) -> Result<Vec<ServiceId>, sqlx::Error> {
    Ok(named(db, KeyKind::Service, text, most)
        .await?
        .into_iter()
        .map(ServiceId)
        .collect())
}

async fn named(db: impl AnyExecutor<'_>, kind: KeyKind, text: &str, most: usize) -> Result<Vec<i64>, sqlx::Error> {
    let mut asked = words(text, MAX_ASKED_WORDS);
    // The longest word has the fewest rows to look through.
    asked.sort_by_key(|word| std::cmp::Reverse(word.len()));
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql =
        String::from("SELECT k.subject_id FROM search_keys k WHERE k.kind = $1 AND k.key >= $2 AND k.key < $3");
    for word in 1..asked.len() {
        let _ = write!(
            sql,
            " AND EXISTS (SELECT 1 FROM search_keys o WHERE o.kind = $1 AND o.subject_id = k.subject_id \
             AND o.key >= ${} AND o.key < ${})",
            word * 2 + 2,
            word * 2 + 3
        );
    }
    // A subject may have several words that begin so.
    let rows_most = most.saturating_mul(4);
    let _ = write!(sql, " ORDER BY k.key, k.subject_id LIMIT {rows_most}");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(kind.name());
    for word in &asked {
        let from = hex(word.as_bytes());
        // Hex has no digit after f.
        let to = format!("{from}g");
        query = query.bind(from).bind(to);
    }
    let mut found: Vec<i64> = Vec::new();
    for row in &query.fetch_all(db).await? {
        let subject: i64 = row.try_get(0)?;
        if !found.contains(&subject) && found.len() < most {
            found.push(subject);
        }
    }
    Ok(found)
}

/// An assignment whose prefix holds what was asked for, or lies in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixHit {
    pub service: ServiceId,
    pub prefix: IpNet,
    pub valid_from_ms: i64,
    pub valid_to_ms: Option<i64>,
}

/// Assignments, past ones too, whose prefix holds all of `net` (the longest first), then those that lie in it, at most `most`
/// of each.
///
/// # Errors
/// As the database answers.
pub async fn assignments_at(
    connection: &mut AnyConnection,
    net: IpNet,
    most: usize,
) -> Result<Vec<PrefixHit>, sqlx::Error> {
    const COLUMNS: &str = "SELECT a.service_id, a.prefix, a.valid_from_ms, a.valid_to_ms FROM search_keys k \
         JOIN assignments a ON a.id = k.subject_id WHERE k.kind = $1 AND ";
    let net = net.trunc();
    let keys = holders(net);
    let mut sql = format!("{COLUMNS} k.key IN (");
    for key in 0..keys.len() {
        let comma = if key == 0 { "" } else { ", " };
        let _ = write!(sql, "{comma}${}", key + 2);
    }
    sql.push(')');
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(KeyKind::Prefix.name());
    for key in &keys {
        query = query.bind(key);
    }
    let mut hits: Vec<PrefixHit> = read(&query.fetch_all(&mut *connection).await?)?;
    hits.retain(|hit| hit.prefix.contains(&net));
    hits.sort_by_key(|hit| std::cmp::Reverse((hit.prefix.prefix_len(), hit.valid_from_ms)));
    hits.truncate(most);

    let (first, last) = span(net);
    let sql = format!(
        "{COLUMNS} k.key >= $2 AND k.key <= $3 ORDER BY k.key, a.id LIMIT {}",
        most.saturating_mul(2)
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(KeyKind::Prefix.name())
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await?;
    let inside = read(&rows)?.into_iter();
    hits.extend(
        inside
            .filter(|hit| net.contains(&hit.prefix) && hit.prefix != net)
            .take(most),
    );
    Ok(hits)
}

fn read(rows: &[AnyRow]) -> Result<Vec<PrefixHit>, sqlx::Error> {
    let mut hits = Vec::with_capacity(rows.len());
    for row in rows {
        let prefix: String = row.try_get(1)?;
        let Ok(prefix) = prefix.parse() else { continue };
        hits.push(PrefixHit {
            service: ServiceId(row.try_get(0)?),
            prefix,
            valid_from_ms: row.try_get(2)?,
            valid_to_ms: row.try_get(3)?,
        });
    }
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::Target;
    use crate::db::Database;
    use crate::inventory::{self, NewCustomer, NewService};

    async fn open(dir: &tempfile::TempDir) -> Database {
        Database::open(&Database::default_url(dir.path())).await.unwrap()
    }

    async fn fill(database: &Database) -> (CustomerId, ServiceId, ServiceId) {
        let mut transaction = database.begin_write().await.unwrap();
        let new = NewCustomer {
            name: "Čapek & Sons GmbH",
            email: "billing@capek.example",
            currency: "EUR",
            time_zone: "Europe/Berlin",
            country: "DE",
            tax_rate_percent: "19",
        };
        let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap().id;
        let mut services = Vec::new();
        for (name, prefixes) in [
            ("web-7.capek", &["203.0.113.0/28", "2001:db8:7::/48"][..]),
            ("db-7", &["203.0.113.16/32"]),
        ] {
            let new = NewService {
                customer,
                name,
                service_type: "vps",
                site: Some("nyc1"),
            };
            let service = inventory::create_service(&mut transaction, new, 0).await.unwrap().id;
            for prefix in prefixes {
                let target = Target::Prefix(prefix.parse().unwrap());
                inventory::assign(&mut transaction, service, target, 0, None, 0)
                    .await
                    .unwrap();
            }
            services.push(service);
        }
        transaction.commit().await.unwrap();
        (customer, services[0], services[1])
    }

    #[tokio::test]
    async fn names_are_found_by_the_beginnings_of_their_words() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir).await;
        let (customer, web, db) = fill(&database).await;
        for (text, found) in [
            ("čap", true),
            ("ČAPEK SONS", true),
            ("sons, gm", true),
            ("billing@capek.example", true),
            ("apek", false),
            ("capek sons other", false),
            ("", false),
            ("--", false),
        ] {
            let customers = customers_named(database.pool(), text, 5).await.unwrap();
            assert_eq!(customers.contains(&customer), found, "{text}");
        }
        let services = async |text: &str| services_named(database.pool(), text, 5).await.unwrap();
        assert_eq!(services("web-7").await, [web]);
        assert_eq!(services("7").await, [web, db]);
        assert_eq!(services("nyc").await, [web, db]);
        assert_eq!(services("nyc db").await, [db]);
        assert_eq!(services_named(database.pool(), "7", 1).await.unwrap().len(), 1);

        let mut transaction = database.begin_write().await.unwrap();
        inventory::change_email(&mut transaction, customer, "post@new.example")
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let customers = async |text: &str| customers_named(database.pool(), text, 5).await.unwrap();
        assert!(customers("billing").await.is_empty(), "the old address is gone");
        assert_eq!(customers("post").await, [customer]);
        assert_eq!(customers("čapek").await, [customer]);
    }

    #[tokio::test]
    async fn addresses_find_what_holds_them_and_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir).await;
        let (_, web, db) = fill(&database).await;
        for (asked, expected) in [
            ("203.0.113.9/32", vec![web]),
            ("203.0.113.16/32", vec![db]),
            ("203.0.113.17/32", vec![]),
            ("203.0.113.0/24", vec![web, db]),
            ("203.0.113.0/28", vec![web]),
            ("0.0.0.0/0", vec![web, db]),
            ("2001:db8:7:1::5/128", vec![web]),
            ("2001:db8::/32", vec![web]),
            ("2001:db8:8::/48", vec![]),
        ] {
            let mut connection = database.pool().acquire().await.unwrap();
            let hits = assignments_at(&mut connection, asked.parse().unwrap(), 10)
                .await
                .unwrap();
            let services: Vec<ServiceId> = hits.iter().map(|hit| hit.service).collect();
            assert_eq!(services, expected, "{asked}");
        }
    }

    #[tokio::test]
    async fn what_was_stored_before_the_index_is_found_too() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir).await;
        let (customer, web, _) = fill(&database).await;
        let mut transaction = database.begin_write().await.unwrap();
        let rows = async |connection: &mut AnyConnection| {
            let rows = sqlx::query("SELECT kind, key, subject_id FROM search_keys ORDER BY kind, key, subject_id")
                .fetch_all(connection)
                .await
                .unwrap();
            let row = |row: &AnyRow| (row.get::<String, _>(0), row.get::<String, _>(1), row.get::<i64, _>(2));
            rows.iter().map(row).collect::<Vec<_>>()
        };
        let before = rows(&mut *transaction).await;
        sqlx::query("DELETE FROM search_keys")
            .execute(&mut *transaction)
            .await
            .unwrap();
        index_all(&mut transaction).await.unwrap();
        assert_eq!(rows(&mut *transaction).await, before);
        transaction.commit().await.unwrap();
        assert_eq!(customers_named(database.pool(), "gmbh", 5).await.unwrap(), [customer]);
        assert_eq!(services_named(database.pool(), "web", 5).await.unwrap(), [web]);
    }
}

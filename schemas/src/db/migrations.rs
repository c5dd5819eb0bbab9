//! The migrations: numbered steps from an empty database to today's schema, each applied once, in order.
//!
//! * A migration that is on somebody's disk never changes: its SHA-256 is pinned in `schemas/sql/CHECKSUMS`. What has to
//!   change is changed by a new one.
//! * To add one: `schemas/sql/NNN_name.sql`, a line here, a line in `CHECKSUMS`, and rows for what it adds in
//!   `schemas/sql/fixtures/NNN.sql`, with which the upgrade from every earlier schema is tested.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

/// The migration that makes the search's index, which is filled from what is stored.
pub(super) const SEARCH: i64 = 20;
/// The migration from which on the database says what was applied, by which program.
pub(super) const ORIGIN: i64 = 26;
/// The migration that begins the chain of the audit log, over what was recorded before it.
pub(super) const AUDIT_SEAL: i64 = 32;

/// One step of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its number; a database's schema version is that of the last one applied.
    pub version: i64,
    pub name: &'static str,
    /// Its file in `schemas/sql/`.
    pub file: &'static str,
    /// Statements that SQLite and PostgreSQL both take.
    pub sql: &'static str,
}

impl Migration {
    /// SHA-256 of its SQL in hex, whatever ends a line where it was checked out.
    pub fn checksum(&self) -> &'static str {
        let index = MIGRATIONS.iter().position(|other| other.version == self.version);
        index.map_or("", |index| CHECKSUMS[index].as_str())
    }
}

static CHECKSUMS: LazyLock<Vec<String>> = LazyLock::new(|| MIGRATIONS.iter().map(|one| checksum_of(one.sql)).collect());

fn checksum_of(sql: &str) -> String {
    use std::fmt::Write as _;
    let text = sql.replace("\r\n", "\n");
    let sum = digest(&SHA256, text.as_bytes());
    sum.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A line of the list.
macro_rules! migration {
    ($version:expr, $name:literal, $file:literal) => {
        Migration {
            version: $version,
            name: $name,
            file: $file,
            sql: include_str!(concat!("../../sql/", $file)),
        }
    };
}

/// In order.
#[rustfmt::skip] // a migration is a line
pub(super) const MIGRATIONS: &[Migration] = &[
    migration!(1, "schema", "001_schema.sql"),
    migration!(2, "exporter corrections", "002_exporter_corrections.sql"),
    migration!(3, "given back", "003_given_back.sql"),
    migration!(4, "payment reversals", "004_payment_reversals.sql"),
    migration!(5, "corrections", "005_corrections.sql"),
    migration!(6, "usage by the time of day", "006_usage_by_the_time_of_day.sql"),
    migration!(7, "tax groups", "007_tax_groups.sql"),
    migration!(8, "held invoices", "008_held_invoices.sql"),
    migration!(9, "vat checks", "009_vat_checks.sql"),
    migration!(10, "add-ons", "010_addons.sql"),
    migration!(11, "redemptions", "011_redemptions.sql"),
    migration!(12, "guards", "012_guards.sql"),
    migration!(13, "collection", "013_collection.sql"),
    migration!(14, "collection terms", "014_collection_terms.sql"),
    migration!(15, "value dates", "015_value_dates.sql"),
    migration!(16, "paused charges", "016_paused_charges.sql"),
    migration!(17, "sign-in", "017_sign_in.sql"),
    migration!(18, "secret keys", "018_secret_keys.sql"),
    migration!(19, "probes and pruning", "019_probes_and_pruning.sql"),
    migration!(SEARCH, "search", "020_search.sql"),
    migration!(21, "test gateway", "021_test_gateway.sql"),
    migration!(22, "address changes", "022_address_changes.sql"),
    migration!(23, "approval entries", "023_approval_entries.sql"),
    migration!(24, "jobs", "024_jobs.sql"),
    migration!(25, "event consumers", "025_event_consumers.sql"),
    migration!(ORIGIN, "migration origin", "026_migration_origin.sql"),
    migration!(27, "audit chain", "027_audit_chain.sql"),
    migration!(28, "approval expiry", "028_approval_expiry.sql"),
    migration!(29, "tokens and resellers", "029_tokens_and_resellers.sql"),
    migration!(30, "customer deletion", "030_customer_deletion.sql"),
    migration!(31, "ended credit claims", "031_ended_credit_claims.sql"),
    migration!(AUDIT_SEAL, "audit seal", "032_audit_seal.sql"),
    migration!(33, "plain names", "033_plain_names.sql"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// Lines as `sha256sum` writes them.
    const PINNED: &str = include_str!("../../sql/CHECKSUMS");

    fn pinned() -> BTreeMap<&'static str, &'static str> {
        let entry = |line: &'static str| {
            let (sum, file) = line
                .split_once("  ")
                .unwrap_or_else(|| panic!("a sum and a file: {line:?}"));
            (file, sum)
        };
        PINNED.lines().map(entry).collect()
    }

    #[test]
    fn a_migration_never_changes() {
        let known: BTreeMap<&str, &Migration> = MIGRATIONS.iter().map(|known| (known.file, known)).collect();
        for (file, sum) in pinned() {
            let rule = "it is on people's disks as it was, so that their databases would differ from new ones: put it back, \
                        and change the schema by a new migration (docs/upgrades.md, Add a migration)";
            let migration = known
                .get(file)
                .unwrap_or_else(|| panic!("migration {file} was removed: {rule}"));
            assert_eq!(migration.checksum(), sum, "migration {file} was changed: {rule}");
        }
    }

    #[test]
    fn every_migration_is_pinned_and_has_rows_for_the_upgrade_tests() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let pinned = pinned();
        for migration in MIGRATIONS {
            let file = migration.file;
            assert!(
                pinned.contains_key(file),
                "migration {file} is not pinned: add this line to schemas/sql/CHECKSUMS\n{}  {file}",
                migration.checksum()
            );
            let fixture = format!("fixtures/{:03}.sql", migration.version);
            assert!(
                folder.join(&fixture).exists(),
                "migration {file} has no fixture: write rows for what it adds to schemas/sql/{fixture}, so that the upgrade \
                 of a database that has them is tested"
            );
        }
    }

    #[test]
    fn migrations_are_in_order_and_every_file_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        assert!(MIGRATIONS.is_sorted_by(|one, next| one.version < next.version));
        for migration in MIGRATIONS {
            let number = format!("{:03}_", migration.version);
            assert!(migration.file.starts_with(&number), "{migration:?}");
        }
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let is_known = MIGRATIONS.iter().any(|migration| migration.file == file);
            assert!(
                is_known || !file.ends_with(".sql"),
                "{file} is no migration: add its line to schemas/src/db/migrations.rs"
            );
        }
    }

    #[test]
    fn a_sum_does_not_depend_on_how_lines_end() {
        assert_eq!(checksum_of("a\r\nb\r\n"), checksum_of("a\nb\n"));
        // Of FIPS 180-2, appendix B.1.
        assert_eq!(
            checksum_of("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

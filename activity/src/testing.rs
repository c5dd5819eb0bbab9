//! A small world for tests: a database in a temporary folder, or a copy of its own on the shared PostgreSQL.

mod database;
mod postgres;

use std::path::{Path, PathBuf};

use fixtures::postgres::TestDatabase;
use schemas::db::Database;
use schemas::ids::CustomerId;
use schemas::inventory::{self, NewCustomer};

use postgres::Postgres;

pub(crate) struct World {
    pub(crate) database: Database,
    _home: Home,
}

/// What a world's database lives in.
#[derive(Debug)]
enum Home {
    Folder { _folder: tempfile::TempDir },
    Server { _copy: TestDatabase },
}

/// Puts a migrated database into a folder: a copy, because migrating takes longer than most tests.
pub(crate) async fn migrated(folder: &Path) {
    let migrate = async |folder: PathBuf| {
        let database = Database::open(&Database::default_url(&folder)).await.unwrap();
        database.pool().close().await;
    };
    fixtures::sqlite(folder, env!("CARGO_PKG_NAME"), migrate).await;
}

impl World {
    pub(crate) async fn new() -> World {
        let folder = fixtures::in_memory_folder();
        migrated(folder.path()).await;
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        World {
            database,
            _home: Home::Folder { _folder: folder },
        }
    }

    /// A database as of an earlier version of the schema, with what `fill` writes, upgraded.
    pub(crate) async fn upgraded(version: i64, fill: impl AsyncFnOnce(&Database)) -> World {
        let folder = fixtures::in_memory_folder();
        let url = Database::default_url(folder.path());
        let earlier = Database::open_at_version(&url, version).await.unwrap();
        fill(&earlier).await;
        earlier.pool().close().await;
        World {
            database: Database::open(&url).await.unwrap(),
            _home: Home::Folder { _folder: folder },
        }
    }

    pub(crate) async fn on_postgres() -> World {
        let copy = Postgres::migrated().await.copy();
        World {
            database: Database::open(&copy.url()).await.unwrap(),
            _home: Home::Server { _copy: copy },
        }
    }

    /// A customer with the address `customer-N@example.net`, N from 0 on.
    pub(crate) async fn customer(&self) -> CustomerId {
        let mut transaction = self.database.begin_write().await.unwrap();
        let count = inventory::customers(&mut *transaction).await.unwrap().len();
        let new = NewCustomer {
            name: "Ada Hosting",
            email: &format!("customer-{count}@example.net"),
            currency: "USD",
            time_zone: "UTC",
            country: "DE",
            tax_rate_percent: "0",
        };
        let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap();
        transaction.commit().await.unwrap();
        customer.id
    }
}

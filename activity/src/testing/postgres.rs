//! Databases on PostgreSQL for tests: copies of a migrated one, on the server that all tests share. Billing's tests have this file, too.

use fixtures::postgres::{Found, Shared, Template, TestDatabase};
use schemas::db::Database;

/// A database on the shared server that others are copied from, as `fill` leaves it.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Shared,
    template: Template,
}

impl Postgres {
    /// With nothing in it but the schema.
    pub(crate) async fn migrated() -> Postgres {
        Postgres::filled("migrated", async |_| ()).await
    }

    /// With what `fill` writes, once for each test program. The name is its own.
    pub(crate) async fn filled(name: &str, fill: impl AsyncFnOnce(&Database)) -> Postgres {
        let server = Shared::find();
        let template = match server.template(&format!("{}_{name}", env!("CARGO_PKG_NAME")), &fixtures::own_identity()) {
            Found::Ready(template) => template,
            Found::Empty(making) => {
                let database = Database::open(&making.url()).await.unwrap();
                fill(&database).await;
                database.pool().close().await;
                making.finish()
            }
        };
        Postgres { server, template }
    }

    /// A database of a test's own.
    pub(crate) fn copy(&self) -> TestDatabase {
        self.server.copy(&self.template)
    }
}

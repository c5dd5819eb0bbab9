//! What the migration makes of databases of before it.

use super::*;

async fn rows(database: &Database) -> Vec<(i64, i64, String, i64)> {
    let rows = sqlx::query(
        "SELECT line_id, credited_line_id, cause, priced_minor FROM line_credits ORDER BY line_id, credited_line_id",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    use sqlx::Row as _;
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect()
}

/// Runs the migration again on a database with documents.
async fn migrated(database: &Database) -> Vec<(i64, i64, String, i64)> {
    use sqlx::Executor as _;
    let mut transaction = database.begin_write().await.unwrap();
    transaction.execute("DROP TABLE line_credits").await.unwrap();
    let sql = include_str!("../../../../../schemas/sql/003_given_back.sql");
    transaction.execute(sqlx::raw_sql(sql)).await.unwrap();
    // As a later one names them.
    for sql in [
        "ALTER TABLE given_back RENAME TO line_credits",
        "ALTER TABLE line_credits RENAME COLUMN of_line_id TO credited_line_id",
    ] {
        transaction.execute(sql).await.unwrap();
    }
    transaction.commit().await.unwrap();
    rows(database).await
}

async fn with_everything(mut world: World) -> World {
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    let service = contract.service.id;
    world.usage.add(service, "2026-02-10T12:00:00Z", 1_100 * GIB, 0);
    let made = closed(&world, customer, MARCH).await.invoices.remove(0);
    flag(&world, service).await;
    let march = closed(&world, customer, APRIL).await.invoices.remove(0);
    taken_back(&world, march.invoice.id, Credited::Whole).await.unwrap();
    taken_back(&world, made.invoice.id, usd(900)).await.unwrap();
    world.usage = FakeUsage::default();
    let april = closed(&world, customer, MAY).await.invoices.remove(0);
    let mut transaction = world.database.begin_write().await.unwrap();
    void(&mut transaction, april.invoice.id, Rebill::Yes, "wrong", ms(MAY))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    closed(&world, customer, MAY).await;
    assert_books_are_right(&world).await;
    world
}

#[tokio::test]
async fn a_database_of_before_gets_the_rows_that_its_lines_tell_of() {
    for world in [World::new().await, World::on_postgres().await] {
        let world = with_everything(world).await;
        let written = rows(&world.database).await;
        let causes: Vec<&str> = written.iter().map(|row| row.2.as_str()).collect();
        for cause in ["adjustment", "credit_note", "rebill"] {
            assert!(causes.contains(&cause), "{causes:?}");
        }
        assert_eq!(migrated(&world.database).await, written);
    }
}

/// Credit notes of an amount named no line before.
#[tokio::test]
async fn notes_of_before_are_laid_over_the_charges_in_their_order() {
    for world in [World::new().await, World::on_postgres().await] {
        let customer = world.customer("USD", "UTC", "0").await;
        let contract = world.subscribe(customer, started_in_february()).await;
        world
            .usage
            .add(contract.service.id, "2026-02-10T12:00:00Z", 1_100 * GIB, 0);
        let made = closed(&world, customer, MARCH).await.invoices.remove(0);
        let (base, used) = (made.lines[0].id.0, made.lines[1].id.0);
        let mut notes = Vec::new();
        for minor in [1_500, 700, 300] {
            let note = read(&world, taken_back(&world, made.invoice.id, usd(minor)).await.unwrap()).await;
            // As one line, which says of what invoice and no more.
            let line = note.lines[0].id.0;
            for sql in [
                format!(
                    "DELETE FROM line_credits WHERE line_id IN (SELECT id FROM invoice_lines WHERE invoice_id = {})",
                    note.invoice.id.0
                ),
                format!(
                    "DELETE FROM invoice_lines WHERE invoice_id = {} AND id <> {line}",
                    note.invoice.id.0
                ),
                format!(
                    "UPDATE invoice_lines SET priced_minor = -{minor}, amount_minor = -{minor}, evidence = \
                     '{{\"kind\":\"reversal\",\"corrects_invoice\":\"inv_1\",\"corrects_number\":\"INV-2026-000001\",\
                     \"corrects_line\":null}}' WHERE id = {line}"
                ),
            ] {
                sqlx::query(sqlx::AssertSqlSafe(sql))
                    .execute(world.database.pool())
                    .await
                    .unwrap();
            }
            notes.push(line);
        }
        let expected: Vec<(i64, i64, String, i64)> = [
            (notes[0], base, 1_500),
            (notes[1], base, 500),
            (notes[1], used, 200),
            (notes[2], used, 300),
        ]
        .map(|(line, of_line, minor)| (line, of_line, "credit_note".to_owned(), minor))
        .to_vec();
        assert_eq!(migrated(&world.database).await, expected);
        assert_books_are_right(&world).await;

        // More was given back than was charged: it is kept, so that the check finds it.
        let sql = format!("UPDATE invoice_lines SET priced_minor = -900 WHERE id = {}", notes[2]);
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(world.database.pool())
            .await
            .unwrap();
        migrated(&world.database).await;
        let report = ledger::check(&world.database).await.unwrap();
        let found: Vec<&str> = report.violations.iter().map(|found| found.what.as_str()).collect();
        assert_eq!(
            found,
            ["given back of line 1 of INV-2026-000001: 2600 minor units instead of 2000"]
        );
    }
}

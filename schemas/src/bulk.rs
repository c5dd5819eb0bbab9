//! Many rows in one statement: what a transaction writes costs the database by its statements more than by its rows.

use sqlx::AnyConnection;
use sqlx::any::AnyArguments;
use sqlx::query::Query;

/// Rows of one statement at most: a power of two.
const ROWS_MAX: usize = 64;

/// A statement to which the values of rows are bound.
pub type AnyQuery<'q> = Query<'q, sqlx::Any, AnyArguments>;

/// Runs `sql` with `{rows}` replaced by `($1, $2), ($3, $4) …` for all of `rows`, in as few statements as its length allows.
/// `bind` binds the `columns` values of a row.
///
/// Statements have 64, 32, 16 … rows, so that there are few different ones and each stays prepared.
///
/// # Errors
/// As the database answers.
pub async fn for_rows<T>(
    connection: &mut AnyConnection,
    sql: &str,
    columns: usize,
    rows: &[T],
    bind: impl for<'q> Fn(AnyQuery<'q>, &'q T) -> AnyQuery<'q>,
) -> Result<(), sqlx::Error> {
    let mut rest = rows;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(shape(rest.len()));
        rest = others;
        let sql = sqlx::AssertSqlSafe(sql.replace("{rows}", &parameters(some.len(), columns)));
        some.iter()
            .fold(sqlx::query(sql), &bind)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Reads with `{values}` replaced by `$1, $2 …` for all of `values`, in as few statements as [`for_rows`] needs.
///
/// # Errors
/// As the database answers.
pub async fn rows_of_values<T>(
    connection: &mut AnyConnection,
    sql: &str,
    values: &[T],
    bind: impl for<'q> Fn(AnyQuery<'q>, &'q T) -> AnyQuery<'q>,
) -> Result<Vec<sqlx::any::AnyRow>, sqlx::Error> {
    let mut found = Vec::new();
    let mut rest = values;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(shape(rest.len()));
        rest = others;
        let list: Vec<String> = (1..=some.len()).map(|number| format!("${number}")).collect();
        let sql = sqlx::AssertSqlSafe(sql.replace("{values}", &list.join(", ")));
        found.extend(
            some.iter()
                .fold(sqlx::query(sql), &bind)
                .fetch_all(&mut *connection)
                .await?,
        );
    }
    Ok(found)
}

/// The largest power of two that is at most `rows` and [`ROWS_MAX`].
fn shape(rows: usize) -> usize {
    1 << rows.min(ROWS_MAX).ilog2()
}

fn parameters(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let values: Vec<String> = (1..=columns)
            .map(|column| format!("${}", row * columns + column))
            .collect();
        format!("({})", values.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[test]
    fn there_are_few_different_statements() {
        assert_eq!([1, 2, 3, 63, 64, 65, 1000].map(shape), [1, 2, 2, 32, 64, 64, 64]);
        assert_eq!(parameters(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }

    #[tokio::test]
    async fn every_row_is_written_and_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = crate::db::Database::default_url(folder.path());
        let database = crate::db::Database::open(&url).await.unwrap();
        let mut connection = database.pool().acquire().await.unwrap();
        let names: Vec<String> = (0..173).map(|number| format!("name-{number}")).collect();
        let insert = "INSERT INTO settings (name, value) VALUES {rows}";
        for_rows(&mut connection, insert, 2, &names, |query, name| {
            query.bind(name).bind("1")
        })
        .await
        .unwrap();
        for_rows::<String>(&mut connection, insert, 2, &[], |query, _| query)
            .await
            .unwrap();
        let select = "SELECT name FROM settings WHERE name IN ({values})";
        let rows = rows_of_values(&mut connection, select, &names, |query, name| query.bind(name)).await;
        let mut found: Vec<String> = rows.unwrap().iter().map(|row| row.get(0)).collect();
        found.sort();
        let mut expected = names;
        expected.sort();
        assert_eq!(found, expected);
    }
}

//! SQL on the stored tables, for people: `ezscale query`.
//!
//! A capability of the embedded store and no part of [`crate::store::FlowStore`]: what pages and billing ask are typed questions. One
//! statement that only reads, within the store's memory; the answer is text, and the engine's types stay here.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;

use crate::output;
pub use crate::output::OutputError;
use crate::store::parquet::Engine;
use crate::{Analytics, AnalyticsError};

/// Why a statement was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The statement is not SQL, would change something, or names what is not there; said in words, with what there is.
    #[error("run query: {problem}")]
    Refused { problem: String },
    /// The tables could not be read.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

schemas::error_codes! {
    SqlError: "query";
    of []
    source []
    Refused: Refused = "refused";
    Fault: Failed = "failed";
}

/// Takes SQL over the tables `flows`, `usage_5m`, `counters`, `collection_5m` and `truth_1h` (`docs/query.md`).
#[derive(Clone, Debug)]
pub struct SqlConsole {
    engine: Arc<Engine>,
}

impl Analytics {
    /// A console on these tables.
    pub fn console(&self) -> SqlConsole {
        SqlConsole {
            engine: Arc::clone(&self.store),
        }
    }
}

impl SqlConsole {
    /// Runs one statement that only reads, to its end.
    ///
    /// # Errors
    /// [`SqlError::Refused`] when the statement is at fault, else [`SqlError::Failed`].
    pub async fn ask(&self, statement: &str) -> Result<SqlAnswer, SqlError> {
        match self.engine.sql(statement).await {
            Ok((batches, schema)) if batches.is_empty() => Ok(SqlAnswer {
                batches: vec![RecordBatch::new_empty(schema)],
            }),
            Ok((batches, _)) => Ok(SqlAnswer { batches }),
            Err(error) => Err(self.in_words(error)),
        }
    }

    /// What is wrong with a statement, and where a table was asked for that is none, which there are.
    fn in_words(&self, error: AnalyticsError) -> SqlError {
        let Some(mut problem) = problem_of(&error) else {
            return SqlError::Failed(error.into());
        };
        if problem.contains("table '") && problem.contains("not found") {
            let names: Vec<&str> = self.engine.tables.iter().map(|table| table.def().name).collect();
            problem = format!("{problem}; the tables are {}", names.join(", "));
        }
        SqlError::Refused { problem }
    }
}

/// What is wrong with a statement, said once: the parser's error is both in the query's error and its cause. `None` where the
/// statement is not at fault.
fn problem_of(error: &AnalyticsError) -> Option<String> {
    let AnalyticsError::Query(error) = error else {
        return None;
    };
    match error.find_root() {
        DataFusionError::SQL(parser, _) => Some(parser.to_string()),
        root @ (DataFusionError::Plan(_) | DataFusionError::SchemaError(..)) => {
            // The tables have no catalog or schema that anybody typed.
            Some(root.strip_backtrace().replace("datafusion.public.", ""))
        }
        _ => None,
    }
}

/// The rows that a statement asked for.
#[derive(Clone, Debug)]
pub struct SqlAnswer {
    /// At least one, which tells the columns.
    batches: Vec<RecordBatch>,
}

impl SqlAnswer {
    /// Names of the columns, in their order; without rows too.
    pub fn columns(&self) -> Vec<String> {
        let schema = self.batches.first().map(RecordBatch::schema);
        let names = schema
            .iter()
            .flat_map(|schema| schema.fields())
            .map(|field| field.name().clone());
        names.collect()
    }

    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// As one JSON array of objects.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_json(&self, out: &mut impl Write) -> Result<(), OutputError> {
        output::to_json_rows(&self.batches, out)
    }

    /// As CSV (RFC 4180) under one header line.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_csv(&self, out: &mut impl Write) -> Result<(), OutputError> {
        output::to_csv(&self.batches, out)
    }

    /// As a text table, numbers to the right.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_table(&self, out: &mut impl Write) -> Result<(), OutputError> {
        output::to_table(&self.batches, out)
    }
}

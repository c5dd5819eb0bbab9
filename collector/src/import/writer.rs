//! The thread that writes an import's files while their datagrams are still being decoded.

use crossbeam_channel::Receiver;
use tables::table::{RowGroup, Token, write_row_groups};

use crate::sink::{Prepared, Step, StoreError, Tables, Written, applied};

#[derive(Debug)]
pub(super) enum Message {
    /// A file of flows starts.
    File {
        path: String,
        token: Token,
        first: RowGroup,
    },
    /// More of it.
    Group(RowGroup),
    /// The unit is complete: counters, counts and the times of the flows.
    Finish(Box<Prepared>),
}

/// What was committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CommitTotals {
    pub(super) units: u64,
    pub(super) units_known: u64,
    pub(super) files: u64,
    pub(super) files_known: u64,
}

#[derive(Debug)]
pub(super) struct FileWriter {
    tables: Tables,
    queue: Receiver<Message>,
    done: CommitTotals,
}

impl FileWriter {
    pub(super) fn new(tables: Tables, queue: Receiver<Message>) -> FileWriter {
        FileWriter {
            tables,
            queue,
            done: CommitTotals::default(),
        }
    }

    /// Runs until the importer hangs up. A unit that was not finished is not committed.
    pub(super) fn run(mut self) -> Result<CommitTotals, StoreError> {
        while let Ok(message) = self.queue.recv() {
            match message {
                Message::File { path, token, first } => self.file(&path, &token, first)?,
                Message::Finish(prepared) => self.finish(&prepared, None)?,
                // Only follows a file, whose row groups are taken there.
                Message::Group(_) => {}
            }
        }
        Ok(self.done)
    }

    fn file(&mut self, path: &str, token: &Token, first: RowGroup) -> Result<(), StoreError> {
        let mut finished: Option<Box<Prepared>> = None;
        let queue = self.queue.clone();
        let rest = std::iter::from_fn(|| match queue.recv() {
            Ok(Message::Group(group)) => Some(group),
            Ok(Message::Finish(prepared)) => {
                finished = Some(prepared);
                None
            }
            Ok(Message::File { .. }) | Err(_) => None,
        });
        let is_known = applied(&self.tables.flows, &token.writer)? >= token.number;
        let size = if is_known {
            rest.for_each(drop);
            None
        } else {
            let groups = std::iter::once(first).chain(rest).map(Ok);
            let size = write_row_groups(&self.tables.flows, path, groups).map_err(|source| StoreError::Write {
                table: self.tables.flows.def().name,
                source,
            })?;
            Some(size)
        };
        // The importer is gone before the unit was complete: what was written stays without a name, for the vacuum.
        let Some(prepared) = finished else { return Ok(()) };
        self.done.files += 1;
        self.done.files_known += u64::from(is_known);
        self.finish(&prepared, size)
    }

    fn finish(&mut self, prepared: &Prepared, flows_size: Option<u64>) -> Result<(), StoreError> {
        let is_known = applied(&self.tables.flows, &prepared.token.writer)? >= prepared.token.number;
        self.done.units += 1;
        self.done.units_known += u64::from(is_known);
        let mut written = Written {
            flows: flows_size,
            ..Written::default()
        };
        for step in Step::ALL.into_iter().filter(|step| *step != Step::WriteFlows) {
            self.tables.step(step, prepared, &mut written)?;
        }
        Ok(())
    }
}

//! Flows to row groups on several threads: enriched, summed up and encoded side by side, handed back in order.
//!
//! Decoding must follow the order of the datagrams and stays on one thread; everything after it is a function of the flows
//! alone, so that how many threads there are changes no byte of what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use tables::flow::{FLOWS, FlowColumns};
use tables::metering::Enricher;
use tables::table::{Encoder, ROW_GROUP_ROWS, RowGroup};

use crate::sink::TimeSpan;
use crate::status::FlowSummary;

/// Flows on their way to a row group.
#[derive(Debug)]
struct Job {
    number: u64,
    enricher: Arc<Enricher>,
    flows: FlowColumns,
}

/// A row group and what is known of its flows.
#[derive(Debug)]
pub(crate) struct EncodedFlows {
    pub(crate) group: RowGroup,
    pub(crate) times: TimeSpan,
    pub(crate) summary: FlowSummary,
}

#[derive(Debug)]
struct EncodedBatch {
    number: u64,
    encoded: EncodedFlows,
    /// Emptied, with its room.
    flows: FlowColumns,
}

/// The encoding threads. They end when the pool is dropped.
#[derive(Debug)]
pub(crate) struct EncodePool {
    /// `None` while being dropped.
    jobs: Option<Sender<Job>>,
    done: Receiver<EncodedBatch>,
    threads: Vec<JoinHandle<()>>,
    spare: Vec<FlowColumns>,
    next: u64,
    /// The number of the next row group to hand out.
    next_out: u64,
    waiting: BTreeMap<u64, EncodedFlows>,
}

impl EncodePool {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn new(threads: usize) -> std::io::Result<EncodePool> {
        let threads = threads.max(1);
        // One row group waits while each thread has one: what is in flight is bounded.
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(1);
        let (finished, done) = crossbeam_channel::unbounded();
        let start = |index: usize| {
            let (queue, finished) = (queue.clone(), finished.clone());
            std::thread::Builder::new()
                .name(format!("encode-{index}"))
                .spawn(move || run(&queue, &finished))
        };
        Ok(EncodePool {
            threads: (0..threads).map(start).collect::<std::io::Result<_>>()?,
            jobs: Some(jobs),
            done,
            spare: Vec::new(),
            next: 0,
            next_out: 0,
            waiting: BTreeMap::new(),
        })
    }

    /// Takes flows to encode and gives empty columns in their place. Waits while every thread is busy.
    pub(crate) fn push(&mut self, flows: &mut FlowColumns, enricher: &Arc<Enricher>) {
        while let Ok(done) = self.done.try_recv() {
            self.keep(done);
        }
        let empty = self
            .spare
            .pop()
            .unwrap_or_else(|| FlowColumns::with_capacity(ROW_GROUP_ROWS + ROW_GROUP_ROWS / 8));
        let job = Job {
            number: self.next,
            enricher: enricher.clone(),
            flows: std::mem::replace(flows, empty),
        };
        self.next += 1;
        let jobs = self.jobs.as_ref().expect("the pool takes jobs until it is dropped");
        jobs.send(job).expect("encoding threads live as long as the pool");
    }

    fn keep(&mut self, done: EncodedBatch) {
        self.waiting.insert(done.number, done.encoded);
        self.spare.push(done.flows);
    }

    /// Row groups that are finished, in the order their flows were pushed; those behind an unfinished one wait.
    pub(crate) fn finished(&mut self) -> Vec<EncodedFlows> {
        while let Ok(done) = self.done.try_recv() {
            self.keep(done);
        }
        let mut finished = Vec::new();
        while let Some(encoded) = self.waiting.remove(&self.next_out) {
            self.next_out += 1;
            finished.push(encoded);
        }
        finished
    }

    /// Every row group that was not handed out yet; waits until the last one is encoded.
    pub(crate) fn drain(&mut self) -> Vec<EncodedFlows> {
        while self.next_out + (self.waiting.len() as u64) < self.next {
            let done = self.done.recv().expect("encoding threads live as long as the pool");
            self.keep(done);
        }
        self.finished()
    }
}

impl Drop for EncodePool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic there was told by whoever waited for its result.
            let _ = thread.join();
        }
    }
}

fn run(queue: &Receiver<Job>, finished: &Sender<EncodedBatch>) {
    let mut encoder = Encoder::new(&FLOWS).expect("an encoder takes a few megabytes");
    while let Ok(Job {
        number,
        enricher,
        mut flows,
    }) = queue.recv()
    {
        enricher.enrich_columns(&mut flows);
        let encoded = EncodedFlows {
            times: span_of(&flows),
            summary: FlowSummary::of(&flows),
            group: encoder
                .encode(&flows.values())
                .expect("the columns are those of the table"),
        };
        flows.clear();
        let done = EncodedBatch { number, encoded, flows };
        if finished.send(done).is_err() {
            return;
        }
    }
}

/// Earliest start or arrival, latest end or arrival.
fn span_of(flows: &FlowColumns) -> TimeSpan {
    let least = |column: &[i64]| column.iter().copied().fold(i64::MAX, i64::min);
    let most = |column: &[i64]| column.iter().copied().fold(i64::MIN, i64::max);
    TimeSpan {
        min_ms: least(&flows.start_at_ms).min(least(&flows.received_at_ms)),
        max_ms: most(&flows.end_at_ms).max(most(&flows.received_at_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::metering::MeteringConfig;
    use tables::flow::Flow;

    #[test]
    fn row_groups_come_out_in_order_whatever_the_threads() {
        let enricher = Arc::new(Enricher::new(&MeteringConfig::default(), Arc::default()));
        let encode = |threads| {
            let mut pool = EncodePool::new(threads).unwrap();
            let mut flows = FlowColumns::default();
            for group in 1..=9_i64 {
                // Later groups are smaller and would be finished first.
                flows.extend((0..2_000 / group).map(|row| Flow {
                    received_at_ms: group,
                    start_at_ms: group,
                    end_at_ms: group,
                    bytes: row as u64,
                    ..Flow::default()
                }));
                pool.push(&mut flows, &enricher);
                assert!(flows.is_empty());
            }
            let encoded = pool.drain();
            assert!(pool.finished().is_empty());
            let of = |encoded: &EncodedFlows| {
                (
                    encoded.times.min_ms,
                    encoded.group.rows(),
                    encoded.group.column_bytes().sum::<usize>(),
                )
            };
            encoded.iter().map(of).collect::<Vec<_>>()
        };
        let alone = encode(1);
        assert_eq!(
            alone.iter().map(|(at_ms, ..)| *at_ms).collect::<Vec<_>>(),
            (1..=9).collect::<Vec<_>>()
        );
        assert_eq!(alone[8].1, 222);
        assert_eq!(encode(4), alone);
    }
}

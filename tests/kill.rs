//! F1 and F2 across kill -9, at random moments and at named ones.
//!
//! A collector is killed again and again while numbered flows of every protocol arrive ([`crate::support::numbered`] says what
//! must hold), with segments so short that a kill meets any stage of their way: received, written, synced, closed,
//! encoded, renamed, committed, checkpointed, deleted, compacted. Random moments find what nobody thought of; the named
//! ones ([`schemas::fault`]) make sure that each stage is met, recovery included.
//!
//! `EZSCALE_KILLS=100` makes it long; `EZSCALE_KILL_SEED` repeats the random choices of a run.

use std::time::{Duration, Instant};

use schemas::fault;

use crate::support::clock;
use crate::support::ezscale::{DataDir, Start};
use crate::support::numbered::{LANES, Left, Model, Targets};

/// How many random kills; where it is set, every named moment is met three times too.
const KILLS: &str = "EZSCALE_KILLS";
/// Random kills in the short form.
const KILLS_SHORT: u64 = 8;
const DATAGRAM_INTERVAL: Duration = Duration::from_millis(3);
/// Long enough for gaps in the sequence numbers to be judged (64 datagrams), in each lane.
const SETTLE_DATAGRAMS: u32 = 80 * LANES as u32;
/// Lost in each lane while nobody listens.
const LOST: u32 = 2;
const LIMIT: Duration = Duration::from_secs(60);
/// Random kills between two looks at everything.
const SETTLE_EVERY: u64 = 10;

const FIRST_LOG: &str = "manifest.created";

const CONFIG: &str = "[collector]
segment_seconds = 1
segment_max_bytes = 1048576
fsync_interval_ms = 50
compact_after_seconds = 60
";

#[test]
fn f1_f2_hold_wherever_the_process_is_killed() {
    let mut campaign = Campaign::new();
    campaign.settle();
    let is_long = number_from_environment(KILLS).is_some();
    for point in fault::POINTS.iter().filter(|point| **point != FIRST_LOG) {
        // The first pass is mostly made by recovery, a later one under load.
        let passes = if is_long {
            vec![1, 2, 3]
        } else {
            vec![1 + campaign.random.below(3)]
        };
        for pass in passes {
            campaign.abort_at(point, pass);
        }
    }
    campaign.settle();
    campaign.summary();
}

/// A table's log is made once. Nothing may be known of the exporters yet, so that their first sequence numbers and
/// templates are not: everything acknowledged is stored all the same.
#[test]
fn f1_holds_when_a_first_commit_is_killed() {
    for pass in 1..=2 {
        let mut campaign = Campaign::new();
        campaign.abort_at(FIRST_LOG, pass);
        campaign.settle_with(Model::check_stored);
    }
}

#[test]
fn f1_f2_hold_whenever_the_process_is_killed() {
    let kills = number_from_environment(KILLS).unwrap_or(KILLS_SHORT);
    let mut campaign = Campaign::new();
    campaign.settle();
    for kill in 1..=kills {
        campaign.kill_at_random(kill);
        if kill % SETTLE_EVERY == 0 {
            campaign.settle();
        }
    }
    campaign.settle();
    campaign.summary();
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text} is a whole number: {error}")),
    )
}

/// One data directory, killed again and again.
struct Campaign {
    data: DataDir,
    model: Model,
    random: Random,
    kills: u64,
    /// Kills that left so many segments in the journal, or the torn end of one.
    left: Vec<Left>,
    started: Instant,
}

impl Campaign {
    fn new() -> Self {
        let mut data = DataDir::new();
        data.set_config(CONFIG);
        Self {
            data,
            model: Model::new(),
            random: Random::new(),
            kills: 0,
            left: Vec::new(),
            started: Instant::now(),
        }
    }

    fn start() -> Start<'static> {
        Start::new("collect").netflow("127.0.0.1:0").sflow("127.0.0.1:0")
    }

    /// Compaction waits for an hour that is quiet and for a worker that is idle; everything else for datagrams.
    fn is_compaction(point: &str) -> bool {
        point.starts_with("compact.")
    }

    /// Lets the process abort at its `passes`-th pass of a point, while datagrams arrive.
    fn abort_at(&mut self, point: &str, passes: u64) {
        if Self::is_compaction(point) {
            self.model.replay(&self.data);
            self.model.replay(&self.data);
        }
        // Two tables have something to compact: there are no interface counters.
        let passes = if Self::is_compaction(point) {
            passes.min(2)
        } else {
            passes
        };
        println!("aborting at {point}, pass {passes}");
        let mut process = Self::start()
            .environment("EZSCALE_FAULT", &format!("{point}:{passes}"))
            .spawn_on(&self.data);
        // It may abort before it listens: recovery passes most of the points too.
        if process.wait_until_listening(LIMIT).is_ok() {
            let targets = Targets::of(&process);
            let deadline = Instant::now() + LIMIT;
            self.model.send(targets, 8, DATAGRAM_INTERVAL);
            while process.ended().is_none() && Instant::now() < deadline {
                if Self::is_compaction(point) {
                    std::thread::park_timeout(DATAGRAM_INTERVAL);
                } else {
                    self.model.send(targets, 8, DATAGRAM_INTERVAL);
                }
            }
        }
        let status = process.wait_for_end(LIMIT);
        let said = process.stderr();
        assert!(
            said.contains(&format!("aborted at {point}, pass {passes}")),
            "it ended with {status} and said:\n{said}"
        );
        self.after_the_kill();
    }

    /// Kills after a random time, in one of four situations.
    fn kill_at_random(&mut self, kill: u64) {
        match kill % 8 {
            // While it starts, and recovers.
            2 => {
                let process = Self::start().spawn_on(&self.data);
                self.pause_up_to(700);
                process.kill9();
            }
            // While it drains.
            4 => {
                let process = Self::start().on(&self.data);
                let datagrams = 50 + self.random.below(300) as u32;
                self.model.send(Targets::of(&process), datagrams, DATAGRAM_INTERVAL);
                process.signal("TERM");
                self.pause_up_to(400);
                process.kill9();
            }
            // While it may be compacting.
            6 => {
                self.model.replay(&self.data);
                self.model.replay(&self.data);
                let process = Self::start().on(&self.data);
                self.model.send(Targets::of(&process), 20, DATAGRAM_INTERVAL);
                self.pause_up_to(4_000);
                process.kill9();
            }
            // Under load.
            _ => {
                let process = Self::start().on(&self.data);
                let datagrams = self.random.below(800) as u32;
                self.model.send(Targets::of(&process), datagrams, DATAGRAM_INTERVAL);
                process.kill9();
            }
        }
        self.after_the_kill();
    }

    fn after_the_kill(&mut self) {
        self.kills += 1;
        self.model.lose(LOST);
        let left = self.model.check_killed(&self.data);
        println!("kill {}: {left:?}", self.kills);
        self.left.push(left);
    }

    /// Lets the collector catch up and stop by itself; then everything must be there and every count right.
    fn settle(&mut self) {
        self.settle_with(Model::check_drained);
    }

    fn settle_with(&mut self, check: fn(&mut Model, &DataDir)) {
        let process = Self::start().on(&self.data);
        self.model
            .send(Targets::of(&process), SETTLE_DATAGRAMS, Duration::from_millis(1));
        process.terminate();
        check(&mut self.model, &self.data);
    }

    fn pause_up_to(&mut self, limit_ms: u64) {
        let until = Instant::now() + Duration::from_millis(self.random.below(limit_ms));
        while Instant::now() < until {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    fn summary(&self) {
        let with = |count: fn(&Left) -> bool| self.left.iter().filter(|left| count(left)).count();
        println!(
            "{} kills in {:?}: {} datagrams sent, {} of them in flight at a kill and lost; {} kills left a segment to recover, {} more than one, {} a torn end; seed {}",
            self.kills,
            self.started.elapsed(),
            self.model.sent(),
            self.model.lost_in_flight(),
            with(|left| left.segments > 0),
            with(|left| left.segments > 1),
            with(|left| left.torn_bytes > 0),
            self.random.seed,
        );
    }
}

/// Xorshift: moments need no better randomness, and a seed repeats them.
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn new() -> Self {
        let seed =
            number_from_environment("EZSCALE_KILL_SEED").unwrap_or_else(|| clock::running().as_nanosecond() as u64 | 1);
        println!("EZSCALE_KILL_SEED={seed}");
        Self { seed, state: seed | 1 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }
}

//! Interfaces of exporters by SNMP: names, descriptions and speeds for people and boundaries, counters for the check of
//! flows against counters, which exporters of NetFlow and IPFIX would not have otherwise.
//!
//! ```text
//! each second   targets that are due ──▶ at most CONCURRENT_MAX polls at once, each with a deadline
//!               answers              ──▶ rows of `counters`, committed together every FLUSH_INTERVAL
//!                                    ──▶ collector/interfaces.json and whoever watches, when a name changed
//!               status               ──▶ collector/snmp.json, for the exporters page
//! ```
//!
//! * It holds up nothing: it runs beside the collector, and what it cannot do now is tried later. A target that does not answer
//!   is asked less and less often, up to [`BACK_OFF_MAX`].
//! * Counters are totals: a reading that is lost (a crash before its commit) loses no volume, the next one has it. So there is
//!   no journal for them.
//! * Rows are told apart from those of sFlow by their [`SNMP_DOMAIN`]; where both tell of one interface, the check believes the
//!   one that tells more often.
//! * What exporters say of their interfaces in options data (IE 82, 83) is kept here, too.
//! * Targets are the exporters that a section with `snmp` names, and those of a network with `snmp` that were heard in a
//!   protocol of ours, at most [`NETWORK_TARGETS_MAX`]: a forged datagram must not make us ask the whole network.

mod client;
mod status;
mod store;
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemas::address::Address;
use schemas::interfaces::KnownInterfaces;
use schemas::metering::MeteringConfig;
use tables::table::Storage;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

pub use client::SnmpError;
pub use status::{SnmpStatus, metrics, read};

use self::client::{InterfaceFacts, PollResult};
use self::store::CounterStore;
use self::targets::Target;
use crate::decode::netflow::AnnouncedInterface;
use crate::sink::StoreError;

/// `observation_domain` of counters that were read by SNMP.
pub const SNMP_DOMAIN: u32 = u32::MAX;
/// Exporters of sections for networks that are asked.
pub const NETWORK_TARGETS_MAX: usize = 1_024;
/// Polls at the same time.
const CONCURRENT_MAX: usize = 32;
/// Counters that were read are queryable after so long.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Rows that wait for a table that cannot be written; older ones are dropped, as newer ones hold the same totals.
const ROWS_WAITING_MAX: usize = 100_000;
/// A poll that takes longer is given up.
const POLL_DEADLINE: Duration = Duration::from_secs(60);
/// A target that does not answer is asked at least this often.
const BACK_OFF_MAX: Duration = Duration::from_secs(900);
/// Names and speeds are read again after so long, or when the device restarted or shows a new interface.
const NAMES_INTERVAL: Duration = Duration::from_secs(600);
/// How often the sections' networks are searched for exporters, and how often old names are forgotten.
const SEARCH_INTERVAL: Duration = Duration::from_secs(60);
/// The status and the names are written no more often than this.
const WRITE_INTERVAL: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_secs(1);

/// What is known of one target between polls.
#[derive(Debug, Default)]
struct State {
    due: Option<Instant>,
    is_asked: bool,
    named: Option<Instant>,
    uptime_centiseconds: u32,
    facts: BTreeMap<u32, InterfaceFacts>,
    status: SnmpStatus,
}

/// Asks exporters in the background, and keeps what they say of their interfaces.
#[derive(Debug)]
pub struct SnmpPoller {
    data_dir: PathBuf,
    metering: watch::Receiver<Arc<MeteringConfig>>,
    interfaces: KnownInterfaces,
    published: watch::Sender<Arc<KnownInterfaces>>,
    store: CounterStore,
    told: mpsc::Receiver<Vec<AnnouncedInterface>>,
    targets: BTreeMap<(Address, u16), (Target, State)>,
    names_changed: bool,
    status_changed: bool,
}

type Polled = ((Address, u16), Result<PollResult, SnmpError>, Duration);

impl SnmpPoller {
    /// Prepares to ask the exporters of `metering`, and says where their names will be told.
    ///
    /// # Errors
    /// When the table of counters cannot be opened.
    pub fn open(
        storage: impl Into<Storage>,
        metering: watch::Receiver<Arc<MeteringConfig>>,
        told: mpsc::Receiver<Vec<AnnouncedInterface>>,
    ) -> Result<(SnmpPoller, watch::Receiver<Arc<KnownInterfaces>>), StoreError> {
        let storage = storage.into();
        let interfaces = (*metering.borrow().interfaces).clone();
        let (published, subscription) = watch::channel(Arc::new(interfaces.clone()));
        let poller = SnmpPoller {
            data_dir: storage.data_dir().to_owned(),
            metering,
            interfaces,
            published,
            store: CounterStore::open(&storage)?,
            told,
            targets: BTreeMap::new(),
            names_changed: false,
            status_changed: false,
        };
        Ok((poller, subscription))
    }

    /// Works until `stop` is ready; then stores what was read.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        let mut polls: JoinSet<Polled> = JoinSet::new();
        let (mut searched, mut flushed, mut written) = (None, Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(polled) = polls.join_next(), if !polls.is_empty() => {
                    if let Ok((key, result, took)) = polled {
                        self.take(key, result, took);
                    }
                    continue;
                }
                Some(told) = self.told.recv() => {
                    self.take_announced(told);
                    continue;
                }
                _ = ticks.tick() => {}
            }
            let is_due = |at: Option<Instant>, after: Duration| at.is_none_or(|at| at.elapsed() >= after);
            if self.metering.has_changed().unwrap_or(false) || is_due(searched, SEARCH_INTERVAL) {
                searched = Some(Instant::now());
                self.search().await;
            }
            self.ask(&mut polls);
            if flushed.elapsed() >= FLUSH_INTERVAL {
                flushed = Instant::now();
                self.store.flush().await;
            }
            if written.elapsed() >= WRITE_INTERVAL {
                written = Instant::now();
                self.write();
            }
        }
        polls.abort_all();
        self.store.flush().await;
        self.write();
    }

    /// Brings the list of targets up to date. What is known of those that stay, stays.
    async fn search(&mut self) {
        let metering = self.metering.borrow_and_update().clone();
        let mut old = std::mem::take(&mut self.targets);
        for target in targets::of(&metering, &self.data_dir).await {
            let state = match old.remove(&target.key()) {
                Some((known, state)) if known.snmp == target.snmp => state,
                _ => State {
                    status: SnmpStatus::new(&target),
                    ..State::default()
                },
            };
            self.targets.insert(target.key(), (target, state));
        }
        self.status_changed |= !old.is_empty() || !self.targets.is_empty();
        self.interfaces.forget_old(schemas::clock::machine_now_ms());
    }

    /// Starts the polls that are due, as far as there is room.
    fn ask(&mut self, polls: &mut JoinSet<Polled>) {
        let now = Instant::now();
        for (key, (target, state)) in &mut self.targets {
            if polls.len() >= CONCURRENT_MAX {
                break;
            }
            if state.is_asked || state.due.is_some_and(|due| due > now) {
                continue;
            }
            state.is_asked = true;
            let names = state.named.is_none_or(|named| named.elapsed() >= NAMES_INTERVAL);
            let (key, target) = (*key, target.clone());
            let known: Vec<u32> = state.facts.keys().copied().collect();
            let uptime_centiseconds = state.uptime_centiseconds;
            polls.spawn(async move {
                let begun = Instant::now();
                let asked = client::ask(&target, names, &known, uptime_centiseconds);
                let deadline = POLL_DEADLINE.min(Duration::from_secs(target.snmp.interval_seconds));
                let result = match tokio::time::timeout(deadline, asked).await {
                    Ok(result) => result,
                    Err(_) => Err(SnmpError::Deadline {
                        seconds: deadline.as_secs(),
                    }),
                };
                (key, result, begun.elapsed())
            });
        }
    }

    fn take(&mut self, key: (Address, u16), result: Result<PollResult, SnmpError>, took: Duration) {
        let Some((target, state)) = self.targets.get_mut(&key) else {
            return;
        };
        let now_ms = schemas::clock::machine_now_ms();
        let interval = Duration::from_secs(target.snmp.interval_seconds);
        state.is_asked = false;
        state.status.asked_at_ms = now_ms;
        self.status_changed = true;
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                let failures = state.status.failed(&error);
                let pause = interval
                    .saturating_mul(1 << failures.min(5))
                    .min(BACK_OFF_MAX.max(interval));
                state.due = Some(Instant::now() + pause);
                if failures == 1 {
                    let error = crate::error_chain(&error);
                    warn!(exporter = %target.exporter, %error, "snmp: no names and no counters");
                }
                return;
            }
        };
        if state.status.failures > 0 {
            info!(exporter = %target.exporter, "snmp: answers again");
        }
        state.due = Some(Instant::now() + interval.saturating_sub(took));
        state.status.answered(now_ms, took, answer.counters.len());
        state.uptime_centiseconds = answer.uptime_centiseconds;
        if let Some(facts) = answer.facts {
            state.named = Some(Instant::now());
            for (if_index, facts) in &facts {
                let known = facts.interface(now_ms);
                self.names_changed |= self.interfaces.set(target.exporter, target.port, *if_index, known);
            }
            state.facts = facts;
        }
        // Two devices behind one address have the same indexes: their counters cannot be told apart in the table.
        if target.snmp.counters && target.port == 0 {
            let rows = answer
                .counters
                .iter()
                .map(|read| read.row(target.exporter, state.facts.get(&read.if_index)));
            self.store.push(rows);
        }
    }

    /// What options data says. SNMP says more: it wins where a device is asked.
    fn take_announced(&mut self, told: Vec<AnnouncedInterface>) {
        let now_ms = schemas::clock::machine_now_ms();
        for told in told {
            let is_asked = |state: &State| state.status.answered_at_ms > 0;
            let asked = self.targets.get(&(told.exporter, 0));
            if asked.is_some_and(|(_, state)| is_asked(state)) {
                continue;
            }
            let known = self.interfaces.interface(told.exporter, 0, told.if_index);
            let interface = told.interface.beside(known, now_ms);
            self.names_changed |= self.interfaces.set(told.exporter, 0, told.if_index, interface);
        }
    }

    /// Tells names and status.
    fn write(&mut self) {
        if std::mem::take(&mut self.names_changed) {
            self.published.send_replace(Arc::new(self.interfaces.clone()));
            let written = self
                .interfaces
                .to_file(&self.data_dir)
                .and_then(|(path, content)| write_file(&path, &content));
            if let Err(error) = written {
                warn!(%error, "names of interfaces not written");
            }
        }
        if std::mem::take(&mut self.status_changed) {
            let statuses: Vec<&SnmpStatus> = self.targets.values().map(|(_, state)| &state.status).collect();
            if let Err(error) = status::write(&self.data_dir, &statuses) {
                warn!(%error, "status of snmp not written");
            }
        }
    }
}

fn write_file(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    crate::durable::write(path, content)
}

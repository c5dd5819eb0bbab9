//! Identical questions at once are asked once, and their answer is kept for seconds.
//!
//! A page of operations that two hundred people watch asks the same of the store two hundred times a minute. Questions about the whole
//! network go through here: who asks while the answer is on its way waits for it, and who asks within [`KEPT_FOR`] gets the same. What
//! billing asks, and what is asked of one service, goes straight to the store.
//!
//! Ranges ask for the windows that start in them, so two ranges that hold the same windows are the same question, though each page's ends
//! at its own now.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemas::usage::{Gap, Peer, PeriodUsage, SeriesPoint, WindowUsage};
use schemas::window::{WINDOW_MS, WindowStart};
use tokio::sync::OnceCell;

use super::{
    Attribution, CounterReconciliationRow, ExporterCount, FlowStore, Meters, Overview, OverviewQuery, PeriodQuery,
    SeriesQuery, StoreError, WindowCount, WindowVolume,
};

/// How old an answer may be: rollups are refreshed less often.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Answers of one kind at most. Beyond them questions are asked as if nothing was kept.
const ANSWERS_MAX: usize = 256;

/// A store whose answers about the whole network are shared by all who ask.
#[derive(Debug)]
pub struct SharedAnswers {
    store: Arc<dyn FlowStore>,
    overview: Answers<OverviewQuery, Overview>,
    network_usage: Answers<(i64, i64), Vec<WindowVolume>>,
    attribution: Answers<(i64, i64), Attribution>,
    flow_records: Answers<(i64, i64), Vec<WindowCount>>,
    flows_without_rate: Answers<(i64, i64), Vec<ExporterCount>>,
    counter_reconciliation: Answers<i64, Vec<CounterReconciliationRow>>,
}

impl SharedAnswers {
    pub fn of(store: impl Into<Arc<dyn FlowStore>>) -> SharedAnswers {
        SharedAnswers {
            store: store.into(),
            overview: Answers::default(),
            network_usage: Answers::default(),
            attribution: Answers::default(),
            flow_records: Answers::default(),
            flows_without_rate: Answers::default(),
            counter_reconciliation: Answers::default(),
        }
    }
}

/// The start of the first window that starts at or after an instant.
fn window_from(at_ms: i64) -> i64 {
    WindowStart::containing(at_ms.saturating_add(WINDOW_MS - 1)).start_ms()
}

/// An answer that is there or on its way, and since when.
#[derive(Debug)]
struct Kept<A> {
    since: Instant,
    answer: Arc<OnceCell<A>>,
}

#[derive(Debug)]
struct Answers<Q, A> {
    kept_for: Duration,
    kept: Mutex<HashMap<Q, Kept<A>>>,
}

impl<Q, A> Default for Answers<Q, A> {
    fn default() -> Answers<Q, A> {
        Answers {
            kept_for: KEPT_FOR,
            kept: Mutex::default(),
        }
    }
}

impl<Q: Eq + Hash, A: Clone> Answers<Q, A> {
    /// The answer that is kept, or what `ask` answers. When the first who asks gives up or fails, the next who waits asks.
    async fn get<F>(&self, question: Q, ask: impl FnOnce() -> F) -> Result<A, StoreError>
    where
        F: Future<Output = Result<A, StoreError>>,
    {
        let answer = self.cell(question);
        answer.get_or_try_init(ask).await.cloned()
    }

    fn cell(&self, question: Q) -> Arc<OnceCell<A>> {
        let now = Instant::now();
        // Nothing that can panic happens while it is locked.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| now.duration_since(kept.since) < self.kept_for);
        if kept.len() >= ANSWERS_MAX && !kept.contains_key(&question) {
            return Arc::default();
        }
        let new = || Kept {
            since: now,
            answer: Arc::default(),
        };
        Arc::clone(&kept.entry(question).or_insert_with(new).answer)
    }
}

#[async_trait]
impl FlowStore for SharedAnswers {
    async fn settle(&self) -> Result<(), StoreError> {
        self.store.settle().await
    }

    async fn usage_windows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<Vec<WindowUsage>, StoreError> {
        self.store.usage_windows(service, from_ms, to_ms).await
    }

    async fn usage_series(&self, query: &SeriesQuery<'_>) -> Result<Vec<SeriesPoint>, StoreError> {
        self.store.usage_series(query).await
    }

    async fn period_usage(&self, queries: &[PeriodQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, StoreError> {
        self.store.period_usage(queries, now_ms).await
    }

    async fn usage_marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, StoreError> {
        self.store.usage_marks(periods).await
    }

    async fn gaps(&self, meters: &Meters, from_ms: i64, to_ms: i64) -> Result<Vec<Gap>, StoreError> {
        self.store.gaps(meters, from_ms, to_ms).await
    }

    async fn heard_until(&self) -> Result<Option<i64>, StoreError> {
        self.store.heard_until().await
    }

    /// Steps are as wide as windows or wider: a range that ends later in the same window has the same.
    async fn overview(&self, query: &OverviewQuery) -> Result<Overview, StoreError> {
        let asked = OverviewQuery {
            to_ms: window_from(query.to_ms),
            ..query.clone()
        };
        // Unless the few minutes between make another width of them.
        if asked.step_ms() != query.step_ms() || query.to_ms < query.from_ms {
            return self.store.overview(query).await;
        }
        let asked_to_ms = asked.to_ms;
        let ask = || self.store.overview(&asked);
        let answer = self.overview.get(asked.clone(), ask).await?;
        Ok(match answer.to_ms == asked_to_ms {
            true => Overview {
                to_ms: query.to_ms,
                ..answer
            },
            // It was cut.
            false => answer,
        })
    }

    async fn network_usage(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowVolume>, StoreError> {
        let (from_ms, to_ms) = (window_from(from_ms), window_from(to_ms));
        let ask = || self.store.network_usage(from_ms, to_ms);
        self.network_usage.get((from_ms, to_ms), ask).await
    }

    async fn attribution(&self, from_ms: i64, to_ms: i64) -> Result<Attribution, StoreError> {
        let (from_ms, to_ms) = (window_from(from_ms), window_from(to_ms));
        let ask = || self.store.attribution(from_ms, to_ms);
        self.attribution.get((from_ms, to_ms), ask).await
    }

    async fn flow_records(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowCount>, StoreError> {
        let (from_ms, to_ms) = (window_from(from_ms), window_from(to_ms));
        let ask = || self.store.flow_records(from_ms, to_ms);
        self.flow_records.get((from_ms, to_ms), ask).await
    }

    async fn flows_without_rate(&self, from_ms: i64, to_ms: i64) -> Result<Vec<ExporterCount>, StoreError> {
        let (from_ms, to_ms) = (window_from(from_ms), window_from(to_ms));
        let ask = || self.store.flows_without_rate(from_ms, to_ms);
        self.flows_without_rate.get((from_ms, to_ms), ask).await
    }

    async fn windows_from_flows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<Vec<WindowUsage>, StoreError> {
        self.store.windows_from_flows(service, from_ms, to_ms).await
    }

    async fn top_peers(&self, service: u32, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<Peer>, StoreError> {
        self.store.top_peers(service, from_ms, to_ms, limit).await
    }

    async fn counter_reconciliation(
        &self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<CounterReconciliationRow>, StoreError> {
        self.store.counter_reconciliation(from_ms, to_ms).await
    }

    async fn latest_counter_reconciliation(&self, now_ms: i64) -> Result<Vec<CounterReconciliationRow>, StoreError> {
        let now_ms = WindowStart::containing(now_ms).start_ms();
        let ask = || self.store.latest_counter_reconciliation(now_ms);
        self.counter_reconciliation.get(now_ms, ask).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers how often it was asked before, a while after it was asked.
    async fn answer(asked: &AtomicUsize) -> Result<usize, StoreError> {
        let before = asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(before)
    }

    #[tokio::test]
    async fn who_asks_at_once_or_soon_after_gets_one_answer() {
        let answers: Answers<&str, usize> = Answers::default();
        let asked = AtomicUsize::new(0);
        let ask = |question| answers.get(question, || answer(&asked));
        let (one, two, other) = tokio::join!(ask("a"), ask("a"), ask("b"));
        assert_eq!((one.unwrap(), two.unwrap(), other.unwrap()), (0, 0, 1));
        assert_eq!(ask("a").await.unwrap(), 0);
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one of each question");
    }

    #[tokio::test]
    async fn what_is_too_old_is_asked_again() {
        let answers: Answers<&str, usize> = Answers {
            kept_for: Duration::ZERO,
            ..Answers::default()
        };
        let asked = AtomicUsize::new(0);
        for before in 0..3 {
            assert_eq!(answers.get("a", || answer(&asked)).await.unwrap(), before);
        }
    }

    #[tokio::test]
    async fn who_waits_asks_when_the_first_gives_up() {
        let answers: Answers<&str, usize> = Answers::default();
        let asked = AtomicUsize::new(0);
        let never = answers.get("a", || async {
            asked.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        });
        let gives_up = async {
            tokio::select! {
                biased;
                _ = never => unreachable!("nobody answers"),
                () = tokio::task::yield_now() => {}
            }
        };
        let ((), waited) = tokio::join!(gives_up, answers.get("a", || answer(&asked)));
        assert_eq!(waited.unwrap(), 1, "the second to ask");
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let answers: Answers<&str, usize> = Answers::default();
        let fails = async || Err(StoreError::from(crate::AnalyticsError::Contended { attempts: 1 }));
        assert!(answers.get("a", fails).await.is_err());
        assert_eq!(answers.get("a", async || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn many_different_questions_are_answered_and_not_kept() {
        let answers: Answers<usize, usize> = Answers::default();
        for question in 0..2 * ANSWERS_MAX {
            let given = answers.get(question, || async move { Ok(question) }).await;
            assert_eq!(given.unwrap(), question);
        }
        assert_eq!(answers.kept.lock().unwrap().len(), ANSWERS_MAX);
    }

    #[test]
    fn ranges_with_the_same_windows_are_the_same_question() {
        assert_eq!(window_from(0), 0);
        assert_eq!(window_from(1), WINDOW_MS);
        assert_eq!(window_from(WINDOW_MS), WINDOW_MS);
        assert!(window_from(i64::MAX) > 0, "without end");
    }
}

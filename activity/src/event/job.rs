//! Alerts of background jobs: `job.failing` and `job.recovered`.

use async_trait::async_trait;
use serde_json::json;
use sqlx::AnyConnection;

use super::{EventType, NewEvent, publish};
use crate::job::{Alerts, Notice, NoticeKind, RunError};

/// Publishes what is to be told of jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobAlerts;

#[async_trait]
impl Alerts for JobAlerts {
    async fn tell(&self, connection: &mut AnyConnection, notice: &Notice, now_ms: i64) -> Result<(), RunError> {
        let mut facts = serde_json::Map::new();
        facts.insert("job".to_owned(), json!(notice.job));
        facts.insert("description".to_owned(), json!(notice.description));
        if !notice.instance.is_empty() {
            facts.insert("instance".to_owned(), json!(notice.instance));
        }
        let event_type = match notice.kind {
            NoticeKind::Failing => {
                facts.insert("failures_in_a_row".to_owned(), json!(notice.failures_in_a_row));
                facts.insert("error".to_owned(), json!(notice.error));
                if let Some(at_ms) = notice.last_success_at_ms {
                    facts.insert("last_success_at_ms".to_owned(), json!(at_ms));
                }
                EventType::JobFailing
            }
            NoticeKind::Recovered => EventType::JobRecovered,
        };
        let new = NewEvent {
            event_type,
            customer: None,
            subject: notice.job.to_owned(),
            payload: serde_json::Value::Object(facts),
        };
        publish(connection, new, now_ms).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use schemas::clock::Clock;
    use schemas::db::Database;
    use sqlx::Row as _;
    use tokio::task::JoinSet;

    use super::*;
    use crate::channel::dispatch;
    use crate::event::{EventFilter, list};
    use crate::job::{Context, Driver, Job, JobBoard, RunReport, Schedule, Settings};
    use crate::testing::World;

    const LIMIT: Duration = Duration::from_secs(60);

    #[derive(Debug, Default)]
    struct Counts {
        runs: AtomicU64,
        at_once: AtomicU64,
        most_at_once: AtomicU64,
        fails: AtomicBool,
    }

    struct Flaky(Arc<Counts>);

    #[async_trait]
    impl Job for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }

        fn description(&self) -> &'static str {
            "Fails when it is told to"
        }

        fn schedule(&self) -> Schedule {
            Schedule::every(Duration::from_millis(100))
        }

        fn failures_before_alert(&self) -> u64 {
            3
        }

        async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
            self.0.runs.fetch_add(1, Ordering::SeqCst);
            let at_once = self.0.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.0.at_once.fetch_sub(1, Ordering::SeqCst);
            match self.0.fails.load(Ordering::SeqCst) {
                true => Err("the test says so".into()),
                false => Ok(RunReport::Nothing),
            }
        }
    }

    async fn wait_for_runs(counts: &Counts, more: u64) {
        let until = counts.runs.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + LIMIT;
        while counts.runs.load(Ordering::SeqCst) < until {
            assert!(Instant::now() < deadline, "the job does not run");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn kinds(database: &Database) -> Vec<EventType> {
        let events = list(database.pool(), EventFilter::default(), 10).await.unwrap();
        events.iter().rev().map(|event| event.event_type).collect()
    }

    /// Two processes with one job on one database.
    async fn two_drivers(database: &Database) {
        let counts = Arc::new(Counts::default());
        let stop = tokio_util::sync::CancellationToken::new();
        let mut drivers = JoinSet::new();
        for folder in ["/srv/one", "/srv/two"] {
            let settings = Settings {
                database: database.clone(),
                clock: Clock::system(),
                board: JobBoard::default(),
                alerts: Arc::new(JobAlerts),
                folder: folder.to_owned(),
            };
            let jobs: Vec<Arc<dyn Job>> = vec![Arc::new(Flaky(Arc::clone(&counts)))];
            drivers.spawn(Driver::new(settings, jobs).run(stop.clone()));
        }
        wait_for_runs(&counts, 20).await;
        counts.fails.store(true, Ordering::SeqCst);
        wait_for_runs(&counts, 8).await;
        assert_eq!(kinds(database).await, [EventType::JobFailing]);
        counts.fails.store(false, Ordering::SeqCst);
        wait_for_runs(&counts, 8).await;
        assert_eq!(kinds(database).await, [EventType::JobFailing, EventType::JobRecovered]);
        assert_eq!(counts.most_at_once.load(Ordering::SeqCst), 1);
        stop.cancel();
        while let Some(ended) = drivers.join_next().await {
            ended.unwrap();
        }
    }

    #[tokio::test]
    async fn two_processes_on_sqlite_run_a_job_one_at_a_time_and_alert_once() {
        let world = World::new().await;
        let database = &world.database;
        // A consumer begins with what happens after its first look.
        dispatch(database, 0).await.unwrap();
        sqlx::query(
            "INSERT INTO users (id, email, name, role, password_hash, created_at_ms) \
             VALUES (1, 'ops@example.net', 'Ops', 'ops', '', 0), (2, 'root@example.net', 'Root', 'admin', '', 0), \
             (3, 'fin@example.net', 'Fin', 'finance', '', 0)",
        )
        .execute(database.pool())
        .await
        .unwrap();
        two_drivers(database).await;
        // Operations and admins are written to, once for each event.
        dispatch(database, 1).await.unwrap();
        let rows = sqlx::query("SELECT target FROM deliveries WHERE channel = 'email' ORDER BY event_id, target")
            .fetch_all(database.pool())
            .await
            .unwrap();
        let told: Vec<String> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
        let both = ["ops@example.net", "root@example.net"];
        assert_eq!(told, [both, both].concat());
    }

    #[tokio::test]
    async fn two_processes_on_postgresql_run_a_job_one_at_a_time_and_alert_once() {
        let world = World::on_postgres().await;
        two_drivers(&world.database).await;
    }
}

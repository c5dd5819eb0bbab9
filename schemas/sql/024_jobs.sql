-- Who may run which jobs: one process at a time for each lease. owner is empty where nobody has it; process identifies the
-- owner's process, so that others on its machine see that it ended; token counts the owners.
CREATE TABLE job_leases (
  name TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  process TEXT NOT NULL,
  token BIGINT NOT NULL,
  until_ms BIGINT NOT NULL
);

-- What runs by itself. instance is empty for a job that one process runs for all (lease names its lease), otherwise the process
-- and folder that it belongs to. handled_ms: the last scheduled time of a calendar that was handled. requested counts what
-- people asked for, served how much of that was run. seen_at_ms: when a process last said that it has this job.
-- hold: why it does not run though it is due.
CREATE TABLE jobs (
  name TEXT NOT NULL,
  instance TEXT NOT NULL,
  lease TEXT NOT NULL,
  description TEXT NOT NULL,
  schedule TEXT NOT NULL,
  waits_for TEXT NOT NULL,
  owner TEXT NOT NULL,
  handled_ms BIGINT,
  next_at_ms BIGINT,
  running_since_ms BIGINT,
  progress_done BIGINT NOT NULL,
  progress_total BIGINT NOT NULL,
  progress_text TEXT NOT NULL,
  hold TEXT NOT NULL,
  last_started_at_ms BIGINT,
  last_ended_at_ms BIGINT,
  last_success_at_ms BIGINT,
  last_outcome TEXT NOT NULL,
  last_text TEXT NOT NULL,
  failures_in_a_row BIGINT NOT NULL,
  alerted_at_ms BIGINT,
  requested BIGINT NOT NULL,
  served BIGINT NOT NULL,
  seen_at_ms BIGINT NOT NULL,
  PRIMARY KEY (name, instance)
);

-- Runs of jobs. cause: see activity's `job::Cause`; scheduled_ms by the job's clock; outcome: `job::Outcome`; text: what it did, or
-- why it failed.
CREATE TABLE job_runs (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  instance TEXT NOT NULL,
  owner TEXT NOT NULL,
  cause TEXT NOT NULL,
  scheduled_ms BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT,
  outcome TEXT NOT NULL,
  text TEXT NOT NULL
);
CREATE INDEX job_runs_of ON job_runs (name, id);
CREATE INDEX job_runs_started ON job_runs (started_at_ms);
CREATE INDEX job_runs_running ON job_runs (name, instance) WHERE outcome = 'running';

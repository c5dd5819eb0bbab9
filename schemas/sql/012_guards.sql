-- The last time that billing believed the machine's clock, and what the clock showed when billing stopped because it had
-- moved further than it can have (NULL: billing runs). One row.
CREATE TABLE billing_clock (
  id BIGINT PRIMARY KEY,
  good_ms BIGINT NOT NULL,
  stopped_at_ms BIGINT,
  CHECK (id = 1)
);

-- What is due but waits for a person's word, because too little of it was measured. reason: see billing's
-- `invoice::OpenReason`. coverage_percent: of the least measured usage on it. Deleted when it is finalised.
CREATE TABLE unmeasured_periods (
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  due_ms BIGINT NOT NULL,
  period_start_ms BIGINT NOT NULL,
  period_end_ms BIGINT NOT NULL,
  reason TEXT NOT NULL,
  coverage_percent BIGINT NOT NULL,
  held_at_ms BIGINT NOT NULL,
  confirmed_by TEXT,
  confirmed_at_ms BIGINT,
  note TEXT NOT NULL,
  PRIMARY KEY (customer_id, due_ms)
);

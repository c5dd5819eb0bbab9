-- What the test gateway knows, as a payment provider would keep it on its side: it moves no money, and answers as it was told.
-- card: see billing's `payment::trial::Card`; not set until the customer has chosen one.
CREATE TABLE test_gateway_setups (
  reference TEXT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  return_url TEXT NOT NULL,
  cancel_url TEXT NOT NULL,
  card TEXT
);
-- state: requires_action, succeeded, declined, cancelled. return_url: empty for a charge while the customer is away.
CREATE TABLE test_gateway_charges (
  reference TEXT PRIMARY KEY,
  idempotency_key TEXT NOT NULL UNIQUE,
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  card TEXT NOT NULL,
  state TEXT NOT NULL,
  return_url TEXT NOT NULL
);
CREATE TABLE test_gateway_refunds (
  reference TEXT PRIMARY KEY,
  idempotency_key TEXT NOT NULL UNIQUE,
  charge_reference TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL
);

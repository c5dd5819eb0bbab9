-- The relational schema, in SQL that SQLite and PostgreSQL both take.
--
-- Conventions: ids are allocated from `sequences`; booleans are BIGINT 0/1; instants are BIGINT UTC milliseconds in columns
-- that end in _ms; money is BIGINT minor units in columns that end in _minor, beside a currency; exact decimals are TEXT.

CREATE TABLE sequences (
  name TEXT PRIMARY KEY,
  next_value BIGINT NOT NULL
);

CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE customers (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE,
  currency TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  country TEXT NOT NULL,
  tax_rate_percent TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL
);

-- role: customer, ops, finance, network or admin; customer_id is set exactly for customers (S1).
CREATE TABLE users (
  id BIGINT PRIMARY KEY,
  email TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  customer_id BIGINT REFERENCES customers (id),
  password_hash TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  disabled_at_ms BIGINT,
  CHECK ((role = 'customer') = (customer_id IS NOT NULL)),
  CHECK (role IN ('customer', 'ops', 'finance', 'network', 'admin'))
);

-- token_hash: SHA-256 of the cookie's token, hex; the token itself is never stored.
CREATE TABLE sessions (
  token_hash TEXT PRIMARY KEY,
  user_id BIGINT NOT NULL REFERENCES users (id),
  csrf_token TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  last_seen_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  user_agent TEXT NOT NULL,
  ip TEXT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE services (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  name TEXT NOT NULL,
  service_type TEXT NOT NULL,
  site TEXT,
  status TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  archived_at_ms BIGINT
);
CREATE INDEX services_customer ON services (customer_id);

-- What belongs to a service, over [valid_from_ms, valid_to_ms). kind: prefix, interface, vlan.
CREATE TABLE assignments (
  id BIGINT PRIMARY KEY,
  service_id BIGINT NOT NULL REFERENCES services (id),
  kind TEXT NOT NULL,
  prefix TEXT,
  exporter TEXT,
  if_index BIGINT,
  vlan BIGINT,
  valid_from_ms BIGINT NOT NULL,
  valid_to_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  CHECK (valid_to_ms IS NULL OR valid_to_ms > valid_from_ms)
);
CREATE INDEX assignments_service ON assignments (service_id);

-- Instants from which stored flows must be attributed anew, because an assignment changed in the past.
CREATE TABLE attribution_changes (
  id BIGINT PRIMARY KEY,
  from_ms BIGINT NOT NULL,
  to_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  applied_at_ms BIGINT
);

-- billing_model: flat, transfer (included transfer, then per GB or GiB) or percentile (commit, then per Mbps).
-- usage_mode: which directions count: sum, in, out or max. quota_unit: GB = 1000^3, GiB = 1024^3.
CREATE TABLE plans (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  service_type TEXT NOT NULL,
  billing_model TEXT NOT NULL,
  included_transfer_units BIGINT NOT NULL,
  quota_unit TEXT NOT NULL,
  usage_mode TEXT NOT NULL,
  commit_mbps TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  archived_at_ms BIGINT,
  CHECK (billing_model IN ('flat', 'transfer', 'percentile')),
  CHECK (quota_unit IN ('GB', 'GiB')),
  CHECK (usage_mode IN ('sum', 'in', 'out', 'max'))
);

-- usage_rate: price of one quota unit over the included transfer, or of one Mbps over the commit, in major units.
CREATE TABLE prices (
  id BIGINT PRIMARY KEY,
  plan_id BIGINT NOT NULL REFERENCES plans (id),
  currency TEXT NOT NULL,
  cycle_months BIGINT NOT NULL,
  base_minor BIGINT NOT NULL,
  usage_rate TEXT NOT NULL,
  valid_from_ms BIGINT NOT NULL,
  UNIQUE (plan_id, currency, cycle_months, valid_from_ms)
);

-- anchor_day: day of the month on which periods start, 1 to 31, kept as agreed and never derived from the last date.
CREATE TABLE subscriptions (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  service_id BIGINT NOT NULL REFERENCES services (id),
  plan_id BIGINT NOT NULL REFERENCES plans (id),
  price_id BIGINT NOT NULL REFERENCES prices (id),
  anchor_day BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT,
  status TEXT NOT NULL,
  CHECK (anchor_day BETWEEN 1 AND 31)
);
CREATE INDEX subscriptions_customer ON subscriptions (customer_id);
CREATE INDEX subscriptions_service ON subscriptions (service_id);

-- A finalised invoice never changes (B3), so it keeps the customer's name as printed; subtotal + tax = total (B2).
CREATE TABLE invoices (
  id BIGINT PRIMARY KEY,
  number TEXT NOT NULL UNIQUE,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  customer_name TEXT NOT NULL,
  currency TEXT NOT NULL,
  period_start_ms BIGINT NOT NULL,
  period_end_ms BIGINT NOT NULL,
  time_zone TEXT NOT NULL,
  status TEXT NOT NULL,
  subtotal_minor BIGINT NOT NULL,
  tax_rate_percent TEXT NOT NULL,
  tax_minor BIGINT NOT NULL,
  total_minor BIGINT NOT NULL,
  finalised_at_ms BIGINT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  CHECK (subtotal_minor + tax_minor = total_minor)
);
CREATE INDEX invoices_customer ON invoices (customer_id);

-- kind: base, transfer_overage, percentile_overage, adjustment. evidence: JSON, what the quantity was computed from (B5).
CREATE TABLE invoice_lines (
  id BIGINT PRIMARY KEY,
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  position BIGINT NOT NULL,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  service_id BIGINT NOT NULL REFERENCES services (id),
  kind TEXT NOT NULL,
  description TEXT NOT NULL,
  quantity TEXT NOT NULL,
  unit TEXT NOT NULL,
  unit_price TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  period_start_ms BIGINT NOT NULL,
  period_end_ms BIGINT NOT NULL,
  evidence TEXT NOT NULL,
  UNIQUE (invoice_id, position)
);

-- B3: a subscription's period is charged once, whoever asks and however often.
CREATE TABLE billed_periods (
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  period_start_ms BIGINT NOT NULL,
  period_end_ms BIGINT NOT NULL,
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  PRIMARY KEY (subscription_id, period_start_ms)
);

-- name: receivable:cus_1:USD, revenue:base:USD, revenue:overage:USD, tax:USD …; kind: asset, liability, income, expense.
CREATE TABLE ledger_accounts (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  currency TEXT NOT NULL,
  customer_id BIGINT REFERENCES customers (id)
);

CREATE TABLE ledger_transactions (
  id BIGINT PRIMARY KEY,
  idempotency_key TEXT NOT NULL UNIQUE,
  invoice_id BIGINT REFERENCES invoices (id),
  description TEXT NOT NULL,
  posted_at_ms BIGINT NOT NULL
);

-- Debits are positive, credits negative; a transaction's postings sum to zero per currency (B1).
CREATE TABLE ledger_postings (
  transaction_id BIGINT NOT NULL REFERENCES ledger_transactions (id),
  position BIGINT NOT NULL,
  account_id BIGINT NOT NULL REFERENCES ledger_accounts (id),
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  PRIMARY KEY (transaction_id, position)
);
CREATE INDEX ledger_postings_account ON ledger_postings (account_id);

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

-- Who issues invoices; numbers are gapless per entity and year. The first one is there from the start.
CREATE TABLE entities (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  street TEXT NOT NULL,
  postal_code TEXT NOT NULL,
  city TEXT NOT NULL,
  region TEXT NOT NULL,
  country TEXT NOT NULL,
  vat_id TEXT NOT NULL,
  registration TEXT NOT NULL,
  email TEXT NOT NULL,
  payment_instructions TEXT NOT NULL,
  number_prefix TEXT NOT NULL UNIQUE,
  created_at_ms BIGINT NOT NULL
);
INSERT INTO entities VALUES (1, 'Hosting company', '', '', '', '', 'US', '', '', '', '', '', 0);

-- region, street, postal_code, city, vat_id, tax_exempt_reason, purchase_order: empty where unknown or none.
-- tax_rate_percent: agreed with this customer; 0: by the tax rules. prices_include_tax: what the customer is charged holds
-- the tax already. pools_usage: included transfer is counted over all services.
CREATE TABLE customers (
  id BIGINT PRIMARY KEY,
  entity_id BIGINT NOT NULL DEFAULT 1 REFERENCES entities (id),
  name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE,
  currency TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  country TEXT NOT NULL,
  region TEXT NOT NULL DEFAULT '',
  street TEXT NOT NULL DEFAULT '',
  postal_code TEXT NOT NULL DEFAULT '',
  city TEXT NOT NULL DEFAULT '',
  vat_id TEXT NOT NULL DEFAULT '',
  purchase_order TEXT NOT NULL DEFAULT '',
  tax_rate_percent TEXT NOT NULL,
  tax_exempt_reason TEXT NOT NULL DEFAULT '',
  prices_include_tax BIGINT NOT NULL DEFAULT 0,
  pools_usage BIGINT NOT NULL DEFAULT 0,
  -- Since when mail to this very address is known to be read; not set for a new address.
  email_verified_at_ms BIGINT,
  created_at_ms BIGINT NOT NULL
);

-- Links that were mailed to verify an address. token_hash: SHA-256 of the link's token, hex; the token itself is only in the
-- mail. email: where that mail went.
CREATE TABLE email_verifications (
  token_hash TEXT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  email TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL
);
CREATE INDEX email_verifications_customer ON email_verifications (customer_id);

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
  -- Since when a second factor is asked for; its secret (base32), which is there before while it is being set up; and the
  -- latest time step whose code was accepted, so that none is accepted twice.
  two_factor_at_ms BIGINT,
  two_factor_secret TEXT,
  two_factor_step BIGINT NOT NULL DEFAULT 0,
  last_seen_at_ms BIGINT,
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

-- Who gave the right password and still owes the second factor. token_hash: as in sessions.
CREATE TABLE sign_ins (
  token_hash TEXT PRIMARY KEY,
  user_id BIGINT NOT NULL REFERENCES users (id),
  attempts BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL
);
CREATE INDEX sign_ins_user ON sign_ins (user_id);

-- For who lost the second factor. code_hash: SHA-256 of user and code, hex. A code that was used is deleted.
CREATE TABLE recovery_codes (
  code_hash TEXT PRIMARY KEY,
  user_id BIGINT NOT NULL REFERENCES users (id)
);
CREATE INDEX recovery_codes_user ON recovery_codes (user_id);

CREATE TABLE services (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  name TEXT NOT NULL,
  service_type TEXT NOT NULL,
  site TEXT,
  status TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  archived_at_ms BIGINT,
  -- Since when it is this customer's: what was measured before belongs to the owner before (S1).
  owned_from_ms BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX services_customer ON services (customer_id);

-- Forms that charge or create are sent once: the token of one that was, whoever sends it again.
CREATE TABLE form_tokens (
  token TEXT PRIMARY KEY,
  used_at_ms BIGINT NOT NULL
);
CREATE INDEX form_tokens_used ON form_tokens (used_at_ms);

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

-- Traffic that is not billed, by decision of ops: windows of an attack, over [from_ms, to_ms).
CREATE TABLE usage_exclusions (
  id BIGINT PRIMARY KEY,
  service_id BIGINT NOT NULL REFERENCES services (id),
  from_ms BIGINT NOT NULL,
  to_ms BIGINT NOT NULL,
  reason TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  revoked_at_ms BIGINT,
  CHECK (to_ms > from_ms)
);
CREATE INDEX usage_exclusions_service ON usage_exclusions (service_id);

-- billing_model: flat, transfer (included transfer, then per GB or GiB) or percentile (commit, then per Mbps).
-- usage_mode: which directions count: sum, in, out or max. quota_unit: GB = 1000^3, GiB = 1024^3.
-- base_timing: the base price is charged in advance or in arrears; usage always after it was measured.
-- kind: plan, addon (beside a plan of the same service type), private (agreed with one customer, in no list).
-- badge: popular, best_value or empty. stock: how many more can be sold; NULL: no limit. attributes: JSON object.
-- tier: free plans follow the rules of F-26.
CREATE TABLE plans (
  id BIGINT PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  service_type TEXT NOT NULL,
  billing_model TEXT NOT NULL,
  included_transfer_units BIGINT NOT NULL,
  quota_unit TEXT NOT NULL,
  usage_mode TEXT NOT NULL,
  commit_mbps TEXT NOT NULL,
  base_timing TEXT NOT NULL,
  trial_days BIGINT NOT NULL,
  attributes TEXT NOT NULL,
  badge TEXT NOT NULL,
  stock BIGINT,
  is_free BIGINT NOT NULL,
  semi_annual_discount_percent TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  archived_at_ms BIGINT,
  CHECK (kind IN ('plan', 'addon', 'private')),
  CHECK (billing_model IN ('flat', 'transfer', 'percentile')),
  CHECK (quota_unit IN ('GB', 'GiB')),
  CHECK (usage_mode IN ('sum', 'in', 'out', 'max')),
  CHECK (base_timing IN ('advance', 'arrears')),
  CHECK (stock IS NULL OR stock >= 0)
);

-- A version of a price: of those with the same plan, currency and cycle the latest that is valid counts for new
-- subscriptions. usage: JSON, how a quota unit over the included transfer, or an Mbps over the commit, is priced.
CREATE TABLE prices (
  id BIGINT PRIMARY KEY,
  plan_id BIGINT NOT NULL REFERENCES plans (id),
  currency TEXT NOT NULL,
  cycle_months BIGINT NOT NULL,
  base_minor BIGINT NOT NULL,
  usage_price TEXT NOT NULL,
  valid_from_ms BIGINT NOT NULL,
  UNIQUE (plan_id, currency, cycle_months, valid_from_ms)
);

-- Exactly one of percent and amount_minor. cycles: charged cycles it lasts; NULL: for ever. plan_id: NULL for any plan.
CREATE TABLE coupons (
  id BIGINT PRIMARY KEY,
  code TEXT NOT NULL UNIQUE,
  percent TEXT,
  amount_minor BIGINT,
  currency TEXT,
  cycles BIGINT,
  plan_id BIGINT REFERENCES plans (id),
  max_redemptions BIGINT,
  redeemed BIGINT NOT NULL,
  expires_at_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  archived_at_ms BIGINT,
  CHECK ((percent IS NULL) <> (amount_minor IS NULL)),
  CHECK ((amount_minor IS NULL) = (currency IS NULL)),
  CHECK (max_redemptions IS NULL OR redeemed <= max_redemptions)
);

-- status: see billing's `subscription::State`. time_zone: of the customer at signup; it stays, so that periods never move.
-- parent_id: of an add-on, the subscription that it ends with. cancel_at_ms: when a cancelled one ends.
CREATE TABLE subscriptions (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  service_id BIGINT NOT NULL REFERENCES services (id),
  parent_id BIGINT REFERENCES subscriptions (id),
  status TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  trial_ends_at_ms BIGINT,
  cancel_at_ms BIGINT,
  ended_at_ms BIGINT,
  coupon_id BIGINT REFERENCES coupons (id),
  created_at_ms BIGINT NOT NULL,
  CHECK (status IN ('trial', 'active', 'past_due', 'suspended', 'cancelled', 'ended')),
  CHECK ((status = 'ended') = (ended_at_ms IS NOT NULL))
);
CREATE INDEX subscriptions_customer ON subscriptions (customer_id);
CREATE INDEX subscriptions_service ON subscriptions (service_id);

-- What was agreed for the local days [from_date, to_date): a change of plan, price, cycle or quantity ends one phase and
-- begins the next. Periods start on anchor_day, 1 to 31, kept as agreed and never derived from the last date; cycle_from is
-- the local day on which the cycle that the phase begins in starts. Charged are base prices up to base_to and usage up to
-- usage_to; what exactly is in `charged`.
CREATE TABLE phases (
  id BIGINT PRIMARY KEY,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  plan_id BIGINT NOT NULL REFERENCES plans (id),
  price_id BIGINT NOT NULL REFERENCES prices (id),
  quantity BIGINT NOT NULL,
  anchor_day BIGINT NOT NULL,
  cycle_from TEXT NOT NULL,
  from_date TEXT NOT NULL,
  to_date TEXT,
  base_to TEXT,
  usage_to TEXT,
  created_at_ms BIGINT NOT NULL,
  CHECK (anchor_day BETWEEN 1 AND 31),
  CHECK (quantity >= 1),
  CHECK (to_date IS NULL OR to_date >= from_date)
);
CREATE INDEX phases_subscription ON phases (subscription_id);
CREATE INDEX phases_price ON phases (price_id);

-- Why a suspended service is: it goes on when no hold is left. cause: unpaid, budget, abuse or admin.
CREATE TABLE holds (
  id BIGINT PRIMARY KEY,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  cause TEXT NOT NULL,
  reason TEXT NOT NULL,
  placed_at_ms BIGINT NOT NULL,
  lifted_at_ms BIGINT,
  CHECK (cause IN ('unpaid', 'budget', 'abuse', 'admin'))
);
CREATE INDEX holds_subscription ON holds (subscription_id);

-- Every change of a subscription's status.
CREATE TABLE subscription_events (
  id BIGINT PRIMARY KEY,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  from_status TEXT NOT NULL,
  to_status TEXT NOT NULL,
  reason TEXT NOT NULL,
  actor TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX subscription_events_subscription ON subscription_events (subscription_id);

-- F-25. kind: change (to price_id and quantity), addon (a new subscription at price_id), cancel. from_price_id: a change of
-- price that is only meant for who still pays that price when it comes.
CREATE TABLE scheduled_changes (
  id BIGINT PRIMARY KEY,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  kind TEXT NOT NULL,
  price_id BIGINT REFERENCES prices (id),
  quantity BIGINT,
  from_price_id BIGINT REFERENCES prices (id),
  at_ms BIGINT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  requested_by TEXT NOT NULL,
  requested_at_ms BIGINT NOT NULL,
  reminded_at_ms BIGINT,
  settled_at_ms BIGINT,
  CHECK (kind IN ('change', 'addon', 'cancel')),
  CHECK ((kind = 'cancel') = (price_id IS NULL)),
  CHECK (status IN ('pending', 'executed', 'cancelled', 'failed')),
  CHECK ((status = 'pending') = (settled_at_ms IS NULL))
);
CREATE INDEX scheduled_changes_subscription ON scheduled_changes (subscription_id);
CREATE INDEX scheduled_changes_due ON scheduled_changes (status, at_ms);

-- F-27.
CREATE TABLE service_transfers (
  id BIGINT PRIMARY KEY,
  service_id BIGINT NOT NULL REFERENCES services (id),
  from_customer_id BIGINT NOT NULL REFERENCES customers (id),
  to_customer_id BIGINT NOT NULL REFERENCES customers (id),
  ticket TEXT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  requested_at_ms BIGINT NOT NULL,
  approved_by TEXT,
  approved_at_ms BIGINT,
  settled_at_ms BIGINT,
  CHECK (status IN ('requested', 'approved', 'completed', 'cancelled')),
  CHECK (from_customer_id <> to_customer_id)
);

-- F-28: what was agreed with one customer, billed through a private plan. components: JSON.
CREATE TABLE deals (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  name TEXT NOT NULL,
  agreement TEXT NOT NULL,
  components TEXT NOT NULL,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  created_by TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL
);

-- What the next invoice charges or credits once beside subscriptions. invoice_id: the invoice that did.
CREATE TABLE charge_items (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  subscription_id BIGINT REFERENCES subscriptions (id),
  description TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  invoice_id BIGINT
);
CREATE INDEX charge_items_customer ON charge_items (customer_id, invoice_id);

-- Rates by place and time; region is empty for the whole country. Several may hold at once and are added, each on the net.
CREATE TABLE tax_rates (
  id BIGINT PRIMARY KEY,
  country TEXT NOT NULL,
  region TEXT NOT NULL,
  name TEXT NOT NULL,
  rate_percent TEXT NOT NULL,
  valid_from_ms BIGINT NOT NULL,
  valid_to_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  CHECK (valid_to_ms IS NULL OR valid_to_ms > valid_from_ms)
);
CREATE INDEX tax_rates_place ON tax_rates (country, region);

-- Invoices and credit notes. A finalised one never changes (B3), but for its status: it keeps seller and buyer as printed
-- (JSON). Amounts of a credit note are negative. subtotal + tax = total (B2).
CREATE TABLE invoices (
  id BIGINT PRIMARY KEY,
  kind TEXT NOT NULL,
  number TEXT NOT NULL UNIQUE,
  entity_id BIGINT NOT NULL REFERENCES entities (id),
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  customer_name TEXT NOT NULL,
  seller TEXT NOT NULL,
  buyer TEXT NOT NULL,
  currency TEXT NOT NULL,
  period_start_ms BIGINT NOT NULL,
  period_end_ms BIGINT NOT NULL,
  time_zone TEXT NOT NULL,
  status TEXT NOT NULL,
  corrects_invoice_id BIGINT REFERENCES invoices (id),
  reason TEXT NOT NULL,
  prices_include_tax BIGINT NOT NULL,
  subtotal_minor BIGINT NOT NULL,
  tax_minor BIGINT NOT NULL,
  total_minor BIGINT NOT NULL,
  finalised_at_ms BIGINT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  settled_at_ms BIGINT,
  CHECK (kind IN ('invoice', 'credit_note')),
  CHECK (status IN ('finalised', 'partially_paid', 'paid', 'void', 'uncollectible')),
  CHECK (subtotal_minor + tax_minor = total_minor)
);
CREATE INDEX invoices_customer ON invoices (customer_id);
CREATE INDEX invoices_status ON invoices (status, due_at_ms);

-- category: S standard, Z zero rated, E exempt, AE reverse charge, G export, O outside the scope (EN 16931, UNTDID 5305).
CREATE TABLE invoice_taxes (
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  position BIGINT NOT NULL,
  name TEXT NOT NULL,
  category TEXT NOT NULL,
  rate_percent TEXT NOT NULL,
  net_minor BIGINT NOT NULL,
  tax_minor BIGINT NOT NULL,
  note TEXT NOT NULL,
  PRIMARY KEY (invoice_id, position)
);

-- kind: see billing's `rating::LineKind`. amount_minor is net; priced_minor what the price came to, with tax where prices
-- include it. evidence: JSON, what it was computed from (B5).
CREATE TABLE invoice_lines (
  id BIGINT PRIMARY KEY,
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  position BIGINT NOT NULL,
  subscription_id BIGINT REFERENCES subscriptions (id),
  service_id BIGINT REFERENCES services (id),
  kind TEXT NOT NULL,
  description TEXT NOT NULL,
  quantity TEXT NOT NULL,
  unit TEXT NOT NULL,
  unit_price TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  priced_minor BIGINT NOT NULL,
  period_start_ms BIGINT NOT NULL,
  period_end_ms BIGINT NOT NULL,
  evidence TEXT NOT NULL,
  UNIQUE (invoice_id, position)
);

CREATE INDEX invoice_lines_period ON invoice_lines (subscription_id, period_start_ms);

-- B3: what was charged, by what it is: base:phs_1:2026-01-31, usage:phs_1:2026-01-31, unused:phs_1:2026-01-31:…. Whoever asks
-- and however often, it is charged once. Voiding an invoice to bill anew removes its keys; the lines stay.
CREATE TABLE charged (
  charge_key TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  subscription_id BIGINT NOT NULL REFERENCES subscriptions (id),
  phase_id BIGINT NOT NULL REFERENCES phases (id),
  start_date TEXT NOT NULL,
  end_date TEXT NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  line_id BIGINT NOT NULL REFERENCES invoice_lines (id)
);
CREATE INDEX charged_subscription ON charged (subscription_id);
CREATE INDEX charged_invoice ON charged (invoice_id);

-- Which part of which document was settled by what; what is open is the total less these. source: payment, credit,
-- credit_note, write_off. A payment that the gateway took back is a negative row.
CREATE TABLE allocations (
  id BIGINT PRIMARY KEY,
  invoice_id BIGINT NOT NULL REFERENCES invoices (id),
  source TEXT NOT NULL,
  payment_id BIGINT,
  credit_note_id BIGINT REFERENCES invoices (id),
  amount_minor BIGINT NOT NULL,
  transaction_id BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  CHECK (source IN ('payment', 'credit', 'credit_note', 'write_off')),
  CHECK ((source = 'payment') = (payment_id IS NOT NULL)),
  CHECK ((source = 'credit_note') = (credit_note_id IS NOT NULL))
);
CREATE INDEX allocations_invoice ON allocations (invoice_id);

-- A way to pay that a customer saved with a gateway. gateway_customer and reference are the gateway's.
CREATE TABLE payment_methods (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  gateway TEXT NOT NULL,
  gateway_customer TEXT NOT NULL,
  reference TEXT NOT NULL,
  kind TEXT NOT NULL,
  label TEXT NOT NULL,
  expires TEXT NOT NULL,
  is_default BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  removed_at_ms BIGINT,
  UNIQUE (gateway, reference)
);
CREATE INDEX payment_methods_customer ON payment_methods (customer_id);

-- B4: a row and its key are committed before the gateway is asked. purpose: invoice, top_up. state: see billing's
-- `payment::State`; reference: the gateway's id once known. calls: how often the gateway was asked to charge.
CREATE TABLE payments (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  invoice_id BIGINT REFERENCES invoices (id),
  purpose TEXT NOT NULL,
  gateway TEXT NOT NULL,
  method_id BIGINT REFERENCES payment_methods (id),
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  reference TEXT,
  action_url TEXT NOT NULL,
  error TEXT NOT NULL,
  calls BIGINT NOT NULL,
  note TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  check_at_ms BIGINT,
  paid_at_ms BIGINT,
  CHECK (amount_minor > 0),
  CHECK (purpose IN ('invoice', 'top_up')),
  CHECK ((purpose = 'invoice') = (invoice_id IS NOT NULL)),
  CHECK (state IN ('intent', 'unknown', 'requires_action', 'processing', 'succeeded', 'failed', 'cancelled'))
);
CREATE INDEX payments_customer ON payments (customer_id);
CREATE INDEX payments_invoice ON payments (invoice_id);
CREATE INDEX payments_check ON payments (check_at_ms);
CREATE INDEX payments_reference ON payments (gateway, reference);
-- B4: at most one payment of an invoice is under way, and at most one top-up of a customer.
CREATE UNIQUE INDEX payments_one_open ON payments (invoice_id)
  WHERE invoice_id IS NOT NULL AND state IN ('intent', 'unknown', 'requires_action', 'processing');
CREATE UNIQUE INDEX payments_one_top_up ON payments (customer_id)
  WHERE purpose = 'top_up' AND state IN ('intent', 'unknown', 'requires_action', 'processing');

-- Money that goes back; the same care as a payment. reference: the gateway's id.
CREATE TABLE refunds (
  id BIGINT PRIMARY KEY,
  payment_id BIGINT NOT NULL REFERENCES payments (id),
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  reference TEXT,
  reason TEXT NOT NULL,
  error TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  check_at_ms BIGINT,
  CHECK (amount_minor > 0),
  CHECK (state IN ('intent', 'unknown', 'processing', 'succeeded', 'failed'))
);
CREATE INDEX refunds_payment ON refunds (payment_id);

CREATE TABLE disputes (
  id BIGINT PRIMARY KEY,
  payment_id BIGINT NOT NULL REFERENCES payments (id),
  gateway TEXT NOT NULL,
  reference TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  opened_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  UNIQUE (gateway, reference),
  CHECK (status IN ('open', 'won', 'lost'))
);

-- What gateways told us; an event counts once, however often it comes.
CREATE TABLE gateway_events (
  gateway TEXT NOT NULL,
  event_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  payload TEXT NOT NULL,
  received_at_ms BIGINT NOT NULL,
  processed_at_ms BIGINT,
  error TEXT NOT NULL,
  PRIMARY KEY (gateway, event_id)
);

-- F-23. threshold and amount in the customer's currency. counted_payment_id: the last automatic top-up whose outcome is in
-- `declines`. low_said_at_ms: since when it is said that the credit is low.
CREATE TABLE top_ups (
  customer_id BIGINT PRIMARY KEY REFERENCES customers (id),
  threshold_minor BIGINT NOT NULL,
  amount_minor BIGINT NOT NULL,
  is_enabled BIGINT NOT NULL,
  declines BIGINT NOT NULL,
  not_before_ms BIGINT NOT NULL,
  counted_payment_id BIGINT NOT NULL DEFAULT 0,
  low_said_at_ms BIGINT,
  updated_at_ms BIGINT NOT NULL
);

-- F-24. thresholds: JSON array of percentages. unlocked_until_ms: paid free, up to the end of that cycle.
CREATE TABLE budgets (
  customer_id BIGINT PRIMARY KEY REFERENCES customers (id),
  amount_minor BIGINT NOT NULL,
  thresholds TEXT NOT NULL,
  suspends BIGINT NOT NULL,
  reset_day BIGINT NOT NULL,
  unlocked_until_ms BIGINT,
  updated_at_ms BIGINT NOT NULL,
  CHECK (reset_day BETWEEN 1 AND 31)
);
CREATE TABLE budget_exclusions (
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  service_id BIGINT NOT NULL REFERENCES services (id),
  PRIMARY KEY (customer_id, service_id)
);
-- Said once per cycle. basis: spent, forecast, or reset with threshold 0: that the cycle has begun.
CREATE TABLE budget_alerts (
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  cycle_start_ms BIGINT NOT NULL,
  threshold BIGINT NOT NULL,
  basis TEXT NOT NULL,
  spent_minor BIGINT NOT NULL,
  said_at_ms BIGINT NOT NULL,
  PRIMARY KEY (customer_id, cycle_start_ms, threshold, basis)
);

-- How far the collection of an unpaid invoice has come.
CREATE TABLE dunning (
  invoice_id BIGINT PRIMARY KEY REFERENCES invoices (id),
  step BIGINT NOT NULL,
  next_at_ms BIGINT,
  updated_at_ms BIGINT NOT NULL
);

-- The outbox: written in the transaction that made it true, delivered afterwards. payload: JSON.
CREATE TABLE events (
  id BIGINT PRIMARY KEY,
  event_type TEXT NOT NULL,
  customer_id BIGINT REFERENCES customers (id),
  subject TEXT NOT NULL,
  payload TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  dispatched_at_ms BIGINT
);
CREATE INDEX events_undispatched ON events (dispatched_at_ms, id);
CREATE INDEX events_customer ON events (customer_id, id);

-- channel: email, webhook. target: an address, or the endpoint's id.
CREATE TABLE deliveries (
  id BIGINT PRIMARY KEY,
  event_id BIGINT NOT NULL REFERENCES events (id),
  channel TEXT NOT NULL,
  target TEXT NOT NULL,
  status TEXT NOT NULL,
  attempts BIGINT NOT NULL,
  next_at_ms BIGINT,
  error TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  delivered_at_ms BIGINT,
  CHECK (channel IN ('email', 'webhook')),
  CHECK (status IN ('pending', 'delivered', 'failed'))
);
CREATE INDEX deliveries_due ON deliveries (status, next_at_ms);
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_target ON deliveries (target);

-- A customer's own endpoint, or the operator's where there is no customer; secret signs what is sent, and after a rotation
-- the secret before signs beside it for a while. event_types: JSON array, empty for all.
CREATE TABLE webhook_endpoints (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT REFERENCES customers (id),
  url TEXT NOT NULL,
  secret TEXT NOT NULL,
  previous_secret TEXT,
  previous_until_ms BIGINT,
  event_types TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  disabled_at_ms BIGINT,
  failures BIGINT NOT NULL
);

-- What people see in the portal.
CREATE TABLE notifications (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  event_id BIGINT NOT NULL REFERENCES events (id),
  title TEXT NOT NULL,
  body TEXT NOT NULL,
  link TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  read_at_ms BIGINT
);
CREATE INDEX notifications_customer ON notifications (customer_id, id);
CREATE INDEX notifications_unread ON notifications (customer_id) WHERE read_at_ms IS NULL;

-- F-60. change: JSON, before and after. Never updated, never deleted.
CREATE TABLE audit_log (
  id BIGINT PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  actor TEXT NOT NULL,
  user_id BIGINT REFERENCES users (id),
  ip TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  change TEXT NOT NULL,
  risk TEXT NOT NULL,
  CHECK (risk IN ('normal', 'high'))
);
CREATE INDEX audit_log_subject ON audit_log (subject);

-- F-60: an action that waits for a second admin. action and parameters say what is done on approval.
CREATE TABLE approvals (
  id BIGINT PRIMARY KEY,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  parameters TEXT NOT NULL,
  summary TEXT NOT NULL,
  status TEXT NOT NULL,
  requested_by BIGINT NOT NULL REFERENCES users (id),
  requested_at_ms BIGINT NOT NULL,
  decided_by BIGINT REFERENCES users (id),
  decided_at_ms BIGINT,
  reason TEXT NOT NULL,
  CHECK (status IN ('pending', 'approved', 'rejected')),
  CHECK ((status = 'pending') = (decided_by IS NULL)),
  CHECK (decided_by IS NULL OR decided_by <> requested_by)
);

-- name: receivable:cus_1:USD, credit:cus_1:USD, revenue:base:USD, tax:USD, cash:stripe:USD …; kind: asset, liability, income,
-- expense.
CREATE TABLE ledger_accounts (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  currency TEXT NOT NULL,
  customer_id BIGINT REFERENCES customers (id)
);
CREATE INDEX ledger_accounts_customer ON ledger_accounts (customer_id);

-- What caused a transaction is its key; the references say which invoice, payment or refund it is about.
CREATE TABLE ledger_transactions (
  id BIGINT PRIMARY KEY,
  idempotency_key TEXT NOT NULL UNIQUE,
  customer_id BIGINT REFERENCES customers (id),
  invoice_id BIGINT REFERENCES invoices (id),
  payment_id BIGINT REFERENCES payments (id),
  refund_id BIGINT REFERENCES refunds (id),
  description TEXT NOT NULL,
  posted_at_ms BIGINT NOT NULL
);
CREATE INDEX ledger_transactions_invoice ON ledger_transactions (invoice_id);
CREATE INDEX ledger_transactions_refund ON ledger_transactions (refund_id) WHERE refund_id IS NOT NULL;
CREATE INDEX ledger_transactions_payment ON ledger_transactions (payment_id);
CREATE INDEX ledger_transactions_customer ON ledger_transactions (customer_id);

-- Debits are positive, credits negative; a transaction's postings sum to zero per currency (B1).
CREATE TABLE ledger_postings (
  transaction_id BIGINT NOT NULL REFERENCES ledger_transactions (id),
  position BIGINT NOT NULL,
  account_id BIGINT NOT NULL REFERENCES ledger_accounts (id),
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  PRIMARY KEY (transaction_id, position)
);
-- Both columns: the account of a tax has a posting of nearly every transaction.
CREATE INDEX ledger_postings_account ON ledger_postings (account_id, transaction_id);

-- Invoices that are due and wait for a person. id is the invoice's own, taken when it is first held: the invoice has it when it is
-- finalised (its number is taken then). One for each customer and instant at which something is due. reason: tax_rate_missing,
-- vat_number_unconfirmed. country, region, at_ms: where and when no rate is known; vat_id: the number. released_at_ms: when nothing held it any more.
CREATE TABLE held_invoices (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  due_ms BIGINT NOT NULL,
  reason TEXT NOT NULL,
  country TEXT NOT NULL,
  region TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  vat_id TEXT NOT NULL,
  held_at_ms BIGINT NOT NULL,
  released_at_ms BIGINT,
  UNIQUE (customer_id, due_ms)
);

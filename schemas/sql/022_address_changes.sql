-- When a customer asked for another address: what is refused counts too, so that nobody finds out by asking whose addresses are
-- known here. Rows older than a day are removed by the next one.
CREATE TABLE address_changes (
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  asked_at_ms BIGINT NOT NULL
);
CREATE INDEX address_changes_customer ON address_changes (customer_id, asked_at_ms);

-- Claims of credit_claims that were settled, so that the aging of a past day finds them: what was owed from since_ms to until_ms.
-- The amount at an instant is the ledger's.
CREATE TABLE ended_credit_claims (
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  currency TEXT NOT NULL,
  since_ms BIGINT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  until_ms BIGINT NOT NULL,
  PRIMARY KEY (customer_id, currency, since_ms),
  CHECK (since_ms < until_ms)
);

-- Bank transfers that were taken back because they never came in: recorded by mistake, or returned by the bank. The payment stays
-- as it was recorded; amount_minor is what was left of it, in the payment's currency.
CREATE TABLE payment_reversals (
  payment_id BIGINT PRIMARY KEY REFERENCES payments (id),
  amount_minor BIGINT NOT NULL,
  reason TEXT NOT NULL,
  created_by TEXT NOT NULL,
  reversed_at_ms BIGINT NOT NULL,
  CHECK (amount_minor > 0)
);

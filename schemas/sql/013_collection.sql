-- Collection after its last step: the payment method that was charged because it was new; 0: none was.
ALTER TABLE dunning ADD COLUMN tried_method_id BIGINT NOT NULL DEFAULT 0;

-- What customers owe because money that had been refunded or given out already was taken back too, so that no invoice is
-- left to open again: a credit balance below zero, since when and when it is due. step as in dunning. The amount is the
-- ledger's.
CREATE TABLE credit_claims (
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  currency TEXT NOT NULL,
  since_ms BIGINT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  step BIGINT NOT NULL,
  next_at_ms BIGINT,
  updated_at_ms BIGINT NOT NULL,
  PRIMARY KEY (customer_id, currency)
);

-- Balances that are below zero already are claims too, due 14 days after what last moved them; the first look at them opens
-- the invoices that they paid.
INSERT INTO credit_claims (customer_id, currency, since_ms, due_at_ms, step, next_at_ms, updated_at_ms)
SELECT a.customer_id, a.currency, max(t.posted_at_ms), max(t.posted_at_ms) + 1209600000, 1, max(t.posted_at_ms), max(t.posted_at_ms)
FROM ledger_accounts a JOIN ledger_postings p ON p.account_id = a.id JOIN ledger_transactions t ON t.id = p.transaction_id
WHERE a.kind = 'liability' AND a.customer_id IS NOT NULL
GROUP BY a.customer_id, a.currency HAVING sum(p.amount_minor) > 0;

-- The value date of a payment: midnight UTC of the day on which the bank had it, or the instant at which the gateway did. What
-- was open on a day follows from the value dates of what settled it, not from when that was recorded.
ALTER TABLE payments ADD COLUMN value_at_ms BIGINT;
UPDATE payments SET value_at_ms = paid_at_ms;
ALTER TABLE allocations ADD COLUMN value_at_ms BIGINT NOT NULL DEFAULT 0;
UPDATE allocations SET value_at_ms = created_at_ms;
CREATE INDEX allocations_value ON allocations (value_at_ms);

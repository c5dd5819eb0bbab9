-- The last notice that was given before an invoice was due, in days before; 1000: none was.
ALTER TABLE dunning ADD COLUMN reminded_days BIGINT NOT NULL DEFAULT 1000;
-- The same before a card expires.
ALTER TABLE payment_methods ADD COLUMN expiry_notice_days BIGINT NOT NULL DEFAULT 1000;

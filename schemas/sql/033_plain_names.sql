-- Tables and columns by the nouns that pages, help and documents use for them. Nothing but names changes.
-- line_credits: which line credits which earlier one, and how much of it (B6); was given_back.
ALTER TABLE given_back RENAME TO line_credits;
ALTER TABLE line_credits RENAME COLUMN of_line_id TO credited_line_id;
DROP INDEX given_back_of;
CREATE INDEX line_credits_credited_line ON line_credits (credited_line_id);
ALTER TABLE budget_alerts RENAME COLUMN said_at_ms TO alerted_at_ms;
ALTER TABLE top_ups RENAME COLUMN low_said_at_ms TO low_balance_notified_at_ms;
ALTER TABLE address_changes RENAME COLUMN asked_at_ms TO requested_at_ms;
ALTER TABLE sign_in_attempts RENAME COLUMN means TO method;
ALTER TABLE held_invoices RENAME COLUMN at_ms TO rate_at_ms;

-- An add-on that was cancelled because its plan was: it is resumed with it. own_cancel_at_ms: the end that it had before.
ALTER TABLE subscriptions ADD COLUMN cancelled_with_parent BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN own_cancel_at_ms BIGINT;
-- A hold that came with the plan's, and is lifted with it.
ALTER TABLE holds ADD COLUMN with_parent BIGINT NOT NULL DEFAULT 0;

-- Those that end at the very instant of their plan were cancelled along.
UPDATE subscriptions SET cancelled_with_parent = 1 WHERE parent_id IS NOT NULL AND status <> 'ended'
  AND cancel_at_ms = (SELECT p.cancel_at_ms FROM subscriptions p WHERE p.id = subscriptions.parent_id);

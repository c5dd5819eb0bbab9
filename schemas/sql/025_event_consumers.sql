-- Each reaction to events has a cursor of its own. position: the last event that it has handled, or set aside. Ids of events
-- ascend in the order in which their transactions are committed, so that a cursor passes none by.
CREATE TABLE event_consumers (
  name TEXT PRIMARY KEY,
  position BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL
);

-- What a consumer could not handle: it is tried again, and holds up nothing that came after it.
CREATE TABLE event_retries (
  consumer TEXT NOT NULL,
  event_id BIGINT NOT NULL REFERENCES events (id),
  attempts BIGINT NOT NULL,
  error TEXT NOT NULL,
  failed_at_ms BIGINT NOT NULL,
  PRIMARY KEY (consumer, event_id)
);
CREATE INDEX event_retries_event ON event_retries (event_id);

-- Mail, webhooks and notifications go on where the one dispatcher of before stood; what it had passed over is tried again. The
-- others start with what happens from here on. events.dispatched_at_ms now says when the last consumer had handled an event.
INSERT INTO event_consumers (name, position, updated_at_ms)
SELECT consumers.name, coalesce((SELECT max(id) FROM events WHERE dispatched_at_ms IS NOT NULL), 0), 0
FROM (SELECT 'dispatch_mail' AS name UNION ALL SELECT 'dispatch_webhooks' UNION ALL SELECT 'dispatch_notifications') AS consumers;
INSERT INTO event_retries (consumer, event_id, attempts, error, failed_at_ms)
SELECT c.name, e.id, 0, '', e.created_at_ms FROM events e JOIN event_consumers c ON e.id <= c.position
WHERE e.dispatched_at_ms IS NULL;
INSERT INTO event_consumers (name, position, updated_at_ms) SELECT 'dispatch_discord', coalesce(max(id), 0), 0 FROM events;

-- An endpoint is a program (webhook) or a Discord channel. Of the latter the address lets anybody post: it is sealed in secret,
-- and url is what may be shown of it.
ALTER TABLE webhook_endpoints ADD COLUMN kind TEXT NOT NULL DEFAULT 'webhook';

-- channel: as activity::channel names them (email, webhook, discord). target: an address, or the endpoint's id. is_replay: sent
-- once more because somebody asked. deferred: tries that the receiver put off by its rate limit, which the schedule of retries
-- does not count.
CREATE TABLE deliveries_of_channels (
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
  is_replay BIGINT NOT NULL DEFAULT 0,
  deferred BIGINT NOT NULL DEFAULT 0,
  CHECK (status IN ('pending', 'delivered', 'failed'))
);
INSERT INTO deliveries_of_channels (id, event_id, channel, target, status, attempts, next_at_ms, error, created_at_ms,
  delivered_at_ms, is_replay)
SELECT d.id, d.event_id, d.channel, d.target, d.status, d.attempts, d.next_at_ms, d.error, d.created_at_ms, d.delivered_at_ms,
  CASE WHEN e.dispatched_at_ms < d.created_at_ms THEN 1 ELSE 0 END
FROM deliveries d JOIN events e ON e.id = d.event_id;
DROP TABLE deliveries;
ALTER TABLE deliveries_of_channels RENAME TO deliveries;
CREATE INDEX deliveries_due ON deliveries (status, next_at_ms);
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_target ON deliveries (target);
CREATE INDEX deliveries_settled ON deliveries (created_at_ms) WHERE status <> 'pending';

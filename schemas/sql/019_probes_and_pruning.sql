-- What /readyz writes to know that the database takes a row.
CREATE TABLE probes (
  name TEXT PRIMARY KEY,
  at_ms BIGINT NOT NULL
);

-- What is pruned is found without reading what stays.
CREATE INDEX deliveries_settled ON deliveries (created_at_ms) WHERE status <> 'pending';
CREATE INDEX notifications_read ON notifications (read_at_ms) WHERE read_at_ms IS NOT NULL;
CREATE INDEX notifications_event ON notifications (event_id);
CREATE INDEX sessions_expiry ON sessions (expires_at_ms);
CREATE INDEX gateway_events_payloads ON gateway_events (processed_at_ms) WHERE payload <> '';
CREATE INDEX gateway_events_waiting ON gateway_events (received_at_ms, event_id) WHERE processed_at_ms IS NULL;

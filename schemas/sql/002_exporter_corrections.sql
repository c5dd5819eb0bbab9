-- What a person said about an exporter's past: its flows that ended in [from_ms, to_ms) are read under these settings.
-- `settings` is JSON (schemas::correction::Correction); a pending one has no applied_at_ms.
CREATE TABLE exporter_corrections (
  id BIGINT PRIMARY KEY,
  exporter TEXT NOT NULL,
  from_ms BIGINT NOT NULL,
  to_ms BIGINT NOT NULL,
  settings TEXT NOT NULL,
  reason TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  applied_at_ms BIGINT,
  files_rewritten BIGINT NOT NULL DEFAULT 0,
  flows_changed BIGINT NOT NULL DEFAULT 0
);

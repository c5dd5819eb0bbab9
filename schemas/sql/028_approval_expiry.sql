-- Approvals that somebody without a user requests (an account of the operating system), that expire, and that name both of their
-- entries in the audit log. requested_by: NULL where the request's entry alone names who asked. expires_at_ms: nobody decides from
-- then on; requests of before have 14 days. decision_audit_id: NULL until it is decided, and for decisions of before.
CREATE TABLE approvals_with_expiry (
  id BIGINT PRIMARY KEY,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  parameters TEXT NOT NULL,
  summary TEXT NOT NULL,
  status TEXT NOT NULL,
  requested_by BIGINT REFERENCES users (id),
  requested_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  decided_by BIGINT REFERENCES users (id),
  decided_at_ms BIGINT,
  reason TEXT NOT NULL,
  request_audit_id BIGINT,
  decision_audit_id BIGINT,
  CHECK (status IN ('pending', 'approved', 'rejected', 'expired')),
  CHECK ((status IN ('approved', 'rejected')) = (decided_by IS NOT NULL)),
  CHECK (decided_by IS NULL OR requested_by IS NULL OR decided_by <> requested_by)
);
INSERT INTO approvals_with_expiry (id, action, subject, parameters, summary, status, requested_by, requested_at_ms, expires_at_ms,
  decided_by, decided_at_ms, reason, request_audit_id)
  SELECT id, action, subject, parameters, summary, status, requested_by, requested_at_ms, requested_at_ms + 1209600000,
  decided_by, decided_at_ms, reason, request_audit_id FROM approvals;
DROP TABLE approvals;
ALTER TABLE approvals_with_expiry RENAME TO approvals;

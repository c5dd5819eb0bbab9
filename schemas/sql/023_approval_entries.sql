-- The entry of the audit log that an approval was requested by: who became an admin after it does not decide. Requests of before
-- have none.
ALTER TABLE approvals ADD COLUMN request_audit_id BIGINT;

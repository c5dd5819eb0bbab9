-- When the account of a customer was deleted by an approval. Documents and postings stay; nothing more is sold, charged or granted.
ALTER TABLE customers ADD COLUMN deleted_at_ms BIGINT;
UPDATE customers SET deleted_at_ms = (
  SELECT min(a.decided_at_ms) FROM approvals a
  WHERE a.action = 'account_deletion' AND a.status = 'approved' AND a.subject = 'cus_' || CAST(customers.id AS TEXT)
);

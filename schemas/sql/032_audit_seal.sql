-- From here on audit_head has its row from the beginning: this migration seals what was recorded before the log was chained, or
-- begins the chain of an empty log (`schemas::audit_chain`, in the same transaction). Nothing seals anything later: a log whose
-- head is gone is broken.

-- Why the process that has a job's lease does not run it: its configuration switches the job off. Empty where it runs it.
ALTER TABLE jobs ADD COLUMN switched_off TEXT NOT NULL DEFAULT '';

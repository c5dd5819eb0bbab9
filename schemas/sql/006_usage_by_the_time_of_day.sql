-- Usage is by the terms that held at the time of day. Base prices go by the local days from_date and to_date; usage counts from
-- usage_from_ms until usage_to_ms, the start of a 5-minute window each. NULL: the local midnight of from_date, of to_date.
ALTER TABLE phases ADD COLUMN usage_from_ms BIGINT;
ALTER TABLE phases ADD COLUMN usage_to_ms BIGINT;
-- Usage was charged up to here. NULL: up to the local midnight of usage_to, where that is not NULL.
ALTER TABLE phases ADD COLUMN usage_charged_to_ms BIGINT;

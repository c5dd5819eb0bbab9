-- What staff search for, found by the beginning of a key in an index. kind: customer, service (words of their names), prefix
-- (the first address of what is assigned). key: hex of the bytes, so that every database compares them alike.
CREATE TABLE search_keys (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  subject_id BIGINT NOT NULL,
  PRIMARY KEY (kind, key, subject_id)
);
CREATE INDEX search_keys_subject ON search_keys (kind, subject_id);

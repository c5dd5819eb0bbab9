-- The audit log is a chain: each entry's hash covers its content and the hash of the entry before it (`activity::audit::chain`). What
-- may have to be erased, the names of people and what an entry says of them, lies beside the log; an entry holds a commitment to
-- it: the SHA-256 of a random salt and the text. Once text and salt are gone, the commitment says nothing, and the chain holds.

-- Who acted. name and salt: NULL once erased. commitment: empty until the log is sealed.
CREATE TABLE audit_actors (
  id BIGINT PRIMARY KEY,
  name TEXT UNIQUE,
  salt TEXT,
  commitment TEXT NOT NULL
);
INSERT INTO audit_actors (id, name, commitment)
  SELECT row_number() OVER (ORDER BY min(id)), actor, '' FROM audit_log GROUP BY actor;
INSERT INTO sequences (name, next_value) SELECT 'audit_actor', 1 + count(*) FROM audit_actors;

-- actor_id, claims_id: of audit_actors; who acted, and as whom they say they did. personal: the commitment to the row of
-- audit_personal; empty where there is none. previous_hash, hash: empty for entries of before the log was sealed.
ALTER TABLE audit_log ADD COLUMN actor_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_log ADD COLUMN claims_id BIGINT;
ALTER TABLE audit_log ADD COLUMN personal TEXT NOT NULL DEFAULT '';
ALTER TABLE audit_log ADD COLUMN previous_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE audit_log ADD COLUMN hash TEXT NOT NULL DEFAULT '';
UPDATE audit_log SET actor_id = (SELECT a.id FROM audit_actors a WHERE a.name = audit_log.actor);
ALTER TABLE audit_log DROP COLUMN actor;

-- What an entry says of people: JSON, shown as a part of its change. A row that is gone was erased.
CREATE TABLE audit_personal (
  entry_id BIGINT PRIMARY KEY,
  salt TEXT NOT NULL,
  text TEXT NOT NULL
);

-- Where the chain ends: one row, once the log is sealed by the first entry after this migration. sealed_hash covers the entries
-- up to sealed_id, which have no hash of their own.
CREATE TABLE audit_head (
  id BIGINT PRIMARY KEY,
  sealed_id BIGINT NOT NULL,
  sealed_hash TEXT NOT NULL,
  last_id BIGINT NOT NULL,
  hash TEXT NOT NULL,
  CHECK (id = 1)
);

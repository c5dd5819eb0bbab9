-- Which keys of the key file seal the secrets that must be read back (users.two_factor_secret, webhook_endpoints.secret and
-- previous_secret): the keys themselves are in the key file alone. key_id: see schemas/src/secret/. More than one: a rotation
-- is under way.
CREATE TABLE secret_keys (
  key_id TEXT PRIMARY KEY,
  is_current BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  CHECK (is_current IN (0, 1))
);
CREATE UNIQUE INDEX secret_keys_current ON secret_keys (is_current) WHERE is_current = 1;

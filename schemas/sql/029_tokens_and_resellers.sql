-- Tokens by which a user proves on the command line who they are. token_hash: SHA-256 of the token, hex; the token itself is never
-- stored. A token that was revoked is gone.
CREATE TABLE user_tokens (
  id BIGINT PRIMARY KEY,
  user_id BIGINT NOT NULL REFERENCES users (id),
  name TEXT NOT NULL,
  token_hash TEXT NOT NULL UNIQUE,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  last_used_at_ms BIGINT
);
CREATE INDEX user_tokens_user ON user_tokens (user_id);

-- Customers who sell on what they buy: other prices of theirs are of high risk.
CREATE TABLE resellers (
  customer_id BIGINT PRIMARY KEY REFERENCES customers (id),
  since_ms BIGINT NOT NULL
);

-- Attempts to sign in, good and bad: shown to the user and to admins, and forgotten after 90 days. user_id: of whom, where the email
-- address is somebody's; email: as typed, where it looks like an address. outcome: signed_in, code_asked, wrong_password, wrong_code,
-- disabled. means: password, app, recovery_code, empty where it failed. is_known_device: the browser had signed this user in before.
CREATE TABLE sign_in_attempts (
  id BIGINT PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  user_id BIGINT REFERENCES users (id),
  email TEXT NOT NULL,
  outcome TEXT NOT NULL,
  means TEXT NOT NULL,
  ip TEXT NOT NULL,
  user_agent TEXT NOT NULL,
  is_known_device BIGINT NOT NULL
);
CREATE INDEX sign_in_attempts_user ON sign_in_attempts (user_id, id);
CREATE INDEX sign_in_attempts_at ON sign_in_attempts (at_ms);

-- Browsers that have signed a user in: their guesses are counted apart from those of strangers. token_hash: as in sessions.
CREATE TABLE known_devices (
  token_hash TEXT NOT NULL,
  user_id BIGINT NOT NULL REFERENCES users (id),
  used_at_ms BIGINT NOT NULL,
  PRIMARY KEY (token_hash, user_id)
);
CREATE INDEX known_devices_user ON known_devices (user_id);

-- Links that were mailed to set a new password. token_hash: as in sessions.
CREATE TABLE password_resets (
  token_hash TEXT PRIMARY KEY,
  user_id BIGINT NOT NULL REFERENCES users (id),
  expires_at_ms BIGINT NOT NULL
);
CREATE INDEX password_resets_user ON password_resets (user_id);

-- How many of them a user was mailed.
CREATE INDEX events_password_resets ON events (subject, created_at_ms) WHERE event_type = 'user.password_reset_requested';

ALTER TABLE users ADD COLUMN password_changed_at_ms BIGINT;

-- What was found out about customers' VAT numbers: evidence, of which nothing is changed or removed. answer: valid, invalid,
-- unavailable (nobody answered), accepted (a person took it). consultation: the number under which the register keeps that it
-- was asked. requester: whose number asked. name, address: as the register answered, where it does. detail: why there was no
-- answer, or why a person accepted it. source: vies, or who accepted it.
CREATE TABLE vat_checks (
  id BIGINT PRIMARY KEY,
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  vat_id TEXT NOT NULL,
  answer TEXT NOT NULL,
  consultation TEXT NOT NULL,
  requester TEXT NOT NULL,
  name TEXT NOT NULL,
  address TEXT NOT NULL,
  detail TEXT NOT NULL,
  source TEXT NOT NULL,
  checked_at_ms BIGINT NOT NULL,
  CHECK (answer IN ('valid', 'invalid', 'unavailable', 'accepted'))
);
CREATE INDEX vat_checks_customer ON vat_checks (customer_id, id);

-- B6: which line gives back which earlier one, and how much of it, so that nothing is given back twice. What is left of a line is
-- its price less the sum here. priced_minor: as priced, above zero where a charge is given back, below where a line that gives
-- back is taken back itself (then the charge behind it has a row too). cause: discount, unused, adjustment, credit_note, void,
-- or rebill: void, and its charges are made again.
CREATE TABLE given_back (
  line_id BIGINT NOT NULL REFERENCES invoice_lines (id),
  of_line_id BIGINT NOT NULL REFERENCES invoice_lines (id),
  cause TEXT NOT NULL,
  priced_minor BIGINT NOT NULL,
  PRIMARY KEY (line_id, of_line_id),
  CHECK (cause IN ('discount', 'unused', 'adjustment', 'credit_note', 'void', 'rebill')),
  CHECK (priced_minor <> 0)
);
CREATE INDEX given_back_of ON given_back (of_line_id);

-- What was given back so far, from the evidence of the lines. A discount follows the line that it is taken off.
INSERT INTO given_back (line_id, of_line_id, cause, priced_minor)
  SELECT d.id, b.id, 'discount', -d.priced_minor FROM invoice_lines d
  JOIN invoice_lines b ON b.invoice_id = d.invoice_id AND b.position = d.position - 1
  WHERE d.priced_minor <> 0 AND d.evidence LIKE '{"kind":"discount"%';
INSERT INTO given_back (line_id, of_line_id, cause, priced_minor)
  SELECT g.id, l.id, g.kind, -g.priced_minor FROM invoice_lines g
  JOIN invoice_lines l ON l.subscription_id = g.subscription_id AND l.id < g.id
    AND g.evidence LIKE '%"corrects_line":"inl_' || CAST(l.id AS TEXT) || '"%'
  WHERE g.priced_minor < 0
    AND (g.evidence LIKE '{"kind":"unused"%' OR g.evidence LIKE '{"kind":"adjustment"%');
-- Credit notes line for line.
INSERT INTO given_back (line_id, of_line_id, cause, priced_minor)
  SELECT g.id, l.id, CASE
      WHEN i.status <> 'void' THEN 'credit_note'
      WHEN EXISTS (SELECT 1 FROM charged c WHERE c.invoice_id = i.id) THEN 'void'
      ELSE 'rebill' END, -g.priced_minor
  FROM invoice_lines g JOIN invoices n ON n.id = g.invoice_id
  JOIN invoices i ON i.id = n.corrects_invoice_id
  JOIN invoice_lines l ON l.invoice_id = i.id
    AND g.evidence LIKE '%"corrects_line":"inl_' || CAST(l.id AS TEXT) || '"%'
  WHERE g.priced_minor <> 0 AND g.evidence LIKE '{"kind":"reversal"%';
-- Whoever takes back a line that gives back, charges again what that gave back.
INSERT INTO given_back (line_id, of_line_id, cause, priced_minor)
  SELECT r.line_id, o.of_line_id, r.cause, r.priced_minor FROM given_back r
  JOIN given_back o ON o.line_id = r.of_line_id
  WHERE r.cause IN ('credit_note', 'void', 'rebill');
-- Credit notes of an amount named no line: they are laid over what was left of the invoice's charges, in their order; what
-- exceeds that is of the first.
INSERT INTO given_back (line_id, of_line_id, cause, priced_minor)
  WITH notes AS (
    SELECT g.id AS line_id, n.corrects_invoice_id AS invoice_id, -g.priced_minor AS amount,
      sum(-g.priced_minor) OVER (PARTITION BY n.corrects_invoice_id ORDER BY g.id) AS up_to
    FROM invoice_lines g JOIN invoices n ON n.id = g.invoice_id
    WHERE n.corrects_invoice_id IS NOT NULL AND g.kind = 'reversal' AND g.priced_minor < 0
      AND NOT EXISTS (SELECT 1 FROM given_back b WHERE b.line_id = g.id)
  ), remaining AS (
    SELECT l.id AS line_id, l.invoice_id AS invoice_id, l.position AS position,
      l.priced_minor - coalesce((SELECT sum(b.priced_minor) FROM given_back b WHERE b.of_line_id = l.id), 0) AS amount
    FROM invoice_lines l WHERE l.priced_minor > 0 AND l.invoice_id IN (SELECT invoice_id FROM notes)
  ), charges AS (
    SELECT line_id, invoice_id, amount,
      sum(amount) OVER (PARTITION BY invoice_id ORDER BY position) AS up_to
    FROM remaining WHERE amount > 0
  ), laid AS (
    SELECT n.line_id AS line_id, c.line_id AS of_line_id,
      CASE WHEN n.up_to < c.up_to THEN n.up_to ELSE c.up_to END
      - CASE WHEN n.up_to - n.amount > c.up_to - c.amount THEN n.up_to - n.amount ELSE c.up_to - c.amount END AS amount
    FROM notes n JOIN charges c ON c.invoice_id = n.invoice_id
      AND n.up_to - n.amount < c.up_to AND c.up_to - c.amount < n.up_to
  ), beyond AS (
    SELECT n.line_id AS line_id,
      (SELECT min(l.id) FROM invoice_lines l WHERE l.invoice_id = n.invoice_id AND l.priced_minor > 0) AS of_line_id,
      n.amount - coalesce((SELECT sum(p.amount) FROM laid p WHERE p.line_id = n.line_id), 0) AS amount
    FROM notes n
  )
  SELECT line_id, of_line_id, 'credit_note', CAST(sum(amount) AS BIGINT) FROM (
    SELECT line_id, of_line_id, amount FROM laid
    UNION ALL SELECT line_id, of_line_id, amount FROM beyond WHERE amount > 0 AND of_line_id IS NOT NULL
  ) AS parts GROUP BY line_id, of_line_id;

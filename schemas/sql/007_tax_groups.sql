-- Taxes by group: the lines of a document that bear the same taxes are one group, counted from 0. Up to now a document had one.
-- corrects_invoice_id, corrects_group: of a group that corrects what another document charged, that document and its group; such a
-- group bears the taxes of that one (not of its own day), and what is left of a group is its amounts with all that correct it.
ALTER TABLE invoice_lines ADD COLUMN tax_group BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoice_taxes ADD COLUMN tax_group BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoice_taxes ADD COLUMN corrects_invoice_id BIGINT REFERENCES invoices (id);
ALTER TABLE invoice_taxes ADD COLUMN corrects_group BIGINT;
CREATE INDEX invoice_taxes_corrects ON invoice_taxes (corrects_invoice_id);

-- Credit notes that somebody issued already bear the taxes of their invoice. Those that closing made, where more was given back
-- than charged, were taxed by the rules of their day, and stay as they are.
UPDATE invoice_taxes SET corrects_group = 0, corrects_invoice_id = (SELECT i.corrects_invoice_id FROM invoices i
  WHERE i.id = invoice_taxes.invoice_id)
  WHERE invoice_id IN (SELECT i.id FROM invoices i WHERE i.kind = 'credit_note' AND i.corrects_invoice_id IS NOT NULL
  AND i.reason <> 'more was given back than charged');

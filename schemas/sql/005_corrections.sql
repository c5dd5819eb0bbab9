-- Corrections reach every charged period. usage_mark: what the usage of the period was measured from when it was charged or
-- last looked at (UsageSource::marks); '' means that it has to be looked at again, as all that were charged before.
ALTER TABLE charged ADD COLUMN usage_mark TEXT NOT NULL DEFAULT '';
CREATE INDEX charged_period ON charged (kind, start_ms, end_ms);

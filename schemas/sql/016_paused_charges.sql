-- First local day that a subscription is not charged for because its service is suspended for an unpaid invoice, where the
-- terms of collection say so; NULL while it is charged.
ALTER TABLE subscriptions ADD COLUMN paused_from TEXT;

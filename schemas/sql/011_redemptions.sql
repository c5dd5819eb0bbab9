-- Coupons last for months of time, whatever the cycle; NULL: for ever. per_customer: how often one customer can redeem it;
-- NULL: any number of times.
ALTER TABLE coupons RENAME COLUMN cycles TO months;
ALTER TABLE coupons ADD COLUMN per_customer BIGINT;
UPDATE coupons SET per_customer = 1;

-- What a subscription redeemed, as it was agreed then. cycle_months: an amount is for so many months. months: it lasts so many
-- from the first charged day on; NULL: for ever.
CREATE TABLE coupon_redemptions (
  subscription_id BIGINT PRIMARY KEY REFERENCES subscriptions (id),
  coupon_id BIGINT NOT NULL REFERENCES coupons (id),
  customer_id BIGINT NOT NULL REFERENCES customers (id),
  cycle_months BIGINT NOT NULL,
  months BIGINT,
  redeemed_at_ms BIGINT NOT NULL
);
CREATE INDEX coupon_redemptions_customer ON coupon_redemptions (customer_id, coupon_id);

-- What was redeemed before keeps its value: so many cycles of the length that was ordered.
INSERT INTO coupon_redemptions (subscription_id, coupon_id, customer_id, cycle_months, months, redeemed_at_ms)
  SELECT s.id, s.coupon_id, s.customer_id, r.cycle_months, c.months * r.cycle_months, s.created_at_ms
  FROM subscriptions s JOIN coupons c ON c.id = s.coupon_id
  JOIN phases p ON p.subscription_id = s.id AND p.id = (SELECT min(q.id) FROM phases q WHERE q.subscription_id = s.id)
  JOIN prices r ON r.id = p.price_id;

-- A customer has one trial of a plan, unless the plan gives one each time.
ALTER TABLE plans ADD COLUMN trial_repeats BIGINT NOT NULL DEFAULT 0;

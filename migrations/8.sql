-- From version 7: the books are closed now and then. What there is is open until the first closings have sealed it,
-- a thousand rows at a time, while the shop runs. What else is new is made by `schema.sql`.
-- Version 1 had neither refusals nor requests of greetings.
CREATE TABLE IF NOT EXISTS refusals (
    payment_id     TEXT    NOT NULL PRIMARY KEY CHECK (length(payment_id) BETWEEN 1 AND 64),
    client         TEXT    NOT NULL,
    refused_at_ms  BIGINT  NOT NULL
);
CREATE TABLE IF NOT EXISTS greeting_requests (
    greeting_id    TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    client         TEXT    NOT NULL,
    asked_at_ms    BIGINT  NOT NULL,
    give_up_at_ms  BIGINT  NOT NULL,
    outcome        TEXT             CHECK (outcome IN ('greeted', 'refused', 'given_up')),
    reason         TEXT,
    CHECK ((outcome IN ('refused', 'given_up')) = (reason IS NOT NULL))
);
ALTER TABLE orders ADD COLUMN closing INTEGER;
ALTER TABLE stock_movements ADD COLUMN closing INTEGER;
ALTER TABLE payments ADD COLUMN closing INTEGER;
ALTER TABLE payment_notices ADD COLUMN closing INTEGER;
ALTER TABLE refusals ADD COLUMN closing INTEGER;
ALTER TABLE greeting_requests ADD COLUMN closing INTEGER;
ALTER TABLE greetings ADD COLUMN closing INTEGER;
-- The ledger counted by these; it counts what is open by others.
DROP INDEX IF EXISTS orders_by_ending;
DROP INDEX IF EXISTS stock_movements_by_kind;
DROP INDEX IF EXISTS payments_by_kind;

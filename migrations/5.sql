-- From version 4: when a shopper asked for more time to pay. What is new is made by `schema.sql`.
ALTER TABLE orders ADD COLUMN extended_at_ms BIGINT;

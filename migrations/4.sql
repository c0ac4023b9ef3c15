-- From version 3: when a server died, and how far each order was that it left. What is new is made by `schema.sql`.
ALTER TABLE executors ADD COLUMN died_at_ms BIGINT;
ALTER TABLE recoveries ADD COLUMN status TEXT;
ALTER TABLE recoveries ADD COLUMN progress INTEGER;

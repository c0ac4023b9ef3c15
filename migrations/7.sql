-- From version 6: several executors may live at a time. Each row says how it ended, and what it left.
--
-- The newest of version 6 may have crashed without a successor. It has no lease, so the next start counts it as lost.
-- What else is new is made by `schema.sql`.
ALTER TABLE executors ADD COLUMN token TEXT;
ALTER TABLE executors ADD COLUMN seen_at_ms BIGINT;
ALTER TABLE executors ADD COLUMN lease_ms INTEGER;
ALTER TABLE executors ADD COLUMN ended_at_ms BIGINT;
ALTER TABLE executors ADD COLUMN how_ended TEXT CHECK (how_ended IN ('stopped', 'died', 'lost'));
UPDATE executors SET token = executor_id;
UPDATE executors SET ended_at_ms = stopped_at_ms, how_ended = 'stopped' WHERE stopped_at_ms IS NOT NULL;
UPDATE executors SET ended_at_ms = died_at_ms, how_ended = 'died'
    WHERE ended_at_ms IS NULL AND died_at_ms IS NOT NULL;
UPDATE executors SET how_ended = 'lost', ended_at_ms =
    (SELECT min(later.started_at_ms) FROM executors later WHERE later.number > executors.number)
    WHERE ended_at_ms IS NULL AND number < (SELECT max(newest.number) FROM executors newest);
ALTER TABLE executors DROP COLUMN stopped_at_ms;
ALTER TABLE executors DROP COLUMN died_at_ms;

-- A recovery was of the one that had started last before.
CREATE TABLE takeovers (
    left_by     INTEGER NOT NULL REFERENCES executors (number),
    payment_id  TEXT    NOT NULL,
    status      TEXT,
    progress    INTEGER,
    PRIMARY KEY (left_by, payment_id)
);
INSERT INTO takeovers (left_by, payment_id, status, progress)
    SELECT executor - 1, payment_id, status, progress FROM recoveries
    WHERE executor - 1 IN (SELECT number FROM executors);
DROP TABLE recoveries;
CREATE TABLE greeting_takeovers (
    left_by      INTEGER NOT NULL REFERENCES executors (number),
    greeting_id  TEXT    NOT NULL,
    PRIMARY KEY (left_by, greeting_id)
);
-- What was before version 5 had none.
CREATE TABLE IF NOT EXISTS greeting_recoveries (executor INTEGER, greeting_id TEXT);
INSERT INTO greeting_takeovers (left_by, greeting_id) SELECT executor - 1, greeting_id FROM greeting_recoveries
    WHERE executor - 1 IN (SELECT number FROM executors);
DROP TABLE greeting_recoveries;

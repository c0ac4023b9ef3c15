-- From version 2: what was a generation of the server is an executor.
--
-- Each table that named generations is made anew, and its rows are copied: SQLite cannot change a foreign key.
DROP INDEX IF EXISTS recoveries_by_order;
ALTER TABLE recoveries RENAME TO recoveries_of_version_2;
ALTER TABLE naive_runs RENAME TO naive_runs_of_version_2;

CREATE TABLE executors (
    number         INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
    executor_id    TEXT    NOT NULL UNIQUE,
    machine        TEXT    NOT NULL,
    pid            INTEGER NOT NULL,
    started_at_ms  BIGINT  NOT NULL,
    stopped_at_ms  BIGINT,
    adopted_by     INTEGER          REFERENCES executors (number),
    adopted_at_ms  BIGINT,
    CHECK (adopted_at_ms IS NULL OR adopted_by IS NOT NULL)
);
INSERT INTO executors (number, executor_id, machine, pid, started_at_ms, stopped_at_ms)
    SELECT generation, executor_id || '-' || generation, executor_id, pid, started_at_ms, stopped_at_ms
    FROM generations;

CREATE TABLE recoveries (
    executor    INTEGER NOT NULL REFERENCES executors (number),
    payment_id  TEXT    NOT NULL REFERENCES orders (payment_id),
    PRIMARY KEY (executor, payment_id)
);
INSERT INTO recoveries (executor, payment_id) SELECT generation, payment_id FROM recoveries_of_version_2;
DROP TABLE recoveries_of_version_2;

CREATE TABLE naive_runs (
    run            INTEGER NOT NULL PRIMARY KEY CHECK (run > 0),
    key            TEXT    NOT NULL UNIQUE,
    visitor        TEXT    NOT NULL,
    executor       INTEGER NOT NULL REFERENCES executors (number),
    started_at_ms  BIGINT  NOT NULL
);
INSERT INTO naive_runs (run, key, visitor, executor, started_at_ms)
    SELECT run, key, visitor, generation, started_at_ms FROM naive_runs_of_version_2;
CREATE TABLE naive_orders_of_version_3 (
    payment_id  TEXT    NOT NULL PRIMARY KEY REFERENCES naive_runs (key),
    status      TEXT    NOT NULL CHECK (status IN ('pending', 'paid', 'dispatched')),
    progress    INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 10)
);
INSERT INTO naive_orders_of_version_3 SELECT payment_id, status, progress FROM naive_orders;
DROP TABLE naive_orders;
ALTER TABLE naive_orders_of_version_3 RENAME TO naive_orders;
CREATE TABLE naive_payments_of_version_3 (
    payment_id    TEXT    NOT NULL PRIMARY KEY REFERENCES naive_runs (key),
    amount_cents  INTEGER NOT NULL
);
INSERT INTO naive_payments_of_version_3 SELECT payment_id, amount_cents FROM naive_payments;
DROP TABLE naive_payments;
ALTER TABLE naive_payments_of_version_3 RENAME TO naive_payments;
DROP TABLE naive_runs_of_version_2;

DROP TABLE generations;
UPDATE counters SET counter = 'executors' WHERE counter = 'generations';

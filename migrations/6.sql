-- From version 5: a restock may take units off the shelf, too. What is new is made by `schema.sql`.
--
-- The table is made anew, and its rows are copied: SQLite cannot change a CHECK.
CREATE TABLE stock_movements_of_version_6 (
    kind            TEXT    NOT NULL CHECK (kind IN ('restock', 'reserve', 'release')),
    cause           TEXT    NOT NULL,
    product_id      INTEGER NOT NULL REFERENCES products (product_id),
    units           INTEGER NOT NULL CHECK ((kind = 'reserve' AND units = -1)
                                         OR (kind = 'release' AND units = 1)
                                         OR kind = 'restock'),
    recorded_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (kind, cause)
);
INSERT INTO stock_movements_of_version_6 SELECT kind, cause, product_id, units, recorded_at_ms FROM stock_movements;
DROP TABLE stock_movements;
ALTER TABLE stock_movements_of_version_6 RENAME TO stock_movements;

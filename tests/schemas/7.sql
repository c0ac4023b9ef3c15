-- The Widget Store's tables, the same for SQLite and for Postgres.
--
-- This file is applied whole at a start, inside one transaction, and changes nothing the second
-- time, so that on Postgres it is left out then. It uses only what both databases understand:
-- TEXT, INTEGER, BIGINT, CHECK, and ON CONFLICT DO NOTHING.
--
-- `orders` and `products` hold the state of the shop. `stock_movements` and `payments` are
-- its books: rows are only ever added. Each fact in the books is keyed by its kind and by
-- the workflow that caused it, so a step that runs twice after a crash finds its fact
-- already written and cannot write it again. That, and an UPDATE that names the status it
-- expects to find, is what makes every change happen exactly once.
--
--     units stocked  =  on the shelf  +  held by pending orders  +  sold
--
-- Times are whole milliseconds since 1970 in UTC. Money is whole cents. The words in the
-- CHECK constraints are those of `store/vocabulary.py`.
--
-- DBOS keeps its checkpoints elsewhere: in a second SQLite file, or in the Postgres schema
-- `dbos`.

-- One row. A program that finds a higher version than it knows refuses to start.
CREATE TABLE IF NOT EXISTS schema_version (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    version   INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS products (
    product_id   INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    price_cents  INTEGER NOT NULL CHECK (price_cents >= 0),
    on_hand      INTEGER NOT NULL CHECK (on_hand >= 0)
);

-- Hands out order numbers without gaps, inside the transaction that creates the order: an
-- order that is not made takes no number.
CREATE TABLE IF NOT EXISTS counters (
    counter  TEXT    NOT NULL PRIMARY KEY,
    value    INTEGER NOT NULL CHECK (value >= 0)
);

CREATE TABLE IF NOT EXISTS orders (
    -- The key of the Buy Now click: unguessable, and the id of the checkout workflow.
    payment_id     TEXT    NOT NULL PRIMARY KEY CHECK (length(payment_id) BETWEEN 1 AND 64),
    -- The number that people see.
    order_id       INTEGER NOT NULL UNIQUE CHECK (order_id > 0),
    product_id     INTEGER NOT NULL REFERENCES products (product_id),
    price_cents    INTEGER NOT NULL CHECK (price_cents >= 0),
    status         TEXT    NOT NULL CHECK (status IN ('pending', 'paid', 'dispatched', 'cancelled')),
    reason         TEXT             CHECK (reason IN ('sold_out', 'declined', 'expired')),
    -- Ticks of the dispatch that are done.
    progress       INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 10),
    created_at_ms  BIGINT  NOT NULL,
    -- When the payment window closes.
    pay_by_ms      BIGINT  NOT NULL CHECK (pay_by_ms >= created_at_ms),
    updated_at_ms  BIGINT  NOT NULL,
    -- When the shopper asked for more time to pay, which one may once. Null where nobody did.
    extended_at_ms BIGINT,
    CHECK ((status = 'cancelled') = (reason IS NOT NULL)),
    CHECK ((status = 'dispatched') = (progress = 10)),
    CHECK (status IN ('paid', 'dispatched') OR progress = 0)
);

-- The orders that still move: what a poll of live progress reads.
CREATE INDEX IF NOT EXISTS orders_live ON orders (order_id) WHERE status IN ('pending', 'paid');

CREATE TABLE IF NOT EXISTS stock_movements (
    kind            TEXT    NOT NULL CHECK (kind IN ('restock', 'reserve', 'release')),
    -- The workflow that moved the units: a payment id, or the id of a restock.
    cause           TEXT    NOT NULL,
    product_id      INTEGER NOT NULL REFERENCES products (product_id),
    -- Onto the shelf is positive, off it is negative: a restock to nothing clears it.
    units           INTEGER NOT NULL CHECK ((kind = 'reserve' AND units = -1)
                                         OR (kind = 'release' AND units = 1)
                                         OR kind = 'restock'),
    recorded_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (kind, cause)
);

CREATE TABLE IF NOT EXISTS payments (
    kind            TEXT    NOT NULL CHECK (kind IN ('charge', 'refund')),
    payment_id      TEXT    NOT NULL REFERENCES orders (payment_id),
    amount_cents    INTEGER NOT NULL CHECK (amount_cents >= 0),
    recorded_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (kind, payment_id)
);

-- What was heard of each payment, written down before anything is done about it: news that
-- nobody was there to act on is found by whoever closes the order. It may come before the
-- order does, so nothing is referred to.
CREATE TABLE IF NOT EXISTS payment_notices (
    payment_id      TEXT    NOT NULL CHECK (length(payment_id) BETWEEN 1 AND 64),
    outcome         TEXT    NOT NULL CHECK (outcome IN ('paid', 'failed')),
    received_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (payment_id, outcome)
);

-- Which client each unpaid order holds its unit for, while it is unpaid: a digest of an address, to be
-- counted, so that nobody holds the whole shelf.
CREATE TABLE IF NOT EXISTS holds (
    payment_id  TEXT  NOT NULL PRIMARY KEY REFERENCES orders (payment_id),
    client      TEXT  NOT NULL
);

CREATE INDEX IF NOT EXISTS holds_by_client ON holds (client);

-- Clicks on Buy Now that made no order, because the client held as many unpaid units as it may. A row, so
-- that a page need not ask DBOS, and a checkout that runs again answers the same.
CREATE TABLE IF NOT EXISTS refusals (
    payment_id     TEXT    NOT NULL PRIMARY KEY CHECK (length(payment_id) BETWEEN 1 AND 64),
    client         TEXT    NOT NULL,
    refused_at_ms  BIGINT  NOT NULL
);

-- Earlier shops remembered what each signed message was about. A message now says so itself, in the body
-- that is signed, so nothing has to be remembered.
DROP TABLE IF EXISTS webhook_messages;

-- Every greeting that was asked for, from the click to its end. What the online guestbook is asked to sign
-- must end: signed there and here, refused by it, or given up when its time is over.
CREATE TABLE IF NOT EXISTS greeting_requests (
    greeting_id    TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    -- A digest of an address, as in `holds`: one client has only so many greetings under way.
    client         TEXT    NOT NULL,
    asked_at_ms    BIGINT  NOT NULL,
    give_up_at_ms  BIGINT  NOT NULL,
    -- Null while it is under way.
    outcome        TEXT             CHECK (outcome IN ('greeted', 'refused', 'given_up')),
    -- Why it was refused or given up, one sentence.
    reason         TEXT,
    CHECK ((outcome IN ('refused', 'given_up')) = (reason IS NOT NULL))
);

CREATE INDEX IF NOT EXISTS greeting_requests_live ON greeting_requests (client) WHERE outcome IS NULL;

-- Visitors who have signed the online guestbook, which is somebody else's system, and are written
-- down here too: once each, because the workflow that does both is the key.
CREATE TABLE IF NOT EXISTS greetings (
    greeting_id     TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    -- The number of the signature over there.
    signature       INTEGER NOT NULL,
    recorded_at_ms  BIGINT  NOT NULL
);

CREATE INDEX IF NOT EXISTS greetings_by_time ON greetings (recorded_at_ms);

-- Where the presenter lets a server die next: taken out by the server that does, as it dies.
CREATE TABLE IF NOT EXISTS armed_crashes (
    point        TEXT    NOT NULL PRIMARY KEY,
    -- The payment that it is armed for; empty for any.
    only_key     TEXT    NOT NULL,
    armed_at_ms  BIGINT  NOT NULL,
    -- 1 where every order that passes is a crash: then it stays.
    is_for_every INTEGER NOT NULL CHECK (is_for_every IN (0, 1))
);

-- At which armed point a server has died: written down by that server, as it dies.
CREATE TABLE IF NOT EXISTS fired_crashes (
    executor  INTEGER NOT NULL PRIMARY KEY,
    point     TEXT    NOT NULL
);

-- How long each address or browser that has sent a wrong password for the presenter's tools must wait.
CREATE TABLE IF NOT EXISTS failed_tries (
    who           TEXT    NOT NULL PRIMARY KEY,
    wait_seconds  INTEGER NOT NULL,
    failed_at_ms  BIGINT  NOT NULL
);

-- That the shop is to begin anew: its next server empties all tables before any workflow runs.
CREATE TABLE IF NOT EXISTS reset_requests (
    only_row     INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    asked_at_ms  BIGINT  NOT NULL
);

-- What the last reset has left behind. No reset empties this one.
CREATE TABLE IF NOT EXISTS last_reset (
    only_row         INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    at_ms            BIGINT  NOT NULL,
    -- Why the online guestbook was not emptied; empty where it was.
    guestbook_kept   TEXT    NOT NULL
);

-- Where the presenter's talk is, in one row.
CREATE TABLE IF NOT EXISTS stage (
    only_row   INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    scene      INTEGER NOT NULL,
    has_acted  INTEGER NOT NULL CHECK (has_acted IN (0, 1)),
    -- Of the sale that is shown; empty before the first. And of the next one.
    run_key    TEXT    NOT NULL,
    next_key   TEXT    NOT NULL,
    moves      INTEGER NOT NULL
);

-- The presenter's fault that was made last, in one row: it is on until its end, and no other begins before that.
CREATE TABLE IF NOT EXISTS stage_faults (
    only_row     INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    kind         TEXT    NOT NULL,
    began_at_ms  BIGINT  NOT NULL,
    ends_at_ms   BIGINT  NOT NULL
);

-- That the presenter holds the payment window open: whoever buys meanwhile has long to pay.
CREATE TABLE IF NOT EXISTS window_holds (
    only_row     INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    began_at_ms  BIGINT  NOT NULL
);

-- Finished orders that the presenter had run again from their first line, each time a row.
CREATE TABLE IF NOT EXISTS reruns (
    payment_id   TEXT    NOT NULL REFERENCES orders (payment_id),
    attempt      INTEGER NOT NULL CHECK (attempt > 0),
    -- What the books had of the order before.
    as_it_was    TEXT    NOT NULL,
    began_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (payment_id, attempt)
);

-- The storms that the presenter has let loose on this shop. A storm is a process of its own, which writes here
-- what its page shows, twice a second.
CREATE TABLE IF NOT EXISTS storms (
    number       INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
    -- What its shoppers' requests show, to be told from one another's.
    secret       TEXT    NOT NULL,
    shoppers     INTEGER NOT NULL,
    seconds      INTEGER NOT NULL,
    kills        INTEGER NOT NULL,
    seed         INTEGER NOT NULL,
    phase        TEXT    NOT NULL CHECK (phase IN ('starting', 'blowing', 'resting', 'ended', 'stopped', 'lost')),
    -- 1 until it has ended, and then null: so there is one at most.
    is_on        INTEGER UNIQUE CHECK (is_on = 1),
    asked_at_ms  BIGINT  NOT NULL,
    -- When its process began; null before.
    began_at_ms  BIGINT,
    -- When that has last written. One that is silent for long is gone.
    heard_at_ms  BIGINT  NOT NULL,
    killed       INTEGER NOT NULL,
    -- Requests by what became of each.
    answered     INTEGER NOT NULL,
    sent_again   INTEGER NOT NULL,
    refused      INTEGER NOT NULL,
    unanswered   INTEGER NOT NULL,
    -- JSON, once it has ended.
    verdict      TEXT
);

-- The clicks on Buy Now of each of its shoppers, counted from 1.
CREATE TABLE IF NOT EXISTS storm_sales (
    storm       INTEGER NOT NULL REFERENCES storms (number),
    shopper     INTEGER NOT NULL,
    sale        INTEGER NOT NULL,
    payment_id  TEXT    NOT NULL,
    PRIMARY KEY (storm, shopper, sale)
);

-- Its requests, as many in a row as came between two writes: a JSON list of [at ms, took ms, outcome].
CREATE TABLE IF NOT EXISTS storm_requests (
    storm     INTEGER NOT NULL REFERENCES storms (number),
    batch     INTEGER NOT NULL,
    requests  TEXT    NOT NULL,
    PRIMARY KEY (storm, batch)
);

-- What the ledger counts by: each is all that its line of the books has to read.
CREATE INDEX IF NOT EXISTS orders_by_ending ON orders (status, reason, price_cents, payment_id);
CREATE INDEX IF NOT EXISTS stock_movements_by_kind ON stock_movements (kind, units);
CREATE INDEX IF NOT EXISTS payments_by_kind ON payments (kind, amount_cents);
-- Always empty, because the CHECK above holds; the ledger looks, instead of believing it.
CREATE INDEX IF NOT EXISTS orders_out_of_step ON orders (order_id)
    WHERE (status = 'dispatched') <> (progress = 10)
       OR (status IN ('pending', 'cancelled') AND progress <> 0);

-- Workflows that were found stuck and run again from their first line, each try a row.
CREATE TABLE IF NOT EXISTS mendings (
    -- The id of the workflow: a payment id, the id of its dispatch, or of a greeting.
    workflow_id   TEXT    NOT NULL,
    attempt       INTEGER NOT NULL CHECK (attempt > 0),
    -- What was wrong with it, one sentence.
    reason        TEXT    NOT NULL,
    mended_at_ms  BIGINT  NOT NULL,
    PRIMARY KEY (workflow_id, attempt)
);

-- Workflows whose checkpoints are gone, because an older copy of them was restored: what they had made is
-- here, and nobody remembers making it. Found at a start, before anything new begins.
CREATE TABLE IF NOT EXISTS lost_checkpoints (
    workflow_id  TEXT    NOT NULL PRIMARY KEY,
    found_at_ms  BIGINT  NOT NULL
);

-- One row for each server process that has run the shop's workflows, in the order in which they started.
CREATE TABLE IF NOT EXISTS executors (
    -- What people call it: "server 7".
    number         INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
    -- What DBOS calls it, and marks its workflows with: <machine>-<number>.
    executor_id    TEXT    NOT NULL UNIQUE,
    machine        TEXT    NOT NULL,
    pid            INTEGER NOT NULL,
    started_at_ms  BIGINT  NOT NULL,
    -- Which executor takes up the workflows that it left, and when that had taken up all of them.
    adopted_by     INTEGER          REFERENCES executors (number),
    adopted_at_ms  BIGINT,
    -- What its parent calls it. Machines may have the same name, and a reset counts from 1 again; this no other has.
    token          TEXT,
    -- Its last sign of life, by the clock of the database, and for how long that is good. Null where it has the
    -- SQLite file to itself: then it lives for as long as it has that.
    seen_at_ms     BIGINT,
    lease_ms       INTEGER,
    -- When it ended, and how: stopped in good order; seen to die by its parent; or lost, which is when another one
    -- found that it had been silent for longer than its lease, or was not the one that has the SQLite file.
    ended_at_ms    BIGINT,
    how_ended      TEXT             CHECK (how_ended IN ('stopped', 'died', 'lost')),
    CHECK (adopted_at_ms IS NULL OR adopted_by IS NOT NULL)
);

CREATE UNIQUE INDEX IF NOT EXISTS executors_by_token ON executors (token);
CREATE INDEX IF NOT EXISTS executors_living ON executors (number) WHERE ended_at_ms IS NULL;
CREATE INDEX IF NOT EXISTS executors_to_adopt ON executors (number) WHERE adopted_at_ms IS NULL;

-- Which code a server process runs: a digest of its source files, as they were when it started.
CREATE TABLE IF NOT EXISTS server_code (
    executor  INTEGER NOT NULL PRIMARY KEY REFERENCES executors (number),
    digest    TEXT    NOT NULL
);

-- The orders that an executor left under way as it ended, and how far each was when another one took it up.
CREATE TABLE IF NOT EXISTS takeovers (
    left_by     INTEGER NOT NULL REFERENCES executors (number),
    -- There may be no order yet.
    payment_id  TEXT    NOT NULL,
    -- Null where there was none, and in rows of before version 4.
    status      TEXT,
    progress    INTEGER,
    PRIMARY KEY (left_by, payment_id)
);

CREATE INDEX IF NOT EXISTS takeovers_by_order ON takeovers (payment_id);

-- The same of greetings.
CREATE TABLE IF NOT EXISTS greeting_takeovers (
    left_by      INTEGER NOT NULL REFERENCES executors (number),
    greeting_id  TEXT    NOT NULL,
    PRIMARY KEY (left_by, greeting_id)
);

CREATE INDEX IF NOT EXISTS greeting_takeovers_by_greeting ON greeting_takeovers (greeting_id);

-- The naive lane: the same sale and the same greeting without durable execution, run beside the
-- shop's own to see what a crash leaves behind. Tables of its own, so that its damage stays there.
CREATE TABLE IF NOT EXISTS naive_runs (
    run            INTEGER NOT NULL PRIMARY KEY CHECK (run > 0),
    -- That of the click; the durable lane's order and greeting have it too.
    key            TEXT    NOT NULL UNIQUE,
    -- Who greets: nobody else has the name. Empty where nobody does: in a storm.
    visitor        TEXT    NOT NULL,
    -- The server process that runs it. When that is gone, nothing more comes of it.
    executor       INTEGER NOT NULL REFERENCES executors (number),
    started_at_ms  BIGINT  NOT NULL
);

CREATE TABLE IF NOT EXISTS naive_orders (
    payment_id  TEXT    NOT NULL PRIMARY KEY REFERENCES naive_runs (key),
    status      TEXT    NOT NULL CHECK (status IN ('pending', 'paid', 'dispatched')),
    progress    INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 10)
);

CREATE TABLE IF NOT EXISTS naive_payments (
    payment_id    TEXT    NOT NULL PRIMARY KEY REFERENCES naive_runs (key),
    -- All that was taken for it.
    amount_cents  INTEGER NOT NULL
);

-- By name, because nothing else ties it to its run: each run has a visitor of its own.
CREATE TABLE IF NOT EXISTS naive_greetings (
    name       TEXT    NOT NULL,
    signature  INTEGER NOT NULL
);

-- What the naive lane has given up, and why; nothing more comes of it.
CREATE TABLE IF NOT EXISTS naive_troubles (
    key     TEXT  NOT NULL REFERENCES naive_runs (key),
    work    TEXT  NOT NULL CHECK (work IN ('sale', 'greeting')),
    reason  TEXT  NOT NULL,
    PRIMARY KEY (key, work)
);

-- What a new shop opens with.
INSERT INTO schema_version (only_row, version) VALUES (1, 7) ON CONFLICT DO NOTHING;
-- Greetings of version 1 had no requests: all that were written down were greeted.
INSERT INTO greeting_requests (greeting_id, name, client, asked_at_ms, give_up_at_ms, outcome)
    SELECT greeting_id, name, '', recorded_at_ms, recorded_at_ms, 'greeted' FROM greetings
    WHERE (SELECT version FROM schema_version) < 2
    ON CONFLICT DO NOTHING;
UPDATE schema_version SET version = 7 WHERE version < 7;
-- The third counts nothing: its row is what greetings of one client take turns on.
INSERT INTO counters (counter, value) VALUES ('orders', 0), ('executors', 0), ('greetings', 0)
    ON CONFLICT DO NOTHING;
INSERT INTO products (product_id, name, description, price_cents, on_hand) VALUES (
    1,
    'The Widget',
    'One well-made widget: a brass hub, twelve true teeth, and nothing you have to charge.',
    9999,
    100
) ON CONFLICT DO NOTHING;
INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms) VALUES
    ('restock', 'opening', 1, 100, 0) ON CONFLICT DO NOTHING;

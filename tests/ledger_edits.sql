-- Edits of the tables by hand. Each has its name, and after the arrow whom or what the ledger must name:
-- the beginning of a fault's subject, or of what a line is off by. Without an arrow, the edit leaves no
-- evidence anywhere: the ledger is green, and docs/ledger.md lists it as not claimed.
--
-- Of the specimen, order 1 is expired, 2 and 3 are dispatched, 4 is declined, 5 is declined, then paid too
-- late and refunded, 6 to 103 are pending, 104 was sold out, 105 is pending, and 106 is paid.

-- a charge re-pointed to no order -> order 2
UPDATE payments SET payment_id = 'nobody-at-all' WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a charge re-pointed to another order -> order 6
UPDATE payments SET payment_id = (SELECT payment_id FROM orders WHERE order_id = 6) WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a charge added for no order -> payment nobo…
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) VALUES ('charge', 'nobody', 0, 1);

-- a charge and its refund added for no order -> payment nobo…
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) VALUES ('charge', 'nobody', 9999, 1), ('refund', 'nobody', 9999, 1);

-- a charge deleted -> order 2
DELETE FROM payments WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a refund deleted -> order 5
DELETE FROM payments WHERE kind = 'refund' AND payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);

-- charge and refund deleted -> order 5
DELETE FROM payments WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);

-- a refund of an order that was dispatched -> order 2
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) SELECT 'refund', payment_id, 9999, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a charge of an order that is not paid -> order 6
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) SELECT 'charge', payment_id, 9999, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 6);

-- a charge and refund of an order that nobody paid -> order 4
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) SELECT 'charge', payment_id, 9999, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 4);
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) SELECT 'refund', payment_id, 9999, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 4);

-- amounts that compensate -> order 2
UPDATE payments SET amount_cents = 9998 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
UPDATE payments SET amount_cents = 10000 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 3);

-- amounts that compensate, one of them negative -> order 3
UPDATE payments SET amount_cents = -1 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
UPDATE payments SET amount_cents = 19999 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 3);

-- charge and refund of another amount -> order 5
UPDATE payments SET amount_cents = 1 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);

-- a price changed -> order 6
UPDATE orders SET price_cents = 1 WHERE order_id = 6;

-- price and charge changed together -> order 2
UPDATE orders SET price_cents = 1 WHERE order_id = 2;
UPDATE payments SET amount_cents = 1 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- price, charge and refund changed together -> order 5
UPDATE orders SET price_cents = 1 WHERE order_id = 5;
UPDATE payments SET amount_cents = 1 WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);

-- every price and charge changed together -> order 106
UPDATE orders SET price_cents = 1;
UPDATE payments SET amount_cents = 1;

-- a paid notice with neither charge nor refund -> order 4
INSERT INTO payment_notices (payment_id, outcome, received_at_ms) SELECT payment_id, 'paid', 9999999999999 FROM orders WHERE order_id = 4;

-- the notice of a payment deleted -> order 2
DELETE FROM payment_notices WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- the notice of a decline deleted -> order 4
DELETE FROM payment_notices WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 4);

-- the notice of late money deleted -> order 5
DELETE FROM payment_notices WHERE outcome = 'paid' AND payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);

-- all notices deleted -> order 106
DELETE FROM payment_notices;

-- a notice turned round -> order 2
UPDATE payment_notices SET outcome = 'failed' WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a notice put before the first -> order 2
INSERT INTO payment_notices (payment_id, outcome, received_at_ms) SELECT payment_id, 'failed', 1 FROM orders WHERE order_id = 2;

-- a dispatched order forged, with all that belongs to it -> order 107
INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason, progress, created_at_ms, pay_by_ms, updated_at_ms) SELECT 'forged-order', 107, 1, 9999, 'dispatched', NULL, 10, created_at_ms, pay_by_ms, updated_at_ms FROM orders WHERE order_id = 2;
UPDATE counters SET value = 107 WHERE counter = 'orders';
UPDATE products SET on_hand = on_hand - 1;
INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms) VALUES ('reserve', 'forged-order', 1, -1, 1);
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) VALUES ('charge', 'forged-order', 9999, 1);
INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES ('forged-order', 'paid', 1);

-- the newest order removed, with its counter and all that belongs to it -> order 106
DELETE FROM payments WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 106);
DELETE FROM payment_notices WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 106);
DELETE FROM stock_movements WHERE cause = (SELECT payment_id FROM orders WHERE order_id = 106);
DELETE FROM orders WHERE order_id = 106;
UPDATE products SET on_hand = on_hand + 1;
UPDATE counters SET value = 105 WHERE counter = 'orders';

-- an order in the middle removed -> order 2
DELETE FROM payments WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
DELETE FROM payment_notices WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
DELETE FROM stock_movements WHERE cause = (SELECT payment_id FROM orders WHERE order_id = 2);
DELETE FROM orders WHERE order_id = 2;
UPDATE products SET on_hand = on_hand + 1;

-- an order pending removed -> order 6
DELETE FROM holds WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 6);
DELETE FROM stock_movements WHERE cause = (SELECT payment_id FROM orders WHERE order_id = 6);
DELETE FROM orders WHERE order_id = 6;
UPDATE products SET on_hand = on_hand + 1;

-- every order removed, with the books of all -> order 2
DELETE FROM payments;
DELETE FROM payment_notices;
DELETE FROM holds;
DELETE FROM stock_movements;
DELETE FROM takeovers;
DELETE FROM orders;
UPDATE products SET on_hand = 100;
UPDATE counters SET value = 0 WHERE counter = 'orders';

-- an order's key changed everywhere -> order 2
UPDATE payments SET payment_id = 'another-key' WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
UPDATE payment_notices SET payment_id = 'another-key' WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
UPDATE stock_movements SET cause = 'another-key' WHERE cause = (SELECT payment_id FROM orders WHERE order_id = 2);
UPDATE orders SET payment_id = 'another-key' WHERE order_id = 2;

-- two numbers swapped -> order 2
UPDATE orders SET order_id = 1002 WHERE order_id = 2;
UPDATE orders SET order_id = 2 WHERE order_id = 3;
UPDATE orders SET order_id = 3 WHERE order_id = 1002;

-- two numbers of pending orders swapped -> order 6
UPDATE orders SET order_id = 1006 WHERE order_id = 6;
UPDATE orders SET order_id = 6 WHERE order_id = 7;
UPDATE orders SET order_id = 7 WHERE order_id = 1006;

-- a number changed -> order 777
UPDATE orders SET order_id = 777 WHERE order_id = 2;

-- a product changed -> order 2
INSERT INTO products (product_id, name, description, price_cents, on_hand) VALUES (2, 'x', 'x', 1, 0);
UPDATE orders SET product_id = 2 WHERE order_id = 2;

-- pay_by moved, of an order that is pending -> order 6
UPDATE orders SET pay_by_ms = pay_by_ms + 3600000 WHERE order_id = 6;

-- pay_by moved, of an order that has ended -> order 1
UPDATE orders SET pay_by_ms = pay_by_ms + 3600000 WHERE order_id = 1;

-- a dispatched order set back -> order 2
UPDATE orders SET status = 'paid', progress = 9 WHERE order_id = 2;

-- a paid order set to cancelled -> order 2
UPDATE orders SET status = 'cancelled', reason = 'expired', progress = 0 WHERE order_id = 2;

-- a paid order turned into a refunded one, with all that belongs to it -> order 2
UPDATE orders SET status = 'cancelled', reason = 'expired', progress = 0 WHERE order_id = 2;
UPDATE products SET on_hand = on_hand + 1;
INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms) SELECT 'release', payment_id, 1, 1, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) SELECT 'refund', payment_id, 9999, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a declined order turned into an expired one -> order 4
UPDATE orders SET reason = 'expired' WHERE order_id = 4;

-- a cancelled order revived, with all that belongs to it -> order 1
UPDATE orders SET status = 'dispatched', reason = NULL, progress = 10 WHERE order_id = 1;
UPDATE products SET on_hand = on_hand - 1;
DELETE FROM stock_movements WHERE kind = 'release' AND cause = (SELECT payment_id FROM orders WHERE order_id = 1);
INSERT INTO payment_notices (payment_id, outcome, received_at_ms) SELECT payment_id, 'paid', 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 1);
INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms) SELECT 'charge', payment_id, 9999, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 1);

-- progress changed -> order 2
UPDATE orders SET progress = 4 WHERE order_id = 2;

-- progress before the payment -> order 6
UPDATE orders SET progress = 4 WHERE order_id = 6;

-- a sold-out order that took a unit -> order 104
INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms) SELECT 'reserve', payment_id, 1, -1, 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 104);
UPDATE products SET on_hand = on_hand - 1;

-- a reserve's cause renamed -> order 2
UPDATE stock_movements SET cause = 'nobody' WHERE kind = 'reserve' AND cause = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a reserve deleted -> order 6
DELETE FROM stock_movements WHERE kind = 'reserve' AND cause = (SELECT payment_id FROM orders WHERE order_id = 6);

-- a release deleted -> order 4
DELETE FROM stock_movements WHERE kind = 'release' AND cause = (SELECT payment_id FROM orders WHERE order_id = 4);

-- a release given to another order -> order 6
UPDATE stock_movements SET cause = (SELECT payment_id FROM orders WHERE order_id = 6) WHERE kind = 'release' AND cause = (SELECT payment_id FROM orders WHERE order_id = 4);

-- a movement for nobody -> payment nobo…
INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms) VALUES ('reserve', 'nobody', 1, -1, 1);
UPDATE products SET on_hand = on_hand - 1;

-- on_hand changed -> off by 3 units
UPDATE products SET on_hand = on_hand + 3;

-- on_hand and the opening changed together -> the opening stock
UPDATE products SET on_hand = on_hand + 5;
UPDATE stock_movements SET units = units + 5 WHERE cause = 'opening';

-- on_hand and a restock changed together -> restock
UPDATE products SET on_hand = on_hand + 5;
UPDATE stock_movements SET units = units + 5 WHERE kind = 'restock' AND cause <> 'opening';

-- a restock forged -> restock forg…
UPDATE products SET on_hand = on_hand + 5;
INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms) VALUES ('restock', 'forged', 1, 5, 1);

-- a restock deleted -> a restock of 100 units
UPDATE products SET on_hand = on_hand - (SELECT units FROM stock_movements WHERE kind = 'restock' AND cause <> 'opening');
DELETE FROM stock_movements WHERE kind = 'restock' AND cause <> 'opening';

-- a stale hold -> order 2
INSERT INTO holds (payment_id, client) SELECT payment_id, 'x' FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a hold of no order -> payment nobo…
INSERT INTO holds (payment_id, client) VALUES ('nobody', 'x');

-- a refusal deleted -> payment
DELETE FROM refusals;

-- a refusal forged -> payment nobo…
INSERT INTO refusals (payment_id, client, refused_at_ms) VALUES ('nobody', 'x', 1);

-- a refusal of an order that is there -> order 2
INSERT INTO refusals (payment_id, client, refused_at_ms) SELECT payment_id, 'x', 1 FROM orders WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 2);

-- a greeting deleted -> the greeting of Ada
DELETE FROM greetings WHERE name = 'Ada';

-- a greeting deleted, with its request -> the greeting of Ada
DELETE FROM greetings WHERE name = 'Ada';
DELETE FROM greeting_requests WHERE name = 'Ada';

-- a greeting doubled -> the greeting of Ada
INSERT INTO greetings (greeting_id, name, signature, recorded_at_ms) SELECT greeting_id || 'x', name, signature, recorded_at_ms FROM greetings WHERE name = 'Ada';

-- a greeting doubled, with its request -> the greeting of Ada
INSERT INTO greetings (greeting_id, name, signature, recorded_at_ms) SELECT greeting_id || 'x', name, signature, recorded_at_ms FROM greetings WHERE name = 'Ada';
INSERT INTO greeting_requests (greeting_id, name, client, asked_at_ms, give_up_at_ms, outcome) SELECT greeting_id || 'x', name, client, asked_at_ms, give_up_at_ms, outcome FROM greeting_requests WHERE name = 'Ada';

-- a greeting's name changed -> the greeting of Ada
UPDATE greetings SET name = 'Eve' WHERE name = 'Ada';

-- a greeting's name changed in both tables -> the greeting of Eve
UPDATE greetings SET name = 'Eve' WHERE name = 'Ada';
UPDATE greeting_requests SET name = 'Eve' WHERE name = 'Ada';

-- the reason of a refused greeting changed -> the greeting of Mallory
UPDATE greeting_requests SET reason = 'x' WHERE name = 'Mallory';

-- a greeting's signature changed -> the greeting of Ada
UPDATE greetings SET signature = 77 WHERE name = 'Ada';

-- a refused greeting turned into one that succeeded -> the greeting of Mallory
UPDATE greeting_requests SET outcome = 'greeted', reason = NULL WHERE name = 'Mallory';
INSERT INTO greetings (greeting_id, name, signature, recorded_at_ms) SELECT greeting_id, name, 3, 1 FROM greeting_requests WHERE name = 'Mallory';

-- the counter of orders changed -> off by 1
UPDATE counters SET value = 107 WHERE counter = 'orders';

-- executors' rows deleted -> off by 1
DELETE FROM takeovers;
UPDATE executors SET adopted_by = NULL, adopted_at_ms = NULL;
DELETE FROM executors WHERE number = 2;

-- all executors' rows deleted -> off by 4
DELETE FROM takeovers;
DELETE FROM executors;

-- a time of an order moved that no receipt has
UPDATE orders SET created_at_ms = created_at_ms - 1;

-- the times of payments and movements moved
UPDATE payments SET recorded_at_ms = 1;
UPDATE stock_movements SET recorded_at_ms = 1;

-- a hold deleted
DELETE FROM holds;

-- a hold given to another client
UPDATE holds SET client = 'x';

-- the record of takeovers deleted
DELETE FROM takeovers;

-- the newest server taken out of the record, with its counter
DELETE FROM takeovers;
UPDATE executors SET adopted_by = NULL, adopted_at_ms = NULL;
DELETE FROM executors WHERE number = 4;
UPDATE counters SET value = 3 WHERE counter = 'executors';

-- a stop recorded for a server that crashed
UPDATE executors SET how_ended = 'stopped';

-- the price, name or description of the product
UPDATE products SET price_cents = 1, name = 'x', description = 'x';

-- late money forgotten altogether, which came after its order's workflow had ended
DELETE FROM payments WHERE payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);
DELETE FROM payment_notices WHERE outcome = 'paid' AND payment_id = (SELECT payment_id FROM orders WHERE order_id = 5);

-- a second word about a payment
INSERT INTO payment_notices (payment_id, outcome, received_at_ms) SELECT payment_id, 'failed', 9999999999999 FROM orders WHERE order_id = 2;

"""The bugs: each a small change of the kind that a tired developer makes, and the checks tried on it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

WORKFLOWS = "store/workflows.py"
_CRASH = "one order, a crash"
_QUICK_CRASH = "paid, a crash"


@dataclass(frozen=True)
class Change:
    """One change of the text of one function."""

    function: str
    right: str
    wrong: str
    file: str = WORKFLOWS

    def apply(self, root: Path) -> None:
        """Make it in the tree that stands there.

        Raises:
            ValueError: the function does not have that text once.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        body = self._function_in(text)
        if body.count(self.right) != 1:
            raise ValueError(f"{self.function} has {self.right!r} {body.count(self.right)} times")
        path.write_text(text.replace(body, body.replace(self.right, self.wrong)), encoding="utf-8")

    def _function_in(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        found = [
            "".join(lines[node.lineno - 1 : node.end_lineno])
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.name == self.function
        ]
        if len(found) != 1 or text.count(found[0]) != 1:
            raise ValueError(f"there is not one function {self.function} in {self.file}")
        return found[0]


@dataclass(frozen=True)
class Mistake:
    """One bug."""

    name: str
    changes: tuple[Change, ...]
    scenario: str = ""
    """Where the explorer is let loose on it; nowhere if its stand-in has nothing of it."""
    said: str = ""
    """What the explorer must say of it, among other things."""
    tests: tuple[str, ...] = ()
    """Of the suite: at least one must fail, and without the bug none."""


def _mistake(name: str, scenario: str, function: str, *texts: str) -> Mistake:
    """One change, which the explorer finds; the suite is not tried on it, so that the table takes minutes."""
    right, wrong, said = texts
    return Mistake(name, (Change(function, right, wrong),), scenario, said)


OLD_CANCEL = Mistake(
    "return that it is paid, whatever its status",
    (
        Change(
            "settle",
            "    return order\n",
            '    if order["has_been_paid"]:\n        order["status"] = Status.PAID\n    return order\n',
        ),
    ),
    _QUICK_CRASH,
    "Order A is cancelled, and its dispatch was started.",
    ("tests/test_run_again.py::test_an_order_that_was_cancelled_is_not_paid_by_a_second_run",),
)
"""The cancelled order that was dispatched: hundreds of kills had not hit it."""

IN_THE_WORKFLOWS = (
    _mistake(
        "ignore a row count",
        "one unit for two, no crash", "reserve",
        "took_a_unit = bool(execute(session, take, id=PRODUCT_ID))",
        "took_a_unit = execute(session, take, id=PRODUCT_ID) >= 0",
        "Every unit stocked is on the shelf, held or sold",
    ),
    _mistake(
        "drop AND status = 'paid' from a tick",
        "paid, a zombie", "_record_tick",
        " AND status = 'paid' AND progress = :tick - 1", "",
        "was at tick",
    ),
    _mistake(
        "drop AND status = 'pending', and what is asked before it",
        _CRASH, "settle",
        "    if order[\"status\"] == Status.PENDING:\n        if order[\"first_outcome\"] == Outcome.PAID:",
        "    if True:\n        if order[\"first_outcome\"] == Outcome.PAID:",
        "UnexpectedRowCount",
    ),
    _mistake(
        "release twice",
        _QUICK_CRASH, "reserve",
        "        if took_a_unit:\n            _put_back(session)\n        if found",
        "        _put_back(session)\n        if found",
        "Every unit stocked is on the shelf, held or sold",
    ),
    _mistake(
        "refund without ON CONFLICT",
        _CRASH, "_record_payment", " ON CONFLICT DO NOTHING", "", "IntegrityError",
    ),
    _mistake(
        "forget that a unit is not held any more",
        _CRASH, "_cancel", "    _hold_no_longer(session, payment_id)\n", "", "still counts as an unpaid unit",
    ),
    _mistake(
        "do not give late money back",
        _CRASH, "record_notice",
        "        _take_and_give_back(session, payment_id)\n", "        pass\n",
        "the money is nowhere",
    ),
    _mistake(
        "forget to write a notice down",
        _QUICK_CRASH, "record_notice",
        "    _write_notice(session, payment_id, outcome)\n", "",
        "was told of a payment that is in no notice",
    ),
    _mistake(
        "decide by the message, not by the first notice",
        _CRASH, "settle",
        "        if order[\"first_outcome\"] == Outcome.PAID:", "        if outcome == Outcome.PAID:",
        "the first word of its payment is failed",
    ),
    _mistake(
        "forget to count a unit as unpaid",
        "one unpaid unit, no crash", "reserve",
        "            _hold(session, payment_id, client)\n", "            pass\n",
        "its unit counts for no client",
    ),
    _mistake(
        "sell what is not there",
        "one unit for two, no crash", "reserve", " AND on_hand > 0", "", "IntegrityError",
    ),
    _mistake(
        "fill the shelf once more",
        "a restock, a crash", "fill_shelf",
        "    if before is not None:\n        return int(before.units)\n", "", "IntegrityError",
    ),
    _mistake(
        "end a greeting that has ended",
        "a greeting run again from its first line", "_end_greeting",
        " AND (outcome IS NULL OR :outcome = 'greeted')", "",
        "was greeted, and is given_up",
    ),
    _mistake(
        "forget to charge",
        _QUICK_CRASH, "_charge",
        "    _record_payment(session, Payment.CHARGE, payment_id)\n", "",
        "The ledger",
    ),
    _mistake(
        "dispatch whatever the order is",
        "unpaid, a zombie", "checkout",
        "    if order[\"status\"] == Status.PAID:\n", "    if True:\n",
        "is cancelled, and its dispatch was started",
    ),
    _mistake(
        "a new key for every try to sign",
        "a greeting, a crash", "_try_to_sign",
        "key=greeting_id)", "key=f\"{greeting_id}-{now_ms()}\")",
        "a signature that nobody asked for",
    ),
)  # fmt: skip
"""Those that the explorer finds in the process of a test, too."""

_COUNTED_BEFORE = Mistake(
    "count a limit outside its transaction",
    (
        Change(
            "checkout",
            "    order = reserve(payment_id, client, outcome)\n",
            '    enough = bool(client) and step("count", lambda: commit(_holds_enough, client or ""))\n'
            "    order = reserve(payment_id, client, outcome, enough=enough)\n",
        ),
        Change(
            "reserve",
            "outcome: str | None = None) -> OrderNow:",
            "outcome: str | None = None, *, enough: bool = False) -> OrderNow:",
        ),
        Change("reserve", "_holds_enough(session, client)", "enough"),
    ),
    "one unpaid unit, no crash",
    "holds more unpaid units than one may",
    ("tests/test_limits.py::test_many_clicks_at_once_take_no_more",),
)

ALL = (
    OLD_CANCEL,
    *IN_THE_WORKFLOWS,
    _COUNTED_BEFORE,
    Mistake(
        "wake the checkout before its notice is written",
        (
            Change(
                "settle",
                "        order = workflows.record_notice(payment_id, outcome)\n",
                "        DBOS.send(payment_id, outcome, PAYMENT_TOPIC, idempotency_key=PAYMENT_TOPIC)\n"
                "        order = workflows.record_notice(payment_id, outcome)\n",
                "store/commands.py",
            ),
        ),
        _QUICK_CRASH,
        "was told of a payment that is in no notice",
    ),
    Mistake(
        "checkpoint before commit (in the explorer's stand-in)",
        (
            Change(
                "run_step",
                "            result = self.transact(name, work)\n",
                "            before = self._store.save()\n"
                "            result = self.transact(name, work)\n"
                "            self._store.load(before)\n"
                "            self.record(run, name, json.dumps(result))\n"
                "            return result\n",
                "store/explore/runtime.py",
            ),
        ),
        _QUICK_CRASH,
        "is remembered by its workflow, and is not here",
    ),
    Mistake(
        "adopt without a claim",
        (
            Change(
                "_claim",
                "UPDATE executors SET adopted_by = :number WHERE",
                "UPDATE executors SET adopted_by = adopted_by WHERE",
                "store/durable/executors_table.py",
            ),
        ),
        tests=("tests/test_executors.py::test_of_two_that_adopt_one_gets_what_was_left",),
    ),
)

"""What the shop claims, how each claim is checked, and what it does not claim: the page for a sceptic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One claim."""

    says: str
    is_checked: str


CLAIMS = (
    Claim(
        "One click is one order, whatever crashes: none is lost, none is doubled.",
        "The explorer compares every state with what the shopper was told. A storm keeps what"
        " each of its shoppers was shown, and in the end looks at every order.",
    ),
    Claim(
        "Money is taken once for an order that is shipped, and given back once for one that is not.",
        "The ledger compares charges, refunds, notices and orders row by row. The explorer"
        " reads it in every state, a storm at its end.",
    ),
    Claim(
        "No unit is sold twice, and none is held for ever.",
        "The ledger counts units by their movements. The explorer looks, wherever nothing moves"
        " any more, whether every order has ended.",
    ),
    Claim(
        "A step that commits and dies before its checkpoint runs again and changes nothing that is done.",
        "The explorer crashes there in every schedule of its scope; tests/test_run_again.py"
        " runs each transaction again after every other one; tests/test_explore_replayed.py kills"
        " real servers there.",
    ),
    Claim(
        "A server that was taken for dead and goes on does no harm.",
        "The explorer has such a server beside the one that took over. A storm with several"
        " servers freezes some for longer than their lease.",
    ),
    Claim(
        "On SQLite, a power cut loses nothing that a shopper was shown.",
        "tests/power keeps what was not synced apart, builds disks as a power cut leaves them,"
        " and starts a shop on each. With synchronous=OFF the same test must fail, and does.",
    ),
    Claim(
        "The explorer's stand-in for DBOS behaves as DBOS does.",
        "tests/test_explore_replayed.py walks 163 explored schedules on each database with real"
        " processes under DBOS, kills them at the same points, once or twice, and compares what"
        " both databases then have of the order: its state, movements, payments, notices, steps,"
        " events and messages, not their amounts and times. They are of one order at a time,"
        " without a server that is taken for dead.",
    ),
    Claim(
        "These checks can fail.",
        "Bugs are planted, one at a time, and each must be caught: see below who caught which."
        " tests/test_oracles.py does the same to the ledger and to the pages.",
    ),
)

NOT_CLAIMED = (
    (
        "That the kernel, the file system or the disk tells the truth. A disk that says it has"
        " synced, and has not, can lose orders."
    ),
    (
        "Every interleaving inside a transaction on Postgres. The explorer runs each"
        " transaction by itself. That row locks keep them apart is tested and stormed, which are"
        " samples."
    ),
    (
        "Anything beyond the explorer's scope: at most two shoppers, two units, two crashes,"
        " one server that is taken for dead, and not all of that at once: store/explore/scenarios.py"
        " says what goes with what."
    ),
    (
        "That DBOS, SQLite and Postgres are right. The explorer puts a stand-in in the place of"
        " DBOS; queues, retries and other versions of the workflows are not in it."
    ),
    (
        "That a storm proves anything by itself. It is a sample. A seed repeats its choices,"
        " and not the moments at which they meet the shop."
    ),
    ("That there is no other bug. That all planted ones are caught says that the checks see something."),
    ("That the shop is always there. A crash is a pause. Without its database the shop takes no orders."),
    (
        "That it survives the loss of its database, or an older copy that is put back, without"
        " loss: what was made after the copy may be lost."
    ),
    ("Anything about a real bank. Payments are announced by a button or a webhook, and a refund is a row."),
    ("That nobody can change the database by hand unseen: docs/ledger.md says what would not be noticed."),
    (
        "That this record was not edited. It is a file in the repository, and unsigned. So each"
        " run has its commit and its command: repeat it."
    ),
)

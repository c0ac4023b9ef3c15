"""The Widget Store: the composition root, where settings, databases, workflows and pages meet.

`python app.py`, `flask run` and `waitress-serve --call app:create_app` all begin here. The
supervisor does too, so rooms that it does not need are imported where they are used: one
that cannot be imported ends a server, and not the parent that waits for it to be mended.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from store import cli
from store.settings import BadSetting, Process, Settings, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from store.database import Databases
    from store.durable.executors_table import Told
    from store.repair.housekeeper import Housekeeper
    from store.repair.reconciler import Reconciler


def create_app(settings: Settings | None = None) -> Flask:
    """Build the shop and, in a process that serves, launch its workflows.

    Settings come from the environment unless given. A setting or a database that cannot be
    used ends the process with one sentence and exit code 2.
    """
    try:
        built = build(settings or Settings.from_env())
    except BadSetting as refusal:
        refuse(str(refusal))
    return open_shop(built)


@dataclass(frozen=True)
class Built:
    """A shop that is put together, and has connected to nothing and started nothing yet."""

    app: Flask
    settings: Settings
    databases: Databases
    reconciler: Reconciler
    housekeeper: Housekeeper
    before_workflows_run: Callable[[], None]
    code: str
    """Which code this is; see `deploy.digest`."""


def build(settings: Settings, *, ahead: bool = False) -> Built:
    """Put the shop together; `ahead` of the processes that open it, with all that can be done beforehand.

    Raises:
        BadSetting: a setting cannot be used.
    """
    from flask import Flask

    from store import database
    from store.ledger.ledger import LedgerReader
    from store.ledger.witnesses import Witnesses
    from store.proof import summary
    from store.reads.checkpoints import Checkpoints
    from store.reads.greetings import Greetings
    from store.reads.orders import Queries
    from store.repair import restored_checkpoints
    from store.repair.housekeeper import Housekeeper
    from store.repair.reconciler import Reconciler
    from store.stage import across_processes, crash_page, deploy, lanes, presenter_bar, reset, sign_in, talk
    from store.terms_of_sale import Terms, terms
    from store.web import every_request, guestbook, json_api, ledger, proof, storefront
    from store.web.health import Health
    from store.web.shop import Shop

    databases = database.make_engines(settings)
    app = Flask("app")
    reconciler = Reconciler(settings, databases)
    checkpoints = Checkpoints(databases.system_reader)
    greetings = Greetings(databases.reader, checkpoints, settings.guestbook_url)
    witnesses = Witnesses(databases.system_reader, greetings.theirs)
    shop = Shop(
        settings=settings,
        queries=Queries(databases.reader, checkpoints),
        greetings=greetings,
        ledger=LedgerReader(databases.reader, settings.dispatch_tick_seconds, witnesses),
        health=Health(databases, reconciler.count),
        proof=summary.load(),
    )
    every_request.prepare(app, shop)
    own = (storefront.storefront, json_api.api, ledger.ledger, guestbook.guestbook, proof.proof)
    for blueprint in own:
        app.register_blueprint(blueprint)
    lanes.prepare(settings, databases)
    crash_page.prepare(settings)
    talk.prepare(app, settings)
    sign_in.prepare(app, settings)
    terms.set(Terms.of(settings))
    if ahead:
        every_request.compile_pages(app)

    def before_workflows_run() -> None:
        reset.carry_out(settings, databases)
        restored_checkpoints.note(databases, witnesses)
        presenter_bar.take_up(settings)
        across_processes.begin(settings, databases)

    housekeeper = Housekeeper(settings, databases)
    return Built(app, settings, databases, reconciler, housekeeper, before_workflows_run, deploy.digest())


def open_shop(
    built: Built,
    *,
    wait_for_database: bool = False,
    told: Told | None = None,
    once_open: Callable[[], None] = lambda: None,
) -> Flask:
    """Open the databases and, in a process that serves, launch the workflows.

    A database that cannot be used ends the process with one sentence and exit code 2; or
    else, of one that is away, the shop says so to its visitors, and opens once it is back.
    `told` is what its parent has told this server. `once_open` is called when workflows may run.
    """
    from store import schema
    from store.database_errors import DatabaseRefused
    from store.durable import executors_table, runtime
    from store.stage import deploy
    from store.web.startup import Opening

    app, settings, databases = built.app, built.settings, built.databases

    def launch(once_recorded: Callable[[], None] = lambda: None) -> None:
        after: list[Callable[[], None]] = [
            once_open,
            built.reconciler.start,
            built.housekeeper.start,
            partial(deploy.record, built.code),
        ]
        calls = runtime.Calls(built.before_workflows_run, once_recorded, after)
        runtime.launch(settings, databases, told=told or executors_table.Told(), calls=calls)

    if wait_for_database:
        Opening(app, settings, databases, launch).begin()
        return app
    try:
        schema.prepare(databases, settings)
        if _serves(Process.from_env()):
            launch()
        else:
            # The parent of `flask run --debug`, `flask routes` and the like: they answer no
            # request, and must not take up the orders of the process that does.
            runtime.launch_at_first_request(app, launch)
    except DatabaseRefused as refusal:
        refuse(str(refusal))
    return app


def main() -> None:
    """Do what the command line says: keep the shop open, unless it says something else."""
    cli.main(build, open_shop)


def _serves(process: Process) -> bool:
    """Whether this process is the one that will answer requests, as far as can be told now."""
    if not process.under_flask_command or process.reloader_child:
        return True
    import click

    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "run" and not process.reloads


if __name__ == "__main__":
    main()

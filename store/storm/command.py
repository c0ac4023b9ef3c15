"""`python app.py storm`: what may be said of a storm, and what makes no sense."""

from __future__ import annotations

import argparse
import secrets

from store.database_errors import DatabaseRefused
from store.proof.recording import begin
from store.settings import Settings, refuse
from store.storm.terminal import Wanted, run_storm
from store.storm.verdict import Plan


def run(said: argparse.Namespace) -> int:
    """Run the storm that the command line describes; the exit code."""
    _refuse_what_makes_no_sense(said)
    plan = Plan(
        said.shoppers,
        said.seconds,
        said.kills,
        secrets.randbelow(1_000_000) if said.seed is None else said.seed,
        said.faults,
        said.processes,
        said.machines,
        said.postmaster,
    )
    settings = Settings.from_env({"DBOS_DATABASE_URL": said.database}) if said.database else None
    if said.picture is not None:
        try:
            said.picture.touch()
        except OSError as error:
            refuse(f"The picture cannot be written to {said.picture} ({error.strerror}): name another file.")
    command = plan.command + (" --postgres" if said.postgres else " --database URL" if said.database else "")
    wanted = Wanted(said.picture, said.json, begin("storm", command) if said.record else None)
    try:
        return run_storm(plan, settings, wanted, on_postgres=said.postgres)
    except DatabaseRefused as refusal:
        refuse(str(refusal))


def _refuse_what_makes_no_sense(said: argparse.Namespace) -> None:
    is_on_postgres = said.postgres or (said.database or "").startswith("postgres")
    if said.postgres and said.database:
        refuse("A storm is on a Postgres of its own or on the database of --database: say one of the two.")
    if said.processes > 1 and not is_on_postgres:
        refuse("Several processes share a Postgres: say --postgres, or name one with --database.")
    if said.machines > 1 and not is_on_postgres:
        refuse("Several machines share a Postgres: say --postgres, or name one with --database.")
    if said.postmaster and not said.postgres:
        refuse("--postmaster kills Postgres, so it needs one of the storm's own: say --postgres.")
    if said.faults and (said.machines > 1 or said.postmaster):
        refuse("--faults are for one machine, and have a Postgres that dies: leave out the other option.")

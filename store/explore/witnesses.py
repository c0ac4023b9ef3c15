"""The checkpoints of an explored shop, as the ledger asks DBOS for them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from dbos import DBOSClient

from store.clients.guestbook import Signature
from store.explore.world import World
from store.ledger.witnesses import Witnesses


class ExploredWitnesses(Witnesses):
    """What the workflows and the guestbook of one state remember. The rules about it are the ledger's own."""

    def __init__(self, world: World) -> None:
        self._client = cast(DBOSClient, _Checkpoints(world))
        signatures = [Signature(number, key) for key, number in world.book.items()]
        self._their_book = lambda: (signatures, "")
        self._reserved = {}


class _Checkpoints:
    """Has the calls of a DBOSClient that the witnesses make."""

    def __init__(self, world: World) -> None:
        self._workflows = world.workflows

    def list_workflows(self, workflow_ids: list[str] | None = None, **_: Any) -> list[Any]:
        """Those of these ids, or all."""
        ids = list(self._workflows) if workflow_ids is None else workflow_ids
        return [self._workflow(each) for each in ids if each in self._workflows]

    def list_workflow_steps(self, workflow_id: str, limit: int) -> list[dict[str, Any]]:
        """Its first steps."""
        steps = self._workflows[workflow_id].steps[:limit]
        return [{"function_name": name, "output": json.loads(result)} for name, result in steps]

    def _workflow(self, workflow_id: str) -> Any:
        found = self._workflows[workflow_id]
        return SimpleNamespace(
            workflow_id=workflow_id,
            name=found.name,
            status=found.status,
            created_at=0,
            output=None if found.output is None else json.loads(found.output),
        )

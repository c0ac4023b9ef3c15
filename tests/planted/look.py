"""What the explorer finds first in one scenario, as JSON: `python -m tests.planted.look "paid, a crash"`."""

from __future__ import annotations

import json
import sys

from store.explore.scenarios import BY_NAME
from store.explore.search import search
from store.explore.story import walk

if __name__ == "__main__":
    scenario = BY_NAME[sys.argv[1]]
    found = search(scenario)
    story = walk(scenario, found.violations[0].path) if found.violations else None
    wrong, steps = ([*story.wrong], len(story.steps)) if story else ([], 0)
    json.dump({"wrong": wrong, "steps": steps, "states": found.states}, sys.stdout)

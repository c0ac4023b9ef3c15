"""A disk as a power cut leaves it, from the records of `recorder.c`.

What was synced is there. Of what was not, any part may be: a disk writes in whatever order it likes, and a
write may be torn between two of its sectors. A file that was created or removed may be so or not until its
folder is synced.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = struct.Struct("<cHQQQ")
_SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


@dataclass(frozen=True)
class Record:
    """One thing that a process did to a file of the folder."""

    operation: str
    """`W` write, `T` truncate, `S` sync, `C` create, `U` remove, `F` found with this content."""
    name: str
    """Of the file in the folder; empty for the folder itself."""
    offset: int
    """Of a write; for a truncation, the new length. In bytes."""
    data: bytes
    at_ns: int
    """On the monotonic clock, once it was done."""


def read(log: Path, folder: Path) -> list[Record]:
    """All records, in the order in which the kernel did them."""
    content, records, at = log.read_bytes(), [], 0
    while at < len(content):
        operation, path_length, offset, length, at_ns = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        path = content[at : at + path_length].decode()
        at += path_length
        if not path.endswith(" (deleted)"):  # what is written there cannot come back
            name = path.removeprefix(str(folder)).removeprefix("/")
            records.append(Record(operation.decode(), name, offset, content[at : at + length], at_ns))
        at += length
    return records


@dataclass
class _File:
    """What a name stood for, from its creation to its removal."""

    now: bytearray = field(default_factory=bytearray)
    """As processes see it."""
    synced: bytearray = field(default_factory=bytearray)
    """What a power cut leaves at least."""
    unsynced: list[Record] = field(default_factory=list)

    def change(self, record: Record) -> None:
        """Something was done to it that is not synced."""
        _apply(self.now, record)
        self.unsynced.append(record)

    def sync(self) -> None:
        """All of it is on the disk."""
        self.synced, self.unsynced = bytearray(self.now), []

    def find(self, content: bytes) -> None:
        """It has this content: a process was killed before it could record what it had done."""
        if content != self.now:
            self.change(Record("W", "", 0, content, 0))
            self.change(Record("T", "", len(content), b"", 0))


class Disk:
    """The files of one folder, after each record in turn."""

    def __init__(self) -> None:
        self._now: dict[str, _File] = {}
        self._synced: dict[str, _File] = {}
        """Which names a power cut leaves at least, and what they stand for."""

    def apply(self, record: Record) -> None:
        """Do what the record says."""
        name = record.name
        if record.operation == "C":
            self._now[name] = _File()
        elif record.operation == "U":
            self._now.pop(name, None)
        elif record.operation == "F":
            self._now.setdefault(name, _File()).find(record.data)
        elif record.operation == "S":
            if name:
                self._now[name].sync()
            else:
                self._synced = dict(self._now)
        else:
            self._now[name].change(record)

    def files(self) -> dict[str, bytes]:
        """What processes see."""
        return {name: bytes(file.now) for name, file in self._now.items()}

    def after_a_power_cut(self, chance: random.Random) -> dict[str, bytes]:
        """One of the many ways in which it may be found after a power cut now."""
        kept: dict[str, bytes] = {}
        keep = chance.choice((_keep_none, _keep_all, _keep_first, _keep_some))
        for name in sorted({*self._now, *self._synced}):
            file = chance.choice((self._now.get(name), self._synced.get(name)))
            if file is not None:
                content = bytearray(file.synced)
                for record in keep(file.unsynced, chance):
                    _apply(content, record)
                kept[name] = bytes(content)
        return kept


def _keep_none(_unsynced: list[Record], _chance: random.Random) -> Iterator[Record]:
    yield from ()


def _keep_all(unsynced: list[Record], _chance: random.Random) -> Iterator[Record]:
    yield from unsynced


def _keep_first(unsynced: list[Record], chance: random.Random) -> Iterator[Record]:
    yield from unsynced[: chance.randint(0, len(unsynced))]


def _keep_some(unsynced: list[Record], chance: random.Random) -> Iterator[Record]:
    """Any of them, some in part."""
    for record in unsynced:
        how = chance.random()
        if how < 0.4:
            yield record
        elif how < 0.6 and record.operation == "W":
            yield from _torn(record, chance)


def _torn(record: Record, chance: random.Random) -> Iterator[Record]:
    """Those sectors of a write that the disk had got to."""
    begin, end = record.offset, record.offset + len(record.data)
    while begin < end:
        until = min(end, (begin // _SECTOR + 1) * _SECTOR)
        if chance.random() < 0.5:
            data = record.data[begin - record.offset : until - record.offset]
            yield Record("W", record.name, begin, data, record.at_ns)
        begin = until


def _apply(content: bytearray, record: Record) -> None:
    """Write or truncate; what is between the end and a later write is zeros, as in a file with a hole."""
    end = record.offset if record.operation == "T" else record.offset + len(record.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if record.operation == "T":
        del content[end:]
    else:
        content[record.offset : end] = record.data

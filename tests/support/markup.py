"""A page taken apart, as a browser without JavaScript or a screen reader takes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"]
)
_ID = re.compile(r"[\w-]{22}")
"""What keys and payment ids of the shop's own making look like."""


@dataclass
class Element:
    """One element of a page."""

    tag: str
    attrs: dict[str, str]
    parents: tuple[Element, ...]
    text: str = ""

    def within(self, tag: str) -> Element | None:
        """The nearest such element that it stands inside."""
        return next((parent for parent in reversed(self.parents) if parent.tag == tag), None)


class Markup(HTMLParser):
    """A page or a fragment."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[Element] = []
        self._faults: list[str] = []
        self._open: list[Element] = []
        self.feed(source)
        self.close()
        self._faults += [f"<{element.tag}> is never closed" for element in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element; it is open until its end."""
        if len({name for name, _ in attrs}) < len(attrs):
            self._faults.append(f"<{tag}> has an attribute twice")
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(self._open))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last, which must be this one."""
        if self._open and self._open[-1].tag == tag:
            self._open.pop()
        else:
            self._faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        """Text belongs to every element around it."""
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        """The elements with one of these tags, in order."""
        return [element for element in self.elements if element.tag in tags]

    @property
    def polled(self) -> dict[str, Element]:
        """The elements that poll, by their ids; the presenter's tools always do, and are left out."""
        return {
            element.attrs["id"]: element
            for element in self.elements
            if element.attrs.get("hx-trigger", "").startswith("every ") and element.tag != "aside"
        }

    @property
    def refreshes(self) -> bool:
        """Whether a browser without JavaScript asks for this page again by itself."""
        metas = [meta for meta in self.all("meta") if meta.attrs.get("http-equiv") == "refresh"]
        assert all(meta.within("noscript") and meta.attrs["content"].isdigit() for meta in metas)
        return bool(metas)

    @property
    def live_regions(self) -> list[Element]:
        """What a screen reader speaks of by itself when it changes, but for the outage of every page."""
        roles = {"status", "alert", "log"}
        return [
            each
            for each in self.elements
            if (each.attrs.get("role") in roles or "aria-live" in each.attrs)
            and each.attrs.get("id") not in {"outage", "crash-news"}
        ]

    @property
    def offers(self) -> set[str]:
        """What a shopper can do from the main part: links to follow, buttons to press; ids left out."""
        for_shoppers = [each for each in self.all("a", "button") if not each.within("aside")]
        found = {
            f"GET {each.attrs['href']}" for each in for_shoppers if each.tag == "a" and each.within("main")
        }
        for button in for_shoppers:
            form = button.within("form")
            if form is not None and "disabled" not in button.attrs:
                said = " {name}={value}".format(**button.attrs) if "name" in button.attrs else ""
                found.add(f"{form.attrs['method'].upper()} {form.attrs['action']}{said}")
        return {_ID.sub("<id>", offer) for offer in found}

    def faults(self) -> Iterator[str]:
        """What is wrong with a whole page, in words."""
        yield from self._faults
        for tag in ("html", "title", "header", "main", "footer", "h1"):
            if len(self.all(tag)) != 1:
                yield f"there are {len(self.all(tag))} <{tag}>"
        if self.all("html")[0].attrs.get("lang") != "en" or not self.all("title")[0].text.strip():
            yield "it does not say what it is, or in which language"
        ids = [element.attrs["id"] for element in self.elements if "id" in element.attrs]
        yield from (f"the id {each} is there twice" for each in set(ids) if ids.count(each) > 1)
        labelled = {label.attrs["for"] for label in self.all("label") if label.text.strip()}
        for element in self.elements:
            if element.attrs.get("id") not in labelled:
                yield from _unnamed(element)
            targets = [element.attrs.get(name, "") for name in ("aria-labelledby", "for")]
            if element.attrs.get("href", "").startswith("#"):
                targets.append(element.attrs["href"][1:])
            yield from (f"{target} is nowhere" for target in targets if target and target not in ids)


def _unnamed(element: Element) -> Iterator[str]:
    """What somebody who cannot see an element would not know of it."""
    attrs = element.attrs
    named = bool(attrs.get("aria-label") or element.text.strip())
    match element.tag:
        case "button" | "a" | "summary" if not named:
            yield f"a <{element.tag}> says nothing"
        case "input" if attrs["type"] != "hidden" and "aria-label" not in attrs:
            yield "an <input> has no label"
        case "progress" if "aria-label" not in attrs:
            yield "a <progress> has no label"
        case "progress" if "value" in attrs and not 0 <= int(attrs["value"]) <= int(attrs["max"]):
            yield f"a <progress> stands at {attrs['value']} of {attrs['max']}"
        case "img" if "alt" not in attrs:
            yield "an <img> has no alt"
        case "svg" if attrs.get("aria-hidden") != "true" and not (
            attrs.get("role") == "img" and attrs.get("aria-label")
        ):
            yield "a decoration is read aloud"
    if element.tag in {"h1", "h2", "h3"} and "role" in attrs:
        yield f"role={attrs['role']} takes <{element.tag}> off a screen reader's list of headings"

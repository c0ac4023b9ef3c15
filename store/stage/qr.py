"""The QR code by which phones find the shop."""

from __future__ import annotations

from io import BytesIO
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Response, abort, request

from store.settings import LOOPBACK_HOSTS
from store.stage.presenter_bar import presenter
from store.web.origin import name_asked_for
from store.web.shop import the_shop


def audience_address() -> str:
    """The address of the shop for phones; empty where none can reach it, as far as is known."""
    name = the_shop().settings.audience_host or name_asked_for(request)
    if not name or name in LOOPBACK_HOSTS or _is_loopback(name):
        return ""
    port = urlsplit(request.host_url).port
    shown = f"[{name}]" if ":" in name else name
    return f"{request.scheme}://{shown}{f':{port}' if port else ''}/"


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


@presenter.get("/stage/qr.svg")
def qr() -> Response:
    """Draw that address: black on white also on a dark page, with the margin that cameras need."""
    import segno  # noqa: PLC0415 - a server that starts after a crash is waited for, and needs none

    address = audience_address()
    if not address:
        abort(404, "No phone can reach this shop: start it by `make talk`.")
    picture = BytesIO()
    segno.make_qr(address).save(picture, kind="svg", border=4, light="#fff", omitsize=True, xmldecl=False)
    return Response(picture.getvalue(), mimetype="image/svg+xml")

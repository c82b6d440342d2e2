"""The live page: one document with its style and program inside, which may talk to the operator's port and load nothing."""

import gzip
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from perjoule.sidecar.admin.answers import Question, Reply

SCRIPTS = ("dom", "numbers", "state", "stream", "chart", "panels", "flight", "frame", "main")
HTML = "text/html; charset=utf-8"
PLACE = re.compile(r"%%(STYLE|SCRIPT)%%")


def page(question: Question) -> Reply:
    """The document, and what it may do; smaller for who takes that."""
    body, policy = document()
    fields = (("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
              ("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Resource-Policy", "same-origin"),
              ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding"))
    if "gzip" in question.field(b"accept-encoding").lower():
        return Reply(_smaller(), content_type=HTML, fields=(*fields, ("Content-Encoding", "gzip")))
    return Reply(body.encode(), content_type=HTML, fields=fields)


@cache
def _smaller() -> bytes:
    return gzip.compress(document()[0].encode(), mtime=0)


@cache
def document() -> tuple[str, str]:
    """The page, and the policy that allows its own style and script by their hashes and nothing else."""
    style, script = _part("style.css"), "".join(['(() => {\n"use strict";\n', *(_part(f"{name}.js") for name in SCRIPTS), "})();\n"])
    policy = (f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; connect-src 'self'; img-src data:; "
              "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    parts = {"STYLE": style, "SCRIPT": script}
    return PLACE.sub(lambda place: parts[place[1]], _part("page.html")), policy


def _part(name: str) -> str:
    return (files("perjoule.sidecar.admin") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()

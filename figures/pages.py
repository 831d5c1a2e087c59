"""What the HTML pages have in common: they open from disk and may reach no network."""

from __future__ import annotations

import base64
import hashlib


def content_policy(css: str, script: str) -> str:
    """A content security policy: no network at all, and only this page's own style and script."""

    def fingerprint(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; img-src data:; style-src {fingerprint(css)}; script-src {fingerprint(script)}; "
        "base-uri 'none'; form-action 'none'"
    )

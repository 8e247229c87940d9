"""`python -m dashboard` writes the dashboard's JSON anew. A test says when that is due."""

from __future__ import annotations

from dashboard.files import FILE, text

if __name__ == "__main__":
    FILE.write_text(text())

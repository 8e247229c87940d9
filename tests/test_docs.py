"""What the repository cites exists: promises, links, anchors, pages, files and tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Files that may cite something. Lists of checksums contain anything.
SUFFIXES = {".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".svg", ".in", ""}
#: Folders that are made, not kept.
MADE = {"build", "dist", "site", "__pycache__"}
#: Pages about the past, which may name files that are gone.
RECORDS = {"CHANGELOG.md", "docs/decisions.md"}
#: Where a path in a page may begin: at the root, or as docs/promises.md and docs/architecture.md shorten it.
BASES = ("", "operator", "operator/kopf_ha", "operator/kopf_ha/core", "tests")


@cache
def texts() -> dict[str, str]:
    """Every text file of the repository, by its path from the root; this one cites on purpose what is not there."""
    found = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if not re.match(r"\.(?!ci$)", f) and f not in MADE and "egg-info" not in f]
        for path in (Path(folder, name) for name in names):
            if path.suffix in SUFFIXES and path != Path(__file__):
                found[path.relative_to(ROOT).as_posix()] = path.read_text()
    return found


def pages() -> list[str]:
    return [path for path in texts() if path.endswith(".md")]


# --- promises


def cited_promises(text: str) -> set[str]:
    """``I1`` in prose, ranges included: both ends of ``I1–I10`` are cited."""
    return set(re.findall(r"(?<![\w.])I[0-9]+\b(?!\.[0-9])", text))


def defined_promises() -> set[str]:
    return set(re.findall(r"^\| (I[0-9]+) \|", texts()["docs/promises.md"], re.MULTILINE))


def test_each_promise_that_is_cited_is_defined() -> None:
    undefined = {path: cited_promises(text) - defined_promises() for path, text in texts().items()}
    assert {path: names for path, names in undefined.items() if names} == {}


def test_each_promise_is_stated_where_code_keeps_it() -> None:
    code = "".join(text for path, text in texts().items() if path.startswith("operator/"))
    assert defined_promises() - cited_promises(code) == set()


def numbered_traps(text: str) -> list[str]:
    return re.findall(r"(?i)\b(?:trap|pitfall)s? [0-9]+", text)


def test_no_trap_is_cited_by_number() -> None:
    """Nothing in the repository defines such numbers, so the words have to stand where they matter."""
    assert {path: found for path, text in texts().items() if (found := numbered_traps(text))} == {}


# --- links


def without_code(page: str) -> str:
    return re.sub(r"(?ms)^ *```.*?^ *```", "", page)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings that are the same on GitHub and on the site.

    They differ where a heading has a sign between two spaces: GitHub writes two dashes, the site writes one.
    """
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.*)$", without_code(page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w -]", "", text).replace(" ", "-")
        count = sum(1 for other in found if other == slug or re.fullmatch(rf"{re.escape(slug)}-[0-9]+", other))
        found.add(f"{slug}-{count}" if count else slug)
    return {anchor for anchor in found if anchor == re.sub("-+", "-", anchor).strip("-")}


def broken_links(path: str, page: str) -> list[str]:
    """Relative links of a page whose file or anchor does not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_code(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = Path(os.path.normpath(Path(path).parent / name)).as_posix() if name else path
        there = page if target == path else texts().get(target, "")
        if not (target == path or (ROOT / target).exists()) or (anchor and anchor not in anchors(there)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", pages())
def test_links_lead_somewhere(path: str) -> None:
    assert broken_links(path, texts()[path]) == []


def cited_pages(text: str) -> Iterator[tuple[str, str]]:
    """``docs/NAME.md``, with or without an anchor, as code cites it."""
    yield from re.findall(r"\b(docs/[\w-]+\.md)(?:#([\w-]+))?", text)


def test_pages_that_are_cited_exist() -> None:
    missing = {
        (path, page, anchor)
        for path, text in texts().items()
        if path not in RECORDS
        for page, anchor in cited_pages(text)
        if page not in texts() or (anchor and anchor not in anchors(texts()[page]))
    }
    assert missing == set()


# --- files and tests


def starts(base: str) -> set[str]:
    return {entry.name for entry in (ROOT / base).iterdir() if entry.is_dir()}


def missing_files(page: str) -> list[str]:
    """What stands in backticks, looks like a path of the repository, and is none.

    It looks like one if it begins with a folder that is there. ``run/test_terms`` is short for a test's file, and
    ``run/test_terms::test_x`` for a test in it. A bare ``test_x.py`` is somewhere under tests.
    """
    missing = []
    for cited in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?(?:::\w+)?)`", page):
        path, _, test = cited.partition("::")
        if re.fullmatch(r"test_\w+\.py", path):
            candidates = [*(ROOT / "tests").rglob(path)]
        elif "/" in path and any(path.split("/")[0] in starts(base) for base in BASES):
            candidates = [ROOT / base / f"{path}{suffix}" for base in BASES for suffix in ("", ".py")]
        else:
            continue
        found = [p for p in candidates if p.exists()]
        if not found or (test and not any(f"def {test}(" in p.read_text() for p in found if p.is_file())):
            missing.append(cited)
    return missing


@pytest.mark.parametrize("path", [p for p in pages() if p not in RECORDS])
def test_files_that_are_named_exist(path: str) -> None:
    assert missing_files(texts()[path]) == []


# --- the map of the code

MAP = "docs/architecture.md"
PACKAGES = ROOT / "operator"
#: What looks like a name in our code and is none: a field of a Kubernetes object, a file.
STRANGERS = {("status", "fencing"), ("pyproject", "toml"), ("kubernetes", "aio")}


def mapped_modules(page: str) -> set[Path]:
    """The modules in the tables of a page, whose sections are named after folders."""
    mapped = set()
    for section in re.split(r"(?m)^### ", page)[1:]:
        title, _, rows = section.partition("\n")
        folder = next(iter(re.findall(r"^(?:operator/)?([\w/]+)", title)))
        base = PACKAGES / folder if (PACKAGES / folder).is_dir() else PACKAGES / "kopf_ha" / folder
        for cells in re.findall(r"(?m)^\| (`[^|]*\.py`[^|]*) \|", rows):
            mapped |= {base / name for name in re.findall(r"`([\w/]+\.py)`", cells)}
    return mapped


def test_the_map_has_every_module_and_no_other() -> None:
    mapped = mapped_modules(texts()[MAP])
    modules = {path for path in PACKAGES.rglob("*.py") if path.name != "__init__.py"}
    assert mapped - modules == set()
    assert modules - mapped == set()


def missing_names(page: str) -> list[str]:
    """What a page names as ``Class.method``, ``module.function`` or ``Class``, and is none of our code."""
    sources = {path: path.read_text() for path in PACKAGES.rglob("*.py")}
    whole = "\n".join(sources.values())
    missing = []
    for owner, name in re.findall(r"`([A-Za-z]\w+)\.([a-z_]\w+)`", page):
        if name in ("py", "md") or (owner, name) in STRANGERS:
            continue
        places = [s for path, s in sources.items() if path.stem == owner or re.search(rf"\bclass {owner}\b", s)]
        if not any(re.search(rf"\b(def |class ){name}\b|\b{name}\s*[:=]", place) for place in places):
            missing.append(f"{owner}.{name}")
    names = re.findall(r"`([A-Z][a-z]\w+[a-z])`", page)
    return missing + [name for name in names if not re.search(rf"\b{name}\b", whole)]


def test_what_the_walks_name_exists() -> None:
    assert missing_names(texts()[MAP]) == []


# --- what these checks would find


RUN = PACKAGES / "kopf_ha" / "run"


@pytest.mark.parametrize(
    ("check", "faulty", "found"),
    [
        (lambda t: cited_promises(t) - defined_promises(), "keeps I1 to I99 (I98).", {"I98", "I99"}),
        (lambda t: broken_links("docs/x.md", t), "[a](gone.md), [b](../README.md), [c](#no)", ["gone.md", "#no"]),
        (lambda t: broken_links("docs/x.md", t), "[a](terms.md#no) [b](terms.md#its-end)", ["terms.md#no"]),
        (lambda t: broken_links("docs/x.md", t), "# Twice\n# Twice\n[a](#twice-1) [b](#twice-2)", ["#twice-2"]),
        (numbered_traps, "see trap 12 and Pitfall 3", ["trap 12", "Pitfall 3"]),
        (mapped_modules, "### run/: x\n| `a.py`, `b/c.py` | x |", {RUN / "a.py", RUN / "b/c.py"}),
        (missing_names, "`Gate.check` `Gate.gone` `write.update` `write.gone` `Gate` `Gone` `Nowhere`",
         ["Gate.gone", "write.gone", "Nowhere"]),
        (missing_files, "`core/gone.py` `core/token.py` `run/test_gone` `x/y.py` `test_no.py`",
         ["core/gone.py", "run/test_gone", "test_no.py"]),
        (missing_files, "`core/test_refusal::test_gone`", ["core/test_refusal::test_gone"]),
        (lambda t: [page for page, _ in cited_pages(t) if page not in texts()], "see docs/gone.md", ["docs/gone.md"]),
    ],
)  # fmt: skip
def test_a_fault_is_found(check: Callable[[str], object], faulty: str, found: object) -> None:
    assert check(faulty) == found

"""The cases of the public HTTP cache suite, read where they lie: they are not part of this repository.

They are found in `shared/conformance/http-cache` beside the checkout or beside one of its parents, or in the folder
that APIGATE_CONFORMANCE names. The README there says what each field of a step means; numbers of sections in this
package are those of that page.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Step: TypeAlias = Mapping[str, Any]
"""A step as the file has it; section 2."""

MISSING = (
    "the cases of the HTTP cache suite are not here: neither in shared/conformance/http-cache beside this checkout or "
    "one of its parents, nor where APIGATE_CONFORMANCE points"
)
PAUSE = 3.0
PATIENCE = 10.0
DATE_FIELDS = {"date", "expires", "last-modified", "if-modified-since", "if-unmodified-since"}


class Case(NamedTuple):
    """One case; section 1."""

    name: str
    suite: str
    kind: str
    depends_on: tuple[str, ...]
    steps: tuple[Step, ...]


def find_folder() -> Path | None:
    """Where the cases are; None if nowhere."""
    named = os.environ.get("APIGATE_CONFORMANCE")
    beside = [parent / "shared" / "conformance" / "http-cache" for parent in Path(__file__).resolve().parents]
    places = [Path(named), Path(named) / "http-cache"] if named else beside
    return next((place for place in places if (place / "cases.json").is_file()), None)


def folder() -> Path:
    """Where the cases are, or an error that says where they were looked for."""
    found = find_folder()
    if found is None:
        raise FileNotFoundError(MISSING)
    return found


@cache
def load_cases() -> tuple[Case, ...]:
    """All cases, in the order of the file."""
    read = json.loads((folder() / "cases.json").read_text("utf-8"))["cases"]
    return tuple(
        Case(each["id"], each["suite"], each["kind"], tuple(each["depends_on"]), tuple(each["requests"]))
        for each in read
    )


@cache
def load_controls() -> Mapping[str, Mapping[str, str]]:
    """For each control, the outcome of each case as the real suite found it; section 9."""
    read = json.loads((folder() / "controls.json").read_text("utf-8"))
    letters = read["letters"]
    return {
        control: {case: letters[outcomes[place]] for case, outcomes in read["outcomes"].items()}
        for place, control in enumerate(read["controls"])
    }


def published_totals() -> Sequence[tuple[str, str, str, str]]:
    """What products reach on these cases: name, required, optimal, check; the second table of section 9."""
    page = (folder() / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+\D?\d*) \| (\d+) \|$", page, re.MULTILINE)
    return [(name.strip(), required, optimal, check) for name, required, optimal, check in rows]

"""Prints apigate's scores as Markdown: `python -m tests.conformance [--over-http] [--failing]`."""

import argparse
from collections.abc import Mapping
from functools import partial

from tests.conformance.cases import MISSING, find_folder, load_cases
from tests.conformance.conversation import Outcome
from tests.conformance.gateways import PROFILES, build_apigate
from tests.conformance.grading import grade_all
from tests.conformance.over_http import Served, run_over_http
from tests.conformance.report import beside_products, by_section
from tests.conformance.runner import run_asgi
from tests.conformance.shortfalls import shortfall

NAMES = {"default": "apigate", "cookies": "apigate, Set-Cookie allowed"}


def in_process() -> dict[str, Mapping[str, Outcome]]:
    """Each profile through ASGI."""
    return {
        NAMES[profile]: run_asgi(partial(build_apigate, profile=profile, protocol="asgi"), load_cases())
        for profile in PROFILES
    }


def over_http() -> dict[str, Mapping[str, Outcome]]:
    """Each profile behind uvicorn and waitress."""
    served = [Served(protocol, profile, "502") for protocol in ("asgi", "wsgi") for profile in PROFILES]
    runs = run_over_http(served, load_cases())
    return {f"{NAMES[each.cache]}, {each.protocol.upper()}": runs[each] for each in served}


def main() -> None:
    """Run the cases and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--over-http", action="store_true", help="over sockets and with real pauses: 20 seconds")
    parser.add_argument("--failing", action="store_true", help="list the cases that fall short, and why")
    asked = parser.parse_args()
    if find_folder() is None:
        parser.error(MISSING)
    runs = over_http() if asked.over_http else in_process()
    cases = load_cases()
    grades = {run: grade_all(cases, outcomes) for run, outcomes in runs.items()}
    print(by_section(cases, grades), beside_products(cases, grades), sep="\n\n")
    if asked.failing:
        for run, outcomes in runs.items():
            print(f"\n{run}:")
            for case in cases:
                if case.name in shortfall(grades[run]):
                    print(f"- {case.name} ({case.kind}, {grades[run][case.name]}): {outcomes[case.name]}")


if __name__ == "__main__":
    main()

"""Compares pytest's JUnit reports: what passes in the first run must pass in the others.

usage: engine-tests-compare.py FOLDER stock other...
       engine-tests-compare.py --failed FOLDER stock other    names, for pytest, what fails in the other only

"@FILE" in place of "stock": the tests that FILE names, one in each line, are those that pass.

FOLDER holds NAME.xml for each name, and NAME-again.xml where something was run a second time.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree


def read(path):
    """Outcome of each test: "passed", "skipped", or the first line of why it failed."""
    outcomes = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}"
        faults = [child for child in case if child.tag in ("failure", "error")]
        if faults:
            outcomes[name] = ((faults[0].get("message") or "").splitlines() or ["failed"])[0][:160]
        elif name not in outcomes:
            # a test whose teardown failed stands there twice
            outcomes[name] = "skipped" if case.find("skipped") is not None else "passed"
    return outcomes


def reference(folder, name):
    """What passes on the stock build: by a report of a run, or by a list."""
    if not name.startswith("@"):
        return read(folder / f"{name}.xml")
    lines = Path(name[1:]).read_text().splitlines()
    return {line: "passed" for line in lines if line and not line.startswith("#")}


def passing(outcomes):
    return {test for test, outcome in outcomes.items() if outcome == "passed"}


def failures(reference, outcomes):
    """What passes in the reference and not here, in order."""
    return [test for test in reference if reference[test] == "passed" and outcomes.get(test) != "passed"]


arguments = sys.argv[1:]
only_names = arguments[0] == "--failed"
folder = Path(arguments[only_names])
stock_name, *others = arguments[only_names + 1 :]
stock = reference(folder, stock_name)
if only_names:
    print(*failures(stock, read(folder / f"{others[0]}.xml")), sep="\n", end="")
    sys.exit()

good = passing(stock)
skipped = sum(outcome == "skipped" for outcome in stock.values())
print(f"{stock_name}: {len(good)} of {len(stock)} pass, {skipped} are skipped, {len(stock) - len(good) - skipped} need what is not here")

passed = failed = 0
for name in others:
    outcomes = read(folder / f"{name}.xml")
    again = folder / f"{name}-again.xml"
    late = passing(read(again)) if again.exists() else set()
    outcomes |= dict.fromkeys(late, "passed")
    bad = failures(stock, outcomes)
    passed += len(good) - len(bad)
    failed += len(bad)
    print(f"{name}: {len(good) - len(bad)} of these {len(good)} pass, {len(late)} of them at the second try")
    for test in bad:
        print(f"  FAILED {test}: {outcomes.get(test, 'did not run')}")
    for test in sorted(passing(outcomes) - good):
        print(f"  passes here only: {test}")

if not good:
    failed += 1
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)

"""Runs a suite of unittest; fails when a test fails, is skipped, or says anything of its own.

    python3 suite.py COUNTS COMMAND…

The command's output is passed on. How many tests passed and failed is added to the file COUNTS as a
line of two numbers. The output of a green run is dots and unittest's closing lines.
"""

from __future__ import annotations

import re
import subprocess
import sys

_GREEN = re.compile(r"\.+\n-{70}\nRan \d+ tests? in [\d.]+s\n\nOK\n")
_BAD = re.compile(r"(?:failures|errors|unexpected successes)=(\d+)")


def main() -> int:
    counts, *command = sys.argv[1:]
    output = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1):
            output += piece
            print(piece, end="", flush=True)
    ran = sum(map(int, re.findall(r"^Ran (\d+) tests? in", output, re.MULTILINE)))
    closing = output[output.rfind("\nFAILED (") :] if "\nFAILED (" in output else ""
    failed = sum(map(int, _BAD.findall(closing)))
    is_green = process.returncode == 0 and _GREEN.fullmatch(output) is not None
    if not is_green and not failed:
        why = "a test was skipped" if "skipped=" in output else "it says more than dots"
        print(f"This is no green run: {why if process.returncode == 0 else 'it ended early'}.")
        failed = 1
    with open(counts, "a", encoding="utf-8") as file:
        file.write(f"{max(0, ran - failed)} {failed}\n")
    return 0 if is_green else 1


if __name__ == "__main__":
    sys.exit(main())

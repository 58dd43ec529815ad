"""What other servers' options are answered with."""

import re

from bide.cli import command
from bide.habits import NAMES, OTHERS, SENTENCES, equivalent
from tests.failures import Failures, same

OPTIONS = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


# fmt: off
TO_COME = {
    "--certificate", "--client-ca", "--key", "--key-password-file", "--max-requests", "--pid-file",
    "--root-path", "--tls-minimum", "--trust", "--worker-timeout", "--workers",
}
# fmt: on
"""Named already, and not there yet: the answers that name them are not given."""


def test_what_an_option_is_answered_with_is_there() -> None:
    """And the option itself is not, else the answer would never be given."""
    with Failures() as failures:
        for option, text in {**NAMES, **SENTENCES}.items():
            with failures.of(option):
                assert option not in OPTIONS
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
                assert named <= OPTIONS | TO_COME
                same(bool(equivalent(option, OPTIONS)), named <= OPTIONS)
        for option, same_as in OTHERS.items():
            with failures.of(option):
                assert option not in OPTIONS
                assert same_as in {**NAMES, **SENTENCES}


def test_what_people_type_from_habit_works_or_is_answered() -> None:
    """In one line; what is nobody's is not."""
    with Failures() as failures:
        for option in (
            *("--host", "--port", "--bind", "-b", "--threads", "-t", "--log-level", "-c"),
            *(
                "--access-logfile",
                "--timeout",
                "--keep-alive",
                "-k",
                "--worker-class",
                "--factory",
                "--uds",
            ),
        ):
            with failures.of(option):
                line = equivalent(option, OPTIONS)
                assert (option in OPTIONS) != bool(line)
                assert "\n" not in line
    same(equivalent("--access-logfile", OPTIONS)[:39], "--access-logfile is --access-log here (")
    same(equivalent("--no-such-option", OPTIONS), "")

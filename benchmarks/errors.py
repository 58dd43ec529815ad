"""What ends a run, or one server's round, with a reason that fits on one line."""


class CannotRunError(Exception):
    """Nothing can be measured here: a tool is missing, a name is unknown, the machine is too small.

    `str()` of it is the one line that the user reads.
    """


class RoundFailedError(Exception):
    """One server's round gave no figures: it did not start, did not answer, or ended.

    `str()` of it is the reason shown in the table.
    """

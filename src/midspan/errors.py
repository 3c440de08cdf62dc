"""The two exceptions that end a command with one sentence instead of a traceback."""


class InputError(ValueError):
    """Bad input: a file, a recipe or an argument that cannot be used as given.

    The message is one sentence that names the value and says what to do. The command line prints it and
    exits with code 2.
    """


class WorkError(RuntimeError):
    """The work was stopped or failed for a reason that is not a defect: a signal, a loss that is not finite.

    The message says what is kept and how to go on. The command line prints it and exits with code 1.
    """

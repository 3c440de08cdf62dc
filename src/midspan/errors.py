"""The one exception that is the user's to mend: a sentence with the offending value and the remedy."""


class InputError(ValueError):
    """Bad input: a file, a recipe or an argument that cannot be used as given.

    The message is one sentence that names the value and says what to do. The command line prints it and
    exits with code 2; anything else that is raised is a defect of Midspan or of the machine (exit code 1).
    """

"""The one exception type that means "the user can fix this"."""


class UserError(Exception):
    """A mistake in the user's input or surroundings.

    The message is one clear line: what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with code 2.
    """

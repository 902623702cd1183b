"""The one exception type that means "the user can fix this"."""


class UserError(Exception):
    """A mistake in the user's input or surroundings.

    The message is one clear line: what is wrong, where, and what to do. It names arguments in backticks (`frames`),
    and knows nothing of the command line, which prints them as flags (--frames), without a traceback, and exits with
    code 2.
    """

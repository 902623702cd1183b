"""``python -m fvgen`` is the command ``fvgen``."""

import sys

from fvgen.cli.main import main

sys.exit(main())

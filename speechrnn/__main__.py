"""``python -m speechrnn``: the command line."""

import sys

from speechrnn.cli.main import main

sys.exit(main())

"""`python -m apigate` is `apigate`."""

import sys

from apigate.cli import main

sys.exit(main())

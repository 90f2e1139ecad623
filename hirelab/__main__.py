"""``python -m hirelab`` is ``hirelab``."""

from hirelab.cli import main

raise SystemExit(main())

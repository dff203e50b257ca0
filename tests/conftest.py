"""What all tests share."""

import os

# Several test processes share the cores: threads that wait by spinning would starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

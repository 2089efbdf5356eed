"""Importing this before Triton has kernels of this process run in Triton's interpreter, as they do without a GPU."""

import os

os.environ["TRITON_INTERPRET"] = "1"

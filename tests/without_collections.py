"""Importing this first lets a process load modules without searching for garbage, which is not there yet."""

import gc

gc.disable()

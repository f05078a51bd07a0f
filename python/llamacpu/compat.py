"""A stand-in for the module `llama_cpp`, for programs written for it: an alias of `llamacpu.integrations.compat`."""

import sys

from llamacpu.integrations import compat

sys.modules[__name__] = compat

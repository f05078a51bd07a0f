"""The module `llama_cpp` for programs that were written for it: the public name of `llamacpu.integrations.compat`."""

import sys

from llamacpu.integrations import compat

sys.modules[__name__] = compat

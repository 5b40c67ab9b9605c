"""Imported once by the process that stage processes are forked from, so that each starts in
milliseconds.

It takes out the variables that choose kernels and hides what is not required, then only imports:
no tensor is made and no thread is started before the fork. Where something else imported torch
first (sitecustomize, a .pth file), the variables stay: then each process that is forked refuses to
work, and says so to whoever asked; from here nobody would hear it.
"""

import contextlib
import os

from s3t_core.errors import GuaranteeError
from s3t_core.learning.installed import remember_installed
from s3t_core.learning.pins import pin
from s3t_core.learning.required import hide_strangers

with contextlib.suppress(GuaranteeError):
    pin(os.environ)
    hide_strangers()
    remember_installed()

import scipy.stats  # noqa: F401  # of a score's interval
import transformers.conversion_mapping
import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto

import s3t_core.learning.ensemble
import s3t_core.learning.stage  # noqa: F401

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# patterns by which names in old checkpoints are read: compiled here, else by each process
transformers.conversion_mapping.get_checkpoint_conversion_mapping("")

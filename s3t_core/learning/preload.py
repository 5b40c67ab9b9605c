"""Imported once by the process that stage processes are forked from, so that each starts in milliseconds.

It only imports: no tensor is made and no thread is started before the fork.
"""

import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto

import s3t_core.learning.ensemble
import s3t_core.learning.stage  # noqa: F401

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

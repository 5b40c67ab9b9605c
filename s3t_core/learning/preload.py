"""Imported once by the process that stage processes are forked from, so that each starts in milliseconds.

It takes out the variables that choose kernels, then only imports: no tensor is made and no thread is started before
the fork.
"""
# ruff: noqa: E402  # the libraries read their variables when they are imported

import os

from s3t_core.learning.pins import pin

pin(os.environ)

import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto

import s3t_core.learning.ensemble
import s3t_core.learning.stage  # noqa: F401

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

"""Prefect tasks as this project uses them: nothing they are given or return is cached, hashed or stored."""

from functools import partial

import prefect
from prefect.cache_policies import NO_CACHE

task = partial(prefect.task, cache_policy=NO_CACHE, persist_result=False)

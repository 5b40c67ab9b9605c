"""Environment variables that choose kernels are taken out before torch is imported.

Under the same library versions such variables give a stage other bytes (measured: MKL_CBWR,
ONEDNN_MAX_CPU_ISA, DNNL_MAX_CPU_ISA, ATEN_CPU_CAPABILITY). A stage must not depend on the shell
that somebody started a command from, so the processes that train begin without any variable of the
libraries that compute: whatever begins with one of their prefixes goes, known to us or not, except
what cannot change a result. Torch and its libraries read them when they are loaded, so this comes
first (learning.preload). What a process is started with and the loader reads before Python runs
(LD_PRELOAD, LD_LIBRARY_PATH, GLIBC_TUNABLES) cannot be taken back; the fingerprint tells what it
does.

OPENBLAS_CORETYPE stays: numpy's own products feed no stage, and some machines need it to load numpy
at all.

Here it is also settled how threads wait: asleep. By default a thread of OpenMP that waits for the
others spins, and on a machine with other work it burns the core that the one it waits for would
need. Who does what part of a product is not changed by it, so no bit of a result is; an operator's
own OMP_WAIT_POLICY or GOMP_SPINCOUNT stays.
"""

import sys
from collections.abc import MutableMapping

from s3t_core.errors import GuaranteeError

PREFIXES = (
    "ONEDNN_",
    "_ONEDNN_",
    "DNNL_",
    "_DNNL_",
    "MKLDNN_",
    "IDEEP_",  # oneDNN
    "MKL_",
    "DAL_",
    "INTEL_",
    "FBGEMM_",
    "XNNPACK_",
    "OMP_",
    "GOMP_",
    "KMP_",  # how work is parted among threads
    "ATEN_",
    "TORCH_",
    "PYTORCH_",
    "NPY_",
    "ACCELERATE_",
    "CUBLAS",
    "CUDNN_",
    "NVIDIA_TF32_",
    "JSIMD_",  # libjpeg-turbo, by which Pillow decodes
)
NAMES = frozenset(
    {
        "FLASH_ATTENTION_DETERMINISTIC",
        "LRU_CACHE_CAPACITY",  # of primitives of oneDNN; none at all ends the process
        "TRANSFORMERS_SDPA_FORCE_GQA",
        "TRANSFORMERS_DISABLE_DEEPGEMM_LINEAR",
    }
)
HARMLESS = frozenset(
    {
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
    }
)
"""How threads wait and how memory is kept: they may stay."""
FIXED = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it torch refuses deterministic products on CUDA
    "USE_HUB_KERNELS": "NO",  # transformers would take kernels from the hub
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",  # torch would load whatever backend is installed
}


WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}


def chooses_kernels(name: str) -> bool:
    """Whether the variable of this name may decide the bits of a stage."""
    return (name.startswith(PREFIXES) or name in NAMES) and name not in HARMLESS


def pin(environment: MutableMapping[str, str]) -> None:
    """Take them out of `environment`, and set those that need a value.

    Raises GuaranteeError when torch was imported in this process while one of them was there: it
    may have been read.
    """
    found = sorted(name for name in environment if chooses_kernels(name) and name not in FIXED)
    if found and "torch" in sys.modules:
        raise GuaranteeError(
            f"expected no variable that chooses kernels when torch is imported, got {found[0]}; "
            "start the command without it"
        )
    for name in found:
        del environment[name]
    environment.update(FIXED)
    wait_without_spinning(environment)


def wait_without_spinning(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait for others sleep, where the operator did not say otherwise. Before
    torch is imported: OpenMP reads the variable when it is loaded; afterwards it does nothing."""
    if "GOMP_SPINCOUNT" not in environment:
        for name, value in WAITING.items():
            environment.setdefault(name, value)

"""Which code trains: a digest of every module of this package, as it was when the process began.

The version of the method (METHOD_VERSION) is raised by hand. A worker that was left at another
release, or an installation that changes under a running command, would train by other code under
equal keys: so whoever orders a stage names the code it runs, and whoever trains it compares
(docs/decisions/017).
"""

from hashlib import sha256
from pathlib import Path

import s3t_core


def _digest() -> str:
    folder = Path(s3t_core.__file__).parent
    found = sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


CODE = _digest()
"""SHA-256, hex, over the names and contents of all modules."""

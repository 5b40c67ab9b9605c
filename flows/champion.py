"""The one name that the code within registered versions takes from this package.

`Champion` stays here, and is made without arguments, as long as there are versions that somebody
may load: they hold a file that says `from flows.champion import Champion`
(flows.adapters.champion). Whatever is behind it may move.
"""

from flows.adapters.served_model import Champion

__all__ = ["Champion"]

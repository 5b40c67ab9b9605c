"""In which order several processes take tests: what takes minutes begins first, one each, so that
none ends long after the others."""

from itertools import cycle

import pytest


class LongestFirst:
    """Deals the tests marked `minutes`, module by module, to the beginnings of the equal parts that
    xdist gives to its processes (`--dist worksteal`)."""

    @pytest.hookimpl(trylast=True)  # after -m chose
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Each process of xdist does it for itself, and comes to the same order."""
        given: dict[str, int] = getattr(config, "workerinput", {})
        items[:] = dealt(items, int(given.get("workercount", 1)))


def dealt(items: list[pytest.Item], parts: int) -> list[pytest.Item]:
    """The same items, in the order described above."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("minutes"):
            groups.setdefault(item.nodeid.partition("::")[0], []).append(item)
    heads: list[list[pytest.Item]] = [[] for _ in range(parts)]
    for head, group in zip(cycle(heads), groups.values(), strict=False):
        head.extend(group)
    rest = [item for item in items if not item.get_closest_marker("minutes")]
    ordered, size = list[pytest.Item](), -(-len(items) // parts)
    for head in heads:
        room = max(size - len(head), 0)
        ordered += [*head, *rest[:room]]
        rest = rest[room:]
    return ordered + rest

"""Thrift's compact protocol, as far as Parquet writes it: enough to say which bytes of a file its
footer accounts for.

Source: the Thrift compact protocol specification; parquet.thrift for what the numbers of fields
mean.
"""

from collections.abc import Callable
from typing import Any

from s3t_core.erasure.decoding.parts import Undecodable

Struct = dict[int, Any]
_STOP, _TRUE, _FALSE = 0, 1, 2


class Reader:
    """Reads structs from bytes. `at`: where the next one begins. Raises Undecodable for what is
    none or is cut."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def struct(self) -> Struct:
        """The struct that begins here: its values by the number of their field."""
        found: Struct = {}
        number = 0
        while (header := self._byte()) != _STOP:
            kind, step = header & 15, header >> 4
            number = number + step if step else self._integer()
            found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return found

    def _value(self, kind: int) -> object:
        readers: dict[int, Callable[[], Any]] = {
            1: self._byte,
            2: self._byte,
            3: self._byte,
            4: self._integer,
            5: self._integer,
            6: self._integer,
            7: lambda: self._take(8),
            8: lambda: self._take(self._varint()),
            9: self._list,
            10: self._list,
            11: self._map,
            12: self.struct,
        }
        if kind not in readers:
            raise Undecodable("Thrift: a type that there is not")
        return readers[kind]()

    def _list(self) -> list[object]:
        header = self._byte()
        size = header >> 4 if header >> 4 != 15 else self._varint()
        if size > len(self._data) - self.at:
            raise Undecodable("Thrift: cut")
        return [self._value(header & 15) for _ in range(size)]

    def _map(self) -> list[tuple[object, object]]:
        size = self._varint()
        kinds = self._byte() if size else 0
        if size > len(self._data) - self.at:
            raise Undecodable("Thrift: cut")
        return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]

    def _integer(self) -> int:
        """A signed number, in zigzag."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
            if shift > 63:
                raise Undecodable("Thrift: a number that does not end")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        data = self._data[self.at : self.at + size]
        if len(data) != size:
            raise Undecodable("Thrift: cut")
        self.at += size
        return data

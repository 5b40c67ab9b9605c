"""What a file says once it is decoded, to its end or not at all.

1. A kind is known by the bytes a file begins with (four of them or more), never by its name alone.
   Each kind has one decoder, which yields parts: streams of bytes, to be looked at again, and rows,
   which say whose they are.
2. A decoder reaches the end of the file or raises Undecodable: what is cut, damaged, encrypted or
   followed by bytes that no decoder accounts for was not searched, and whoever relied on it must
   know. Several members one after the other (gzip, bzip2, xz, zstd, lz4) are all read.
3. Nothing is read whole but one cell of a table: streams are inflated piece by piece, so a file
   that inflates to a thousand times its size costs time, not memory.
4. Kinds that are known and not decoded here (7z, rar, encrypted Parquet, ...) are Undecodable. So
   is what is packed deeper than MAX_DEPTH.
5. A git pack is unpacked by git itself, from its own bytes alone: an index beside it may be cut, or
   another pack's.
"""

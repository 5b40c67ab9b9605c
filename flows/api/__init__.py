"""The front door: HTTP for requests and answers (docs/http.md). It reads what came, calls the use
cases that commands call, and tells what they say; nothing is decided here.

An ASGI application behind the guard of every port of ours (flows.adapters.guard): tokens instead of
one credential (flows.adapters.tokens), a role for each address, errors as problems (RFC 9457),
limits on size, rate and time.
"""

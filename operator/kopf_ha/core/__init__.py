"""The protocol, without I/O: how one write is fenced, and how a leader is elected.

Nothing here sends a request, reads a clock, starts a thread or knows asyncio. Requests, answers and the time come in,
decisions go out. So each rule of the protocol is a unit test with a clock that the test sets.

Begin with `fence`, then read `write` from top to bottom. It uses

- `asked`: what the client asks for
- `schema`: whether the kind carries the stamp, and `known`: what this process knows already
- `reading`: the object and the judgement of its stamp (`token`)
- `change` and `stamping`: the requests that are sent instead of the client's
- `gate`: sending them, as long as the `grant` allows it
- `refusal`: what the API server's refusals are

The election is in `election`, and reads and writes the `lease`.
"""

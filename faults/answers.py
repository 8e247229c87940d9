"""Answers that a link gives in the API server's place."""

from __future__ import annotations


def status(code: int, reason: str, message: str, *headers: str) -> bytes:
    """Give an answer as the API server writes it."""
    body = (
        '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
        f'"message":"{message}","reason":"{reason}","code":{code}}}'
    ).encode()
    lines = [f"HTTP/1.1 {code} {reason}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ended_watch(code: int, reason: str, message: str) -> bytes:
    """Give the answer to a watch that ends with an error at once."""
    event = (
        '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
        f'"message":"{message}","reason":"{reason}","code":{code}}}}}\n'
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + f"{len(event):x}\r\n".encode() + event + b"\r\n0\r\n\r\n"

"""The requests that an unmodified NextChat sent, replayed byte for byte on a socket, their answers read as NextChat reads them.

Captures are looked for in ../shared/data/nextchat beside the project; without them the test is skipped (exit status 77).
"""

import json
import os
import pathlib
import re
import socket
import sys
import time
import unittest
from urllib.parse import urlparse

CAPTURES = pathlib.Path(__file__).resolve().parents[3] / "shared/data/nextchat"
URL = urlparse(os.environ["MILLRACE_CLIENT_URL"])
PATIENCE = 120


class Reply:
    """One HTTP reply, read to its end."""

    def __init__(self, sock):
        self.sock, self.data = sock, b""
        self.started = time.monotonic()
        head = self.until(b"\r\n\r\n")
        self.seconds_to_headers = time.monotonic() - self.started
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {k.strip().lower(): v.strip() for k, v in (l.split(":", 1) for l in lines[1:] if l)}

    def more(self):
        part = self.sock.recv(65536)
        if not part:
            raise EOFError("closed before the end of the reply")
        self.data += part

    def until(self, mark):
        while mark not in self.data:
            self.more()
        head, self.data = self.data.split(mark, 1)
        return head

    def take(self, n):
        while len(self.data) < n:
            self.more()
        out, self.data = self.data[:n], self.data[n:]
        return out

    def parts(self):
        """The body as it comes. EOFError when it does not end as HTTP wants it."""
        if self.headers.get("transfer-encoding") != "chunked":
            yield self.take(int(self.headers.get("content-length", 0)))
            return
        while size := int(self.until(b"\r\n"), 16):
            yield self.take(size)
            self.take(2)
        self.take(2)

    def json(self):
        return json.loads(b"".join(self.parts()))


def connect():
    sock = socket.create_connection((URL.hostname, URL.port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def capture(name):
    return (CAPTURES / (name + ".req")).read_bytes()


def deltas(body):
    """choices[0].delta of every event; comments, [DONE] and events without choices are passed over, as NextChat does."""
    for event in re.split(r"\n\n", body.decode()):
        data = "\n".join(l[5:].lstrip() for l in event.split("\n") if l.startswith("data:"))
        if data and data != "[DONE]":
            yield from (c["delta"] for c in json.loads(data).get("choices", [])[:1])


class Captured(unittest.TestCase):
    def send(self, name):
        sock = connect()
        self.addCleanup(sock.close)
        sock.sendall(capture(name))
        return Reply(sock)

    def stream(self, name):
        """(what NextChat would show, whether the stream ended cleanly)"""
        reply, body, clean = self.send(name), b"", True
        self.assertEqual(reply.status, 200)
        self.assertTrue(reply.headers["content-type"].startswith("text/event-stream"))
        self.assertEqual(reply.headers["access-control-allow-origin"], "*")
        self.assertNotIn("content-encoding", reply.headers)
        self.assertLess(reply.seconds_to_headers, 10, "NextChat gives up when headers are late")
        try:
            for part in reply.parts():
                body += part
        except EOFError:
            clean = False
        shown = ""
        for delta in deltas(body):
            self.assertFalse(delta.get("content") and delta.get("reasoning_content"), "one field a delta")
            shown += delta.get("content") or delta.get("reasoning_content") or ""
        return shown, clean

    def test_every_chat_is_answered(self):
        for name in ["chat-first", "chat-history", "chat-chunked", "gpt-system", "summary", "deepseek-chat",
                     "deepseek-reasoner", "direct-chat"]:
            with self.subTest(name):
                shown, clean = self.stream(name)
                self.assertTrue(shown.strip())
                self.assertTrue(clean)
                self.assertNotIn("[Error:", shown)

    def test_a_title_is_one_json(self):
        reply = self.send("title")
        self.assertEqual(reply.status, 200)
        self.assertIsInstance(reply.json()["choices"][0]["message"]["content"], str)

    def test_images_get_through_and_the_model_says_that_it_takes_none(self):
        shown, clean = self.stream("vision")
        self.assertIn("[Error:", shown)
        self.assertIn("image", shown)
        self.assertFalse(clean, "a failed answer must not end like a good one")

    def test_a_title_of_images_fails_with_an_error_object(self):
        reply = self.send("vision-title")
        self.assertEqual(reply.status // 100, 4)
        self.assertIn("image", reply.json()["error"]["message"])

    def test_models_and_billing_answer(self):
        self.assertIn("our-chat", [m["id"] for m in self.send("models").json()["data"]])
        self.assertIsInstance(self.send("billing-usage").json()["total_usage"], (int, float))

    def test_the_browsers_preflight_passes(self):
        reply = self.send("direct-preflight")
        self.assertEqual(reply.status // 100, 2)
        self.assertEqual(reply.headers["access-control-allow-origin"], "*")
        allowed = reply.headers["access-control-allow-headers"].replace(" ", "").lower().split(",")
        self.assertLessEqual({"authorization", "content-type"}, set(allowed))

    def test_one_connection_serves_one_request_after_another(self):
        sock = connect()
        self.addCleanup(sock.close)
        for name in ["chat-first", "title", "chat-chunked", "models"]:
            sock.sendall(capture(name))
            reply = Reply(sock)
            self.assertEqual(reply.status, 200)
            self.assertTrue(b"".join(reply.parts()))

    def test_an_idle_connection_outlives_nextchats(self):
        sock = connect()
        self.addCleanup(sock.close)
        sock.sendall(capture("models"))
        Reply(sock).json()
        time.sleep(6)  # its agent keeps idle connections for 5 s
        sock.sendall(capture("models"))
        self.assertEqual(Reply(sock).status, 200)

    def test_stop_in_the_middle_leaves_the_service_well(self):
        for _ in range(5):
            sock = connect()
            sock.sendall(capture("direct-chat"))
            next(Reply(sock).parts())
            sock.close()
        shown, clean = self.stream("chat-first")
        self.assertTrue(shown and clean)


if __name__ == "__main__":
    if not CAPTURES.is_dir():
        print(f"skipped: no captured requests at {CAPTURES.name}")
        sys.exit(77)
    unittest.main(verbosity=2)

"""How servers are started that must not outlive the tests."""

from __future__ import annotations

# Stops the server when its own standard input ends, so also when the tests are killed.
GUARD = """
import subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def stop():
    sys.stdin.buffer.read()
    server.terminate()
threading.Thread(target=stop, daemon=True).start()
sys.exit(server.wait())
"""

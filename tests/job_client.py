"""Replaces `python -m benchmarks.cli ARGUMENTS`: has a forked process run it and exits with its status (forked.py).

Started with `-I -S` to be fast: it uses only the standard library. Signals to the process group reach the job itself.
"""

import json
import os
import signal
import socket
import sys

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
address, option, module, *arguments = sys.argv[1:]
assert (option, module) == ("-m", "benchmarks.cli"), sys.argv
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(address)
request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
status = int(server.recv(16) or -signal.SIGKILL)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)

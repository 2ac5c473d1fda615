"""Runs Barman's commands without their second of loading each time: loads them once, then forks for each run.

Uses the entry points that the installed package declares, as its own little scripts do; knows nothing of what is
behind them. Serves a Unix socket: one JSON object in, one out, for each connection. Ends when its standard input does.
"""

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from importlib.metadata import entry_points


def load_commands():
    found = {}
    for entry in entry_points(group="console_scripts"):
        if entry.name.startswith("barman-cloud-"):
            found[entry.name] = entry.load()
    # Loaded by the commands when they need them; here once for all.
    import boto3  # noqa: F401
    import boto3.session  # noqa: F401
    import botocore.httpsession  # noqa: F401
    import s3transfer.manager  # noqa: F401

    return found


def run(main, request):
    """In a process of its own: become the command."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = [request["command"]] + request["words"]
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    signal.alarm(request["seconds"])
    code = exit_code(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(main):
    """What the interpreter would make of it."""
    try:
        result = main()
    except SystemExit as stop:
        result = stop.code
    except BaseException:
        traceback.print_exc()
        return 1
    if result is None or isinstance(result, int):
        return result or 0
    print(result, file=sys.stderr)
    return 1


def serve_one(commands, connection):
    stream = connection.makefile("rwb")
    request = json.loads(stream.readline())
    outputs = [os.memfd_create("stdout"), os.memfd_create("stderr")]
    child = os.fork()
    if child == 0:
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        run(commands[request["command"]], request)
    _, status = os.waitpid(child, 0)
    texts = []
    for output in outputs:
        size = os.fstat(output).st_size
        texts.append(os.pread(output, size, 0).decode("utf-8", "replace"))
    code = os.waitstatus_to_exitcode(status)
    answer = {"code": code, "stdout": texts[0], "stderr": texts[1]}
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()


def main():
    commands = load_commands()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(16)
    print("ready", flush=True)
    # Nobody waits for the processes that serve.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                serve_one(commands, connection)
            finally:
                os._exit(0)
        connection.close()


main()

"""Runs one program in a process that has little: read from standard input, as JSON {program, timeout, memory, file, uid}.

Prints one line of JSON, {"result": "passed" | "timed out" | "failed: ..."}. Limits are set here, in the process itself, before the
program runs; the caller kills whatever does not end.
"""
import contextlib
import io
import json
import os
import resource
import signal
import sys


class TimedOut(BaseException):
    pass


class NoInput(io.StringIO):
    def read(self, *args, **kwargs):
        raise OSError("no standard input")

    readline = readlines = read

    def readable(self, *args, **kwargs):
        return False


def limit(task):
    memory, size, seconds = task["memory"], task["file"], int(task["timeout"]) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    if sys.platform != "darwin":
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if task["uid"] is not None:
        os.setgroups([])
        os.setgid(task["uid"])
        os.setuid(task["uid"])
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def main():
    task = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    limit(task)

    def on_alarm(signum, frame):
        raise TimedOut()

    signal.signal(signal.SIGALRM, on_alarm)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            sys.stdin = NoInput()
            signal.setitimer(signal.ITIMER_REAL, task["timeout"])
            try:
                exec(task["program"], {})
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        result = "passed"
    except TimedOut:
        result = "timed out"
    except BaseException as error:
        result = "failed: %s" % error
    answer.write(json.dumps({"token": task["token"], "result": result[:500]}) + "\n")
    answer.flush()
    os._exit(0)


main()

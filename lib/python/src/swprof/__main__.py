# SPDX-License-Identifier: Apache-2.0
"""swprof run [-p] COMMAND...: COMMAND with the SkyWalking agent, profiled by swprofd."""

import os
import shutil
import sys

from . import __version__

USAGE = """Usage: swprof run [-p] COMMAND [ARGUMENT]...
Run COMMAND (python app.py, gunicorn app:app, ...) with the SkyWalking agent, as `sw-python run` does, but profiled by
swprofd in place of the agent's own profiler. The agent's configuration is in its environment variables (SW_AGENT_*).

  -p, --prefork  COMMAND is gunicorn or uwsgi: the agent is started in its workers
  -h, --help     print this help, and exit
  --version      print the version, and exit
"""


def _fail(text):
    print(f"swprof: {text}", file=sys.stderr)
    return 2


def main():
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]) or arguments[:2] in (["run", "-h"], ["run", "--help"]):
        print(USAGE, end="")
        return 0
    if arguments == ["--version"]:
        print(f"swprof {__version__}")
        return 0
    if arguments[:1] != ["run"] or not [a for a in arguments[1:] if a not in ("-p", "--prefork")]:
        return _fail("no command to run. Try 'swprof --help'.")
    beside = os.path.join(os.path.dirname(sys.executable), "sw-python")
    program = beside if os.access(beside, os.X_OK) else shutil.which("sw-python")
    if not program:
        return _fail("sw-python is not there: install apache-skywalking (1.2.0) beside swprof")
    os.environ["SWPROF"] = "1"
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    sys.exit(main())

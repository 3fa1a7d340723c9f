#!/bin/sh
# Start a command of the kit with the first Python here that can: the environment's own, or any from 3.8 on.
# What needs more than the standard library finds the environment's Python by itself.
cd "$(dirname "$0")/.." || exit 1
for python in .venv/bin/python python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        exec "$python" -m launch "$@"
    fi
done
cat >&2 <<'END'
error: There is no Python here that starts.
where: .venv/bin/python, python3, python3.8 ... python3.13 on PATH
to do: Install Python 3.8 or later (Debian and Ubuntu: apt install python3). A run itself uses 3.8.
END
exit 2

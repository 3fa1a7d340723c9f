#!/bin/sh
# Start a command of the kit with the first Python here that can: the environment's own, or any from 3.8 on.
# A command that needs more than the standard library goes on in the environment's.
cd "$(dirname "$0")/.." || exit 1

try() {
    [ -n "$1" ] && "$1" -E -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null
}

# Python takes a while to start, and a Ctrl-C meanwhile would end it with a traceback: it is kept for the kit.
begin='import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-E", "-m", "launch", *sys.argv[1:]])'

for python in .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 \
    "$LAUNCH_PYTHON" \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3 \
    "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/cpython-3.*/bin/python3; do
    if try "$python"; then
        trap '' INT
        exec "$python" -E -S -c "$begin" "$@"
    fi
done
if command -v uv >/dev/null; then
    echo "No Python starts here; uv is asked for one." >&2
    exec uv run --quiet --no-project python -E -m launch "$@"
fi
cat >&2 <<'END'
error: There is no Python here that starts.
where: .venv/bin/python; python3 and python3.8 to python3.14 on PATH; PYTHON=; pyenv's and uv's versions
to do: Install one, any from 3.8 on (Debian and Ubuntu: apt install python3): it fetches all the rest.
END
exit 2

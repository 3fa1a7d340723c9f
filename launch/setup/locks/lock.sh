#!/bin/sh
# Resolve the .in files beside this script into .lock files: exact versions, all hashes.
# Run by `make lock`, which says in UV where uv is; needs a route to the package index.
set -eu
cd "$(dirname "$0")"
resolve() {
    "$UV" pip compile --quiet --python ../../../.venv/bin/python --generate-hashes --no-header \
        --annotation-style line "$@"
}
resolve installer.in --no-deps --output-file installer.lock
resolve sources.in --no-deps --output-file sources.lock
resolve runtime.in --override exclude.txt --output-file runtime.lock
resolve report.in --output-file report.lock
resolve dev.in --output-file dev.lock
resolve mo2021.in --override mo2021-exclude.txt --output-file mo2021.lock
resolve hub.in --override hub-exclude.txt --output-file hub.lock
resolve runtimes.in --python-version 3.11 --override runtimes-exclude.txt --output-file runtimes.lock

#!/usr/bin/env bash
# The pinned environment in .venv, for the steps that follow.
set -euo pipefail
make .venv/.run
# GITHUB_PATH is a file: each line is put in front of PATH for the next steps.
echo "$PWD/.venv/bin" >>"$GITHUB_PATH"

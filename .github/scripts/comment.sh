#!/usr/bin/env bash
# Pictures first, then the comment that shows them.
set -euo pipefail
scripts=$(dirname "$0")
PULL_REQUEST=$(python3 "$scripts/comment.py" --number)
export PULL_REQUEST
[ -n "$PULL_REQUEST" ] || exit 0
if [ -d "$ARTIFACT/pictures" ]; then
    "$scripts/pictures.sh" || echo "The pictures could not be pushed; the comment goes without them."
fi
python3 "$scripts/comment.py"

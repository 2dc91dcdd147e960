#!/usr/bin/env bash
# Put the pictures of a report on the branch report-pictures, in a folder per pull request, so that a comment can show them.
# They come from untrusted code: only the names below, only PNG, at most a megabyte. The branch keeps one commit, no history.
set -euo pipefail
: "${PULL_REQUEST:?number}" "${ARTIFACT:?folder of the report}" "${PICTURES_REMOTE:?address to push to}"
[[ $PULL_REQUEST =~ ^[0-9]+$ ]] || { echo "$PULL_REQUEST is not a number."; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init -q "$work"

git -C "$work" fetch -q --depth 1 "$PICTURES_REMOTE" report-pictures 2>/dev/null && git -C "$work" checkout -q FETCH_HEAD
place=pr-$PULL_REQUEST
rm -rf "${work:?}/$place"
mkdir "$work/$place"
for name in speedup tradeoff differences latency; do
    for theme in light dark; do
        file=$ARTIFACT/pictures/$name-$theme.png
        if [ ! -f "$file" ] || [ -L "$file" ] || [ -L "$ARTIFACT/pictures" ]; then continue; fi
        [ "$(stat -c %s "$file")" -le 1000000 ] || continue
        [ "$(head -c 8 "$file" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] || continue
        cp "$file" "$work/$place/"
    done
done
git -C "$work" add -A
tree=$(git -C "$work" write-tree)
commit=$(git -C "$work" -c user.name=ci -c user.email=ci@localhost commit-tree -m "Pictures of reports" "$tree")
git -C "$work" push -q --force "$PICTURES_REMOTE" "$commit:refs/heads/report-pictures"

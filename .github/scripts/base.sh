#!/usr/bin/env bash
# Measure the base of the pull request on this machine too, so that latencies can be compared: a commit named base-measured-here.
# If that fails, the base's committed metrics remain, and the report says which machine they are from.
set -euo pipefail
: "${BASE_SHA:?the commit to compare with}"
folder=$PWD/${REPORT_FOLDER:-ci-report}
here=$PWD
base=$(mktemp -d)
trap 'rm -rf "$base"' EXIT

measure() {
    git clone -q --no-checkout "$here" "$base" &&
        cd "$base" &&
        git checkout -q -b base-measured-here "$BASE_SHA" &&
        printf '[cache]\n    dir = %s\n' "$here/.dvc/cache" >.dvc/config.local &&
        { [ -z "$(dvc remote list)" ] || dvc pull --allow-missing || true; } &&
        dvc repro bench &&
        # A closed gate is an answer too; an older base has another gate, or none.
        { python -m stages.gate || true; } &&
        git add -f metrics dvc.lock params.yaml &&
        git -c user.name=ci -c user.email=ci@localhost commit -q --allow-empty -m "$BASE_SHA, measured on this machine" &&
        cd "$here" &&
        git fetch -q --force "$base" base-measured-here:base-measured-here
}

if ! (measure) >"$folder/base.log" 2>&1; then
    tail -n 5 "$folder/base.log"
    echo "The base could not be measured here; its committed metrics are shown." | tee "$folder/base.txt"
fi

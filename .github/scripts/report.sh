#!/usr/bin/env bash
# The report of this run as Markdown and HTML, whatever happened before; also the summary of the job.
set -euo pipefail
: "${BASE_SHA:?the commit to compare with}"
folder=${REPORT_FOLDER:-ci-report}
mkdir -p "$folder"
base=$BASE_SHA
if git rev-parse -q --verify base-measured-here >/dev/null; then base="base-measured-here"; fi

{
    if [ -s "$folder/problems.txt" ]; then
        printf '## ❌ This commit is not complete\n\n'
        sed 's/^/- /' "$folder/problems.txt"
        echo
    fi
    # The gate's file was removed before the run: without it, the run did not get as far as a decision.
    if [ -e metrics/gate.json ]; then
        [ -e "$folder/base.txt" ] && sed 's/^/> ⚠️ /' "$folder/base.txt" && echo
        python -m stages.report --base "$base" --pictures "$folder/pictures" --html "$folder/report.html" \
            2>"$folder/error.txt" ||
            { printf '## ❌ The report failed\n\n````\n'; tail -n 5 "$folder/error.txt"; printf '````\n'; }
    else
        printf '## ❌ The pipeline failed\n\nIt did not reach a decision. The end of its output:\n\n````\n'
        tail -n 20 "$folder/pipeline.log" 2>/dev/null || echo "It was not started: see the steps before it."
        printf '````\n'
    fi
} >"$folder/report.md"

# The pictures have no address here; the page and the comment show them.
sed '/<picture>/d' "$folder/report.md" >>"$GITHUB_STEP_SUMMARY"

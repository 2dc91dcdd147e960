"""Post the report of a pull request as one comment, or update the one that is there. Runs with a write token.

The report comes from untrusted code and is data: it is cut to what a comment can hold, notifies nobody, and names
neither the pull request nor the comment. Those come from GitHub: the open pull request whose head is the commit that
ran, and the comment of this workflow that starts with the marker.

Environment: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_SERVER_URL, GITHUB_TOKEN; HEAD_OWNER, HEAD_BRANCH, HEAD_SHA and
RUN_URL of the run that reported; ARTIFACT, the folder of the report. With --number it prints the number of the pull
request and posts nothing.
"""

import json
import os
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

MARKER = "<!-- quantization-report -->"
LONGEST = 60_000
"""GitHub takes 65536 characters."""

PICTURE = re.compile(r'(?<=")[\w./-]*pictures/((?:speedup|tradeoff|differences|latency)-(?:light|dark)\.png)(?=")')

AUTHOR = "github-actions[bot]"


def call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call GitHub's REST API."""
    request = urllib.request.Request(
        os.environ["GITHUB_API_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def pull_request() -> int | None:
    """The number of the open pull request whose head ran, or None: it was closed, or has newer commits."""
    head = urllib.parse.quote(f"{os.environ['HEAD_OWNER']}:{os.environ['HEAD_BRANCH']}", safe="")
    listed = call("GET", f"/repos/{os.environ['GITHUB_REPOSITORY']}/pulls?state=open&head={head}")
    numbers = [entry["number"] for entry in listed if entry["head"]["sha"] == os.environ["HEAD_SHA"]]
    return int(numbers[0]) if numbers else None


def own_comment(number: int) -> int | None:
    """The id of our comment, or None."""
    for page in range(1, 100):
        listed = call(
            "GET", f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues/{number}/comments?per_page=100&page={page}"
        )
        for comment in listed:
            if comment["user"]["login"] == AUTHOR and comment["body"].startswith(MARKER):
                return int(comment["id"])
        if len(listed) < 100:
            break
    return None


def text(artifact: Path, number: int, run_url: str) -> str:
    """The comment."""
    report = artifact / "report.md"
    if report.is_file() and not report.is_symlink():
        markdown = report.read_bytes()[: 4 * LONGEST].decode("utf-8", errors="replace")
    else:
        markdown = "## ❌ The run left no report\n"
    markdown = re.sub(r"(?<![\w`])@(?=\w)", "@\N{ZERO WIDTH SPACE}", markdown)
    repository = f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}"
    address = f"{repository}/blob/report-pictures/pr-{number}/{{}}?raw=true&run={run_url.rsplit('/', 1)[-1]}"
    markdown = PICTURE.sub(lambda match: address.format(match[1]), markdown)
    more = f"[The run]({run_url}) has the report as a page."
    if len(markdown) > LONGEST:
        markdown = markdown[:LONGEST] + "\n\n</details>\n\n**Cut here: too long for a comment.**"
    return f"{MARKER}\n{markdown}\n\n{more}\n"


def main() -> int:
    """Find the pull request, and post."""
    number = pull_request()
    if number is None:
        print("No open pull request has this commit as its head.", file=sys.stderr)
        return 0
    if "--number" in sys.argv:
        print(number)
        return 0
    body = {"body": text(Path(os.environ["ARTIFACT"]), number, os.environ["RUN_URL"])}
    issues = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    comment = own_comment(number)
    if comment is None:
        call("POST", f"{issues}/{number}/comments", body)
    else:
        call("PATCH", f"{issues}/comments/{comment}", body)
    print(f"{'Posted' if comment is None else 'Updated'} the comment on #{number}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

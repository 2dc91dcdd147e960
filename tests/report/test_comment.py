"""The comment of a pull request: there is one, others are left alone, and the artifact is treated as data."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.report.trees import ROOT

SCRIPT = ROOT / ".github/scripts/comment.sh"
MARKER = "<!-- quantization-report -->"
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100
BOT = "github-actions[bot]"


class GitHub:
    """The part of GitHub's REST API that the script calls; it records what it was sent."""

    def __init__(self) -> None:
        self.pulls = [{"number": 7, "head": {"sha": "newer"}}, {"number": 12, "head": {"sha": "s" * 40}}]
        self.comments: list[dict[str, Any]] = [
            {"id": 1, "user": {"login": "someone"}, "body": f"{MARKER}\nnot ours"},
            {"id": 2, "user": {"login": BOT}, "body": "of another workflow"},
        ]
        self.calls: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                hub.calls.append((self.command, self.path))
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                payload = json.dumps(hub.handle(self.command, self.path, body)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the names that http.server calls

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        if path == "/repos/owner/name/pulls?state=open&head=fork%3Apatch%2F%241":
            return self.pulls
        if method == "GET" and path == "/repos/owner/name/issues/12/comments?per_page=100&page=1":
            return self.comments
        assert body is not None, path
        if method == "POST" and path == "/repos/owner/name/issues/12/comments":
            self.comments.append({"id": 3, "user": {"login": BOT}, **body})
        elif method == "PATCH":
            (comment,) = [comment for comment in self.comments if path.endswith(f"/issues/comments/{comment['id']}")]
            comment |= body
        else:
            raise AssertionError(path)
        return {}


@pytest.fixture
def github() -> Iterator[GitHub]:
    hub = GitHub()
    yield hub
    hub.server.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    bare = tmp_path / "pictures.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    return bare


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "pictures").mkdir(parents=True)
    (folder / "report.md").write_text(
        '## ✅ Deploy INT8\n\n<img src="ci-report/pictures/speedup-light.png"> thanks @someone, a@b.example\n'
    )
    (folder / "pictures/speedup-light.png").write_bytes(PNG)
    return folder


def post(github: GitHub, artifact: Path, pictures: Path) -> "subprocess.CompletedProcess[str]":
    environment = {
        "ARTIFACT": str(artifact),
        "GITHUB_API_URL": f"http://127.0.0.1:{github.server.server_port}",
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_TOKEN": "secret",
        "HEAD_BRANCH": "patch/$1",
        "HEAD_OWNER": "fork",
        "HEAD_SHA": "s" * 40,
        "PATH": os.environ["PATH"],
        "PICTURES_REMOTE": str(pictures),
        "RUN_URL": "https://github.com/owner/name/actions/runs/99",
    }
    return subprocess.run([str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)


def pushed(pictures: Path) -> list[str]:
    command = ["git", "-C", str(pictures), "ls-tree", "-r", "--name-only", "report-pictures"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_one_comment_is_posted_then_updated(github: GitHub, artifact: Path, pictures: Path) -> None:
    first = post(github, artifact, pictures)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "Posted the comment on #12.\n"
    (artifact / "report.md").write_text("## ❌ The pipeline failed\n")
    assert post(github, artifact, pictures).stdout == "Updated the comment on #12.\n"
    assert len(github.comments) == 3
    assert github.comments[2]["body"].startswith(f"{MARKER}\n## ❌ The pipeline failed\n")
    assert [comment["body"] for comment in github.comments[:2]] == [f"{MARKER}\nnot ours", "of another workflow"]


def test_pictures_are_pushed_and_shown(github: GitHub, artifact: Path, pictures: Path) -> None:
    post(github, artifact, pictures)
    assert pushed(pictures) == ["pr-12/speedup-light.png"]
    address = "https://github.com/owner/name/blob/report-pictures/pr-12/speedup-light.png?raw=true&run=99"
    assert f'<img src="{address}">' in github.comments[2]["body"]
    count = ["git", "-C", str(pictures), "rev-list", "--count", "report-pictures"]
    post(github, artifact, pictures)
    assert subprocess.run(count, check=True, capture_output=True, text=True).stdout == "1\n"


def test_pictures_of_other_pull_requests_stay(github: GitHub, artifact: Path, pictures: Path) -> None:
    post(github, artifact, pictures)
    (artifact / "pictures/speedup-light.png").rename(artifact / "pictures/latency-dark.png")
    github.pulls[1]["number"] = 12
    work = pictures.parent / "work"
    subprocess.run(["git", "clone", "-q", "-b", "report-pictures", str(pictures), str(work)], check=True)
    shutil.copytree(work / "pr-12", work / "pr-3")
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"], ["push", "-q"]):
        subprocess.run(["git", "-C", str(work), *command], check=True)
    post(github, artifact, pictures)
    assert pushed(pictures) == ["pr-12/latency-dark.png", "pr-3/speedup-light.png"]


def test_only_small_png_files_of_known_names_are_pushed(github: GitHub, artifact: Path, pictures: Path) -> None:
    folder = artifact / "pictures"
    (folder / "evil.png").write_bytes(PNG)
    (folder / "latency-light.png").write_text("<svg onload='x()'/>")
    (folder / "latency-dark.png").write_bytes(PNG + b"0" * 1_000_000)
    (folder / "tradeoff-dark.png").symlink_to("/etc/hostname")
    post(github, artifact, pictures)
    assert pushed(pictures) == ["pr-12/speedup-light.png"]


def test_a_report_notifies_nobody_and_fits(github: GitHub, artifact: Path, pictures: Path) -> None:
    post(github, artifact, pictures)
    assert "@someone" not in github.comments[2]["body"]
    assert "a@b.example" in github.comments[2]["body"]
    (artifact / "report.md").write_text("x" * 200_000)
    post(github, artifact, pictures)
    assert len(github.comments[2]["body"]) < 65_536
    assert "Cut here" in github.comments[2]["body"]


def test_a_link_in_place_of_the_report_is_not_followed(github: GitHub, artifact: Path, pictures: Path) -> None:
    (artifact / "report.md").unlink()
    (artifact / "report.md").symlink_to("/etc/passwd")
    post(github, artifact, pictures)
    assert "The run left no report" in github.comments[2]["body"]
    assert "root:" not in github.comments[2]["body"]


def test_a_run_without_a_report_is_said(github: GitHub, tmp_path: Path, pictures: Path) -> None:
    assert post(github, tmp_path / "nothing", pictures).returncode == 0
    assert "The run left no report" in github.comments[2]["body"]


def test_an_older_commit_comments_nothing(github: GitHub, artifact: Path, pictures: Path) -> None:
    github.pulls[1]["head"] = {"sha": "newer"}
    done = post(github, artifact, pictures)
    assert done.returncode == 0
    assert "No open pull request has this commit as its head." in done.stderr
    assert [method for method, _ in github.calls] == ["GET"]


def test_without_pictures_the_comment_is_posted_all_the_same(github: GitHub, artifact: Path, tmp_path: Path) -> None:
    done = post(github, artifact, tmp_path / "not a repository")
    assert done.returncode == 0
    assert "The pictures could not be pushed" in done.stdout
    assert len(github.comments) == 3

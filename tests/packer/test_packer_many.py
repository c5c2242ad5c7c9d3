"""Many machines: job arrays, a Dask cluster that loses a worker, buckets. Always the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from lasot_tree import hashes, picture, sequence, small_tree
from s3_server import BUCKET, client, s3_server
from waiting import until

from packer import cluster, output
from packer.cli import main as packer_cli
from packer.datasets import lasot
from packer.draft import draft, silent
from packer.jobs import PackOptions
from packer.report import Report
from packer.run import Malformed, pack
from packer.share import Share
from packer.source import FolderSource
from packer.workers import Work, pack_shard
from shards.cli import main as shards_cli
from shards.errors import DataError, MismatchError, SiamstreamError, StorageError
from shards.finish import finish_place
from shards.format import Manifest
from shards.sink import FolderSink, sink_at
from shards.writer import part_name

OPTIONS = PackOptions(stride=1, min_size=10, size=127, frames_per_shard=16, split="all")
ARGUMENTS = ["--stride=1", "--size=127", "--frames-per-shard=16", "--split=all"]


def run(root: Path, out: Any, options: PackOptions = OPTIONS, **more: Any) -> Report:
    return pack(lasot, root, out, options, **{"workers": 1, **more})


def share(text: str) -> Share:
    return Share.parse(text)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tree(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def expected(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the small tree packed in one go by one process: six shards."""
    out = tmp_path_factory.mktemp("expected") / "lasot"
    run(tree, out)
    return hashes(out)


# Job arrays -----------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 12))
def test_shares_are_disjoint_complete_and_even(items: int, of: int) -> None:
    shares = [share(f"{number}/{of}").pick(range(items)) for number in range(of)]
    assert sorted(item for one in shares for item in one) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "2/2", "-1/2", "1/0", "0/0", "a/b", "1/2/3", " 0/1"]
)
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"I/N|numbered from 0"):
        share(text)


def test_jobs_then_finish_give_the_bytes_of_one_run(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    out = tmp_path / "out"
    report = run(tree, out, share=share("1/4"))
    assert (report.shards, report.frames, report.job, report.dry_run) == (2, 25, "1/4", False)
    assert report.bytes == sum(path.stat().st_size for path in out.glob("*.tar"))
    assert {path.name for path in out.glob("*.tar")} == {"lasot-000001.tar", "lasot-000005.tar"}
    text = "\n".join(report.lines())
    assert "job 1/4: 25 frames, 2 sequences, 2 shards, " in text
    assert f"when all jobs are done: python -m shards finish {out}" in text
    assert not (out / "manifest.json").exists()

    with pytest.raises(DataError, match=r"4 of 6 shards are not packed: lasot-000000\.tar, "):
        finish_place(out)
    for number in (3, 0, 2):
        run(tree, out, share=share(f"{number}/4"))
    again = run(tree, out, share=share("2/4"))
    assert again.resumed_shards == again.shards == 1
    manifest = finish_place(out)
    assert hashes(out) == expected
    assert manifest == Manifest.read(out)
    late = run(tree, out, share=share("3/4"))  # complete: nothing is left to do
    assert (late.job, late.shards) == (None, 6)
    assert "all of it was packed before; nothing to do" in "\n".join(late.lines())
    assert hashes(out) == expected


def test_jobs_left_over_have_nothing_to_do(tree: Path, tmp_path: Path) -> None:
    report = run(tree, tmp_path / "out", share=share("7/9"))
    assert (report.shards, report.frames, report.bytes) == (0, 0, 0)


def test_a_plain_run_goes_on_where_jobs_stopped(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    run(tree, tmp_path / "out", share=share("0/2"))
    assert run(tree, tmp_path / "out").resumed_shards == 3
    assert hashes(tmp_path / "out") == expected


def test_jobs_at_once_in_one_folder(tree: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    """Real processes, and two of them with the same share."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "packer", "lasot", f"--root={tree}", f"--out={out}"]
    command += [*ARGUMENTS, "--workers=1"]
    jobs = [
        subprocess.Popen([*command, f"--job={share}"], stderr=subprocess.PIPE, text=True)
        for share in ("0/2", "1/2", "1/2")
    ]
    for job in jobs:
        _, said = job.communicate()
        assert job.returncode == 0, said
    result = CliRunner().invoke(shards_cli, ["finish", str(out)])
    assert result.exit_code == 0, result.output
    assert hashes(out) == expected


def test_a_plain_run_is_refused_beside_a_job_and_a_job_beside_it(
    tree: Path, tmp_path: Path
) -> None:
    out, met = tmp_path / "out", []

    def meeting(inner: Any) -> Any:
        @contextmanager
        def progress(what: str, unit: str, total: int) -> Iterator[Any]:
            if what == "packing" and not met:
                met.append(what)
                inner()
            with silent(what, unit, total) as shown:
                yield shown

        return progress

    def plain() -> None:
        with pytest.raises(StorageError, match="another packer is at work"):
            run(tree, out)
        run(tree, out, share=share("1/2"))  # but another job may be there

    run(tree, out, share=share("0/2"), progress=meeting(plain))
    assert met

    def job() -> None:
        with pytest.raises(StorageError, match="another packer is at work"):
            run(tree, tmp_path / "other", share=share("1/2"))
        with pytest.raises(StorageError, match="another packer is at work"):
            finish_place(tmp_path / "other")

    met.clear()
    run(tree, tmp_path / "other", progress=meeting(job))
    assert met


def test_of_jobs_with_other_options_that_begin_at_once_one_plan_wins(
    tree: Path, tmp_path: Path
) -> None:
    out, barrier = tmp_path / "out", threading.Barrier(4)

    def job(quality: int) -> str:
        barrier.wait()
        try:
            run(tree, out, replace(OPTIONS, quality=quality), share=share("0/6"))
        except MismatchError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        said = dict(zip(range(80, 84), pool.map(job, range(80, 84)), strict=True))
    plan = json.loads((out / "plan.json").read_bytes())
    first = plan["options"]["quality"]
    assert said.pop(first) == ""
    assert {f"--quality was {first}, now {other}" in text for other, text in said.items()} == {True}


def test_finish_has_what_only_pictures_tell(tmp_path: Path) -> None:
    """Boxes outside and unreadable pictures are counted by the jobs, each in its own part."""
    root = tmp_path / "raw"
    boxes = "20,15,30,30\n" * 5 + "200,15,30,30\n"
    for number in (1, 3, 5):
        folder = sequence(root, f"car-{number}", 6, boxes=boxes, occluded=None)
        (folder / "img/00000002.jpg").write_bytes(picture(1)[:-300])
    sequence(root, "dog-1", 3, boxes="1,1,-1,-1\n" * 3)
    options = replace(OPTIONS, frames_per_shard=6)
    run(root, tmp_path / "one", options, on_error="skip")
    for number in range(2):
        run(root, tmp_path / "jobs", options, on_error="skip", share=share(f"{number}/2"))
    manifest = finish_place(tmp_path / "jobs")
    assert manifest.rejected == {"no_box": 3, "unreadable": 3, "outside": 3}
    assert manifest.notes
    assert hashes(tmp_path / "jobs") == hashes(tmp_path / "one")

    with pytest.raises(Malformed, match="1 picture cannot be read"):
        run(root, tmp_path / "fail", options, share=share("0/3"))
    assert not list((tmp_path / "fail").glob("*.tar"))


def test_a_part_of_skip_is_forgotten_before_fail_packs_the_shard_anew(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill in between could leave it beside another shard of the same size."""
    root = tmp_path / "raw"
    sequence(root, "car-1", 6)
    bad = root / "car/car-1/img/00000003.jpg"
    sound = bad.read_bytes()
    bad.write_bytes(b"")
    run(root, tmp_path / "out", on_error="skip", share=share("0/2"))
    part = tmp_path / "out/.parts" / part_name("lasot-000000.tar")
    assert part.is_file()
    bad.write_bytes(sound)

    def stop(*_: Any, **__: Any) -> Any:
        assert not part.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("packer.workers.write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            run(root, tmp_path / "out")
    run(root, tmp_path / "out")
    run(root, tmp_path / "fresh")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--job=2/2"], "jobs are numbered from 0 to 1"),
        (["--job=1"], "expected I/N, as in 0/8 to 7/8"),
        (["--job=0/2", "--scheduler=tcp://h:1"], "--job and --scheduler are two ways"),
        (["--workers=2", "--scheduler=tcp://h:1"], "--workers is for this machine"),
        (["--scheduler=host:8786"], "as in tcp://host:8786"),
        (["--scheduler=tcp://host"], "as in tcp://host:8786"),
        (["--out=gs://bucket/x"], "neither a folder nor s3://bucket/prefix"),
        (["--out=s3://UPPER"], "expected s3://bucket/prefix"),
    ],
)
@pytest.mark.parametrize("command", ["lasot", "all"])
def test_usage(tree: Path, tmp_path: Path, command: str, arguments: list[str], text: str) -> None:
    out = [] if arguments[0].startswith("--out") else [f"--out={tmp_path / 'out'}"]
    result = CliRunner().invoke(packer_cli, [command, f"--root={tree}", *out, *arguments])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_all_data_sets_can_be_packed_by_jobs(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/lasot").symlink_to(tree)
    command = ["all", f"--root={tmp_path / 'raw'}", f"--out={tmp_path / 'out'}", "--size=127"]
    for number in range(2):
        result = CliRunner().invoke(packer_cli, [*command, "--workers=1", f"--job={number}/2"])
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(shards_cli, ["finish", str(tmp_path / "out/lasot")])
    assert result.exit_code == 0, result.output


# What a job checks on the machine where it runs ----------------------------------------------


def work_of(tree: Path, out: Path, **change: Any) -> Work:
    source = FolderSource(tree)
    facts = {"source": source, "out": out, "size": 127, "quality": 90, "grid": "edge"}
    (job, *_) = draft(lasot, source, OPTIONS, silent).jobs
    return Work(**{**facts, "job": job, "skip": True, **change})


def test_a_machine_with_other_libraries_packs_nothing(tree: Path, tmp_path: Path) -> None:
    versions = {**output.versions(), "opencv": "9.9"}
    with pytest.raises(MismatchError, match=r"has opencv .*, not 9\.9: .* install the same"):
        pack_shard(work_of(tree, tmp_path / "out", versions=versions))
    assert not (tmp_path / "out").exists()
    assert pack_shard(work_of(tree, tmp_path / "out", versions=output.versions())).frames == 12


@pytest.mark.parametrize("skip", [True, False])
def test_a_machine_that_does_not_see_the_pictures_leaves_none_out(
    tree: Path, tmp_path: Path, skip: bool
) -> None:
    work = work_of(tree, tmp_path / "out", source=FolderSource(tmp_path / "away"), skip=skip)
    with pytest.raises(DataError, match="all machines must see the raw data at the same path"):
        pack_shard(work)
    assert not list(tmp_path.rglob("*.tar*"))


# Dask -----------------------------------------------------------------------------------------


def test_the_packages_of_a_cluster_are_named_where_they_are_missing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["lasot", f"--root={tree}", f"--out={tmp_path / 'out'}", *ARGUMENTS]
    result = CliRunner().invoke(packer_cli, [*command, "--scheduler=tcp://127.0.0.1:9"])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "Error: --scheduler needs the packages dask and distributed: "
        "pip install 'siamstream[cluster]'"
    ]
    plan = CliRunner().invoke(packer_cli, [*command, "--scheduler=tcp://h:9", "--dry-run"])
    assert plan.exit_code == 0, plan.output  # a plan needs no cluster


class _Dask:
    """A scheduler and workers without nannies, as processes of their own."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        folder.mkdir()
        file = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--port=0", f"--scheduler-file={file}", "--no-dashboard"
        )
        assert until(lambda: self.scheduler.poll() is not None or file.exists())
        assert file.exists(), (folder / "scheduler.log").read_text()
        self.address: str = json.loads(file.read_bytes())["address"]
        self.workers: list[subprocess.Popen[bytes]] = []

    def work(self) -> None:
        options = ["--no-nanny", "--nthreads=1", "--no-dashboard"]
        place = f"--local-directory={self._folder}"
        self.workers.append(self._start("worker", self.address, *options, place))

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host=127.0.0.1"]
        log = self._stack.enter_context((self._folder / f"{what}.log").open("ab"))
        process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[_Dask]:
    with ExitStack() as stack:
        yield _Dask(stack, tmp_path / "dask")


def kill_in_the_middle(process: subprocess.Popen[str], out: Path, workers: list[int]) -> Path:
    """Kill a worker that is surely writing a shard; the unfinished shard that it leaves."""
    while process.poll() is None:
        for unfinished in out.glob(".part-*.tar"):
            pid = int(unfinished.name.split("-")[2])
            if pid not in workers:
                continue
            os.kill(pid, signal.SIGSTOP)
            if unfinished.exists() and list(out.glob("*.tar")):
                os.kill(pid, signal.SIGKILL)
                return unfinished
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)
    pytest.fail("no worker was seen writing")


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(tmp_path: Path, dask: _Dask) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    for number in range(1, 5):
        sequence(root, f"car-{2 * number + 1}", 60)
    options = replace(OPTIONS, frames_per_shard=20)
    run(root, tmp_path / "one", options)
    dask.work()
    dask.work()
    command = [sys.executable, "-m", "packer", "lasot", "--root=raw", "--out=out", *ARGUMENTS]
    command += ["--frames-per-shard=20", f"--scheduler={dask.address}", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as packer:
        left = kill_in_the_middle(packer, out, [worker.pid for worker in dask.workers])
        said, shown = packer.communicate()
    assert packer.returncode == 0, shown
    assert json.loads(said)["frames"] == 240
    assert json.loads(said)["out"] == "out"
    assert [worker.poll() for worker in dask.workers].count(-signal.SIGKILL) == 1
    assert not left.exists()
    assert hashes(out) == hashes(tmp_path / "one")


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_a_rerun_goes_on(
    tree: Path, tmp_path: Path, expected: dict[str, str], dask: _Dask
) -> None:
    out = tmp_path / "out"
    dask.work()
    command = [sys.executable, "-m", "packer", "lasot", f"--root={tree}", f"--out={out}"]
    command += [*ARGUMENTS, f"--scheduler={dask.address}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as packer:
        kill_in_the_middle(packer, out, [dask.workers[0].pid])
        dask.scheduler.kill()
        _, shown = packer.communicate()
    assert packer.returncode == 1
    assert shown.splitlines()[-1] == (
        f"Error: {dask.address}: the connection to the scheduler was lost; complete shards are "
        "kept: run the same command again to go on"
    )
    assert "Traceback" not in shown
    dask.workers[0].wait()
    run(tree, out)
    assert hashes(out) == expected


@pytest.mark.slow
def test_no_scheduler_answers(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with (
        pytest.raises(SiamstreamError, match=r"no Dask scheduler answers there \(Timed out"),
        cluster.connected("tcp://127.0.0.1:9", print),
    ):
        pytest.fail("connected")


# Buckets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def cloud(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    from shards import bucket

    for name, value in server.items():
        monkeypatch.setenv(name, value)
    bucket._store.cache_clear()
    yield server
    bucket._store.cache_clear()


def objects(cloud: dict[str, str], prefix: str) -> dict[str, Any]:
    found = client(cloud).list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    return {one["Key"].removeprefix(f"{prefix}/"): one for one in found.get("Contents", ())}


def download(cloud: dict[str, str], prefix: str, folder: Path) -> Path:
    """Fetch all objects with a client that is not ours."""
    for name in objects(cloud, prefix):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        client(cloud).download_file(BUCKET, f"{prefix}/{name}", str(folder / name))
    return folder


@pytest.mark.slow
def test_a_bucket_gets_the_bytes_of_a_folder(
    tree: Path, tmp_path: Path, expected: dict[str, str], cloud: dict[str, str]
) -> None:
    url = f"s3://{BUCKET}/plain/lasot"
    report = run(tree, sink_at(url), workers=2)
    assert hashes(download(cloud, "plain/lasot", tmp_path / "down")) == expected
    assert (report.out, report.shards) == (url, 6)
    assert "next: download it" in "\n".join(report.lines())
    before = {name: one["LastModified"] for name, one in objects(cloud, "plain/lasot").items()}
    assert run(tree, sink_at(url)).resumed_shards == 6
    assert before == {
        name: one["LastModified"] for name, one in objects(cloud, "plain/lasot").items()
    }
    with pytest.raises(MismatchError, match="--quality was 90, now 80"):
        run(tree, sink_at(url), replace(OPTIONS, quality=80))
    with pytest.raises(MismatchError, match=r"is not empty .*it holds lasot and no plan\.json"):
        run(tree, sink_at(f"s3://{BUCKET}/plain"))


@pytest.mark.slow
def test_jobs_into_a_bucket_then_finish(
    tree: Path, tmp_path: Path, expected: dict[str, str], cloud: dict[str, str]
) -> None:
    url = f"s3://{BUCKET}/jobs/lasot"
    run(tree, sink_at(url), share=share("0/2"))
    result = CliRunner().invoke(shards_cli, ["finish", url])
    assert result.exit_code == 1
    assert "3 of 6 shards are not packed: lasot-000001.tar, " in result.output
    run(tree, sink_at(url), share=share("1/2"))
    assert "manifest.json" not in objects(cloud, "jobs/lasot")
    result = CliRunner().invoke(shards_cli, ["finish", url])
    assert result.exit_code == 0, result.output
    assert hashes(download(cloud, "jobs/lasot", tmp_path / "down")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("shards_done", [1, 3, 6])
def test_a_killed_run_leaves_only_whole_objects_and_a_rerun_goes_on(
    tree: Path, tmp_path: Path, expected: dict[str, str], cloud: dict[str, str], shards_done: int
) -> None:
    prefix = f"killed-{shards_done}"
    command = [sys.executable, "-m", "packer", "lasot", f"--root={tree}", *ARGUMENTS]
    command += [f"--out=s3://{BUCKET}/{prefix}", "--workers=1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as packer:
        while packer.poll() is None:
            if sum(name.endswith(".tar") for name in objects(cloud, prefix)) >= shards_done:
                break
        packer.kill()
    left = hashes(download(cloud, prefix, tmp_path / "left"))
    whole = {name: digest for name, digest in left.items() if not name.startswith(".parts/")}
    assert whole.items() <= expected.items()
    assert "plan.json" in whole
    assert len(whole) >= shards_done + 1
    run(tree, sink_at(f"s3://{BUCKET}/{prefix}"))
    assert hashes(download(cloud, prefix, tmp_path / "down")) == expected


@pytest.mark.slow
def test_the_environment_can_name_a_bucket_for_all_data_sets(
    tree: Path, tmp_path: Path, expected: dict[str, str], cloud: dict[str, str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("SIAMSTREAM_SHARDS", f"s3://{BUCKET}/everything")
    result = CliRunner().invoke(packer_cli, ["lasot", f"--root={tree}", *ARGUMENTS, "--workers=1"])
    assert result.exit_code == 0, result.output
    assert hashes(download(cloud, "everything/lasot", tmp_path / "down")) == expected


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_line(tree: Path, cloud: dict[str, str]) -> None:
    command = ["lasot", f"--root={tree}", *ARGUMENTS, "--out=s3://no-such-bucket/x", "--workers=1"]
    result = CliRunner().invoke(packer_cli, command)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith(
        "Error: s3://no-such-bucket/x: there is no such bucket: make it"
    )


def test_folders_are_named_as_they_were_given(tree: Path, tmp_path: Path) -> None:
    assert run(tree, tmp_path / "out", dry_run=True).out == str(tmp_path / "out")
    assert run(tree, FolderSink(tmp_path / "out"), dry_run=True).out == str(tmp_path / "out")

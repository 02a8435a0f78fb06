"""Every command on a run in a store: in memory and, where s3fs and moto are installed, of the S3 protocol."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import add_tiny, make_quick
from runs import ROOT, read_all, read_weights

from cnnjax import compare, confirmation, predict, storage
from cnnjax import launch as launcher
from cnnjax.report import __main__ as report
from cnnjax.storage import claim as claims
from cnnjax.types import RequestError

STUDY = ["models=tiny", "seeds=0,1", "select=val_loss", "data.train_examples=200", "checkpoint.every=1"]
STUDY += ["train.optimizer=sgd", "train.batch_size=50", "train.learning_rate=0.02,0.05", "train.epochs=2"]


@pytest.fixture(scope="module", autouse=True)
def commands(tmp_path_factory):
    """Studies without reports, which have a test of their own, in a cache folder that is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        add_tiny(patch)
        make_quick(patch)
        patch.setattr(confirmation, "build_report", lambda workdir: None)
        patch.setattr(launcher, "_report", lambda workdir: str(workdir / "report/index.html"))
        patch.setattr(claims, "SETTLE", 0.02)
        patch.setattr(claims, "BEAT", 0.2)
        patch.setenv("CNNJAX_CACHE", str(tmp_path_factory.mktemp("here")))
        flags.FLAGS.mark_as_parsed()
        yield


@pytest.fixture(scope="module", params=["memory", "s3"])
def bucket(request):
    """The URL of an empty bucket."""
    if request.param == "memory":
        yield "memory://bucket"
        return
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def launch(workdir, *overrides, **given):
    with flagsaver.flagsaver(config=f"{ROOT}/configs/quickstart.py", workdir=str(workdir), **given):
        launcher.main([*STUDY, *overrides])


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The folder of a study that was profiled and confirmed."""
    folder = tmp_path_factory.mktemp("local") / "run"
    launch(folder, confirm=2, profile=True)
    return folder


@pytest.fixture(scope="module")
def url(bucket):
    """The same in a store."""
    launch(f"{bucket}/runs/run", confirm=2, profile=True)
    return f"{bucket}/runs/run"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Another machine than that of the run."""
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "machine"))


@pytest.mark.usefixtures("machine")
def test_the_store_gets_all_that_a_folder_gets(local, url):
    copy = storage.copied(url)
    assert read_all(copy) == read_all(local)
    assert read_weights(copy) == read_weights(local)
    fresh = sorted(path.relative_to(local) for path in local.glob("confirm/2/t*"))
    assert len(fresh) == 2
    for folder in fresh:
        assert read_all(copy / folder) == read_all(local / folder)
        assert read_weights(copy / folder) == read_weights(local / folder)
    assert (copy / "confirm/2/confirmation.json").read_bytes() == (local / "confirm/2/confirmation.json").read_bytes()
    assert len(list(copy.glob("profile/p000/**/perfetto_trace.json.gz"))) == 1


@pytest.mark.usefixtures("machine")
def test_the_same_command_finds_all_of_it_on_another_machine(url, capfd):
    before = (storage.copied(url) / "confirm/2/t0000/metrics.jsonl").read_bytes()
    launch(url, confirm=2)
    said = capfd.readouterr()
    assert "is finished" in said.out + said.err
    assert (storage.copied(url) / "confirm/2/t0000/metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("machine")
def test_compare_answers_as_of_a_folder(local, url, capsys):
    def answer(a, b):
        compare.main(compare.parse(["", f"{a}:learning_rate=0.02", f"{b}:learning_rate=0.05"]))
        return capsys.readouterr().out

    expected = answer(local, local)
    assert answer(url, url).split() == expected.replace(str(local), url).split() and "0.05" in expected


@pytest.mark.usefixtures("machine")
def test_predict_answers_as_of_a_folder(local, url, tmp_path):
    np.save(tmp_path / "new.npy", np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8))
    for place, name in ((local, "local"), (url, "store")):
        output = tmp_path / f"{name}.csv"
        predict.main(predict.parse(["", str(place), f"--input={tmp_path / 'new.npy'}", f"--output={output}"]))
    assert (tmp_path / "store.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


@pytest.mark.usefixtures("machine")
def test_a_report_is_built_and_put_there(url, capsys):
    files, page = fsspec.url_to_fs(f"{url}/report/index.html")
    report.main(report.parse(["", url]))
    assert Path(capsys.readouterr().out.strip()).read_bytes() == files.cat_file(page)
    report.main(report.parse(["", url, "--format=markdown"]))
    assert "#" in capsys.readouterr().out


def test_another_study_is_refused_and_overwrites_when_told(bucket, tmp_path):
    url = f"{bucket}/runs/overwritten"
    launch(url)
    with pytest.raises(RequestError, match="another study"):
        launch(url, "seeds=3")
    for place in (url, tmp_path / "run"):
        launch(place, "seeds=3", overwrite=True)
    assert read_all(storage.copied(url)) == read_all(tmp_path / "run")
    assert not list(storage.copied(url).glob("**/*t0002*"))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("workdir", ["bucket/runs/none", "nowhere/run"])
def test_a_run_that_is_not_there_is_one_line(bucket, workdir):
    url = f"{bucket.partition('://')[0]}://{workdir}"
    for command in (
        lambda: report.main(report.parse(["", url])),
        lambda: compare.main(compare.parse(["", url, url])),
        lambda: predict.main(predict.parse(["", url, "--input=a.npy", "--output=b.csv"])),
    ):
        with pytest.raises(RequestError, match=r"with config\.json") as error:
            command()
        assert "\n" not in str(error.value) and url in str(error.value)

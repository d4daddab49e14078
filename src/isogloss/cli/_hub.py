"""Sending module folders to the Hugging Face Hub and fetching them."""

import shutil
from pathlib import Path

from isogloss.errors import IsoglossError


def push_folder(folder: Path, repository: str, *, private: bool) -> str:
    """Uploads a folder into a model repository, made if it is not there; returns its address.

    Raises:
        IsoglossError: The Hub cannot be reached, or refuses.
    """
    from huggingface_hub import create_repo, upload_folder

    try:
        address = str(create_repo(repository, private=private, exist_ok=True))
        upload_folder(
            repo_id=repository,
            folder_path=folder,
            ignore_patterns=[".*"],
            commit_message="isogloss module",
        )
    except Exception as problem:  # the client raises errors of its own, of httpx and of the system
        raise _failed(
            "pushed to", repository, problem, "log in with `hf auth login` and check the connection"
        ) from problem
    return address


def pull_folder(repository: str, target: Path, *, revision: str | None, overwrite: bool) -> None:
    """Downloads a model repository into a folder, whole or not at all.

    Raises:
        IsoglossError: The Hub cannot be reached, there is no such repository, or it holds no module.
    """
    from huggingface_hub import snapshot_download

    from isogloss.formats import read_info
    from isogloss.storage import new_folder

    with new_folder(target, overwrite=overwrite) as folder:
        try:
            # Only what a module consists of: nothing else of a repository is wanted here.
            snapshot_download(
                repository,
                revision=revision,
                local_dir=folder,
                allow_patterns=["module.json", "module.safetensors", "README.md"],
            )
        except Exception as problem:
            raise _failed("pulled from", repository, problem, "check the name and the connection") from problem
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        if not (folder / "module.json").is_file():
            raise IsoglossError(f"The Hub repository '{repository}' holds no isogloss module (no module.json).")
        read_info(folder)


def _failed(verb: str, repository: str, problem: Exception, advice: str) -> IsoglossError:
    reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")
    return IsoglossError(f"The module cannot be {verb} the Hub repository '{repository}' ({reason}); {advice}.")

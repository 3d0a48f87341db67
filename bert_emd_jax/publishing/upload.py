"""A directory to the Hugging Face hub."""

from pathlib import Path
from typing import NamedTuple

from bert_emd_jax import layout
from bert_emd_jax.checkpoints.checkpoint_files import find_weights
from bert_emd_jax.errors import UserError, one_line
from bert_emd_jax.publishing.model_card import CARD, read_card

_LEFT_OUT = ("*.log", "*.tmp", ".*")


class Upload(NamedTuple):
    """What would go to the hub: the files of `directory`, name → bytes, under `repository`."""

    directory: Path
    repository: str
    files: dict[str, int]


def planned_upload(path: Path, repository: str) -> Upload:
    """Returns what an upload of a run or a Hugging Face directory consists of; touches no network.

    Raises:
      UserError: no model for PyTorch is there, its card is damaged, or the name is none of the hub.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{repository}: not a name on the hub ({one_line(error)})") from None
    directory = path / layout.PYTORCH if (path / layout.PYTORCH).is_dir() else path
    is_model_directory = (path / layout.PARAMS).is_dir() and directory == path
    if not directory.is_dir() or is_model_directory or find_weights(directory) is None:
        raise UserError(
            f"{directory}: no model for PyTorch is there; name the output directory of a run, or convert a"
            " model with bert-emd convert --to_pytorch"
        )
    if (directory / CARD).is_file():
        read_card(directory)
    files = {
        str(file.relative_to(directory)): file.stat().st_size
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not any(file.match(pattern) for pattern in _LEFT_OUT)
    }
    return Upload(directory, repository, files)


def upload(planned: Upload, *, private: bool, message: str) -> str:
    """Creates the repository if it is not there, uploads the files in one commit; returns its address.

    Raises:
      UserError: the hub refuses the card or the upload, or is not reachable.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    try:
        if CARD in planned.files:
            _let_the_hub_check(planned.directory)
        created = api.create_repo(planned.repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=created.repo_id,
            folder_path=planned.directory,
            allow_patterns=list(planned.files),
            commit_message=message,
        )
        return str(created)
    except UserError:
        raise
    except errors.HfHubHTTPError as error:
        status = None if error.response is None else error.response.status_code
        reasons = {
            401: "the hub does not know you; `hf auth login` with a token that may write",
            403: "you may not write there; take a name of your own, or a token that may write",
            404: "no such user or organisation on the hub",
        }
        raise UserError(f"{planned.repository}: {reasons.get(status or 0, one_line(error))}") from None
    except Exception as error:  # the library's transports raise their own classes, which change with it
        raise UserError(
            f"{planned.repository}: the Hugging Face hub is not reachable ({one_line(error)})"
        ) from None


def _let_the_hub_check(directory: Path) -> None:
    """Raises UserError with what the hub finds wrong with a model card."""
    card = read_card(directory)
    try:
        card.validate(repo_type="model")
    except ValueError as error:
        raise UserError(f"{directory / CARD}: {one_line(error)}") from None

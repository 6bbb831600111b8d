"""Pushes a folder to the Hub in one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # the error of the HTTP client that huggingface_hub uses
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from .files import FolderFiles, matches, published_files
from .scorer import is_scorer, scorer_files


class PushError(OSError):
    """An error for a push that did not happen. The message says why, and what to do."""


@contextmanager
def clear_errors(repo_id: str) -> Iterator[None]:
    """Turn an error of the Hub into a [`PushError`] that says what to do."""
    try:
        yield
    except HFValidationError as error:
        raise PushError(f"repo={repo_id!r} is not a name that the Hub allows: {error}") from error
    except LocalTokenNotFoundError as error:
        raise PushError("there is no token: run `hf auth login`, or set HF_TOKEN") from error
    except OfflineModeIsEnabled as error:
        raise PushError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it") from error
    except (HTTPError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # an upload wraps its error
        if isinstance(cause, HfHubHTTPError):
            status, said = cause.response.status_code, cause.server_message or str(cause).splitlines()[0]
            raise PushError(f"{repo_id}: {_advice(status)} (the Hub answered {status}: {said})") from error
        if isinstance(cause, HTTPError):
            raise PushError(f"{repo_id}: no connection to the Hub, which confirmed no commit: {cause}") from error
        raise


def _advice(status: int) -> str:
    if status == 401:
        return "the token is missing, wrong or expired: run `hf auth login` again, or set HF_TOKEN"
    if status == 403:
        return "the token may not write there: use one with the role `write`, or a name in your own namespace"
    if status == 404:
        return "there is no such repository or revision, or the token does not see it"
    if status == 409:
        return "it has changed since the push began: push again"
    if status == 400:
        return "the Hub does not accept this"
    if status >= 500:
        return "the Hub failed and confirmed no commit: push again later, which changes nothing that is there already"
    return "the push failed"


def files_to_push(folder: str | Path, repo_id: str) -> FolderFiles:
    """Return the files that a push of a folder would publish. This needs no network.

    Raises:
        ValueError, FileNotFoundError: the folder does not hold a complete PuMer model.
        PushError: the Hub allows no repository of this name.
    """
    with clear_errors(repo_id):
        validate_repo_id(repo_id)
    return scorer_files(folder, repo_id) if is_scorer(folder) else published_files(folder, repo_id)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload model",
    token: str | None = None,
) -> CommitInfo:
    """Push the files that a user needs of a model, or of a scorer of `lookahead` alone, in one commit.

    Optimizer states, checkpoints and pickles are left out. The same commit removes old weights from the repository, so
    that nobody loads a mixture. As long as pip finds this package nowhere else, a wheel of it is pushed too. The card
    says how to install it.

    Args:
        folder: a folder with config, weights and processor; or one that `save_scorer` wrote.
        repo_id: `"user/name"`, or `"name"` in the namespace of the token. It is made if it does not exist.
        private: whether a new repository is private. True is an error if the repository exists and is public.
        revision: a branch, which is made if it does not exist; default: `main`.
        create_pr: whether to open a pull request and leave the branch as it is.
        commit_message: first line of the commit.
        token: default: the token of `hf auth login` or `HF_TOKEN`.

    Returns:
        The commit. It has `commit_url`, and `pr_url` if it is a pull request.

    Raises:
        ValueError, FileNotFoundError: the folder does not hold a complete PuMer model.
        PushError: the Hub refused or failed, and confirmed no commit.
    """
    files = files_to_push(folder, repo_id)  # so that an error comes before anything is created
    api = HfApi(token=token)
    with clear_errors(repo_id):
        repo_id = _prepare_repo(api, repo_id, private=private, revision=revision, create_pr=create_pr)
        operations = [
            CommitOperationAdd(
                path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for name, content in files.published.items()
        ]
        stale = _stale_files(api.list_repo_files(repo_id, revision=revision), files)
        return api.create_commit(
            repo_id,
            [*operations, *(CommitOperationDelete(path_in_repo=name) for name in stale)],
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )


def _prepare_repo(api: HfApi, repo_id: str, *, private: bool | None, revision: str | None, create_pr: bool) -> str:
    """Make the repository and the branch if they do not exist. Return the full id of the repository."""
    if not (create_pr and api.repo_exists(repo_id)):  # anyone may open a pull request, but not create a repository
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id).private:
        raise PushError(f"{repo_id} exists and is public, so private=True is not possible: choose another name")
    if revision is not None and not revision.startswith("refs/pr/") and not create_pr:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return repo_id


def _stale_files(present: list[str], files: FolderFiles) -> list[str]:
    return [name for name in present if matches(name, files.replaced) and name not in files.published]

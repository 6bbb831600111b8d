"""`pumer-hf push`."""

import argparse

from .command import Command


class Push(Command):
    """`pumer-hf push`."""

    name = "push"
    summary = "push a folder to the Hub: model, processor, labels and card in one commit, no checkpoints or pickles"
    example = "pumer-hf push outputs/digit-scenes/student user/pumer-digit-scenes --private --dry-run"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="folder of a model, with its processor; or of a scorer")
        parser.add_argument("repo", metavar="REPO", help="user/name; made if it does not exist")
        visibility = parser.add_mutually_exclusive_group()
        visibility.add_argument("--private", action="store_const", const=True, dest="private", help="a private one")
        visibility.add_argument("--public", action="store_const", const=False, dest="private", help="a public one")
        parser.add_argument("--revision", metavar="BRANCH", help="push to this branch, made if it does not exist")
        parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of a commit")
        parser.add_argument("--message", default="Upload model", help="first line of the commit")
        parser.add_argument("--dry-run", action="store_true", help="list the files and push nothing")

    def run(self, args: argparse.Namespace) -> None:
        from pumer_hf.hub.push import files_to_push, push_folder

        if args.dry_run:
            print(files_to_push(args.folder, args.repo).listing())
            return
        commit = push_folder(
            args.folder,
            args.repo,
            private=args.private,
            revision=args.revision,
            create_pr=args.create_pr,
            commit_message=args.message,
        )
        print(f"Pushed to {commit.pr_url or commit.commit_url}")

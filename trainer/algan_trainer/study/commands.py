"""The subcommands `algan-stream study …`. Importing this must not import torch, Ray or Optuna."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from algan_trainer.study.designs import NAMES, designs

study = typer.Typer(
    no_args_is_help=True,
    help="Run the trainings behind a table of the paper, or search for a configuration.",
)


def _command(name: str) -> Callable[..., None]:
    """The subcommand of one study; all have the same options."""
    design = designs([])[name]

    def run(
        *,
        data: Annotated[
            Path,
            typer.Option(help="The images; for studies on MVTec AD, the folder of its categories will do."),
        ],
        out: Annotated[Path, typer.Option(help="The study's folder: begun, or gone on with.")],
        seeds: Annotated[int, typer.Option(help="How many, from 0 on; the paper has 10.")] = 10,
        config: Annotated[
            Path | None, typer.Option(help="TOML file to start from; by default the paper's configuration.")
        ] = None,
        size: Annotated[int | None, typer.Option(help="Side of the network's input.")] = None,
        width: Annotated[int | None, typer.Option(help="Channels after the first convolution.")] = None,
        epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
        batch_size: Annotated[int | None, typer.Option(help="Images in a batch.")] = None,
        validate_every: Annotated[int | None, typer.Option(help="Epochs between validations.")] = None,
        precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
        set_: Annotated[
            list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. data.split=random; repeatable.")
        ] = None,
        category: Annotated[
            list[str] | None, typer.Option(help="Only this subfolder of the data; repeatable.")
        ] = None,
        jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time on this machine.")] = 1,
        threads: Annotated[int | None, typer.Option(min=1, help="Computing threads for each.")] = None,
        ray: Annotated[
            str | None,
            typer.Option(help="Run on Ray: local, auto, HOST:PORT or ray://HOST:PORT of a cluster."),
        ] = None,
        keep_checkpoints: Annotated[
            bool, typer.Option("--keep-checkpoints", help="Leave finished trainings' checkpoints.")
        ] = False,
        list_: Annotated[
            bool, typer.Option("--list", help="List the trainings and their state; run none.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Check the data and say what would be run; run nothing.")
        ] = False,
    ) -> None:
        from algan_trainer.study.settle import settle

        options = {
            "network.size_px": size,
            "network.width": width,
            "epochs": epochs,
            "batch_size": batch_size,
            "validate_every": validate_every,
            "precision": precision,
        }
        settings = settle(
            name,
            data,
            out,
            seeds=seeds,
            config=config,
            changes=_changes(set_, options),
            categories=category or [],
        )
        if list_:
            from algan_trainer.study.outputs import states

            for line in states(settings, out):
                typer.echo(line)
            return
        from algan_trainer.study.conduct import How, check, conduct

        _require_torch()
        if dry_run:
            check(settings, typer.echo)
            return
        conduct(settings, out, How(jobs, threads, ray, keep_checkpoints), _say)
        typer.echo((out / "table.md").read_text("utf-8"))

    run.__doc__ = f"{design.title} (paper, {design.source})."
    return run


for _name in NAMES:
    study.command(_name)(_command(_name))


@study.command("table")
def table(out: Annotated[Path, typer.Argument(help="A study's folder.")]) -> None:
    """Write the tables again from what is finished so far, and print them."""
    from algan_trainer.study.outputs import retabulate

    typer.echo(retabulate(out))


@study.command("search")
def search(
    *,
    data: Annotated[Path, typer.Option(help="Folder of images, or a file of vectors.")],
    out: Annotated[Path, typer.Option(help="The search's folder: begun, or gone on with.")],
    space: Annotated[Path, typer.Option(help="TOML file of configuration keys and their ranges.")],
    trials: Annotated[int, typer.Option(min=1, help="How many in all, those done before included.")] = 20,
    objective: Annotated[
        str, typer.Option(help="labels (validation AUROC), label_free, or auto: labels where there are any.")
    ] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="TOML file to start from; by default the product's configuration.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the network's input.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels after the first convolution.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Epochs between validations.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the trainings, and of what is tried.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE; repeatable.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Computing threads.")] = None,
    prune: Annotated[bool, typer.Option(help="Stop trials that fall behind the median early.")] = True,
) -> None:
    """Search for the configuration with the best validation, by Optuna; stopped, it can be gone on with."""
    from algan_trainer.config import Config, read_config

    _require_torch()
    from algan_trainer.study.plan import apply
    from algan_trainer.study.search import Search
    from algan_trainer.study.search import search as run_search
    from algan_trainer.study.space import read_space

    options = {
        "network.size_px": size,
        "network.width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "validate_every": validate_every,
        "seed": seed,
    }
    base = apply(read_config(config) if config else Config(), _changes(set_, options))
    wanted = Search(
        data=data,
        base=base,
        space=read_space(space, base),
        trials=trials,
        objective=objective,
        threads=threads,
        prune=prune,
    )
    typer.echo(run_search(wanted, out, _say))


def _changes(settings: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys from `--set KEY=VALUE`, the values as TOML has them, bare words as text; options win."""
    import msgspec

    from algan_stream.errors import ConfigError

    found: dict[str, Any] = {}
    for setting in settings or []:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set: expected KEY=VALUE, got {setting}")
        try:
            found[key.strip()] = msgspec.toml.decode(f"value = {text}")["value"]
        except msgspec.DecodeError:
            found[key.strip()] = text.strip()
    return found | {key: value for key, value in options.items() if value is not None}


def _require_torch() -> None:
    from algan_stream.errors import PluginError

    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise PluginError(
            f"training needs the Python package {error.name}: pip install 'algan-stream[train]'"
        ) from error


def _say(text: str) -> None:
    typer.echo(text, err=True)

"""`zoo evolve`: policies of high return, from the command line alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evolution.cli import completion
from evolution.cli.results import print_result
from evolution.kind import KIND, telling_how_far
from zoo.cli.common import (
    Address,
    Gpus,
    Json,
    Log,
    Progress,
    Ray,
    Timeout,
    Workers,
    blaming,
    chosen_workers,
    count,
    explained,
    point_to_export,
    results_alone,
    resuming,
    shows_panel,
    watchers,
)
from zoo.cli.completion import on_error as on_error_completion

_OURS = Path(__file__).parents[1]
_WHAT, _HOW, _END, _KEPT = "What is evolved", "How", "When to stop", "What is shown and kept"


def evolve(
    env: Annotated[
        str | None,
        typer.Option(
            "--env",
            help="An id of Gymnasium such as CartPole-v1 or ALE/Frostbite-v5; maze; cart-pole; or "
            "module:name of your own.",
            rich_help_panel=_WHAT,
            autocompletion=completion.environments,
        ),
    ] = None,
    env_option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE, an argument of the environment; may be given again.", rich_help_panel=_WHAT
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Steps after which an episode is over; as the environment says by default.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="mlp, recurrent, atari-large, atari-nature, atari-small, or module:name of your torch "
            "module; chosen by the observations by default.",
            rich_help_panel=_WHAT,
            autocompletion=completion.policies,
        ),
    ] = None,
    policy_option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE, an argument of the policy, as in hidden=[64,64]; may be given again.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Start from the champion of a run, or from one that `zoo play --export` has written.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Normalize observations by the moments of earlier ones.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="Name of the method, deep-ga by default; --list says which there are.",
            rich_help_panel=_HOW,
            autocompletion=completion.methods,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="NAME=VALUE, an option of the method; may be given again.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes that each member is tried in.", rich_help_panel=_HOW)
    ] = 1,
    common: Annotated[
        bool,
        typer.Option(
            "--common/--no-common",
            help="Whether all members of a generation meet the same episodes.",
            rich_help_panel=_HOW,
        ),
    ] = True,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="What novelty is measured in: position, observation, ram or module:name; the environment's "
            "first by default.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    noise_table: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Numbers of the table that mutations are read from; 0 to draw them anew.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed; a fresh one by default.", rich_help_panel=_HOW)
    ] = None,
    generations: Annotated[
        int | None,
        typer.Option(parser=count, metavar="<int>", help="Generations at most.", rich_help_panel=_END),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Episodes at most, as in 20000 or 2e4, those of re-evaluations among them.",
            rich_help_panel=_END,
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help="Frames after which no further generation is begun.",
            rich_help_panel=_END,
        ),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(
            help="End as soon as the best member has this mean return by re-evaluation.", rich_help_panel=_END
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="End after this time.", rich_help_panel=_END)] = None,
    test_episodes: Annotated[
        int,
        typer.Option(min=0, help="Fresh episodes of the champion at the end.", rich_help_panel=_END),
    ] = 30,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise or nan: what an exception in the environment does.",
            rich_help_panel=_END,
            autocompletion=on_error_completion,
        ),
    ] = "raise",
    workers: Workers = 1,
    ray: Ray = False,
    address: Address = None,
    gpus_per_worker: Gpus = 0,
    timeout: Timeout = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory to keep the run in; one that holds this very run is resumed.",
            rich_help_panel=_KEPT,
        ),
    ] = None,
    progress: Progress = "auto",
    log: Log = None,
    as_json: Json = False,
    list_: Annotated[
        bool,
        typer.Option("--list", help="List the methods, or with --method the options of one, and end."),
    ] = False,
) -> None:
    """Evolve a policy that gets a high return in an environment.

    Members are tried in episodes; what looks best is tried again in fresh ones before it counts. The same
    seed gives the same bytes, by any number of workers, also when it is stopped or killed and resumed.

    \b
    # a pole on a cart, in half a minute
    zoo evolve --env CartPole-v1 --method deep-ga -o population_size=50 -o num_parents=10 -o sigma=0.1 \
        --score 475 --budget 3000 --seed 1 --out runs/pole
    # what came of it: the champion, and how it came to be
    zoo play runs/pole --gif pole.gif
    zoo report runs/pole
    # a robot in a maze, where only novelty finds the way, by two processes
    zoo evolve --env maze --method novelty-ga -o elite_candidates=0 --budget 2e4 --workers 2 --out runs/maze
    # methods, and the options of one
    zoo evolve --list
    zoo evolve --list --method novelty-ga
    """  # noqa: D301 - \b is for the help page
    if list_:
        with explained():
            from evolution.cli.listing import print_methods

            print_methods(method, as_json=as_json)
        return
    who = (workers, ray, address, gpus_per_worker, timeout)
    with explained(resuming(out, *who), out=out), telling_how_far():
        if env is None:
            raise ValueError("--env must be given, as in --env CartPole-v1 or --env maze.")
        from evolution.facade import evolve as evolved
        from zoo.cli.minimize import options_of

        chosen = chosen_workers(*who)
        watching = watchers(progress, log or [], out, KIND)
        with results_alone(), blaming(env, _OURS):
            result = evolved(
                env,
                method or "deep-ga",
                policy=policy,
                options=options_of(option or []),
                environment_options=options_of(env_option or [], "--env-option"),
                policy_options=options_of(policy_option or [], "--policy-option"),
                episodes=episodes,
                max_steps=max_steps,
                behaviour=behaviour,
                normalize=normalize,
                common=common,
                generations=generations,
                budget=budget,
                frames=frames,
                score=score,
                seconds=seconds,
                test_episodes=test_episodes,
                noise_table=noise_table,
                start=None if start is None else _parameters(start),
                workers=chosen,
                rng=seed,
                callback=watching,
                on_error=on_error,
                out=out,
            )
        point_to_export(watching, log or [], out)
        print_result(result, as_json=as_json, out=out, shown=shows_panel(watching))


def _parameters(place: Path) -> Any:
    """Return the parameters of a champion."""
    from evolution.playing import champion_of

    if not place.exists():
        raise FileNotFoundError(f"`--start` must be a directory or a file that is there, got {str(place)!r}.")
    return champion_of(place).parameters

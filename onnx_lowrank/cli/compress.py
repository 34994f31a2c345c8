"""The command `compress`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onnx_lowrank.cli.estimate import write_estimate
from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import (
    CalibrateLimit,
    Data,
    Engine,
    InputShapes,
    Json,
    Labels,
    Layers,
    Limit,
    MaxDrop,
    MinSqnr,
    MinTop1,
    Model,
    PlanFile,
    Preset,
    Quiet,
    ScoreOption,
    Seed,
    Strict,
    read_keep,
    read_latency,
    read_plan,
    read_shapes,
    read_tolerance,
    within,
    workers,
)
from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.cli.search_output import NOTHING, write_search
from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.budget import Budget, Objective

if TYPE_CHECKING:
    from onnx_lowrank.pipelines.result import CompressReport

_SHARE = within("give a share above 0 and up to 1", above=0, most=1)


def compress(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the new model."),
        Writes(over="model"),
    ] = None,
    layer: Layers = None,
    plan: PlanFile = None,
    save_plan: Annotated[
        Path | None,
        typer.Option("--save-plan", metavar="FILE", help="Write the plan used."),
        Writes(),
    ] = None,
    data: Data = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="SOURCE",
            help="Data, other than --data, whose output error the fits minimise.",
        ),
    ] = None,
    calibrate_limit: CalibrateLimit = None,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric", help="Fit each layer to the inputs it will see in the new model."
        ),
    ] = False,
    metric: Annotated[
        Literal["covariance", "mahalanobis", "combined"] | None,
        typer.Option(
            "--metric",
            metavar="covariance|mahalanobis|combined",
            help="What fits minimise over --calibrate: the error of the layer's output, of its "
            "weights by their gradients, or both; gradients take torch.",
        ),
    ] = None,
    preprocess: Preset = None,
    labels: Labels = None,
    strict: Strict = False,
    limit: Limit = None,
    input_shape: InputShapes = None,
    lowering: Annotated[
        Literal["standard", "portable", "auto"] | None,
        typer.Option(
            "--lowering",
            help="The form of new layers: standard ops; portable nodes, which run anywhere and "
            "faster with the kernels; or auto, the faster for each layer. By default auto within a "
            "budget, and standard after a plan, in which @FORM says it for a layer.",
        ),
    ] = None,
    min_sqnr: MinSqnr = None,
    max_drop: MaxDrop = None,
    min_top1: MinTop1 = None,
    score: ScoreOption = None,
    min_speedup: Annotated[
        float | None,
        typer.Option(
            "--min-speedup",
            callback=within("give 1 or more, such as 2", least=1),
            help="Least measured speed, times the original's.",
        ),
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            callback=_SHARE,
            help="Largest share of the original's multiply-adds, above 0, up to 1.",
        ),
    ] = None,
    params: Annotated[
        float | None,
        typer.Option(
            "--params",
            callback=_SHARE,
            help="Largest share of the original's parameters, above 0, up to 1.",
        ),
    ] = None,
    size_mb: Annotated[
        float | None,
        typer.Option(
            "--size-mb",
            callback=within("give more than 0", above=0),
            help="Largest size of the file, in MB.",
        ),
    ] = None,
    objective: Annotated[
        Objective,
        typer.Option(
            "--objective", metavar="latency|macs|params", help="What to minimise, of faster models."
        ),
    ] = "latency",
    threads: Annotated[int | None, workers("--threads", "Intra-op threads to search for.")] = None,
    engine: Engine = "cpu",
    jobs: Annotated[int, workers("--jobs", "Processes for the fits.")] = 1,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            metavar="SCHEDULER",
            help="Make the fits on the workers of this Dask scheduler, such as tcp://host:8786.",
        ),
    ] = None,
    latency: Annotated[
        Path | None,
        typer.Option("--latency", metavar="FILE", help="Latencies measured on another machine."),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Only predict, within seconds, what time and loss could be; writes nothing.",
        ),
    ] = False,
    keep_anyway: Annotated[
        bool,
        typer.Option(
            "--keep-anyway", help="Write the model even if it fails its verdict or the budget."
        ),
    ] = False,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow the output to overwrite the input.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Replace layers by low-rank subgraphs, compare with the original, and write the result.

    Without --layer and --plan, a budget (--max-drop, --min-sqnr, --min-speedup, --macs, --params,
    --size-mb) and --data, the fastest model within the budget is searched for, by measurement;
    --layer NAME=keep leaves layers out of the search. Without any of these, layers become
    monochromatic or biclustered at moderate ranks. A model that fails its verdict is not written,
    unless --keep-anyway is given; --save-plan writes its plan. --estimate with --data predicts
    what a search could find.
    """
    from onnx_lowrank.documents import measured
    from onnx_lowrank.files import write_text
    from onnx_lowrank.pipelines import compress as pipeline
    from onnx_lowrank.pipelines.within_budget import compress_to_budget

    if estimate:
        unread: dict[str, object] = {"--layer": layer, "--plan": plan, "--save-plan": save_plan}
        unread |= {"--output": output, "--score": score, "--labels": labels, "--dask": dask}
        unread |= {"--latency": latency, "--max-drop": max_drop, "--min-sqnr": min_sqnr}
        unread |= {"--min-speedup": min_speedup, "--min-top1": min_top1, "--macs": macs}
        unread |= {"--params": params, "--size-mb": size_mb, "--metric": metric}
        unread |= {"--asymmetric": asymmetric or None}
        return write_estimate(
            model,
            calibrate or data,
            unread=unread,
            preprocess=preprocess,
            input_shapes=read_shapes(input_shape),
            threads=threads,
            engine=engine,
            lowering=lowering or "auto",
            seed=seed,
            as_json=as_json,
            quiet=quiet,
        )
    if output is None:
        raise PlanError("where the new model goes is missing; give --output FILE, or --estimate")
    goals = (min_speedup, macs, params, size_mb)
    losses = (max_drop, min_sqnr)
    has_goal = any(goal is not None for goal in goals)
    has_budget = has_goal or any(loss is not None for loss in losses)
    keep = read_keep(layer) if has_budget and plan is None else []
    planned = plan is not None or (layer is not None and not keep)
    if planned and has_goal:
        raise PlanError(
            "a plan says what is replaced; leave it out to search within a budget, or leave layers "
            "out of the search by --layer NAME=keep"
        )
    searching = has_budget and not planned
    if searching and data is None:
        raise PlanError(
            "a search within a budget needs samples; give --data, or a plan by --layer or --plan"
        )
    _refuse_unread(
        {"--min-top1": min_top1, "--asymmetric": asymmetric or None, "--metric": metric}
        if searching
        else {"--latency": latency, "--dask": dask},
        searching=searching,
    )
    if searching:
        budget = Budget(
            max_drop=max_drop,
            min_sqnr_db=min_sqnr,
            min_speedup=min_speedup,
            macs=macs,
            params=params,
            size_mb=size_mb,
            score=score,
            objective=objective,
        )
        with show_progress(quiet=quiet) as progress:
            found = compress_to_budget(
                model,
                budget,
                data=data,
                calibration=calibrate,
                calibration_limit=calibrate_limit,
                preprocess=preprocess,
                labels_from=labels,
                strict=strict,
                limit=limit,
                input_shapes=read_shapes(input_shape),
                threads=threads,
                engine=engine,
                jobs=jobs,
                dask=dask,
                latency=None if latency is None else read_latency(latency),
                lowering=lowering or "auto",
                keep=keep,
                seed=seed,
                progress=progress,
            )
        return write_search(
            found,
            output,
            where={"provider": engine, "threads": threads},
            save_plan=save_plan,
            force=force,
            keep_anyway=keep_anyway,
            as_json=as_json,
            quiet=quiet,
        )
    if score is not None:
        raise PlanError(
            "--score is for a search within a budget; after a plan, give it to the command verify"
        )
    with show_progress(quiet=quiet) as progress:
        result = pipeline.compress(
            model,
            plan=read_plan(layer, plan),
            data=data,
            calibration=calibrate,
            calibration_limit=calibrate_limit,
            asymmetric=asymmetric,
            metric=metric,
            preprocess=preprocess,
            labels_from=labels,
            strict=strict,
            limit=limit,
            input_shapes=read_shapes(input_shape),
            tolerance=read_tolerance(min_sqnr, max_drop, min_top1),
            lowering=lowering or "standard",
            engine=engine,
            seed=seed,
            progress=progress,
        )
    report = result.report.verification
    passed = report is not None and report.passed
    written = output if passed or keep_anyway else None
    if written:
        result.save(written, force=force)
    if save_plan is not None:  # what was tried, to be edited and tried again
        write_text(save_plan, json.dumps(result.plan.to_dict(), indent=2) + "\n")
    print_result(
        lambda: measured(
            "compress",
            {**result.report.to_dict(), "output": None if written is None else str(written)},
            provider=engine,
        ),
        lambda: _print_tables(result.report, written),
        as_json=as_json,
        quiet=quiet,
    )
    return 0 if passed else 1


def _refuse_unread(options: Mapping[str, object], *, searching: bool) -> None:
    """Raise PlanError for options given that nothing would read."""
    given = " and ".join(name for name, value in options.items() if value is not None)
    if given and searching:
        raise PlanError(
            f"{given} {'have' if ' and ' in given else 'has'} no meaning in a search within a "
            "budget; leave it out, or give a plan"
        )
    if given:
        raise PlanError(
            f"{given} {'are' if ' and ' in given else 'is'} for a search within a budget; give a "
            "budget and --data and no plan, or leave it out"
        )


def _print_tables(report: CompressReport, output: Path | None) -> None:
    from onnx_lowrank.report import tables
    from onnx_lowrank.report.console import say

    tables.print_compress(report)
    say(f"wrote {output}" if output else NOTHING)

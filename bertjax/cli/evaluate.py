"""The command that measures a trained model: evaluate."""

from typing import Any

from bertjax.cli.arguments import Parser, add_mesh, check_new, mesh_of, new_file
from bertjax.cli.terminal import say
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path


def evaluate(argv: list[str]) -> None:
    """Runs `bertjax evaluate`."""
    parser = Parser(prog="bertjax evaluate", description="Print the held-out figures of a run.")
    parser.add_argument("run", metavar="RUN", help="folder of a trained run, such as runs/textbook")
    parser.add_argument(
        "--split", choices=("train", "valid", "test"), help="split to evaluate on; by default the one the run held out"
    )
    parser.add_argument(
        "--half",
        choices=("even", "odd"),
        help="use every other sequence only: choose recipes by one half, report the other",
    )
    parser.add_argument("--json", metavar="FILE", type=user_path, help="write all figures to this file too")
    parser.add_argument("--data.path", dest="path", help="where the text is now, if it has moved since the run")
    parser.add_argument("--data.eval_path", dest="eval_path", help="likewise, of held-out files of their own")
    parser.add_argument(
        "--other_text", action="store_true", help="evaluate on this text though it is not the one the run held out"
    )
    parser.add_argument(
        "--eval.mlm_probability",
        dest="mlm_probability",
        type=float,
        help="share of the tokens to predict; by default the run's own",
    )
    parser.add_argument(
        "--task.eval",
        dest="task_eval",
        metavar="FILE",
        help="labelled examples for a run of 'bertjax finetune', in place of those that it held out",
    )
    for name, kind in (("coordinator", str), ("num_processes", int), ("process_id", int), ("bind_address", str)):
        parser.add_argument(f"--distributed.{name}", dest=name, type=kind, help="as for 'bertjax pretrain'")
    add_mesh(parser, "the run's own, where it suits the devices there are")
    args = parser.parse_args(argv)
    if args.json is not None:
        check_new("--json", args.json)
    from bertjax.config import DistributedConfig
    from bertjax.parallel.distributed import digest_of, joined
    from bertjax.parallel.process_group import Run

    distributed = DistributedConfig(args.coordinator, args.num_processes, args.process_id, args.bind_address)
    own = ("process_id", "bind_address")
    asked = {name: str(value) for name, value in vars(args).items() if name not in own}
    with joined(distributed, Run(f"an evaluation of {args.run}", digest_of(asked))) as processes:
        told, as_json = _judged(args)
    if not processes.first:
        return
    say(told)
    if args.json is not None:
        with new_file("--json", args.json) as file:
            file.write(as_json)


def _judged(args: Any) -> tuple[str, str]:
    """Returns the figures as they are printed, and as JSON."""
    from bertjax.evaluation import evaluate, judgement, task
    from bertjax.runs.folder import RunFolder
    from bertjax.runs.remote_run import fetched_run

    folder = fetched_run(args.run)
    of_text = {name: getattr(args, name) for name in ("split", "path", "eval_path", "half", "mlm_probability")}
    if RunFolder(folder).config().task.kind == "pretrain":
        if args.task_eval is not None:
            raise BertjaxError(f"--task.eval is of runs that are fine-tuned, and {args.run} is not; give --split")
        found = evaluate.evaluate_run(folder, **of_text, other_text=args.other_text, mesh=mesh_of(args))
        return evaluate.render(found), evaluate.as_json(found)
    if given := [name for name, value in of_text.items() if value is not None]:
        raise BertjaxError(f"--{given[0]} is of runs that pretrain, and {args.run} is fine-tuned; give --task.eval")
    judged = task.evaluate_task(folder, path=args.task_eval, mesh=mesh_of(args))
    return judgement.render(judged), judgement.as_json(judged)

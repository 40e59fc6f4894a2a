"""Fine-tuning on labelled texts and pairs: labels (classify), a number (score), or how well they match (rerank)."""

from jax.sharding import Mesh

from bertjax.data.prepare_task import PreparedTask, describe_task, prepare_task
from bertjax.data.targets import Labels
from bertjax.evaluation.judgement import Judgement
from bertjax.evaluation.labelled import judge, make_task_model
from bertjax.objectives.classification import classification_objective
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.scoring import scoring_objective
from bertjax.train.tasks.course import Kind, course_of


def _objective(prepared: PreparedTask, mesh: Mesh) -> Objective:
    model, task = make_task_model(prepared.config, prepared.targets, mesh, learning=True), prepared.config.task
    if not isinstance(prepared.targets, Labels):
        return scoring_objective(model, "squared" if task.kind == "score" else "binary")
    return classification_objective(
        model,
        several=prepared.targets.several,
        label_smoothing=task.label_smoothing,
        class_weights=prepared.class_weights,
    )


def _judge(prepared: PreparedTask, mesh: Mesh, params: Params) -> Judgement:
    of_held_out = (prepared.held_out, prepared.held_out_batches, prepared.items)
    return judge(prepared.config, prepared.targets, *of_held_out, params, mesh)


LABELLED = Kind(
    prepare_task,
    describe_task,
    _objective,
    _judge,
    what_next=("to tell what other texts have", "predict {} --input texts.csv --out predictions.csv"),
)
COURSE = course_of(LABELLED)

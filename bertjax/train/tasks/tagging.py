"""Fine-tuning on sentences whose words have tags."""

from jax.sharding import Mesh

from bertjax.data.prepare_tagging import PreparedTagging, describe_tagging, prepare_tagging
from bertjax.evaluation.judgement import Judgement
from bertjax.evaluation.tagging import judge_tagger, make_tagger
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.tagging import tagging_objective
from bertjax.train.tasks.course import Kind, course_of


def _objective(prepared: PreparedTagging, mesh: Mesh) -> Objective:
    return tagging_objective(
        make_tagger(prepared.config, prepared.tags, mesh, learning=True),
        label_smoothing=prepared.config.task.label_smoothing,
        class_weights=prepared.class_weights,
    )


def _judge(prepared: PreparedTagging, mesh: Mesh, params: Params) -> Judgement:
    of_held_out = (prepared.held_out, prepared.held_out_batches, prepared.sentences)
    return judge_tagger(prepared.config, prepared.tags, *of_held_out, params, mesh)


TAGGED = Kind(
    prepare_tagging,
    describe_tagging,
    _objective,
    _judge,
    what_next=("to tag other sentences", "predict {} --input sentences.conll --out tagged.conll"),
    sequences="sentences",
)
COURSE = course_of(TAGGED)

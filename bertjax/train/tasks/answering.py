"""Fine-tuning on questions whose answers stand in a context."""

from jax.sharding import Mesh

from bertjax.data.prepare_answering import PreparedAnswering, describe_answering, prepare_answering
from bertjax.evaluation.answering import judge_answerer, make_answerer
from bertjax.evaluation.judgement import Judgement
from bertjax.objectives.answering import answering_objective
from bertjax.objectives.objective import Objective, Params
from bertjax.train.tasks.course import Kind, course_of


def _objective(prepared: PreparedAnswering, mesh: Mesh) -> Objective:
    return answering_objective(make_answerer(prepared.config, mesh, learning=True))


def _judge(prepared: PreparedAnswering, mesh: Mesh, params: Params) -> Judgement:
    of_held_out = (prepared.held_out, prepared.held_out_batches, prepared.questions)
    return judge_answerer(prepared.config, *of_held_out, params, mesh)


ANSWERED = Kind(
    prepare_answering,
    describe_answering,
    _objective,
    _judge,
    what_next=("to answer other questions", "predict {} --input questions.json --out answers.json"),
    sequences="windows",
)
COURSE = course_of(ANSWERED)

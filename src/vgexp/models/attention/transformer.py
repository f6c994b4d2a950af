"""The causal, decoder-only transformer of sequences of tokens or steps.

Axes of one example: T positions, F features of a step.
"""

from __future__ import annotations

from torch import nn

from vgexp.config import TransformerConfig
from vgexp.errors import QuestionError
from vgexp.models.attention.embeddings import (
    POSITIONS,
    Rotary,
    SequenceEmbedding,
    TokenTable,
    token_table,
)
from vgexp.models.attention.stack import Stack, every, last
from vgexp.models.families import make
from vgexp.models.network import linear
from vgexp.tasks import Task, require_kind


@make.register
def build(config: TransformerConfig, task: Task) -> Stack:
    """Makes a causal transformer: each position attends to itself and those before it.

    It answers at each position, or once, at the last.

    Raises:
        QuestionError: an unknown name, examples that it does not read, a norm or skip that blocks
            do not have, or a tied read-out where there is no token for each output.
    """
    require_kind(task, "model=transformer", config.reads, "tokens, or a sequence of steps")
    num_positions, positions = task.shape[0], POSITIONS[config.positions]
    turns = config.positions == "rotary"
    stack = Stack(
        config,
        SequenceEmbedding(
            _read(config, task),
            None if positions is None else positions(num_positions, config.width),
        ),
        task.num_outputs,
        every if task.per_position else last,
        Rotary(num_positions, config.width // config.heads) if turns else None,
        causal=True,
    )
    if config.tied:
        _tie(stack, task)
    return stack


def _read(config: TransformerConfig, task: Task) -> TokenTable | nn.Linear:
    """Makes the weight that turns tokens or steps into the stream."""
    if task.kind == "tokens":
        return token_table(task.num_tokens, config.width)
    return linear(task.shape[1], config.width, config.bias)


def _tie(stack: Stack, task: Task) -> None:
    if task.kind != "tokens" or task.num_outputs != task.num_tokens:
        given = f"{task.num_tokens} tokens" if task.kind == "tokens" else task.in_words
        raise QuestionError(
            f"model.tied is True, and the data are {given} with {task.num_outputs} outputs\n"
            "reason: the read-out's weight can be the embedding's only where each output is a"
            " token\n"
            "allowed: model.tied=false, or tokens with as many outputs"
        )
    weight = stack.embedding.read.weight
    stack.readout = linear(weight.shape[1], task.num_outputs, bias=False)
    stack.readout.weight = weight

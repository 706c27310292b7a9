"""Stages of the `base` recipe: the tokenizer and the base model, from nothing."""

from __future__ import annotations

from typing import Any

import jax

from glore_jax.method import base_model
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel import hosts
from glore_jax.pipeline import StageContext
from glore_jax.sampling import solutions
from glore_jax.stages import artifacts
from glore_jax.stages.students import accuracy
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import pretrained
from glore_jax.training import checkpoints, losses


def tokenizer(context: StageContext) -> dict[str, Any]:
    """SentencePiece, trained on the first documents of the corpus."""
    c = context.config
    documents = base_model.documents(c.seed, 4000, c.pretrain_short.step_weights, 0.0, 0.0)
    made = base_model.train_tokenizer(documents, c.vocabulary)
    made.save(context.folder)
    return {"vocabulary": made.vocab_size}


def pretrain(context: StageContext) -> dict[str, Any]:
    """One phase of the training: documents of its own, from the phase before (its last input) or from nothing."""
    c = context.config
    settings = c[context.stage.name]
    before = [name for name in context.stage.inputs if name != "tokenizer"]
    model_tokenizer = pretrained.reopen(context.input("tokenizer"))
    documents = base_model.documents(
        c.seed + settings.corpus,
        settings.documents,
        settings.step_weights,
        settings.revised_share,
        settings.notes_share,
    )
    examples = [base_model.example(model_tokenizer, d, c.model.prefix_lm) for d in documents]
    config = DecoderConfig(vocab_size=model_tokenizer.vocab_size, **c.model.to_dict(), dtype=c.train_dtype)
    model = Decoder(config)
    if before:
        params, _ = checkpoints.load_model(context.input(before[-1]) / artifacts.MODEL)
    else:
        params = {"decoder": base_model.init(model, c.seed)}
    trained, counts = artifacts.train(
        context, model, params, losses.language, examples, settings.train, model_tokenizer
    )
    artifacts.write_trained(context.folder, trained, config)
    return counts


def base_model_stage(context: StageContext) -> dict[str, Any]:
    """The folder that a run's `base.path` takes: the model at half precision, its tokenizer, its dev accuracy."""
    c = context.config
    made = pretrained.reopen(context.input("tokenizer"))
    model, params = artifacts.read_model(context.input("pretrain_long"), "float32")
    artifacts.write_model(context.folder, params, model.config, "bfloat16")
    artifacts.write_tokenizer(context.folder, made)
    hosts.barrier("the base model")
    model, params = artifacts.read_model(context.folder, "float32")
    dev = [make_problem(c.seed, "dev", i, c.pretrain_long.step_weights) for i in range(c.dev)]
    engine = artifacts.make_engine(context, model, params["decoder"], made)
    with artifacts.sampling(context, len(dev), "solutions", "dev drafts") as recorded:
        found = solutions.sample(engine, made, dev, 1, 0.0, context.key("greedy"), *recorded)
    artifacts.write_json(context.folder / "card.json", {"dev_accuracy": accuracy(found), "dev_problems": c.dev})
    return {"parameters": sum(x.size for x in jax.tree.leaves(params)), "dev_accuracy": accuracy(found)}

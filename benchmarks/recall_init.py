"""What the start of `models/recall_init.py` is worth: the base model's first phase, from it and from a random start.

python benchmarks/recall_init.py

Trains on notes (the number of everybody in a story worked out) with the numbers of `pretrain_notes` in
configs/arithmetic_base.py, twice. Prints JSON: the loss [nats a token] at each quarter of the steps from either
start, and how many times larger a random start's last loss is. About seven minutes on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax

from glore_jax import cli, configuration
from glore_jax.method import base_model
from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.training import loop, losses

CONFIG = Path(__file__).parents[1] / "configs" / "arithmetic_base.py"


def main() -> None:
    config = configuration.load(str(CONFIG))
    cli.prepare_jax(config)
    phase = config.pretrain_notes
    first = base_model.documents(config.seed, 4000, config.pretrain_short.step_weights, 0.0, 0.0)
    tokenizer = base_model.train_tokenizer(first, config.vocabulary)
    notes = base_model.documents(
        config.seed + phase.corpus, phase.documents, phase.step_weights, phase.revised_share, phase.notes_share
    )
    examples = [base_model.example(tokenizer, d, config.model.prefix_lm) for d in notes]
    examples = [e for e in examples if len(e) <= phase.train.row_length]  # as the stage does
    model = Decoder(DecoderConfig(tokenizer.vocab_size, **config.model.to_dict(), dtype=config.train_dtype))
    random = decoder.init(model, jax.random.key(config.seed))
    found = {}
    for name, params in (("random_start", random), ("recall_start", base_model.init(model, config.seed))):
        trained = loop.train(model, {"decoder": params}, losses.language, examples, phase.train, config.seed)
        points = trained.curve[len(trained.curve) // 4 - 1 :: len(trained.curve) // 4]
        found[name] = {point["step"]: round(point["loss"], 3) for point in points}
    last = max(found["random_start"])
    found["random_over_recall"] = round(found["random_start"][last] / found["recall_start"][last], 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""A model of Hugging Face transformers, trained by its Trainer and measured with one line.

python examples/with_transformers.py [FOLDER]
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from vgexp.integrations.transformers import ProbeCallback


class RandomTokens(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.tokens = torch.randint(100, (64, 16), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def main(folder: str = "outputs/with_transformers") -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=16, n_embd=32, n_layer=4, n_head=4)
    )
    callback = ProbeCallback(every=2, activations_every=2)
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=8,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=RandomTokens(), callbacks=[callback])
    trainer.train()
    assert callback.probe is not None
    print(callback.probe.diagnose())


if __name__ == "__main__":
    main(*sys.argv[1:])

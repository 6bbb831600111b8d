"""What tests run in a process of its own, which has to be able to import it. A function imports what others do not
need, since each process takes seconds for it.
"""

import os

import torch

from pumer_hf.reducers.tip_losses import contrastive_loss


def contrast_of_a_share(rank, folder):
    """TiP's contrastive loss and its gradients on one of two halves of a batch, into a file."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    share = slice(2 * rank, 2 * rank + 2)
    text, image = (whole[share].clone().requires_grad_() for whole in torch.load(f"{folder}/inputs.pt"))
    loss = contrastive_loss(text, image, torch.tensor(0.5))
    loss.backward()
    torch.save((loss.item(), text.grad, image.grad), f"{folder}/share-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def decide_to_save(rank, folder):
    """Whether a checkpoint is due, where it is by the clock of the first of two processes, and where it is by that of
    the other one, into a file.
    """
    from pumer_hf.recipes.recipe import RecipeTrainingArguments
    from pumer_hf.training.timing import TimedCheckpointCallback

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "ACCELERATE_USE_CPU": "true"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    args = RecipeTrainingArguments(output_dir=folder, use_cpu=True, report_to="none")
    assert args.world_size == 2
    decisions = []
    for late in (0, 1):
        callback = TimedCheckpointCallback(minutes=1000)
        callback.saved_at -= 120_000 if rank == late else 0
        decisions.append(callback._is_due(args))
    torch.save(decisions, f"{folder}/decision-{rank}.pt")
    torch.distributed.destroy_process_group()


def train_in_two(rank, folder, kinds):
    """Distil decoders in one of two processes, and write their logs and weights into a file."""
    from training.decoder_training import ROWS, Collator

    from pumer_hf import DistillationTrainer, DistillationTrainingArguments

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for kind, (model, teacher) in kinds.items():
        args = DistillationTrainingArguments(
            output_dir=folder,
            use_cpu=True,
            report_to="none",
            per_device_train_batch_size=2,
            num_train_epochs=2,
            learning_rate=0.05,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = DistillationTrainer(
            model, teacher=teacher, args=args, train_dataset=[*ROWS, ROWS[1]], data_collator=Collator("llava")
        )
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        found[kind] = {"logs": logs, "weights": model.state_dict()}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

"""What tests run in a process of its own, which has to be able to import it."""

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

"""Several models of one architecture in one PyTorch program: stacked weights under `torch.func.vmap`."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, replace_all_batch_norm_modules_, stack_module_state, vmap

from experiments.benchmarks.pytorch_peer import Peer, make_optimizer, random_crops


class StackedPeer(Peer):
    """The tuned loop with `members` models at once, each on crops of its own: PyTorch's model ensembling.

    Batch norm keeps no running statistics here: `vmap` cannot move them in place. A step counts `members * batch_size`
    images.
    """

    def __init__(
        self,
        model_name: str,
        optimizer: str,
        batch_size: int,
        members: int,
        device: str,
        images: np.ndarray,
        labels: np.ndarray,
        bfloat16: bool = False,
    ):
        """Stacks the weights of freshly drawn models; arguments as for `Peer`, and how many `members`."""
        super().__init__(model_name, optimizer, members * batch_size, device, images, labels, bfloat16=bfloat16)
        self.members = members
        replace_all_batch_norm_modules_(self.model)
        models = [copy.deepcopy(self.model) for _ in range(members)]
        for model in models:
            for layer in model.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()  # type: ignore[operator]
        stacked, _ = stack_module_state(models)
        self.parameters = {name: value.detach() for name, value in stacked.items()}
        self.optimizer = make_optimizer(optimizer, list(self.parameters.values()))

        def loss(parameters: dict, images: torch.Tensor, labels: torch.Tensor) -> tuple:
            if self.bfloat16:  # by hand: under vmap autocast gives batch norm's gradient two types
                parameters, images = {name: value.bfloat16() for name, value in parameters.items()}, images.bfloat16()
            logits = functional_call(self.model, parameters, (images,)).float()
            return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

        self._gradients = vmap(grad_and_value(loss, has_aux=True), randomness="different")

    def _step(self, indices: torch.Tensor) -> None:
        images, labels = random_crops(self.windows, indices), self.labels[indices]
        images = images.float().div_(127.5).sub_(1)
        gradients, (losses, hits) = self._gradients(
            self.parameters, images.unflatten(0, (self.members, -1)), labels.unflatten(0, (self.members, -1))
        )
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        self.optimizer.step()
        self.loss_sum += losses.mean()
        self.hits += hits.sum()
        self.steps += 1

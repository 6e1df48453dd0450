"""What a plan would do to the network's output on a sample, without building the network that it plans.

Expert outputs are kept: dropping or splitting an expert needs none anew, merging two needs one.

Shape suffixes: B batch, E experts of one branch, W width of an expert.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtids_dist.model.experts import side_by_side
from mtids_dist.model.gates import GateUse
from mtids_dist.model.mtids import MTIDS, build_gate
from mtids_dist.model.resize_plan import SHARED, Origin, ResizePlan, mean_of_rows

Key = tuple[str | None, tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True)
class OutputChange:
    """A network's view of a sample.

    :param features: the trunk's map.
    :param contexts: {task: what its gate reads}.
    :param before: {task: class probabilities}.
    :param use: {branch: mean gate weight [E] of its experts}.
    """

    model: MTIDS
    features: Tensor
    contexts: dict[str, Tensor]
    before: dict[str, Tensor]
    use: dict[str | None, Tensor]
    _outputs: dict[Key, Tensor] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def of(cls, model: MTIDS, sample: Tensor) -> OutputChange:
        """Runs the network, in eval mode, on a sample [B, 1, D, H, W]."""
        training = model.training
        model.eval()
        try:
            features = model.trunk(sample.to(next(model.parameters())))
            before = {task: logits.softmax(dim=1) for task, logits in model.from_features(features).items()}
            contexts, gates = model.contexts(features), model.gates_from_features(features)
        finally:
            model.train(training)
        use: dict[str | None, Tensor] = {task: gate.private.mean(dim=0) for task, gate in gates.items()}
        use[SHARED] = torch.stack([gate.shared.mean(dim=0) for gate in gates.values()]).mean(dim=0)
        return cls(model, features, contexts, before, use)

    @torch.no_grad()
    def by(self, plan: ResizePlan) -> float:
        """Total-variation distance of the class probabilities, the mean over the sample of the task that moves most."""
        training = self.model.training
        self.model.eval()
        try:
            shared_BMW = self._outputs_of(plan, SHARED)
            private = {task: self._outputs_of(plan, task) for task in self.model.tasks}
            after = self.model.mix(self._gates(plan), shared_BMW, private)
        finally:
            self.model.train(training)
        distances = [(after[task].softmax(dim=1) - p).abs().sum(dim=1).mean() / 2 for task, p in self.before.items()]
        return float(torch.stack(distances).max())

    def _outputs_of(self, plan: ResizePlan, branch: str | None) -> Tensor:
        """What the experts of a branch of the plan give, [B, E, W]."""
        outputs = [self._output(branch, origin) for origin in plan.branch(branch)]
        return (
            torch.stack(outputs, dim=1)
            if outputs
            else self.features.new_empty(len(self.features), 0, self.model.config.expert_width)
        )

    def _output(self, branch: str | None, origin: Origin) -> Tensor:
        """What one expert of the plan gives, [B, W]."""
        key = (branch, origin.sources, origin.weights)
        if key not in self._outputs:
            experts = self.model.shared_experts if branch is SHARED else self.model.experts_of(branch)
            weight, norm_weight, norm_bias = (mean_of_rows(rows[list(origin.sources)], origin) for rows in experts.parameters())
            self._outputs[key] = side_by_side(self.features, weight[None], norm_weight[None], norm_bias[None])[:, 0]
        return self._outputs[key]

    def _gates(self, plan: ResizePlan) -> dict[str, GateUse]:
        old = {f"gating.{name}": value for name, value in self.model.gating.state_dict().items()}
        new = plan.apply_to_weights(old)
        return {task: self._gate(plan, task, new)(context) for task, context in self.contexts.items()}

    def _gate(self, plan: ResizePlan, task: str, weights: dict[str, Tensor]) -> nn.Module:
        with torch.device("meta"):
            gate = build_gate(plan.config, self.contexts[task].shape[1], len(plan.private[task]))
        prefix = f"gating.{task}."
        mine = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        gate.load_state_dict(mine, assign=True)
        return gate.eval()

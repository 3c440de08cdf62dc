"""Planning: a recipe and hardware → memory, tokens a second, days, energy and cost, or why it cannot be.

`plan_gpus` finds the best layout on a cluster, `cpu.plan_cpu` measures this machine, `measure.steps_within` says
how many steps fit some minutes. `anchors` holds the published runs that the figures were fitted to.
"""

from midspan.plan.hardware import GPUS, Cluster, Gpu, parse_gpus
from midspan.plan.plan import plan_gpus
from midspan.plan.result import PUE, Plan
from midspan.plan.stage import Layout, Stage, stage_of

__all__ = ["GPUS", "PUE", "Cluster", "Gpu", "Layout", "Plan", "Stage", "parse_gpus", "plan_gpus", "stage_of"]

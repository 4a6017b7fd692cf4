"""DPM-Solver++(2M)."""

from dataclasses import dataclass

from torch import Tensor

from gdf.samplers.base import BaseSampler, Step, half_log_snr
from gdf.tensors import divide_or_zero


@dataclass
class DPMSolverPP2MSampler(BaseSampler):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): order 2 with one call of the model a step.

    With L = log-SNR / 2 and h = L' - L the solution is x' = (b' / b) x - a' (exp(-h) - 1) D for a constant
    estimate D of x0. D continues the line through the previous and the present estimate to the middle of the
    step: D = x0 + r (x0 - x0_previous), r = h / (2 h_previous). The first step has no previous estimate and
    takes D = x0, as DDIM does in every step.

    lower_order_final: D = x0 in the step to t = 0 too, which is usually a long one.
    max_ratio: the most that r may be. 0.5, its value for equal steps, keeps growing steps from extrapolating
        further than that; infinity is the paper's algorithm, mostly further from the truth for few steps.
    """

    lower_order_final: bool = True
    max_ratio: float = 0.5

    def step(self, step: Step) -> Tensor:
        a, b, a_next, b_next = step.scales()
        constant = a_next * step.now.x0 + b_next * step.now.epsilon
        if step.previous is None or (step.is_last and self.lower_order_final):
            return constant
        half = a.log() - b.log()
        h_previous = half - half_log_snr(step.scaler, step.previous.logSNR).view_as(half)
        ratio = (a_next.log() - b_next.log() - half) / (2 * h_previous)
        # 0 / 0: the previous point was at the same log-SNR.
        ratio = ratio.nan_to_num(0.0, posinf=self.max_ratio).clamp(max=self.max_ratio)
        # -a' (exp(-h) - 1) = a' - a b' / b; without noise, at a stretched end, the ratio is 0 already.
        return constant + (a_next - divide_or_zero(a * b_next, b)) * ratio * (step.now.x0 - step.previous.x0)

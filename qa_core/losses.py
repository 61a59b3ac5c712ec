"""lose: logits and labels → the loss of each window."""

import torch

from qa_core.batching import Batch


def span_losses(start: torch.Tensor, end: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Half the negative log-likelihood that a window's accepted spans have together, (batch,).

    `start` and `end` are logits (batch, longest), -inf where there is no token, so padding is no
    candidate and a loss does not depend on what the window is batched with. With one accepted
    span this is the mean of the cross entropies of its start and its end, as in run_qa; with
    several it is the marginal likelihood over them.
    """
    log_start, log_end = (torch.log_softmax(logits, -1) for logits in (start, end))
    likelihood = log_start[batch.label_row, batch.label_start]
    likelihood = likelihood + log_end[batch.label_row, batch.label_end]  # (spans,)
    if len(likelihood) == len(batch.lengths):  # one span a window
        return -likelihood / 2
    slot = torch.arange(len(likelihood), device=likelihood.device)
    first = torch.searchsorted(batch.label_row, torch.arange(len(batch.lengths)).to(slot.device))
    table = torch.full(
        (len(batch.lengths), int(torch.bincount(batch.label_row).max())),
        -torch.inf,
        dtype=likelihood.dtype,
        device=likelihood.device,
    )
    place = (batch.label_row, slot - first[batch.label_row])
    return -torch.logsumexp(table.index_put(place, likelihood), -1) / 2


def distillation_losses(
    start: torch.Tensor,
    end: torch.Tensor,
    teacher: tuple[torch.Tensor, torch.Tensor],
    *,
    temperature: float,
) -> torch.Tensor:
    """How far a student's distributions are from a teacher's, (batch,).

    Mean over start and end of the Kullback-Leibler divergence at `temperature`, times its square
    (Hinton, Vinyals and Dean 2015). Logits as for `span_losses`, those of the teacher likewise.
    """
    parts = []
    for student_logits, teacher_logits in zip((start, end), teacher, strict=True):
        is_real = ~torch.isinf(teacher_logits)
        log_student = torch.log_softmax(student_logits / temperature, -1)
        log_teacher = torch.log_softmax(teacher_logits / temperature, -1)
        difference = torch.where(is_real, log_teacher, 0) - torch.where(is_real, log_student, 0)
        parts.append((log_teacher.exp() * difference).sum(-1))
    return (parts[0] + parts[1]) / 2 * temperature**2

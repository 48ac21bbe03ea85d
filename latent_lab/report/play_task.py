"""``task=play``: type a problem, watch thoughts and readings, edit a thought and see what the answer becomes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class PlayTask:
    """A live session with a run, in the terminal or on a page of this machine; nothing is stored."""

    web: bool = False
    """Show a page on 127.0.0.1 instead (needs the extra ``web``)."""
    port: int = 0
    """Port of the page; 0 takes a free one."""

    fitted_on: int = 2_000
    """Training problems that the linear probe is fitted on; 0: no reader but the run's own step decoder."""

    def __post_init__(self) -> None:
        if self.fitted_on and self.fitted_on < 100:
            raise ValueError(f"fitted_on={self.fitted_on}: allowed are 0 (no probe) and 100 and more")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port={self.port}: allowed are 0 (a free one) to 65535")

    def run(self, job: "Job") -> dict[str, Any]:
        """Play until the end of the input, ``quit``, or an interrupt; return what was done."""
        from latent_lab.report.play import play

        return play(self, job)

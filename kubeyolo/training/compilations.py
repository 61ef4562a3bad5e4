"""Counts the graphs that MindSpore compiles while training, and how long the steps take that compile.

MindSpore compiles the graph of a step for each size of images, when the first step with this size begins. A graph that
is compiled again for a size that it had before would show here as more graphs than sizes.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from kubeyolo.formats import about_duration, counted, duration


class CompiledGraphs(BaseModel):
    """What MindSpore compiled in a session of a training, for its result.

    Attributes:
        graphs: Graphs of a step.
        seconds: Seconds to compile such a graph and to run its first step, by side of the images in pixels.
        other_graphs: Graphs that do not depend on the size of the images: update of the weights, and of their average.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    graphs: int
    seconds: dict[int, float]
    other_graphs: int = 0

    @property
    def words(self) -> str:
        """The numbers of graphs and sizes, with the time."""
        sizes = ", ".join(map(str, sorted(self.seconds)))
        total = duration(sum(self.seconds.values()))
        return f"{counted(self.graphs, 'graph')} for {counted(len(self.seconds), 'size')} ({sizes} px) in {total}"


class Compilations:
    """The compilations of a process.

    Attributes:
        seconds: Seconds of the last step if it compiled a graph; otherwise 0.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._graphs, self._others = 0, 0
        self._of_sizes: dict[int, float] = {}

    def count(self, graphs: int, others: int) -> bool:
        """Take the numbers of graphs after a step; return whether the step has compiled any.

        Args:
            graphs: Graphs of a step that MindSpore has compiled until now.
            others: Other graphs.
        """
        self.seconds = 0.0
        is_new = (graphs, others) != (self._graphs, self._others)
        self._graphs, self._others = graphs, others
        return is_new

    def add(self, size: int, seconds: float) -> None:
        """Add the time of a step that has compiled, with images of a side in pixels."""
        self.seconds = seconds
        # A later step that compiles only the update is not a compilation of its size.
        self._of_sizes.setdefault(size, seconds)

    def has(self, size: int) -> bool:
        """Tell whether a size is compiled."""
        return size in self._of_sizes

    def seconds_for(self, sizes: Collection[int]) -> float:
        """Return the estimated seconds to compile those of the sizes that are not compiled; 0 before the first."""
        measured = self._of_sizes.values()
        return sum(measured) / max(len(measured), 1) * len([size for size in sizes if not self.has(size)])

    def announcement(self, size: int, sizes: Collection[int]) -> str:
        """Return a line about the compilation that the next step begins with.

        Args:
            size: Side of the images of the next step in pixels.
            sizes: Sides of the images of this and all later steps.
        """
        later = [each for each in sizes if each != size and not self.has(each)]
        compiled = len(self._of_sizes)
        text = f"compiling the graph for images of {size} px, size {compiled + 1} of {compiled + 1 + len(later)}"
        if compiled:
            text += f": about {about_duration(self.seconds_for([size]))}"
            text += f", and {about_duration(self.seconds_for(later))} for the other sizes later" if later else ""
        return text

    @property
    def result(self) -> CompiledGraphs:
        """The compilations until now."""
        seconds = {size: round(each, 2) for size, each in sorted(self._of_sizes.items())}
        return CompiledGraphs(graphs=self._graphs, seconds=seconds, other_graphs=self._others)

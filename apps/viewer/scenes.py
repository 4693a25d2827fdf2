"""The scenes that pages may have trained: those named when the viewer was started, and those dropped onto a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from apps.viewer.live import Live
from nerf.cli import Options
from nerf.config import ConfigError


class Scenes:
    """Names for pages, folders for the server: no path comes from a page.

    Args:
        home: the folder of runs.
        trained: told the token of what was dropped and is now trained on, so that it stays.
    """

    def __init__(
        self, live: Live, home: Path, backend: str, trained: Callable[[str], object] = lambda token: None
    ) -> None:
        self.live, self.home, self.backend, self.trained = live, home, backend, trained
        self._known: dict[str, Path] = {}
        self._uploads: dict[str, str] = {}

    def add(self, folder: Path, name: str | None = None) -> str:
        """Make a scene known; returns the name that pages know it by."""
        name = folder.resolve().name if name is None else name
        self._known[name] = folder
        return name

    def dropped(self, token: str, folder: Path) -> None:
        """A scene that was dropped onto a page and can be read."""
        if token not in self._uploads:
            own = f"scene-{token[:6]}" if folder.name == token else f"{folder.name}-{token[:6]}"
            self._uploads[token] = self.add(folder, own)

    def gone(self, token: str) -> None:
        """What was dropped has been removed."""
        self._known.pop(self._uploads.pop(token, ""), None)

    def of_upload(self, token: str) -> str:
        """The name of what was dropped. Raises ConfigError where nothing that can be read was."""
        if token not in self._uploads:
            raise ConfigError("upload: expected a scene that was checked, found none; drop it again")
        return self._uploads[token]

    def names(self) -> list[str]:
        """All known scenes, latest first."""
        return list(reversed(self._known))

    def train(self, name: str, budget: str, downscale: int, warp: bool = True, register: bool = False) -> None:
        """Train on a known scene. Raises ConfigError where it isn't known or can't be started."""
        if name not in self._known:
            raise ConfigError(f"scene: expected one of {', '.join(self.names()) or 'none yet'}, found {name!r}")
        self.live.begin(
            Options(
                self._known[name], budget=budget, downscale=downscale, out=self.home / name, warp=warp,
                register=register, backend=self.backend,
            )
        )  # fmt: skip
        for token in [token for token, own in self._uploads.items() if own == name]:
            self.trained(token)

"""Build of the packages: the definitions of ``studies/`` become data of ``nas.definition``."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStudies(build_py):
    """Builds the packages, and puts the definitions of ``studies/`` beside the module that offers them."""

    def run(self) -> None:
        """Build; an editable installation reads the definitions where they are."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "nas", "definition", "studies")
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("*.yaml"):
            earlier.unlink()
        for path in sorted(Path(__file__).parent.glob("studies/*.yaml")):
            self.copy_file(str(path), str(folder / path.name))


setup(cmdclass={"build_py": BuildWithStudies})

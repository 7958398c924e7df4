"""Where the programs of Kafka come from: jars that Maven copied into a cache folder, else a Docker image."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from services.embedded.progress import CannotStart, say, wait_until

VERSION = "4.3.1"
IMAGE = f"apache/kafka:{VERSION}"
_POM = Path(__file__).with_name("pom.xml")
_DOWNLOAD_S = 900.0
_MISSING = (
    "Kafka needs a Java runtime (17 or newer) and Maven, or a Docker engine, and this machine has neither. On Debian"
    " or Ubuntu: apt-get install default-jre-headless maven. Or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs."
)


def cache_folder() -> Path:
    """The folder of the jars; all clones of this user share it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "keyledger" / f"kafka-{VERSION}"


def jars() -> Path | None:
    """The folder with the jars, downloaded when it is not there yet; None when Docker is the way to run Kafka.

    Raises CannotStart when neither Java with Maven nor a Docker engine is there, or the download fails.
    """
    folder = cache_folder()
    java = shutil.which("java") is not None
    if java and folder.is_dir():
        return folder
    if java and shutil.which("mvn"):
        _download(folder)
        return folder
    if docker_answers():
        return None
    raise CannotStart(_MISSING)


def docker_answers() -> bool:
    """Whether a Docker engine answers on this machine."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode == 0


def _download(folder: Path) -> None:
    """Copies the jars beside `folder` and renames when complete, so that no run ever sees half of them."""
    say(f"Kafka {VERSION}: downloading 54 MB of jars with Maven, once, into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, tempfile.TemporaryFile() as log:
        libs = Path(scratch) / "libs"
        command = ["mvn", "-B", "-f", str(_POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        maven = subprocess.Popen([*command, f"-DoutputDirectory={libs}"], stdout=log, stderr=log)
        try:
            wait_until(lambda: maven.poll() is not None, "Kafka: downloading", _DOWNLOAD_S, lambda: _size(libs))
        finally:
            maven.kill()  # Only matters when waiting was interrupted; a process that ended stays as it is.
            maven.wait()
        if maven.returncode != 0:
            log.seek(0)
            raise CannotStart("Maven could not copy the jars of Kafka:\n" + log.read().decode(errors="replace")[-3000:])
        if not folder.is_dir():  # Another clone may have been quicker.
            libs.rename(folder)


def _size(folder: Path) -> str:
    return f"{sum(jar.stat().st_size for jar in folder.glob('*.jar')) / 1e6:.0f} MB"

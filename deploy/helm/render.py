"""Writes deploy/kubernetes/perjoule.yaml, the chart's manifests with its own values: `python deploy/helm/render.py [FILE]`.

`helm template perjoule deploy/helm/perjoule` shows the same. This takes Helm as a library (`pip install helm-python-sdk`), so that tests
need no binary.
"""

import sys
from pathlib import Path
from typing import Any

import helm_python as helm

HERE = Path(__file__).parent
CHART = HERE / "perjoule"
HEAD = """# perjoule on Kubernetes, without Helm: kubectl apply -f perjoule.yaml, after the Secret that docs/deploy.md makes.
# Written by deploy/helm/render.py from the chart's own values; change those, or what is here.
"""


def rendered(values: dict[str, Any], release: str = "perjoule") -> str:
    """The chart's manifests. Raises helm.HelmError for values that its schema refuses."""
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace="default")
    return "---\n".join(files[name].strip() + "\n" for name in sorted(files) if name.endswith(".yaml") and files[name].strip())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "kubernetes" / "perjoule.yaml"
    target.write_text(HEAD + rendered({}))

"""The deployment files agree with the code and with each other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml  # type: ignore[import-untyped]
from typer.core import TyperGroup

from cli.main import app as cli_app
from core.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def objects() -> list[dict[str, Any]]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())]


def workloads() -> list[dict[str, Any]]:
    return [each for each in objects() if each["kind"] in ("Deployment", "Job")]


def named(kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in objects() if each["kind"] == kind}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def our_services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = compose()["services"]
    return {name: each for name, each in services.items() if each["image"].startswith("dermadetect")}


def check_command(arguments: list[str]) -> None:
    """Fail unless `dermadetect <arguments>` names a command, and options that it has."""
    command: Any = typer.main.get_command(cli_app)
    rest = list(arguments)
    while isinstance(command, TyperGroup):
        if command.invoke_without_command and (not rest or rest[0].startswith("-")):
            break  # it does something by itself
        assert rest[0] in command.commands, arguments
        command = command.commands[rest.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {each for each in rest if each.startswith("--")} <= options, arguments


def command_lines() -> Iterator[list[str]]:
    for workload in workloads():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            yield container["args"]
    for service in our_services().values():
        if "entrypoint" not in service:
            yield service["command"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    yield yaml.safe_load(re.findall(r"^CMD (\[.*\])$", dockerfile, re.M)[0])
    pages = dockerfile + (DEPLOY / "README.md").read_text()
    for line in re.findall(r"docker compose run --rm migrate ([^\n]+)", pages):
        yield line.replace('"Acme Clinic"', "Acme").split()


def test_every_command_line_is_one_of_the_products() -> None:
    found = list(command_lines())
    assert ["worker"] in found
    for arguments in found:
        check_command(arguments)


@pytest.mark.parametrize(
    "path", [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()], ids=lambda path: str(path.name)
)
def test_every_variable_is_a_setting(path: Path) -> None:
    for name in re.findall(r"DERMADETECT_([A-Z_]+)\b", path.read_text()):
        assert name.lower() in Settings.model_fields


def test_what_is_configured_makes_settings_that_hold() -> None:
    (config,) = (each for each in objects() if each["kind"] == "ConfigMap")
    values = {name.removeprefix("DERMADETECT_").lower(): value for name, value in config["data"].items()}
    assert Settings.model_validate(values).base_domain == "derma.example"
    for service in our_services().values():
        given = {
            name.removeprefix("DERMADETECT_").lower(): re.sub(r"\$\{[^}]*\}", "x", value)
            for name, value in service.get("environment", {}).items()
            if name != "DERMADETECT_MASTER_KEY"
        }
        Settings.model_validate(given)


def test_only_the_migration_holds_the_operators_login() -> None:
    for workload in workloads():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            sources = [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each]
            assert ("dermadetect-admin" in sources) == (container["name"] == "migrate")
    for name, service in our_services().items():
        assert ("DERMADETECT_ADMIN_DATABASE_URL" in service.get("environment", {})) == (name == "migrate")


def test_no_secret_stands_in_a_manifest() -> None:
    assert "Secret" not in {each["kind"] for each in objects()}
    secret = {
        name.upper() for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }
    (config,) = (each for each in objects() if each["kind"] == "ConfigMap")
    assert not {name.removeprefix("DERMADETECT_") for name in config["data"]} & secret


def test_every_workload_is_restricted() -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/, "restricted", and a read-only root
    assert len(workloads()) == 3
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
            assert not container["image"].endswith(":latest")


def test_selectors_and_references_find_what_they_name() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in workloads()]
    for each in objects():
        spec = each.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= have.items() for have in labels), each["metadata"]["name"]
        if each["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in named("Deployment")
        if each["kind"] == "Ingress":
            assert {rule["host"] for rule in spec["rules"]} == {"*.derma.example", "derma.example"}
            for rule in spec["rules"]:
                assert rule["http"]["paths"][0]["backend"]["service"]["name"] in named("Service")
    for workload in workloads():
        assert workload["spec"]["template"]["spec"]["serviceAccountName"] in named("ServiceAccount")
    listed = set(yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in MANIFESTS} - {"kustomization.yaml", "migrate.yaml"}


def test_the_gateway_is_probed_at_the_paths_that_answer_on_every_host() -> None:
    (gateway,) = (each for each in workloads() if each["metadata"]["name"] == "dermadetect-gateway")
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert probes == {"startupProbe": "/healthy", "livenessProbe": "/healthy", "readinessProbe": "/health"}


def test_compose_refers_to_what_it_has() -> None:
    whole = compose()
    for name, service in whole["services"].items():
        assert set(service.get("depends_on", {})) <= set(whole["services"]), name
        assert set(service["networks"]) <= set(whole["networks"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in whole["volumes"] or (DEPLOY / source).exists(), volume
        for published in service.get("ports", []):
            assert published.startswith("127.0.0.1:")


def test_the_compose_script_makes_the_documented_logins() -> None:
    script = (DEPLOY / "postgres/10-logins.sh").read_text()
    page = (ROOT / "docs/configuration.md").read_text()
    ours = "".join(re.findall(r"<<'SQL'\n(.*?)^SQL$", script, re.M | re.S))
    documented = "".join(re.findall(r"```sql\n(.*?)```", page, re.S))
    documented = documented.replace("'choose-one'", ":'admin'").replace("'choose-another'", ":'gateway'")
    # On a server of its own the image's user is a superuser and needs no membership.
    documented = re.sub(r"--[^\n]*\nGRANT dermadetect_admin TO CURRENT_USER;\n", "", documented)
    assert ours == documented


def test_the_image_takes_in_every_package_and_nothing_else() -> None:
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M))
    wheel = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert wheel
    packages = {name.split("/")[0] for name in re.findall(r'"([^"]+)"', wheel[1])}
    assert kept == packages | {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements.lock",
        "requirements-dev.lock",
    }

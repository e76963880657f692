"""What becomes of each key of compose: the one table, read by `hub.apps.verdicts` and by the docs.

A key is its path in the schema of compose, "*" for a name that the recipe chooses.  What is refused or
ignored as a whole ("services.*.build") speaks for all that is below it.

    supported  does what compose says; a reason adds what is good to know
    emulated   does it in another way, and the reason says how
    ignored    changes nothing here, and the reason says why
    refused    would not do what its author expects; the reason says what to write instead
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.apps.draft import Judgement


@dataclass(frozen=True, slots=True)
class Row:
    """The verdict on one key."""

    judgement: Judgement
    reason: str = ""


YES = Row("supported")


def _so(reason: str) -> Row:
    return Row("supported", reason)


def _as(reason: str) -> Row:
    return Row("emulated", reason)


def _no(reason: str) -> Row:
    return Row("ignored", reason)


def _never(reason: str) -> Row:
    return Row("refused", reason)


_TUNING = _no("tuning of Docker's own; a board has limits for memory, processors and processes")
_ONE_BOARD = _no("an app runs on one board as a whole")
_SECRET_IN_CLEAR = _never(
    "a recipe and its env are kept, and shown, as they are written;"
    " use `external: true` and `lichen secret set APP NAME --file s.txt`"
)
_TEMPLATED_SECRET = _never("a secret is not put together; make it a config that refers to secrets")

TOP: dict[str, Row] = {
    "version": _no("compose itself has no use for it any more"),
    "name": _so("the name that is proposed for the app; everything is named after the app's own name"),
    "include": _never("list the files in COMPOSE_FILE"),
    "services": YES,
    "services.*": YES,
    "networks": YES,
    "networks.*": YES,
    "volumes": YES,
    "volumes.*": YES,
    "secrets": YES,
    "secrets.*": YES,
    "configs": YES,
    "configs.*": YES,
    "models": _never("boards run no model runner; name a service that serves the model"),
    "jobs": _never("nothing is run by a schedule; a service that waits inside of its container does that"),
}

X_LICHEN: dict[str, Row] = {
    "x-lichen": _so("Lichen's own wishes; on a service, too"),
    "x-lichen.placement": _so("labels that the board must have, name and value"),
    "x-lichen.ports": _so(
        "auto, or direct: Podman publishes them and nothing stands between, so no start-first"
    ),
    "x-lichen.windows": _so('times of day at which an update may begin, as "HH:MM-HH:MM" on the board'),
    "x-lichen.timeout": _so("how long an update may take from its first step to healthy"),
}

SERVICE: dict[str, Row] = {
    "image": _so("by tag or digest; the tag is resolved to a digest when the app is deployed"),
    "build": _never("boards do not build; push the image to a registry and name it in 'image'"),
    "pull_policy": _so(
        "images are pinned, so what is there is never old: daily, weekly and such are 'missing'"
    ),
    "pull_refresh_after": _no("images are pinned; a new deployment looks for a new one"),
    "platform": _no("the image for the board's own architecture is taken, or the deployment is refused"),
    "command": YES,
    "entrypoint": YES,
    "environment": _so("a bare NAME is taken from the app's env, and left out when it is not there"),
    "env_file": _so("a file of the recipe; '.env' is the app's env"),
    "env_file.path": YES,
    "env_file.required": YES,
    "env_file.format": _so("raw: nothing is put in"),
    "label_file": _so("a file of the recipe"),
    "labels": _so("those that begin with lichen. are the board's own, and refused"),
    "annotations": _so("notes; those that steer what runs containers are refused, such as run.oci.*"),
    "user": YES,
    "group_add": YES,
    "working_dir": YES,
    "hostname": YES,
    "domainname": _never("write the whole name in 'hostname'"),
    "container_name": _as("another name of the service on its networks; containers are named after the app"),
    "stdin_open": YES,
    "tty": YES,
    "init": YES,
    "read_only": YES,
    "stop_signal": YES,
    "stop_grace_period": YES,
    "attach": _no("of 'docker compose up' only"),
    "profiles": _so("chosen by COMPOSE_PROFILES in the app's env"),
    "extends": _so("a service of the same file or of another one of the recipe"),
    "extends.service": YES,
    "extends.file": YES,
    "scale": _so("as deploy.replicas"),
    "develop": _no("of 'docker compose watch' only"),
    "provider": _never("boards run containers only"),
    "models": _never("boards run no model runner; name a service that serves the model"),
    "pre_start": _never("make it a service that others wait for with service_completed_successfully"),
    "post_start": _never("do it in the entrypoint"),
    "pre_stop": _never("do it when the container gets its stop signal"),
    "use_api_socket": _never("a container that can talk to Podman owns the board"),
}

NETWORKING: dict[str, Row] = {
    "ports": YES,
    "ports.target": YES,
    "ports.published": YES,
    "ports.protocol": YES,
    "ports.host_ip": YES,
    "ports.mode": _as("host: as x-lichen.ports direct; ingress: the board publishes it"),
    "ports.name": _no("a name for readers"),
    "ports.app_protocol": _no("a word for readers"),
    "expose": _no("services on a network reach every port of each other"),
    "networks": _so("a service answers as its name and as ${STACK_NAME}_name"),
    "networks.*": YES,
    "networks.*.aliases": YES,
    "networks.*.use_service_name_alias": _so("false: only the other aliases"),
    "networks.*.priority": _no("the order of networks inside of a container is Podman's"),
    "networks.*.gw_priority": _no("the order of networks inside of a container is Podman's"),
    "networks.*.ipv4_address": _never("use the name of the service; addresses are the board's"),
    "networks.*.ipv6_address": _never("use the name of the service; addresses are the board's"),
    "networks.*.link_local_ips": _never("use the name of the service; addresses are the board's"),
    "networks.*.mac_address": _never("addresses are the board's"),
    "networks.*.interface_name": _never("interfaces inside of a container are named by Podman"),
    "networks.*.driver_opts": _no("options of Docker's drivers; a board has a bridge"),
    "network_mode": _so('host (if the board\'s policy allows it), none, bridge or "service:name"'),
    "links": _as("the services share a network already; the alias is one of the other service there"),
    "external_links": _never("put both apps on an external network"),
    "dns": YES,
    "dns_opt": YES,
    "dns_search": YES,
    "extra_hosts": YES,
    "mac_address": _never("addresses are the board's"),
}

STORAGE: dict[str, Row] = {
    "volumes": _so("a path of the board only if its policy allows it"),
    "volumes.type": _so("volume, bind or tmpfs"),
    "volumes.source": YES,
    "volumes.target": YES,
    "volumes.read_only": YES,
    "volumes.consistency": _no("of Docker for Mac only"),
    "volumes.bind": YES,
    "volumes.bind.propagation": YES,
    "volumes.bind.create_host_path": _no("a path that is not there is an error, whoever wants it"),
    "volumes.bind.recursive": _no("mounts below the path come along"),
    "volumes.bind.selinux": YES,
    "volumes.volume": YES,
    "volumes.volume.nocopy": YES,
    "volumes.volume.subpath": _never("mount the whole volume, or make two of it"),
    "volumes.volume.labels": _no("labels of a volume are at its definition"),
    "volumes.tmpfs": YES,
    "volumes.tmpfs.size": YES,
    "volumes.tmpfs.mode": YES,
    "volumes.image": _never("copy the files into a volume by a service of their image"),
    "volumes_from": _never("name the volume in both services"),
    "tmpfs": _so("with a size, a mode, an owner, and exec or noexec"),
    "secrets": _so("a file below /run/secrets"),
    "secrets.source": YES,
    "secrets.target": YES,
    "secrets.uid": YES,
    "secrets.gid": YES,
    "secrets.mode": YES,
    "configs": _so("a file that is not empty, of at most 511,999 bytes"),
    "configs.source": YES,
    "configs.target": YES,
    "configs.uid": YES,
    "configs.gid": YES,
    "configs.mode": YES,
    "storage_opt": _never("give it a volume or a tmpfs with a size"),
    "shm_size": YES,
}

RUNNING: dict[str, Row] = {
    "depends_on": _so("a circle is refused"),
    "depends_on.*": YES,
    "depends_on.*.condition": YES,
    "depends_on.*.required": YES,
    "depends_on.*.restart": YES,
    "healthcheck": _so("without a test it changes nothing, and a warning says so"),
    "healthcheck.test": YES,
    "healthcheck.interval": _so(
        "a second at least; below a minute each one costs the board a process; a warning says so"
    ),
    "healthcheck.timeout": _so("a second at least"),
    "healthcheck.retries": YES,
    "healthcheck.start_period": YES,
    "healthcheck.start_interval": _no("a container that starts is asked as often as the board likes"),
    "healthcheck.disable": YES,
    "restart": _so("without it and without deploy.restart_policy: whenever it ends, as in Swarm"),
    "logging": _so("a size is always set"),
    "logging.driver": _as("json-file and local are k8s-file; journald and none are what they are"),
    "logging.options": _so("max-size; the others are Docker's"),
    "deploy": YES,
    "deploy.mode": _as("global: one on the board; a job: started again only when it fails"),
    "deploy.replicas": _so("0 to 64"),
    "deploy.labels": _as("labels of the containers, beside 'labels'"),
    "deploy.endpoint_mode": _no("the name of a service leads to its containers either way"),
    "deploy.update_config": YES,
    "deploy.update_config.order": _so("start-first where ports and volumes allow it"),
    "deploy.update_config.failure_action": YES,
    "deploy.update_config.monitor": _so("how long one without a healthcheck has to stay up"),
    "deploy.update_config.parallelism": _no("replicas of a board are replaced one after the other"),
    "deploy.update_config.delay": _no("the next one waits until the one before is healthy"),
    "deploy.update_config.max_failure_ratio": _no("one that fails is a failure"),
    "deploy.rollback_config": _no("going back starts the containers that are still there"),
    "deploy.restart_policy": YES,
    "deploy.restart_policy.condition": YES,
    "deploy.restart_policy.delay": YES,
    "deploy.restart_policy.max_attempts": YES,
    "deploy.restart_policy.window": YES,
    "deploy.resources": YES,
    "deploy.resources.limits": YES,
    "deploy.resources.limits.cpus": YES,
    "deploy.resources.limits.memory": YES,
    "deploy.resources.limits.pids": YES,
    "deploy.resources.reservations": _so("what has to be free before the app is admitted"),
    "deploy.resources.reservations.cpus": YES,
    "deploy.resources.reservations.memory": YES,
    "deploy.resources.reservations.generic_resources": _never("place it by label, in x-lichen.placement"),
    "deploy.resources.reservations.devices": _never("name the device nodes in 'devices'"),
    "deploy.placement": YES,
    "deploy.placement.constraints": _as(
        "node.labels.x==y is a label that the board must have; roles do not exist"
    ),
    "deploy.placement.preferences": _ONE_BOARD,
    "deploy.placement.max_replicas_per_node": _ONE_BOARD,
}

MACHINE: dict[str, Row] = {
    "privileged": _so("only on a board whose own policy allows it"),
    "devices": _so("only those that the board's policy allows"),
    "devices.source": YES,
    "devices.target": YES,
    "devices.permissions": YES,
    "device_cgroup_rules": _never("name the device nodes in 'devices'"),
    "gpus": _never("name the device nodes in 'devices'"),
    "cap_add": YES,
    "cap_drop": YES,
    "security_opt": YES,
    "sysctls": YES,
    "ulimits": YES,
    "ulimits.*": YES,
    "ulimits.*.soft": YES,
    "ulimits.*.hard": YES,
    "pid": _so('host (if the board\'s policy allows it) or "service:name"'),
    "ipc": _never("containers have an IPC namespace of their own; share files in a volume"),
    "uts": _never("containers have a host name of their own; set it in 'hostname'"),
    "userns_mode": _never("who a container's root is on the board is the board's business"),
    "cgroup": _never("containers have a cgroup namespace of their own"),
    "cgroup_parent": _never("the board counts what an app uses in cgroups of its own"),
    "runtime": _never("the board has one runtime"),
    "isolation": _no("of Windows only"),
    "credential_spec": _never("of Windows only"),
    "umask": _never("set it in the entrypoint"),
    "cpus": _so("as deploy.resources.limits.cpus"),
    "mem_limit": _so("as deploy.resources.limits.memory"),
    "mem_reservation": _so("as deploy.resources.reservations.memory"),
    "pids_limit": _so("as deploy.resources.limits.pids"),
    "oom_score_adj": _so("below 0 only if the board's policy allows it"),
    "cpu_count": _no("of Windows only"),
    "cpu_percent": _no("of Windows only"),
    "cpu_shares": _TUNING,
    "cpu_quota": _never("write 'cpus'"),
    "cpu_period": _never("write 'cpus'"),
    "cpu_rt_period": _never("boards give no real-time shares"),
    "cpu_rt_runtime": _never("boards give no real-time shares"),
    "cpuset": _never("write 'cpus'; which processors those are is the board's business"),
    "blkio_config": _TUNING,
    "mem_swappiness": _TUNING,
    "memswap_limit": _TUNING,
    "oom_kill_disable": _TUNING,
}

DEFINITIONS: dict[str, Row] = {
    "networks.*.name": YES,
    "networks.*.driver": _as("overlay is a bridge, as an app is on one board; others are refused"),
    "networks.*.driver_opts": _no("options of Docker's drivers; a board has a bridge"),
    "networks.*.external": _so(
        "shared by the apps of a board, and made when the first one needs it; one that somebody made by hand"
        " only if the board's policy names it"
    ),
    "networks.*.external.name": YES,
    "networks.*.internal": YES,
    "networks.*.attachable": _no("of Swarm only"),
    "networks.*.enable_ipv4": _no("a network has IPv4 always"),
    "networks.*.enable_ipv6": YES,
    "networks.*.labels": YES,
    "networks.*.ipam": YES,
    "networks.*.ipam.driver": _no("Podman gives the addresses"),
    "networks.*.ipam.options": _no("Podman gives the addresses"),
    "networks.*.ipam.config": _so("one"),
    "networks.*.ipam.config.subnet": _so("only in a range that the board's policy gives to apps"),
    "networks.*.ipam.config.gateway": YES,
    "networks.*.ipam.config.ip_range": _never("the whole subnet is used"),
    "networks.*.ipam.config.aux_addresses": _never("addresses are the board's"),
    "volumes.*.name": YES,
    "volumes.*.driver": _so("local; boards have no other"),
    "volumes.*.driver_opts": _so(
        "type tmpfs with a size, or type none with o: bind and a path that the board's policy allows"
    ),
    "volumes.*.external": _so(
        "has to be on the board; one that was not made for apps only if the board's policy names it"
    ),
    "volumes.*.external.name": YES,
    "volumes.*.labels": YES,
    "secrets.*.name": _so("the variable in it, ${SECRET_X_VERSION}, is its version"),
    "secrets.*.external": _so("the hub has it: generated by the hint in .env.sample, or set"),
    "secrets.*.external.name": YES,
    "secrets.*.file": _SECRET_IN_CLEAR,
    "secrets.*.environment": _SECRET_IN_CLEAR,
    "secrets.*.labels": _no("secrets of a board have no labels but ours"),
    "secrets.*.driver": _never("the hub keeps secrets"),
    "secrets.*.driver_opts": _never("the hub keeps secrets"),
    "secrets.*.template_driver": _TEMPLATED_SECRET,
    "configs.*.name": _no("a config is named after the app, and its version is its content"),
    "configs.*.file": _so("a file of the recipe"),
    "configs.*.content": YES,
    "configs.*.environment": _so("a variable of the app's env"),
    "configs.*.external": _never("put the file into the recipe and name it in 'file'"),
    "configs.*.labels": _no("configs of a board have no labels but ours"),
    "configs.*.template_driver": _so("golang: env, secret, if, else, eq and end"),
}

TABLE: dict[str, Row] = {
    **TOP,
    **X_LICHEN,
    **{
        f"services.*.{key}": row
        for part in (SERVICE, NETWORKING, STORAGE, RUNNING, MACHINE, X_LICHEN)
        for key, row in part.items()
    },
    **DEFINITIONS,
}

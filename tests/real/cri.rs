//! The runtimes of Kubernetes: a pod whose container has a skill as an image volume, asked for by CRI, without Kubernetes.
//!
//! containerd is that of the sid root. `tests/setup test` builds CRI-O and `crictl` from their Go modules where those are to be
//! had; elsewhere it says why, and these are skipped.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cell::{Built, Done, World, cannot, matrix, needs};

matrix! { @cell sid_root("sid", "root", None),
    containerd_mounts_a_skill_in_a_pod,
    cri_o_mounts_a_skill_in_a_pod,
    cri_o_starts_the_hook,
}

/// The image of the pods, and of their sandboxes: nothing is pulled.
const AGENT: &str = "localhost/pod:1";
/// Read the prompt, run the script, try to write.
const USE: &str = "cat /skills/hr/SKILL.md && /skills/hr/scripts/greet.sh && { touch /skills/hr/new 2>&1 || true; }";

/// A runtime that serves CRI until this value is dropped.
struct Runtime<'a> {
    world: &'a World,
    child: Child,
    dir: PathBuf,
}

impl<'a> Runtime<'a> {
    /// Starts it, with all its files in `dir`, and waits until it answers.
    fn start(world: &'a World, dir: &Path, mut command: Command) -> Self {
        let log = File::create(dir.join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut runtime = Self { world, child: command.spawn().expect("a runtime"), dir: dir.to_owned() };
        let end = Instant::now() + Duration::from_secs(30);
        while !fs::metadata(runtime.socket()).is_ok_and(|meta| meta.file_type().is_socket())
            || runtime.crictl(&["version"]).code != 0
        {
            let ended = runtime.child.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < end, "no runtime ({ended:?}): {}", runtime.log());
            thread::sleep(Duration::from_millis(50));
        }
        runtime
    }

    /// Returns the group above those of its pods, which is of the machine and so has a name of its own.
    fn cgroup(&self) -> String {
        let scratch = self.dir.parent().and_then(Path::file_name).expect("a name");
        format!("skillctl-tests{}", scratch.to_str().expect("UTF-8"))
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Returns what it complained of.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).expect("a log");
        log.lines().filter(|line| !line.contains("level=info")).collect::<Vec<_>>().join("\n")
    }

    fn crictl(&self, args: &[&str]) -> Done {
        let mut command = self.world.command("crictl", args);
        let socket = format!("unix://{}", self.socket().display());
        command.env("CONTAINER_RUNTIME_ENDPOINT", &socket).env("IMAGE_SERVICE_ENDPOINT", &socket);
        Done::of(command)
    }

    /// Returns what it printed; it must have succeeded.
    #[track_caller]
    fn asked(&self, args: &[&str]) -> String {
        let done = self.crictl(args);
        assert!(done.code == 0, "{done}\n{}", self.log());
        done.ok()
    }

    /// Returns the IDs of the images that the kubelet is told to keep, although no container was made of them.
    fn pinned(&self) -> Vec<String> {
        let listed: Value = serde_json::from_str(&self.asked(&["images", "--output", "json"])).expect("JSON");
        let images = listed["images"].as_array().expect("images").iter().filter(|image| image["pinned"] == true);
        images.map(|image| image["id"].as_str().expect("an ID").trim_start_matches("sha256:").to_owned()).collect()
    }

    /// Runs a pod whose container has the skill as an image volume, and returns what is seen in there.
    #[track_caller]
    fn seen_in_a_pod(&self, skill: &str) -> String {
        let mounts = json!([{ "container_path": "/skills/hr", "readonly": true, "image": { "image": skill } }]);
        self.run_in_a_pod(&mounts, &json!({}), USE)
    }

    /// Runs a shell command in the container of a pod with these mounts and annotations, and returns what it printed.
    #[track_caller]
    fn run_in_a_pod(&self, mounts: &Value, annotations: &Value, script: &str) -> String {
        let written = |name: &str, value: Value| {
            let path = self.dir.join(name);
            fs::write(&path, value.to_string()).expect("a file");
            path.to_str().expect("UTF-8").to_owned()
        };
        let (node, container) = (2, 1);
        // NODE for the network, which spares CNI; CONTAINER for processes, which spares CRI-O a process for the pod, of which
        // it would lower the OOM score; CAP_SYS_RESOURCE is needed for that.
        let security = json!({ "namespace_options": { "network": node, "pid": container } });
        let pod = json!({
            "metadata": { "name": "agent", "namespace": "default", "uid": "1", "attempt": 0 },
            "annotations": annotations,
            "log_directory": self.dir,
            "linux": { "security_context": security, "cgroup_parent": format!("/{}", self.cgroup()) },
        });
        let container = json!({
            "metadata": { "name": "agent" },
            "image": { "image": AGENT },
            "command": ["/bin/busybox", "sleep", "600"],
            "log_path": "container.log",
            "linux": { "security_context": security },
            "mounts": mounts,
        });
        let (pod, container) = (written("pod.json", pod), written("container.json", container));
        let sandbox = self.asked(&["runp", &pod]);
        let id = self.asked(&["create", "--no-pull", &sandbox, &container, &pod]);
        self.asked(&["start", &id]);
        let seen = self.asked(&["exec", &id, "/bin/sh", "-c", script]);
        // Its process would not heed a SIGTERM.
        self.asked(&["stop", "--timeout", "0", &id]);
        self.asked(&["rmp", "--force", &sandbox]);
        seen
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        // By SIGTERM, upon which it leaves its storage in order.
        let _ = self.world.run("kill", [self.child.id().to_string()]);
        let _ = self.child.wait();
        let ours = format!("*/{}*", self.cgroup());
        self.world.run("find", ["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &ours, "-exec", "rmdir", "{}", ";"]);
    }
}

/// Mounts version 1 of cgroups where version 2 does not have the controllers, because the machine has them in version 1.
///
/// A runtime sets the weights of a pod and has no option against that; podman has, so that other tests do without.
fn cgroups(world: &World) {
    const ROOT: &str = "/sys/fs/cgroup";
    let controllers = fs::read_to_string(format!("{ROOT}/cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|controller| controller == "cpu") {
        return;
    }
    // HIERARCHY:CONTROLLERS:PATH; without controllers it is version 2, and with a name none that a runtime needs.
    let known = fs::read_to_string("/proc/self/cgroup").expect("proc");
    let known = known.lines().filter_map(|line| line.split(':').nth(1));
    let known: Vec<_> = known.filter(|name| !name.is_empty() && !name.contains('=')).collect();
    if known.is_empty() {
        cannot("cgroups have no controllers here, of either version");
    }
    world.run("umount", [ROOT]).ok();
    world.run("mount", ["-t", "tmpfs", "tmpfs", ROOT]).ok();
    for name in known {
        let dir = format!("{ROOT}/{name}");
        fs::create_dir(&dir).expect("a directory");
        world.run("mount", ["-t", "cgroup", "-o", name, "cgroup", &dir]).ok();
    }
}

/// Makes the image of the pods, in containers-storage. Without a command containerd takes none for a sandbox.
fn agent(world: &World) {
    world.agent();
    let tar = world.path("agent.tar");
    let (command, path) = ("CMD [\"/bin/busybox\", \"sleep\", \"600\"]", "ENV PATH=/bin");
    world.podman(["import", "-q", "-c", command, "-c", path, tar.to_str().expect("UTF-8"), AGENT]).ok();
}

#[track_caller]
fn assert_seen(seen: &str) {
    for what in ["# The hr skill, 1.0.0", "hr 1.0.0 was here", "Read-only file system"] {
        assert!(seen.contains(what), "no {what:?} in\n{seen}");
    }
}

fn containerd_mounts_a_skill_in_a_pod(world: &World) {
    needs("crictl");
    cgroups(world);
    agent(world);
    let dir = world.path("containerd");
    fs::create_dir(&dir).expect("a directory");
    let shown = dir.display();
    // Without CAP_SYS_RESOURCE no OOM score can be lowered.
    let config = format!(
        r#"version = 3
root = "{shown}/root"
state = "{shown}/state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
address = "{shown}/socket"
[ttrpc]
address = "{shown}/ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{AGENT}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
"#
    );
    fs::write(dir.join("config.toml"), config).expect("a file");
    let command = world.command("containerd", ["--config".as_ref(), dir.join("config.toml").as_os_str()]);
    let runtime = Runtime::start(world, &dir, command);

    let socket = runtime.socket();
    let ctr = |args: &[&str]| {
        let fixed = ["--address", socket.to_str().expect("UTF-8"), "--namespace", "k8s.io", "images"];
        world.run("ctr", fixed.iter().chain(args)).ok()
    };
    let archive = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let (pause, skill) = (archive("pause.tar"), archive("skill.tar"));
    world.podman(["save", "-q", "--format", "oci-archive", "-o", &pause, AGENT]).ok();
    ctr(&["import", &pause]);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    world.skillctl(["copy", "acme/hr:1.0.0-draft", &format!("oci-archive:{skill}:{}", built.name)]).ok();
    ctr(&["import", &skill]);
    let listed = ctr(&["list", &format!("name=={}", built.name)]);
    assert!(listed.contains(&built.digest), "not with our digest:\n{listed}");
    ctr(&["label", &built.name, "io.cri-containerd.pinned=pinned"]);

    assert!(runtime.asked(&["version"]).contains("containerd"));
    assert!(runtime.pinned().contains(&built.id), "it is not kept: {:?}", runtime.pinned());
    assert_seen(&runtime.seen_in_a_pod(&built.name));
}

/// Starts CRI-O, with the hooks in `crio/hooks`.
fn cri_o(world: &World) -> Runtime<'_> {
    needs("crictl");
    needs("crio");
    cgroups(world);
    agent(world);
    let dir = world.path("crio");
    fs::create_dir_all(dir.join("none")).expect("a directory");
    fs::create_dir_all(dir.join("hooks")).expect("a directory");
    let shown = dir.display();
    let storage = world.graph_root();
    let storage = storage.display();
    // CRI-O of this version needs both places, which newer storage.conf files leave to the program.
    let storage_conf =
        format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{storage}\"\nrunroot = \"/run/containers/storage\"\n");
    fs::write(dir.join("storage.conf"), storage_conf).expect("a file");
    let config = format!(
        r#"[crio]
log_dir = "{shown}/logs"
version_file = "{shown}/version"
version_file_persist = "{shown}/version-kept"
clean_shutdown_file = "{shown}/clean"
[crio.api]
listen = "{shown}/socket"
stream_port = "0"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
default_runtime = "crun"
disable_hostport_mapping = true
apparmor_profile = "unconfined"
hooks_dir = ["{shown}/hooks"]
pinns_path = "/usr/local/bin/pinns"
namespaces_dir = "{shown}/namespaces"
container_exits_dir = "{shown}/exits"
container_attach_socket_dir = "{shown}/attach"
[crio.runtime.runtimes.crun]
runtime_path = "/usr/bin/crun"
runtime_root = "{shown}/crun"
monitor_path = "/usr/bin/conmon"
monitor_cgroup = "pod"
[crio.image]
pause_image = "{AGENT}"
pinned_images = ["localhost/acme/*"]
[crio.network]
network_dir = "{shown}/none"
plugin_dirs = ["{shown}/none"]
[crio.nri]
enable_nri = false
"#
    );
    fs::write(dir.join("crio.conf"), config).expect("a file");
    let (config, none) = (dir.join("crio.conf"), dir.join("none"));
    let args = ["--config".as_ref(), config.as_os_str(), "--config-dir".as_ref(), none.as_os_str()];
    let mut command = world.command("crio", args);
    command.env("CONTAINERS_STORAGE_CONF", dir.join("storage.conf"));
    Runtime::start(world, &dir, command)
}

/// CRI-O mounts from the storage that skillctl loads into: nothing is imported.
fn cri_o_mounts_a_skill_in_a_pod(world: &World) {
    let runtime = cri_o(world);
    let Built { name, id, .. } = world.build("hr", "1.0.0", &["--load=always"]);
    assert!(runtime.asked(&["version"]).contains("cri-o"));
    assert!(runtime.pinned().contains(&id), "{name} is not kept: {:?}", runtime.pinned());
    assert_seen(&runtime.seen_in_a_pod(&name));
}

/// Our hook of the runtime specification, in a pod that only names its skill. Whoever may create a pod chooses its annotations, so
/// nothing is mounted until a file of root's says which repositories may be named.
fn cri_o_starts_the_hook(world: &World) {
    let bin = Path::new(env!("CARGO_BIN_EXE_skillctl")).parent().expect("a directory");
    let hook = include_str!("../../hooks/50-skillctl.json").replace("@BINDIR@", bin.to_str().expect("UTF-8"));
    fs::create_dir_all(world.path("crio/hooks")).expect("a directory");
    fs::write(world.path("crio/hooks/50-skillctl.json"), hook).expect("a file");
    let runtime = cri_o(world);
    world.build("hr", "1.0.0", &["--load=never"]);
    let annotations = json!({ "io.skillimage.skills": "acme/hr:1.0.0-draft" });
    let there = "test -e /skills/hr && echo mounted || echo nothing";
    assert_eq!(runtime.run_in_a_pod(&json!([]), &annotations, there), "nothing");
    fs::create_dir_all("/etc/skillctl").expect("a directory");
    fs::write("/etc/skillctl/hook.toml", "allowed_repositories = [\"acme\"]\n").expect("a file");
    assert_seen(&runtime.run_in_a_pod(&json!([]), &annotations, USE));
}

//! skillctl as an init container: the image of `packaging/Containerfile`, built without a registry and run as OpenShift runs it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cell::{Done, World, matrix};
use crate::registry::conf;
use crate::registry::{Kind, PASSWORD, Registry, USER};
use crate::site::said;

matrix! { @cell sid_root("sid", "root", None), an_init_container_fetches_skills_as_any_user }

const DRAFT: &str = "acme/hr:1.0.0-draft";
/// What it is called, as `generate kube` takes it.
pub const IMAGE: &str = "localhost/skillctl";
/// A user as OpenShift makes them: one of a range of the namespace, in group 0, without a line in passwd.
const ANYONE: &str = "1000650000";

/// Makes a base image of what this root has: a shell, skopeo with its configuration, and the libraries of skopeo and skillctl.
fn base(world: &World, skillctl: &Path) -> &'static str {
    const NAME: &str = "localhost/base";
    let root = world.path("base");
    let skopeo = Path::new("/usr/bin/skopeo");
    let mut files: BTreeSet<PathBuf> =
        ["/etc/containers", "/usr/share/containers", "/etc/ssl/certs/ca-certificates.crt"]
            .map(PathBuf::from)
            .into_iter()
            .filter(|path| path.exists())
            .chain([skopeo.to_owned()])
            .collect();
    for program in [skopeo, skillctl] {
        let linked = world.run("ldd", [program]).ok();
        files.extend(linked.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    for dir in ["bin", "etc", "usr/bin", "tmp"] {
        fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    for file in files {
        let to = root.join(file.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        world.run("cp", ["-rL".as_ref(), "-T".as_ref(), file.as_os_str(), to.as_os_str()]).ok();
    }
    fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
    for applet in ["sh", "mkdir", "chgrp", "chmod"] {
        symlink("busybox", root.join("bin").join(applet)).expect("a symlink");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("a file");
    let tar = world.path("base.tar");
    world.run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]).ok();
    let path = "ENV PATH=/usr/bin:/bin";
    world.podman(["import".as_ref(), "-q".as_ref(), "-c".as_ref(), path.as_ref(), tar.as_os_str(), NAME.as_ref()]).ok();
    NAME
}

/// Builds the image, from a skillctl that is built already.
pub fn image(world: &World) {
    let skillctl = Path::new(env!("CARGO_BIN_EXE_skillctl"));
    let base = format!("BASE={}", base(world, skillctl));
    let context = world.path("context");
    fs::create_dir(&context).expect("a directory");
    fs::copy(skillctl, context.join("skillctl")).expect("skillctl");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/Containerfile");
    // chroot, because this machine may allow a build no namespaces of its own.
    let flags = ["build", "--isolation=chroot", "--pull=never", "-q", "-f", file, "-t", IMAGE];
    let args = ["--build-arg", "BINARY=context", "--build-arg", &base, context.to_str().expect("UTF-8")];
    world.podman(flags.into_iter().chain(args)).ok();
}

/// An empty directory that anybody may write to, as Kubernetes' `emptyDir`.
fn empty_dir(world: &World, name: &str) -> PathBuf {
    let dir = world.path(name);
    fs::create_dir_all(&dir).expect("a directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("a directory");
    dir
}

/// A volume with the one key of a secret, as the kubelet writes it: a link to a link to where the file is.
fn secret(world: &World, name: &str, key: &str, registry: &Registry, password: &str) -> PathBuf {
    let dir = world.path(name);
    fs::create_dir_all(dir.join("..2026_01_01")).expect("a directory");
    fs::write(dir.join("..2026_01_01").join(key), conf::auths(&[(&registry.address, USER, password)])).expect("a file");
    symlink("..2026_01_01", dir.join("..data")).expect("a symlink");
    symlink(Path::new("..data").join(key), dir.join(key)).expect("a symlink");
    dir
}

/// A pod that can write to nothing but its volumes.
struct Pod<'a> {
    world: &'a World,
    hub: &'a Registry,
    home: PathBuf,
    skills: PathBuf,
}

impl<'a> Pod<'a> {
    fn new(world: &'a World, hub: &'a Registry, name: &str) -> Self {
        let dir = |what: &str| empty_dir(world, &format!("{name}-{what}"));
        Self { world, hub, home: dir("home"), skills: dir("skills") }
    }

    /// Runs the image with more flags, and pulls.
    fn pull(&self, user: &str, flags: &[&str]) -> Done {
        let volume = |from: &Path, to: &str| format!("--volume={}:{to}", from.display());
        // The directory, because a port in a path is too many colons for a volume.
        let certs = self.world.home().join(".config/containers/certs.d");
        let volumes = [
            volume(&self.home, "/home/skillctl"),
            volume(&self.skills, "/skills"),
            volume(&certs, "/etc/containers/certs.d:ro"),
        ];
        // Kubernetes gives a read-only root no /tmp, and the container of a restricted pod no capability.
        let fixed = ["--network=host", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all"];
        let fixed = fixed.into_iter().chain(["--security-opt=no-new-privileges", "--user", user]);
        let name = self.hub.name(DRAFT);
        let command = [IMAGE, "pull", &name, "-o", "/skills"];
        let volumes = volumes.iter().map(String::as_str);
        self.world
            .podman(["run", "--rm"].into_iter().chain(fixed).chain(volumes).chain(flags.iter().copied()).chain(command))
    }

    /// The agent finds the skill, with its exec bit, and digest and owner are right.
    #[track_caller]
    fn has_the_skill(&self, done: Done, digest: &str, owner: &str) {
        assert_eq!(said(&done.ok(), "Digest: "), digest);
        let mount = format!("{}:/skills:ro", self.skills.display());
        let script =
            "cat /skills/hr/SKILL.md && /skills/hr/scripts/greet.sh && stat -c 'owned by %u:%g' /skills/hr/SKILL.md";
        let seen = self.world.in_agent(&["-v", &mount], script).ok();
        for line in ["# The hr skill, 1.0.0", "hr 1.0.0 was here", &format!("owned by {owner}:0")] {
            assert!(seen.lines().any(|seen| seen == line), "no {line:?} in\n{seen}");
        }
    }

    #[track_caller]
    fn is_refused(&self, done: Done) {
        done.refused(&[&self.hub.address, "acme/hr"], &["unauthorized"]);
        assert_eq!(fs::read_dir(&self.skills).expect("a directory").count(), 0);
    }
}

fn an_init_container_fetches_skills_as_any_user(world: &World) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let creds = format!("{USER}:{PASSWORD}");
    conf::trust(world, &hub, conf::Place::Home);
    world.skillctl(["push", DRAFT, &hub.name(DRAFT), "--creds", &creds]).ok();
    image(world);

    // Nobody has to choose a user, and it is not root.
    let config: Value = world.podman(["image", "inspect", IMAGE, "--format", "{{json .Config}}"]).json();
    assert_eq!((&config["User"], &config["Entrypoint"][0]), (&"1001:0".into(), &"skillctl".into()));
    let version = world.podman(["run", "--rm", "--network=none", IMAGE, "--version"]).ok();
    assert!(version.starts_with("skillctl "), "{version}");

    let mounted = |dir: &Path, to: &str| format!("--volume={}:{to}:ro", dir.display());
    // A secret as it is, where the image looks for one.
    let as_it_is = secret(world, "as-it-is", ".dockerconfigjson", &hub, PASSWORD);
    let (auth, anyone) = (mounted(&as_it_is, "/etc/skillctl/auth"), format!("{ANYONE}:0"));
    let pod = Pod::new(world, &hub, "first");
    pod.has_the_skill(pod.pull(&anyone, &[&auth]), &built.digest, ANYONE);
    // Again, as after a restart of the pod's containers.
    pod.has_the_skill(pod.pull(&anyone, &[&auth]), &built.digest, ANYONE);
    // The same elsewhere, by its name; and as the user of the image.
    let pod = Pod::new(world, &hub, "named");
    let named = [&*mounted(&as_it_is, "/auth"), "--env=REGISTRY_AUTH_FILE=/auth/.dockerconfigjson"];
    pod.has_the_skill(pod.pull("1001:0", &named), &built.digest, "1001");
    let pod = Pod::new(world, &hub, "elsewhere");
    let elsewhere = [&*mounted(&as_it_is, "/auth"), "--env=DOCKER_CONFIG=/auth"];
    pod.has_the_skill(pod.pull(&anyone, &elsewhere), &built.digest, ANYONE);
    // Projected as config.json, where DOCKER_CONFIG says.
    let projected = secret(world, "projected", "config.json", &hub, PASSWORD);
    let pod = Pod::new(world, &hub, "projected");
    let flags = [&*mounted(&projected, "/docker"), "--env=DOCKER_CONFIG=/docker"];
    pod.has_the_skill(pod.pull(&anyone, &flags), &built.digest, ANYONE);

    // Wrong credentials, and none.
    let wrong = secret(world, "wrong", ".dockerconfigjson", &hub, "wrong");
    let pod = Pod::new(world, &hub, "refused");
    pod.is_refused(pod.pull(&anyone, &[&mounted(&wrong, "/etc/skillctl/auth")]));
    pod.is_refused(pod.pull(&anyone, &[]));
}

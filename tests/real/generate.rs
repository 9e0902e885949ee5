//! What `generate` prints, given to those that read it: a shell, Quadlet's generator, `podman kube play`.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::cell::{Built, Done, World, matrix};
use crate::container;
use crate::registry::{Kind, PASSWORD, Registry, USER, conf};

matrix! {
    a_script_runs_an_agent_with_its_volumes,
    a_script_runs_no_other_skill,
}

/// What is new in podman 4.8, and what reads it.
mod units {
    use super::{matrix, quadlet_takes_the_units};

    matrix! { @cell sid_root("sid", "root", None), quadlet_takes_the_units }
    matrix! { @cell trixie_root("trixie", "root", None), quadlet_takes_the_units }
}

/// What is new in podman 5.3.
mod pods {
    use super::{a_pod_is_played_with_its_skills, a_pod_pulls_its_skills, matrix};

    matrix! { @cell sid_root("sid", "root", None), a_pod_is_played_with_its_skills, a_pod_pulls_its_skills }
    matrix! { @cell trixie_root("trixie", "root", None), a_pod_is_played_with_its_skills, a_pod_pulls_its_skills }
}

/// A registry that every user trusts, which root has to say.
mod init {
    use super::{an_init_container_pulls_what_is_mounted, matrix};

    matrix! { @roots an_init_container_pulls_what_is_mounted }
}

/// Reads the prompt, runs the script, and tries to write.
const USE: &str = "cat /skills/hr/SKILL.md && /skills/hr/scripts/greet.sh && { touch /skills/hr/new 2>&1 || true; }";

fn assert_usable(seen: &str, version: &str) {
    assert!(seen.contains(&format!("# The hr skill, {version}")), "SKILL.md is not readable:\n{seen}");
    assert!(seen.contains(&format!("hr {version} was here")), "the script did not run:\n{seen}");
    assert!(seen.contains("Read-only file system"), "the mount is writable:\n{seen}");
}

#[track_caller]
fn assert_other_volume(done: &Done, name: &str) {
    let said = format!("{name} is not the volume of its skill: podman volume rm {name}\n");
    assert!(done.code == 1 && done.stderr == said && !done.stdout.contains("hr"), "{done}");
}

/// Returns the name of the volume of a version.
fn volume(built: &Built, version: &str) -> String {
    format!("skill-hr-{version}-{}", &built.digest["sha256:".len()..][..12])
}

fn a_script_runs_an_agent_with_its_volumes(world: &World) {
    let script = |version: &str| {
        let built = world.build("hr", version, &[]);
        let text = world.skillctl(["generate", "volume", &built.name]).ok();
        fs::write(world.path("with-skills"), text).expect("a script");
        // Twice, since the second finds the volume.
        for _ in 0..2 {
            let script = world.path("with-skills");
            let args = ["--network", "none", world.agent(), "sh", "-c", USE].map(std::ffi::OsStr::new);
            let seen = world.run("sh", [script.as_os_str()].into_iter().chain(args)).ok();
            assert_usable(&seen, version);
            assert!(seen.starts_with("---\n"), "more than the agent's output:\n{seen}");
        }
        built
    };
    let old = script("1.0.0");
    let new = script("1.0.1");
    let mut volumes = world.podman(["volume", "ls", "-q"]).ok().lines().map(str::to_owned).collect::<Vec<_>>();
    volumes.sort();
    assert_eq!(volumes, [volume(&old, "1.0.0"), volume(&new, "1.0.1")]);
    world.podman(["volume", "rm", "--all", "--force"]).ok();
}

/// Whatever has become of the tag, and of the volume's name, the script runs the skill that it was made for, or nothing.
fn a_script_runs_no_other_skill(world: &World) {
    let script = |built: &Built| {
        fs::write(world.path("with-skills"), world.skillctl(["generate", "volume", &built.name]).ok())
            .expect("a script");
        let bin = std::path::Path::new(env!("CARGO_BIN_EXE_skillctl")).parent().expect("a directory");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
        move || {
            let mut sh = world.command("sh", ["with-skills", "--network", "none", world.agent(), "sh", "-c", USE]);
            sh.env("PATH", &path);
            Done::of(sh)
        }
    };
    // podman made an empty one, when somebody named it while it was not there.
    let built = world.build("hr", "1.0.0", &[]);
    let (run, name) = (script(&built), volume(&built, "1.0.0"));
    assert_eq!(world.in_agent(&["-v", &format!("{name}:/skills/hr:ro")], "ls /skills/hr").ok(), "");
    assert_other_volume(&run(), &name);
    world.podman(["volume", "rm", &name]).ok();
    assert_usable(&run().ok(), "1.0.0");
    world.podman(["volume", "rm", &name]).ok();

    // The image was removed, and its tag is another one's.
    let built = world.build("hr", "1.0.1", &["--load=never"]);
    let other = world.build("hr", "1.0.2", &["--load=never"]);
    let run = script(&built);
    assert_usable(&run().ok(), "1.0.1");
    world.podman(["volume", "rm", &volume(&built, "1.0.1")]).ok();
    world.podman(["rmi", "-f", &built.id]).ok();
    let run = script(&built);
    world.skillctl(["tag", &other.name, &built.name, "--force", "--load=never"]).ok();
    let done = run();
    assert_ne!(done.code, 0, "{done}");
    assert_eq!(done.stdout, "", "{done}");
    assert_ne!(world.podman(["image", "exists", &built.name]).code, 0, "the other skill was loaded");
    assert_eq!(world.podman(["volume", "ls", "-q"]).ok(), "");
}

/// Runs Quadlet's generator over units, and returns what it makes of them. A unit that it refuses is an error.
fn quadlet(world: &World, units: &str) -> String {
    let program = "/usr/libexec/podman/quadlet";
    let mut command: Command = world.command(program, ["-dryrun"]);
    command.env("QUADLET_UNIT_DIRS", world.path(units));
    Done::of(command).ok() + "\n"
}

fn quadlet_takes_the_units(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let container = ["--container", "agent", "--image", "localhost/agent:latest"];
    let generate = |out: &str, reference: &str, more: &[&str]| {
        let args = [&["generate", "quadlet", "-o", out, reference], more].concat();
        world.skillctl(args).ok();
    };
    generate("local", &built.name, &container);
    let text = quadlet(world, "local");
    let image = format!("localhost/acme/hr@{}", built.digest);
    let name = volume(&built, "1.0.0");
    let create = format!("podman volume create --ignore --driver image --opt image={image} {name}\n");
    assert!(text.contains(&create), "{text}");
    assert!(text.contains(&format!(" -v {name}:/skills/hr:ro localhost/agent:latest\n")), "{text}");
    assert!(text.contains(&format!("Requires={name}-volume.service\n")), "{text}");
    // What the service of the container runs before it, as systemd would. The volume's own does not run again, so this is all
    // there is between a volume that somebody has removed and an empty one.
    let before =
        || text.lines().filter_map(|line| line.strip_prefix("ExecStartPre=")).map(|line| line.replace("$$", "$"));
    assert_eq!(before().next().map(|line| line + "\n"), Some(create));
    let start = || {
        let done = before().map(|line| world.run("/bin/sh", ["-c", &line]));
        done.reduce(|one, other| if one.code == 0 { other } else { one }).expect("commands")
    };
    for _ in 0..2 {
        start().ok();
        assert_usable(&world.in_agent(&["-v", &format!("{name}:/skills/hr:ro")], USE).ok(), "1.0.0");
    }
    world.podman(["volume", "rm", &name]).ok();
    world.podman(["volume", "create", &name]).ok();
    assert_other_volume(&start(), &name);
    world.podman(["volume", "rm", &name]).ok();
    start().ok();
    world.podman(["volume", "rm", &name]).ok();

    world.skillctl(["tag", &built.name, "registry.example/acme/hr:1.0.0", "--load=never"]).ok();
    generate("remote", "registry.example/acme/hr:1.0.0", &container);
    let text = quadlet(world, "remote");
    let remote = format!("registry.example/acme/hr@{}", built.digest);
    let pull = match world.podman_version() >= (5, 6) {
        true => format!("podman image pull --policy missing {remote}\n"),
        false => format!("podman image pull {remote}\n"),
    };
    assert!(text.contains(&pull), "{text}");
    assert!(text.contains(&format!("--opt image={remote} {name}\n")), "{text}");
    assert!(text.contains(&format!("Requires={name}-image.service\n")), "{text}");

    let bound = ["--container", "agent", "--image", "registry.example/acme/agent:2", "--bootc"];
    generate("rootfs", "registry.example/acme/hr:1.0.0", &bound);
    let text = quadlet(world, "rootfs/usr/share/containers/systemd");
    let store = "podman --storage-opt=additionalimagestore=/usr/lib/bootc/storage";
    assert!(
        text.contains(&format!("{store} volume create --ignore --driver image --opt image={remote} {name}\n")),
        "{text}"
    );
    assert!(text.contains(&format!("{store} run --name agent ")), "{text}");
    assert!(
        text.contains(&format!(
            "ExecStartPre={store} volume create --ignore --driver image --opt image={remote} {name}\n"
        )),
        "{text}"
    );
    assert!(text.contains(&format!("$$({store} volume inspect -f ")), "{text}");
    assert!(!text.contains(&format!("Requires={name}-image.service")), "{text}");
}

/// Makes the image of a pod's first container, which podman builds itself otherwise, of a program that is not here.
fn pause(world: &World) {
    world.agent();
    let (tar, pause) = (world.path("agent.tar"), "localhost/pause:latest");
    let change = ["import", "-q", "--change", "ENTRYPOINT [\"sleep\", \"1000\"]"].map(std::ffi::OsStr::new);
    let agent_root = world.path("agent");
    std::os::unix::fs::symlink("busybox", agent_root.join("bin/sleep")).expect("a symlink");
    world.run("tar", ["-C".as_ref(), agent_root.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]).ok();
    world.podman(change.into_iter().chain([tar.as_os_str(), pause.as_ref()])).ok();
    fs::write(world.path("pause.conf"), format!("[engine]\ninfra_image = \"{pause}\"\n")).expect("a file");
}

/// Returns a generated pod that uses its skills once, in the machine's network: podman's own is not here.
fn once(pod: &str) -> String {
    let image = "    image: localhost/agent:latest\n";
    assert!(pod.contains(image), "{pod}");
    pod.replace(image, &format!("{image}      command: [sh, -c, {}]\n", Value::from(USE)))
        .replace("spec:\n", "spec:\n  hostNetwork: true\n  restartPolicy: Never\n")
}

/// Writes `own.yaml`, a pod of somebody's whose containers are root.
fn own(world: &World) {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: own\nspec:\n  hostNetwork: true\n  restartPolicy: Never # once\n  \
         securityContext: {{runAsUser: 0}}\n  containers:\n  - name: agent\n    image: localhost/agent:latest\n    \
         imagePullPolicy: Never\n    command: [sh, -c, {}]\n",
        Value::from(USE)
    );
    fs::write(world.path("own.yaml"), manifest).expect("a file");
}

/// Plays a pod and looks at what its agent saw.
fn assert_played(world: &World, name: &str, text: &str) {
    let file = world.path(&format!("{name}-played.yaml"));
    fs::write(&file, text).expect("a file");
    let mut play = world.command("podman", ["kube".as_ref(), "play".as_ref(), file.as_os_str()]);
    play.env("CONTAINERS_CONF_OVERRIDE", world.path("pause.conf"));
    Done::of(play).ok();
    let container = format!("{name}-agent");
    world.podman(["wait", &container]).ok();
    let logs = world.podman(["logs", &container]);
    assert_usable(&(logs.stdout.clone() + &logs.stderr), "1.0.0");
    world.podman(["pod", "rm", "--force", "--time", "0", name]).ok();
}

fn a_pod_is_played_with_its_skills(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    pause(world);
    // A manifest that brings everything but the skill, and one that has only that.
    own(world);
    let injected = world.skillctl(["generate", "kube", "-f", "own.yaml", &built.name]).ok();
    assert_played(world, "own", &(injected + "\n"));
    let new =
        world.skillctl(["generate", "kube", "--name", "new", "--image", "localhost/agent:latest", &built.name]).ok();
    assert_played(world, "new", &(once(&new) + "\n"));
}

/// The init container as it is emitted, in the image that it is meant for: with a root file system that it cannot write to,
/// the credentials of a secret, and an image that only the node has.
fn a_pod_pulls_its_skills(world: &World) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    conf::trust(world, &hub, conf::Place::Etc);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let name = hub.name("acme/hr:1.0.0");
    world.skillctl(["push", &built.name, &name, "--creds", &format!("{USER}:{PASSWORD}")]).ok();
    world.skillctl(["tag", &built.name, &name, "--load=never"]).ok();
    pause(world);
    container::image(world);
    // The same image with the authority of the registry, which a site would put there.
    let file = format!("FROM {}\nCOPY certs.d /etc/containers/certs.d\n", container::IMAGE);
    fs::write(world.path("Containerfile"), file).expect("a file");
    let flags = ["build", "--isolation=chroot", "--pull=never", "-q", "-f"].map(std::ffi::OsStr::new);
    let file = world.path("Containerfile");
    let rest = [file.as_os_str(), "-t".as_ref(), container::IMAGE.as_ref(), "/etc/containers".as_ref()];
    world.podman(flags.into_iter().chain(rest)).ok();

    let generate = |flags: [&str; 2]| {
        let style = ["--style=init-container", "--pull-secret=regcred"];
        world.skillctl(["generate", "kube", &name].into_iter().chain(style).chain(flags)).ok()
    };
    let new = once(&generate(["--image=localhost/agent:latest", "--name=new"]));
    own(world);
    let injected = generate(["-f", "own.yaml"]);
    let auths = Value::from(conf::auths(&[(&hub.address, USER, PASSWORD)]));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: regcred}}\ntype: kubernetes.io/dockerconfigjson\nstringData: \
         {{.dockerconfigjson: {auths}}}\n"
    );
    for (name, pod) in [("new", new), ("own", injected)] {
        assert_played(world, name, &format!("{secret}---\n{pod}\n"));
        world.podman(["secret", "rm", "regcred"]).ok();
    }
    world.podman(["volume", "rm", "--all", "--force"]).ok();
}

/// Runs what the init container runs, with its environment and nothing else, and looks where the agent would.
fn an_init_container_pulls_what_is_mounted(world: &World) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    conf::trust(world, &hub, conf::Place::Etc);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let name = hub.name("acme/hr:1.0.0");
    world.skillctl(["push", &built.name, &name, "--creds", &format!("{USER}:{PASSWORD}")]).ok();
    world.skillctl(["tag", &built.name, &name, "--load=never"]).ok();
    // The puller is pinned as the skills are; any image does for that.
    let auth = conf::auth_json(world, &[(&hub.address, USER, PASSWORD)]);
    let style = ["--style", "init-container", "--pull-secret", "regcred", "--format", "json", "--image", "agent"];
    let puller = ["--puller-image", &name, "--authfile", auth.to_str().expect("UTF-8")];
    let pod = world.skillctl(["generate", "kube", &name].into_iter().chain(style).chain(puller)).json();
    fs::remove_file(auth).expect("a file");
    let init = &pod["spec"]["initContainers"][0];
    assert_eq!(init["image"], hub.name(&format!("acme/hr@{}", built.digest)));
    assert_eq!(pod["metadata"]["annotations"]["tag.skillimage.io/skillctl-pull"], name.as_str());

    let (work, auth) = (world.path("work"), world.path("auth"));
    fs::create_dir(&work).expect("a directory");
    fs::create_dir(&auth).expect("a directory");
    // The one key of the secret, where the pod puts it.
    let volume = pod["spec"]["volumes"].as_array().expect("volumes").iter().find(|v| v["name"] == "skillctl-auth");
    let item = &volume.expect("the secret's volume")["secret"]["items"][0];
    assert_eq!(item["key"], ".dockerconfigjson");
    let config = auth.join(item["path"].as_str().expect("a path"));
    fs::write(config, conf::auths(&[(&hub.address, USER, PASSWORD)])).expect("a file");
    let local = |value: &Value| {
        let text = value.as_str().expect("a text");
        let text = text.replace("/skillctl-auth", &auth.display().to_string());
        match text.strip_prefix("/skillctl") {
            Some(rest) => format!("{}{rest}", work.display()),
            None => text,
        }
    };
    let words: Vec<String> = init["command"].as_array().expect("a command").iter().map(local).collect();
    assert_eq!(words[0], "skillctl");
    let pull = |words: &[String]| {
        let mut pull = world.command(env!("CARGO_BIN_EXE_skillctl"), &words[1..]);
        pull.env_clear().env("PATH", std::env::var_os("PATH").expect("a PATH"));
        for entry in init["env"].as_array().expect("variables") {
            pull.env(entry["name"].as_str().expect("a name"), local(&entry["value"]));
        }
        Done::of(pull)
    };
    // What is too large for the volume is said, and not found out by an eviction.
    let small: Vec<String> = words.iter().map(|word| word.replace("--max-size=1073741824", "--max-size=10")).collect();
    assert_ne!(small, words);
    pull(&small).refused(&[&hub.name("acme/hr@"), "10"], &["limit", "more than"]);
    pull(&words).ok();
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/skills/hr");
    let tree = work.join(mount["subPath"].as_str().expect("a path"));
    assert_usable(&world.in_agent(&["-v", &format!("{}:/skills/hr:ro", tree.display())], USE).ok(), "1.0.0");
}

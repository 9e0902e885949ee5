//! `generate volume`, `quadlet` and `kube`: what they print, checked by the types of Kubernetes.

use std::fs;
use std::io::{self, Write as _};
use std::process::Stdio;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use skillctl::yaml;

use crate::support::{Ran, World};

/// Builds `acme/NAME:1.0.0`, and returns its digest. `registry` is put before the name.
fn build(world: &World, registry: &str, name: &str) -> String {
    world.skill(name, "1.0.0");
    let reference = format!("{registry}acme/{name}:1.0.0");
    world.run(["build", "--load=never", "--tag", &reference, name]).ok();
    let list = world.run(["list", "--format", "json"]).ok().json();
    let found = list.as_array().unwrap().iter().find(|row| row["reference"] == reference.as_str());
    found.unwrap_or_else(|| panic!("{list}"))["digest"].as_str().unwrap().to_owned()
}

fn with_stdin(world: &World, args: &[&str], stdin: &str) -> Ran {
    let mut command = world.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its flags ends without reading.
    match child.stdin.take().unwrap().write_all(stdin.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    child.wait_with_output().unwrap().into()
}

/// Reads YAML as a reader of Kubernetes does.
fn value(node: &yaml::Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Scalar { text, quoted: false } => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        yaml::Value::Scalar { text, .. } => json!(text),
        yaml::Value::Sequence(items) => items.iter().map(value).collect(),
        yaml::Value::Mapping(entries) => {
            Value::Object(entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect())
        }
    }
}

fn parse(text: &str) -> Value {
    value(&yaml::parse(text.as_bytes(), 1 << 20).unwrap_or_else(|e| panic!("{e}\n{text}")).root.unwrap())
}

/// Checks that a manifest is one of its kind: it can be read, and no field of it is one that the kind does not have.
fn check(text: &str) -> Value {
    fn of<T: DeserializeOwned + Serialize>(value: &Value) {
        let typed: T = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value:#}"));
        let back = serde_json::to_value(&typed).unwrap();
        assert_eq!(&back, value);
    }
    let value = parse(text);
    match value["kind"].as_str().unwrap() {
        "Pod" => of::<Pod>(&value),
        "Deployment" => of::<Deployment>(&value),
        "StatefulSet" => of::<StatefulSet>(&value),
        "DaemonSet" => of::<DaemonSet>(&value),
        "Job" => of::<Job>(&value),
        "CronJob" => of::<CronJob>(&value),
        other => panic!("{other}"),
    }
    value
}

#[test]
fn a_pod_is_one_for_kubernetes() {
    let world = World::new();
    let hr = build(&world, "", "hr");
    let legal = build(&world, "quay.io/", "legal");
    let args = ["generate", "kube", "--image", "quay.io/acme/agent", "acme/hr:1.0.0", "quay.io/acme/legal:1.0.0"];
    let ran = world.run(args).ok();
    let pod = check(&ran.stdout);
    assert_eq!(pod["metadata"]["name"], "agent");
    let annotations = json!({
        "tag.skillimage.io/skill-hr": "localhost/acme/hr:1.0.0", "tag.skillimage.io/skill-legal": "quay.io/acme/legal:1.0.0",
    });
    assert_eq!(pod["metadata"]["annotations"], annotations);
    let image =
        |name: &str, digest: &str, policy: &str| json!({"reference": format!("{name}@{digest}"), "pullPolicy": policy});
    assert_eq!(pod["spec"]["volumes"][0]["image"], image("localhost/acme/hr", &hr, "Never"));
    assert_eq!(pod["spec"]["volumes"][1]["image"], image("quay.io/acme/legal", &legal, "IfNotPresent"));
    assert_eq!(ran.stderr, "note: acme/hr:1.0.0 has no registry: it has to be loaded on the node\n");
    assert_eq!(world.run(args.into_iter().chain(["--format", "json"])).ok().json(), pod);

    let target = ["--target", "claude", "--home", "/home/agent", "--name", "other"];
    let ran = world.run(args.into_iter().chain(target)).ok();
    assert!(ran.stderr.starts_with("warning: unless the image has /home/agent/.claude, it is made as root"), "{ran}");
    let pod = check(&ran.stdout);
    assert_eq!(pod["metadata"]["name"], "other");
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][1];
    assert_eq!(mount["mountPath"], "/home/agent/.claude/skills/legal");
}

#[test]
fn every_workload_gets_its_skills_in_both_styles() {
    let world = World::new();
    build(&world, "quay.io/", "hr");
    let image = ["generate", "kube", "-f", "-", "quay.io/acme/hr:1.0.0"];
    let puller = format!("quay.io/acme/skillctl@sha256:{}", "a".repeat(64));
    let flag = format!("--puller-image={puller}");
    let init = ["--style=init-container", &flag, "--pull-secret=regcred"];
    let pod = "spec:\n  containers:\n  - name: agent\n    image: a\n  restartPolicy: Never\n";
    let indented = |by: usize| pod.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect::<String>();
    let selected = |kind: &str, more: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n{more}  template:\n    metadata:\n      \
             labels: {{a: b}}\n{}",
            indented(4)
        )
    };
    let manifests = [
        (format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n{pod}"), ""),
        (selected("Deployment", ""), "/spec/template"),
        (selected("StatefulSet", "  serviceName: x\n"), "/spec/template"),
        (selected("DaemonSet", ""), "/spec/template"),
        (
            format!("apiVersion: batch/v1\nkind: Job\nmetadata: {{name: x}}\nspec:\n  template:\n{}", indented(4)),
            "/spec/template",
        ),
        (
            format!(
                "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: x}}\nspec:\n  schedule: '@daily'\n  jobTemplate:\n    spec:\n      \
                 template:\n{}",
                indented(8)
            ),
            "/spec/jobTemplate/spec/template",
        ),
    ];
    for (manifest, template) in manifests {
        // Of what was there, the lines are all there, in order.
        let kept = |result: &str| {
            let mut lines = result.lines();
            assert!(manifest.lines().all(|line| lines.any(|own| own == line)), "{result}");
        };
        let ran = with_stdin(&world, &image, &manifest).ok();
        kept(&ran.stdout);
        let spec = check(&ran.stdout).pointer(template).unwrap()["spec"].clone();
        assert_eq!(spec["volumes"][0]["name"], "skill-hr");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/skills/hr");
        let ran = with_stdin(&world, &[&image[..], &init].concat(), &manifest).ok();
        kept(&ran.stdout);
        let spec = check(&ran.stdout).pointer(template).unwrap()["spec"].clone();
        assert_eq!((ran.stderr.as_str(), &spec["initContainers"][0]["image"]), ("", &json!(puller)));
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "regcred"}]));
        assert_eq!(spec["volumes"][1]["secret"]["secretName"], "regcred");
    }
}

#[test]
fn an_image_that_cannot_be_pinned_stays_by_its_tag() {
    let world = World::new();
    build(&world, "quay.io/", "hr");
    let pod = |flags: &[&str]| {
        let args = ["generate", "kube", "quay.io/acme/hr:1.0.0", "--image=a", "--style=init-container", "--retry=0"];
        let ran = world.run([&args[..], flags].concat()).ok();
        let pod = check(&ran.stdout);
        let init = &pod["spec"]["initContainers"][0];
        let annotations = pod["metadata"]["annotations"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(annotations, ["tag.skillimage.io/skill-hr"]);
        (init["image"].as_str().unwrap().to_owned(), init["imagePullPolicy"].as_str().unwrap().to_owned(), ran.stderr)
    };
    let (image, policy, said) = pod(&[]);
    assert_eq!((&*image, &*policy), ("localhost/skillctl:latest", "Never"));
    assert!(said.starts_with("note: localhost/skillctl:latest has to be on the node; --puller-image names"), "{said}");
    // Nobody listens there; no registry is named; and one password would be told to two registries.
    let cases: [(&[&str], &str, &str); 3] = [
        (&["--puller-image=127.0.0.1:1/acme/skillctl:1"], "127.0.0.1:1/acme/skillctl:1", "127.0.0.1:1"),
        (&["--puller-image=acme/skillctl"], "acme/skillctl", "not a remote registry"),
        (&["--puller-image=127.0.0.1:1/acme/skillctl:1", "--creds=a:b"], "127.0.0.1:1/acme/skillctl:1", "--creds"),
    ];
    for (flags, want, reason) in cases {
        let (image, policy, said) = pod(flags);
        assert_eq!((&*image, &*policy), (want, "IfNotPresent"));
        let warning = format!("warning: {want} stays named by its tag, which may move: ");
        assert!(said.starts_with(&warning) && said.contains(reason) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn manifests_that_cannot_be_read_are_refused_and_nothing_is_printed() {
    let world = World::new();
    build(&world, "", "hr");
    fs::write(world.path("m.yaml"), "kind: Pod\nspec: {containers: [{name: a}, {name: b}]}\n").unwrap();
    let cases: [(&[&str], &str, &str); 5] = [
        (&["-f", "m.yaml"], "", "there are several containers: a, b"),
        (&["-f", "none.yaml"], "", "No such file"),
        (&["-f", "-"], "\u{0}", "line 1"),
        (&["-f", "-", "--style=init-container"], "kind: Pod\n", "acme/hr:1.0.0 has no registry to pull it from"),
        (&["-f", "-", "--mount-root", "/a b"], "kind: Pod\n", "cannot be a mount point"),
    ];
    for (flags, stdin, want) in cases {
        let args = [&["generate", "kube", "acme/hr:1.0.0"], flags].concat();
        let ran = with_stdin(&world, &args, stdin).fails(2);
        assert!(ran.stderr.contains(want) && ran.stdout.is_empty(), "{want}: {ran}");
    }
    let none = world.run(["generate", "kube", "--image", "a", "acme/none:1"]).fails(2);
    assert!(none.stderr.contains("image not found: acme/none:1"), "{none}");
    let placeholder = world.run(["generate", "kube", "acme/hr:1.0.0"]).ok();
    assert!(
        placeholder.stdout.contains("image: my-agent\n") && placeholder.stderr.contains("--image names it"),
        "{placeholder}"
    );
}

#[test]
fn units_are_written_once() {
    let world = World::new();
    let digest = build(&world, "quay.io/", "hr");
    let args =
        ["generate", "quadlet", "quay.io/acme/hr:1.0.0", "--container", "agent", "--image", "quay.io/acme/agent:2"];
    let printed = world.run(args).ok();
    let hint = "note: there is no podman here; written for 4.8 and newer (--podman-version names another)\n";
    assert_eq!(printed.stderr, hint);
    let stem = |digest: &str| format!("skill-hr-1.0.0-{}", &digest["sha256:".len()..][..12]);
    let hr = stem(&digest);
    assert!(printed.stdout.contains(&format!("# {hr}.image\n[Unit]\nDescription=Skill quay.io/acme/hr:1.0.0\n\n[Image]\nImage=quay.io/acme/hr@{digest}\n\n#")), "{printed}");
    let into = [&args[..], &["-o", "units", "--podman-version=5.6"]].concat();
    let ran = world.run(&into).ok();
    let wrote = |hr: &str| format!("Wrote units/{hr}.image\nWrote units/{hr}.volume\nWrote units/agent.container\n");
    assert_eq!(ran.stdout, wrote(&hr));
    let unit = fs::read_to_string(world.path(format!("units/{hr}.image"))).unwrap();
    assert!(unit.ends_with("Policy=missing\n"), "{unit}");
    assert!(world.run(&into).ok().stdout.starts_with(&format!("Unchanged: units/{hr}.image\n")));
    fs::write(world.path("units/agent.container"), "mine\n").unwrap();
    let refused = world.run(&into).fails(2);
    assert!(refused.stderr.contains("there is agent.container already, and it is different"), "{refused}");
    assert_eq!(fs::read_to_string(world.path("units/agent.container")).unwrap(), "mine\n");
    let rows = world.run([&into[..], &["--force", "--format=json"]].concat()).ok().json();
    assert_eq!((&rows[0]["written"], &rows[2]["written"]), (&json!(false), &json!(true)));
    let old = world.run([&args[..], &["--podman-version=4.7"]].concat()).fails(2);
    assert!(old.stderr.contains("generate volume prints commands instead"), "{old}");

    let bootc = ["generate", "quadlet", "--bootc", "-o", "rootfs", "--podman-version=5.6", "quay.io/acme/hr:1.0.0"];
    world.run(bootc).ok();
    let bound = format!("usr/lib/bootc/bound-images.d/{hr}.image");
    let link = fs::read_link(world.path(format!("rootfs/{bound}"))).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("/usr/share/containers/systemd/{hr}.image"));
    let agent = world.run([&bootc[..], &["--container=agent", "--image=localhost/agent"]].concat()).fails(2);
    assert!(agent.stderr.contains("localhost/agent cannot be bound: bootc pulls from registries"), "{agent}");

    // The same tag, other content: other files, and what is left over is said, and not removed.
    fs::write(world.path("hr/new"), "x").unwrap();
    world.run(["build", "--load=never", "--force", "--tag", "quay.io/acme/hr:1.0.0", "hr"]).ok();
    let ran = world.run([&into[..], &["--force"]].concat()).ok();
    let list = world.run(["list", "--format", "json"]).ok().json();
    let new = list.as_array().unwrap().iter().find(|row| row["reference"] == "quay.io/acme/hr:1.0.0").unwrap();
    assert_eq!(ran.stdout, wrote(&stem(new["digest"].as_str().unwrap())));
    let left = |path: &str| format!("note: {path} is of another version: remove it when nothing names it\n");
    assert_eq!(ran.stderr, left(&format!("units/{hr}.image")) + &left(&format!("units/{hr}.volume")));
    assert!(world.path(format!("units/{hr}.volume")).exists());
    let ran = world.run(bootc).ok();
    let unit = |ending: &str| left(&format!("rootfs/usr/share/containers/systemd/{hr}.{ending}"));
    assert_eq!(ran.stderr, left(&format!("rootfs/{bound}")) + &unit("image") + &unit("volume"));
}

#[test]
fn no_place_of_the_runtime_is_taken_and_one_agent_only() {
    let world = World::new();
    build(&world, "", "hr");
    for kind in ["volume", "quadlet", "kube", "cdi"] {
        for root in ["/proc", "/sys/fs", "/dev", "/run/secrets"] {
            let ran = world.run(["generate", kind, "acme/hr:1.0.0", "--mount-root", root]).fails(2);
            assert!(ran.stderr.contains(&format!("{root}/hr is in ")), "{kind}: {ran}");
            assert_eq!(ran.stdout, "", "{kind}");
        }
        let ran = world.run(["generate", kind, "acme/hr:1.0.0", "--target", "claude,codex"]).fails(2);
        assert!(ran.stderr.contains("error: \"claude,codex\" is more than one agent"), "{kind}: {ran}");
    }
}

#[test]
fn volumes_are_named_after_digests() {
    let world = World::new();
    let digest = build(&world, "", "hr");
    let name = format!("skill-hr-1.0.0-{}", &digest["sha256:".len()..][..12]);
    let args = ["generate", "volume", "acme/hr:1.0.0", "--podman-version=4.3"];
    let ran = world.run(args).ok();
    assert!(
        ran.stdout.ends_with(&format!("&&\npodman run --rm \\\n  -v {name}:/skills/hr:ro \\\n  \"$@\"\n")),
        "{ran}"
    );
    let image = format!("localhost/acme/hr@{digest}");
    let create = ["podman", "volume", "create", "--driver", "image", "--opt", &format!("image={image}"), &name];
    let rows = world.run(args.into_iter().chain(["--format=json"])).ok().json();
    assert_eq!(
        rows,
        json!([{
            "name": name, "image": image, "destination": "/skills/hr", "fetch": ["skillctl", "load", format!("acme/hr@{digest}")],
            "create": create, "flags": ["-v", format!("{name}:/skills/hr:ro")],
        }])
    );
}

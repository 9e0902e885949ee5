//! Where name and password come from: every file and flag that podman has, and never through a list of processes.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};
use crate::registry::conf;
use crate::registry::gate::Gate;
use crate::registry::{Kind, OTHER, PASSWORD, Registry, USER};
use crate::site::{Site, processes, said};

matrix! { @roots
    credentials_come_from_where_podman_has_them,
    a_namespace_has_its_own_credentials,
    a_refused_push_waits_for_no_helper_of_skopeo,
    a_password_is_in_no_list_of_processes,
    login_hands_over_to_skopeo,
}

const DRAFT: &str = "acme/hr:1.0.0-draft";
const DENIED: [&str; 5] =
    ["unauthorized", "denied", "authentication required", "credentials", "invalid username/password"];

/// A registry with a skill in it, whose certificate is known to this user.
fn hub(world: &World) -> (Registry, String) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    conf::trust(world, &hub, conf::Place::Home);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let creds = format!("{USER}:{PASSWORD}");
    let pushed = world.skillctl(["push", DRAFT, &hub.name(DRAFT), "--creds", &creds]).ok();
    assert_eq!(said(&pushed, "Digest: "), built.digest);
    (hub, built.digest)
}

fn credentials_come_from_where_podman_has_them(world: &World) {
    let (hub, digest) = hub(world);
    let name = hub.name(DRAFT);
    let there = Site::other(world, "there");
    // One verb by skopeo, and one by our own client.
    let verbs: [&[&str]; 2] =
        [&["pull", &name, "--load=never"], &["list", "--remote", &hub.name("acme/hr"), "--format", "json"]];
    for verb in verbs {
        there.refuses(verb, &[&hub.address], &DENIED);
        for creds in [format!("{USER}:wrong"), format!("nobody:{PASSWORD}")] {
            let error = there.refuses(&[verb, &["--creds", &creds]].concat(), &[&hub.address], &DENIED);
            assert!(!error.contains(&creds) && !error.contains(PASSWORD), "it tells the password: {error}");
        }
    }
    let works = |how: &str, change: &dyn Fn(&mut std::process::Command)| {
        for verb in verbs {
            let mut command = there.command(verb);
            change(&mut command);
            let done = Done::of(command);
            assert!(done.code == 0 && done.stdout.contains(&digest), "{how}: {done}");
        }
        there.skillctl(["rm", "-f", &name]).ok();
    };
    let good = [(hub.address.as_str(), USER, PASSWORD)];
    let file = world.path("auth.json");
    fs::write(&file, conf::auths(&good)).expect("a file");
    works("--creds", &|command| {
        command.args(["--creds", &format!("{USER}:{PASSWORD}")]);
    });
    works("--authfile", &|command| {
        command.arg("--authfile").arg(&file);
    });
    works("REGISTRY_AUTH_FILE", &|command| {
        command.env("REGISTRY_AUTH_FILE", &file);
    });
    let runtime = world.path("runtime");
    fs::create_dir_all(runtime.join("containers")).expect("a directory");
    fs::copy(&file, runtime.join("containers/auth.json")).expect("a file");
    works("XDG_RUNTIME_DIR", &|command| {
        command.env("XDG_RUNTIME_DIR", &runtime);
    });
    // As Kubernetes mounts it; skopeo does not look for it by that name.
    let secret = world.path("secret");
    fs::create_dir(&secret).expect("a directory");
    fs::copy(&file, secret.join(".dockerconfigjson")).expect("a file");
    works("a pull secret", &|command| {
        command.env("DOCKER_CONFIG", &secret);
    });
    fs::write(secret.join("config.json"), "{}").expect("a file");
    for verb in verbs {
        let mut command = there.command(verb);
        command.env("DOCKER_CONFIG", &secret);
        Done::of(command).refused(&[&hub.address], &DENIED);
    }
    conf::docker_config(world, &conf::auths(&good));
    works("Docker's configuration", &|_| ());

    let bin = conf::helper(world, &hub.address, USER, PASSWORD);
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display());
    let configured: [&dyn Fn(); 2] = [
        &|| conf::docker_config(world, &json!({ "credHelpers": { hub.address.as_str(): "test" } }).to_string()),
        &|| {
            conf::docker_config(world, "{}");
            conf::registries_conf(world, "credential-helpers = [\"containers-auth.json\", \"test\"]\n");
        },
    ];
    for configure in configured {
        configure();
        works("a credential helper", &|command| {
            command.env("PATH", &path);
        });
        let helped = fs::read_to_string(world.path("helped")).expect("a log");
        assert!(helped.lines().any(|line| line == format!("get {}", hub.address)), "{helped}");
        fs::remove_file(world.path("helped")).expect("a log");
    }
    conf::registries_conf(world, "");
    there.refuses(verbs[0], &[&hub.address], &DENIED);
}

fn a_namespace_has_its_own_credentials(world: &World) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    conf::trust(world, &hub, conf::Place::Home);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let here = Site::here(world);
    let (acme, private) = (hub.name("acme"), hub.name("acme/private"));
    let entries = [(&*hub.address, "nobody", "wrong"), (&*acme, USER, PASSWORD), (&*private, OTHER.0, OTHER.1)];
    conf::auth_json(world, &entries);
    for repository in ["acme/hr", "acme/deeper/hr", "acme/private/hr"] {
        let name = hub.name(&format!("{repository}:1"));
        here.skillctl(["push", DRAFT, &name]).ok();
        assert_eq!(hub.tag(repository, "1").as_ref(), Some(&built.digest));
        assert_eq!(here.inspect(&format!("docker://{name}"))["digest"], json!(built.digest));
    }
    for repository in ["hr", "other/hr", "acmelike/hr"] {
        let name = hub.name(&format!("{repository}:1"));
        here.refuses(&["push", DRAFT, &name], &[&hub.address], &DENIED);
        here.refuses(&["inspect", &format!("docker://{name}")], &[&hub.address], &DENIED);
        assert_eq!(hub.tags(repository), [""; 0]);
    }
}

/// skopeo is started before the registry has answered, and may hang where we do not.
fn a_refused_push_waits_for_no_helper_of_skopeo(world: &World) {
    let (hub, _) = hub(world);
    conf::auth_json(world, &[(&hub.address, USER, PASSWORD)]);
    let here = Site::here(world);
    for state in ["testing", "published"] {
        let from = format!("acme/hr:1.0.0-{}", if state == "testing" { "draft" } else { "testing" });
        here.skillctl(["promote", &from, "--to", state, "--local", "--load=never"]).ok();
    }
    let name = hub.name("acme/hr:1.0.0");
    here.skillctl(["push", "acme/hr:1.0.0", &name]).ok();

    fs::remove_file(conf::auth_json(world, &[])).expect("a file");
    conf::docker_config(world, &json!({ "credHelpers": { hub.address.as_str(): "test" } }).to_string());
    let bin = conf::helper(world, &hub.address, USER, PASSWORD);
    let helper = bin.join("docker-credential-test");
    let script = fs::read_to_string(&helper).expect("a script");
    let hangs = "#!/bin/sh\n[ \"$(cat /proc/$PPID/comm)\" != skopeo ] || sleep 100\n";
    fs::write(&helper, script.replacen("#!/bin/sh\n", hangs, 1)).expect("a script");
    let mut command = here.command(["push", DRAFT, &name]);
    command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()));
    let started = Instant::now();
    Done::of(command).refused(&["acme/hr:1.0.0"], &["published", "immutable"]);
    assert!(started.elapsed() < Duration::from_secs(50), "it has waited");
    let left =
        processes().into_iter().filter(|(_, words)| words.iter().any(|word| word == "skopeo" || word == "sleep"));
    assert_eq!(left.collect::<Vec<_>>(), []);
    here.tidy();
}

/// With the password typed in or given as an argument: no child has it among its arguments or in its environment.
fn a_password_is_in_no_list_of_processes(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    gate.tokens(USER, PASSWORD);
    gate.delay(Duration::from_millis(50));
    world.build("hr", "1.0.0", &["--load=never"]);
    let here = Site::here(world);
    for (creds, typed) in [(USER.to_owned(), format!("{PASSWORD}\n")), (format!("{USER}:{PASSWORD}"), String::new())] {
        let name = gate.name(&format!("acme/hr:typed-{}", typed.len()));
        let mut command = here.command(["push", DRAFT, &name, "--creds", &creds]);
        command.stdin(Stdio::piped());
        let mut children = 0;
        let pushed = Done::while_running(command, |child| {
            child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("a reader");
            while child.try_wait().expect("a child").is_none() {
                children += told(PASSWORD, child.id());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(said(&pushed.ok(), "Pushed "), name);
        assert!(children > 0, "skopeo was never seen, so that this shows nothing");
    }
}

/// Looks at all processes but one and this; none may have been told the secret. Returns how many of them are skopeo.
///
/// A child has its parent's words until it has become what it is to be, and those are the user's own.
#[track_caller]
fn told(secret: &str, parent: u32) -> usize {
    let processes = processes();
    let typed = processes.iter().find(|(pid, _)| *pid == parent).map(|(_, words)| words.clone());
    let others = processes
        .into_iter()
        .filter(|(pid, command)| ![parent, std::process::id()].contains(pid) && Some(command) != typed.as_ref());
    let skopeo = others.map(|(pid, command)| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!command.join(" ").contains(secret), "{command:?}");
        assert!(!String::from_utf8_lossy(&environment).contains(secret), "in the environment of {command:?}");
        usize::from(command[0].ends_with("skopeo"))
    });
    skopeo.sum()
}

fn login_hands_over_to_skopeo(world: &World) {
    let (hub, digest) = hub(world);
    let there = Site::other(world, "there");
    let file = world.path("auth.json");
    let login = |password: &str| {
        let args = [
            "login",
            "--authfile",
            file.to_str().expect("UTF-8"),
            "--username",
            USER,
            "--password-stdin",
            &hub.address,
        ];
        let mut command = there.command(args);
        command.stdin(Stdio::piped());
        Done::while_running(command, |child| {
            child.stdin.take().expect("a pipe").write_all(password.as_bytes()).expect("a reader");
        })
    };
    login("wrong").refused(&[&hub.address], &DENIED);
    assert!(
        !file.exists() || !fs::read_to_string(&file).expect("a file").contains("auth\""),
        "a wrong password is kept"
    );
    let done = login(PASSWORD);
    assert_eq!(done.code, 0, "{done}");
    let kept: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
    assert!(kept["auths"][&hub.address]["auth"].is_string(), "{kept}");
    let pull = ["pull", &hub.name(DRAFT), "--load=never", "--authfile", file.to_str().expect("UTF-8")];
    assert_eq!(said(&there.skillctl(pull).ok(), "Digest: "), digest);
    there.skillctl(["logout", "--authfile", file.to_str().expect("UTF-8"), &hub.address]).ok();
    let kept: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
    assert!(kept["auths"].get(&hub.address).is_none(), "{kept}");
    there.refuses(
        &["pull", &hub.name(DRAFT), "--pull=always", "--authfile", file.to_str().expect("UTF-8")],
        &[&hub.address],
        &DENIED,
    );
}

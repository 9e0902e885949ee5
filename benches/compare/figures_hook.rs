//! The figures of containers with skills: the process that podman starts, a container with and without it, and a pod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::figures::{Bench, Figure, Target, ms};
use super::inputs;
use super::measure::{Contestant, Measured, Outcome, Sample, run};
use super::peers::must;

/// Skills of one container.
const TEN: usize = 10;
/// What the first use of a skill may take more than any other, in milliseconds.
const FIRST: u64 = 10;
/// Skills of one pod.
const FIFTY: usize = 50;
/// Runs of a container.
const RUNS: usize = 20;

impl Bench {
    pub fn hook_one(&self, name: &'static str) -> Result<Figure> {
        let ours = Contestant::command("ours", Some(self.hook(1)?));
        Ok(self.figure(name, 300, vec![ours, self.spawn_probe()], vec![Target::Ratio("/bin/true", 2.5)]))
    }

    pub fn hook_ten(&self, name: &'static str) -> Result<Figure> {
        let ours = Contestant::command("ours", Some(self.hook(TEN)?));
        Ok(self.figure(name, 300, vec![ours, self.spawn_probe()], vec![Target::Ratio("/bin/true", 5.0)]))
    }

    pub fn hook_first(&self, name: &'static str) -> Result<Figure> {
        let (hook, cache) = (self.hook(1)?, self.world.path("hook/unpacked"));
        let ours = Contestant::new("ours", move |_| {
            fs::remove_dir_all(&cache)?;
            run(&hook)
        });
        let warm = Contestant::command("ours, used before", Some(self.hook(1)?));
        Ok(self.figure(name, 50, vec![ours, warm], vec![Target::RatioAndTime("ours, used before", 1.0, ms(FIRST))]))
    }

    /// Starts containers in a scratch world, where podman works whatever this machine allows, and times them in there.
    pub fn run_ten(&self, name: &'static str) -> Result<Figure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let skills = self.ten()?;
        let program = Path::new(env!("CARGO_BIN_EXE_skillctl"));
        let mut enter = Command::new(root.join("tests/enter"));
        enter.args(["--root", "sid", "--user", "root", "--bind"]).arg(program.parent().context("no directory")?);
        enter.arg("--bind").arg(&skills).args(["--", "bash", "-euc", include_str!("run-ten"), "bash"]);
        let runs = if self.quick { RUNS.div_ceil(10) } else { RUNS };
        let output = enter.arg(program).arg(skills).arg(runs.to_string()).output()?;
        let last = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        ensure!(output.status.success(), "tests/enter: {last}");
        let text = String::from_utf8(output.stdout)?;
        let measured = ["ours", "without", "type=image"].map(|name| {
            let times = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let sample = |nanos: &str| {
                let wall = Duration::from_nanos(nanos.parse().ok()?);
                Some(Sample { wall, cpu: Duration::ZERO, memory: 0 })
            };
            Measured { name, outcome: Outcome::Samples(times.filter_map(sample).collect()) }
        });
        let targets = vec![Target::Ratio("without", 1.1), Target::Ratio("type=image", 1.0)];
        Ok(Figure { name, measured: measured.into(), targets })
    }

    pub fn generate_kube(&self, name: &'static str) -> Result<Figure> {
        let (world, store) = (&self.world, self.world.path("kube-store"));
        let mut ours = world.ours(&store);
        ours.args(["generate", "kube"]);
        for number in 0..FIFTY {
            let (skill, dir) = (format!("k{number}"), world.path(format!("kube/k{number}")));
            inputs::named(&dir, &skill, "1.0.0", "")?;
            must(&mut self.build(&store, &dir))?;
            ours.arg(format!("bench/{skill}:1.0.0-draft"));
        }
        let contestants = vec![Contestant::command("ours", Some(ours)), self.spawn_probe()];
        Ok(self.figure(name, 50, contestants, vec![Target::Time(ms(30))]))
    }

    /// Returns the hook as podman starts it, for a container with so many skills.
    fn hook(&self, skills: usize) -> Result<Command> {
        let world = &self.world;
        let (store, root) = (world.path("hook/store"), world.path("hook/graph/overlay/layer/merged"));
        let bundle = world.path("hook/graph/overlay-containers/id/userdata");
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&bundle)?;
        for dir in fs::read_dir(self.ten()?)? {
            must(&mut self.build(&store, &dir?.path()))?;
        }
        let named: Vec<String> = (0..skills).map(|number| format!("bench/s{number}:1.0.0-draft")).collect();
        // About as large as podman's own.
        let env: Vec<String> = (0..200).map(|number| format!("VARIABLE_{number}={}", "x".repeat(64))).collect();
        let spec = json!({
            "ociVersion": "1.0.0", "root": {"path": root}, "process": {"user": {"uid": 0, "gid": 0}, "env": env},
            "mounts": [{"destination": "/run/.containerenv", "source": bundle.join(".containerenv")}], "annotations": {"io.skillimage.skills": named.join(";")},
        });
        let file = world.path(format!("spec-{skills}.json"));
        fs::write(&file, spec.to_string())?;
        let mut hook = world.command(env!("CARGO_BIN_EXE_skillctl-hook"));
        hook.env("SKILLCTL_STORE", &store).arg("precreate").current_dir(bundle).env(super::measure::STDIN, file);
        run(&hook)?;
        Ok(hook)
    }

    /// Returns a directory of ten skills.
    fn ten(&self) -> Result<PathBuf> {
        let dir = self.world.path("ten");
        for number in 0..TEN {
            let skill = format!("s{number}");
            inputs::named(&dir.join(&skill), &skill, "1.0.0", "")?;
        }
        Ok(dir)
    }
}

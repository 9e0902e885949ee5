//! The figures: for each its contestants, the number of rounds, and what must be reached.

use std::cell::{Cell, OnceCell};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::UNPACK;
use super::inputs::{self, Inputs};
use super::measure::{Contestant, Measured, Outcome, interleaved, run, spawn_probe, sync_probe};
use super::peers::{Storage, World, installed, must};
use super::registry::Registry;

/// Images of the store that is listed.
const LISTED: usize = 1_000;

/// What must be reached.
#[derive(Debug)]
pub enum Target {
    /// That it can be measured at all.
    Unknown,
    /// A time.
    Time(Duration),
    /// A time, and as many times the probe's that writes 4 kB.
    TimeAndSyncs(Duration, u32),
    /// A part of that contestant's time.
    Ratio(&'static str, f64),
    /// So many times that contestant's time, and a time.
    RatioAndTime(&'static str, f64, Duration),
    /// Peak memory, in KiB.
    Memory(u64),
    /// A size beside another one of the name: ours, the other, and the largest ratio.
    Size(u64, &'static str, u64, f64),
    /// A number of what was counted beside the measurement: of what, how many, and the most.
    Count(&'static str, u64, u64),
}

/// What came of one figure.
#[derive(Debug)]
pub struct Figure {
    /// As it is asked for on the command line.
    pub name: &'static str,
    /// Ours first.
    pub measured: Vec<Measured>,
    /// What must be reached.
    pub targets: Vec<Target>,
}

/// Everything that the figures are measured with.
#[derive(Debug)]
pub struct Bench {
    /// The registry, once a figure needs one; it ends before its directory goes.
    pub registry: OnceCell<Registry>,
    /// The scratch world.
    pub world: World,
    /// The generated skills.
    pub inputs: Inputs,
    /// Whether a rough answer is enough.
    pub quick: bool,
}

impl Figure {
    /// Returns the figure that could not be prepared.
    pub fn failed(name: &'static str, error: &anyhow::Error) -> Self {
        let ours = Measured { name: "ours", outcome: Outcome::Failed(format!("{error:#}")) };
        Self { name, measured: vec![ours], targets: vec![Target::Unknown] }
    }
}

type Measure = fn(&Bench, &'static str) -> Result<Figure>;

/// All figures, in the order of the table.
pub const FIGURES: [(&str, Measure); 33] = [
    ("version", Bench::version),
    ("build small", Bench::build_small),
    ("build many", Bench::build_many),
    ("build big", Bench::build_big),
    ("build and load small", Bench::build_and_load),
    ("list 1000", Bench::list),
    ("list 1000, all loaded", Bench::list_loaded),
    ("inspect from store", Bench::inspect_store),
    ("inspect from containers-storage", Bench::inspect_storage),
    ("unpack big", Bench::unpack_big),
    ("push small", Bench::push_small),
    ("pull small", Bench::pull_small),
    ("pull big", Bench::pull_big),
    ("promote remote", Bench::promote_remote),
    ("inspect remote", Bench::inspect_remote),
    ("list remote 500", Bench::list_remote),
    ("install small", Bench::install_small),
    ("install many", Bench::install_many),
    ("list installed 200", Bench::list_installed),
    ("sync check 200", Bench::sync_check),
    ("upgradable 100", Bench::upgradable),
    ("convert many", Bench::convert_many),
    ("build git 300", Bench::build_git),
    ("install collection 50", Bench::install_collection),
    ("hook one", Bench::hook_one),
    ("hook ten", Bench::hook_ten),
    ("hook first use", Bench::hook_first),
    ("podman run, ten by hook", Bench::run_ten),
    ("generate kube 50", Bench::generate_kube),
    ("sign", Bench::sign_one),
    ("verify", Bench::verify_one),
    ("load and verify 100", Bench::load_set),
    ("load and verify 100, loaded", Bench::load_set_mounted),
];

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Bench {
    pub fn figure(
        &self,
        name: &'static str,
        rounds: u32,
        contestants: Vec<Contestant<'_>>,
        targets: Vec<Target>,
    ) -> Figure {
        let rounds = if self.quick { rounds.div_ceil(10) } else { rounds };
        Figure { name, measured: interleaved(rounds, contestants), targets }
    }

    pub fn spawn_probe(&self) -> Contestant<'static> {
        spawn_probe(&|program: &OsStr| self.world.command(program))
    }

    fn version(&self, name: &'static str) -> Result<Figure> {
        let mut ours = self.world.command(env!("CARGO_BIN_EXE_skillctl"));
        ours.arg("--version");
        let contestants = vec![Contestant::command("ours", Some(ours)), self.spawn_probe()];
        Ok(self.figure(name, 300, contestants, vec![Target::Ratio("/bin/true", 2.5)]))
    }

    fn build_small(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let dir = world.path("small");
        let scratch = world.path("sync-probe");
        fs::create_dir_all(&scratch)?;
        let storage = world.storage("buildah-small", "overlay");
        // Content that is new each time, under one name.
        let fresh = |who: &'static str, command: Option<Command>| {
            let dir = dir.clone();
            let known = command.is_some();
            Contestant::new(who, move |round| {
                inputs::small(&dir, "1.0.0", &format!("For {who}, round {round}."))?;
                run(command.as_ref().context("no command")?)
            })
            .only_if(known)
        };
        inputs::small(&dir, "1.0.0", "")?;
        let contestants = vec![
            fresh("ours", Some(self.build(&world.path("small-store"), &dir))),
            self.spawn_probe(),
            sync_probe(&scratch),
            fresh("buildah", world.buildah(&dir, &storage)),
            fresh("umoci", world.umoci(&dir, &world.path("umoci-small"))),
            fresh("Go skillctl", self.go_build(&dir)),
        ];
        let targets = vec![Target::TimeAndSyncs(ms(3), 6), Target::Ratio("buildah", 0.05)];
        Ok(self.figure(name, 40, contestants, targets))
    }

    fn build_many(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let dir = self.inputs.many()?;
        let scratch = world.path("sync-probe");
        fs::create_dir_all(&scratch)?;
        let storage = world.storage("buildah-many", "overlay");
        let contestants = vec![
            Contestant::command("ours", Some(self.build(&world.path("many-store"), &dir))),
            self.spawn_probe(),
            sync_probe(&scratch),
            Contestant::command("buildah", world.buildah(&dir, &storage)),
            Contestant::command("umoci", world.umoci(&dir, &world.path("umoci-many"))),
            Contestant::command("Go skillctl", self.go_build(&dir)),
        ];
        Ok(self.figure(name, 10, contestants, vec![Target::Time(ms(350))]))
    }

    fn build_big(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let dir = self.inputs.big()?;
        let (tar, gzip_size) = self.inputs.big_tar()?;
        let store = world.path("big-store");
        let layer = self.big_layer(&store)?;
        let storage = world.storage("buildah-big", "overlay");
        let pipe = world.shell(r#"tar -C "$1" -cf - . | gzip -6 | sha256sum"#, [&dir]);
        let out = world.path("big.gz");
        let libdeflate = world.shell(r#"libdeflate-gzip -1 -c "$1" >"$2""#, [&tar, &out]);
        let contestants = vec![
            Contestant::command("ours", Some(self.build(&store, &dir))),
            Contestant::command("libdeflate-gzip -1", installed("libdeflate-gzip").then_some(libdeflate)),
            Contestant::command("tar | gzip -6 | sha256sum", Some(pipe)),
            Contestant::command("buildah", world.buildah(&dir, &storage)),
            Contestant::command("umoci", world.umoci(&dir, &world.path("umoci-big"))),
            Contestant::command("Go skillctl", self.go_build(&dir)),
        ];
        let targets = vec![
            Target::Ratio("libdeflate-gzip -1", 0.65),
            Target::Ratio("tar | gzip -6 | sha256sum", 0.20),
            Target::Size(layer.size, "gzip -6", gzip_size, 1.05),
            Target::Memory(64 << 10),
        ];
        let settled = contestants.into_iter().map(settled).collect();
        let figure = self.figure(name, 3, settled, targets);
        for left in [out, world.path("umoci-big"), world.path("go-data")] {
            let _ = if left.is_dir() { fs::remove_dir_all(left) } else { fs::remove_file(left) };
        }
        Ok(figure)
    }

    fn build_and_load(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let storage = self.storage("load")?;
        let seen = Cell::new(None);
        // Each image is new, in content and name, for both: a name that moves would add the removal of the old image.
        let ours = Contestant::new("ours", |round| {
            let version = format!("1.0.{round}");
            let dir = self.small_in("load-ours", &version, "Ours.")?;
            seen.set(Some(format!("localhost/bench/small:{version}-draft")));
            let mut command = world.ours(&world.path("load-store"));
            run(command.args(storage.flags()).arg("build").arg(dir).arg("--load=always"))
        });
        let skopeo = Contestant::new("skopeo copy", |round| {
            let version = format!("2.0.{round}");
            let dir = self.small_in("load-theirs", &version, "Theirs.")?;
            let layout = world.path(format!("layout-{round}"));
            must(&mut self.build(&layout, &dir))?;
            let mut command = world.command("skopeo");
            let name = format!("localhost/bench/small:{version}-draft");
            run(command.arg("copy").arg(format!("oci:{}", layout.display())).arg(storage.reference(&name)))
        });
        let contestants = vec![ours, skopeo.only_if(installed("skopeo")), self.spawn_probe()];
        let figure = self.figure(name, 30, contestants, vec![Target::Ratio("skopeo copy", 1.15)]);
        if let (true, Some(name)) = (installed("podman"), seen.take()) {
            must(world.command("podman").args(storage.flags()).args(["image", "exists", &name]))
                .with_context(|| format!("podman does not see {name}"))?;
        }
        Ok(figure)
    }

    fn list(&self, name: &'static str) -> Result<Figure> {
        let data = self.thousand("list")?;
        let nothing = self.world.storage("none", "overlay");
        Ok(self.list_with(name, &data, &nothing))
    }

    fn list_loaded(&self, name: &'static str) -> Result<Figure> {
        let data = self.thousand("list-loaded")?;
        let storage = self.storage("list-loaded")?;
        inputs::multiply_records(storage.root(), storage.driver(), &store_of(&data))?;
        Ok(self.list_with(name, &data, &storage))
    }

    fn list_with(&self, name: &'static str, data: &Path, storage: &Storage) -> Figure {
        let mut ours = self.world.ours(&store_of(data));
        ours.args(storage.flags()).arg("list");
        let contestants = vec![
            Contestant::command("ours", Some(ours)),
            self.spawn_probe(),
            Contestant::command("Go skillctl", self.go(data, &["list"])),
        ];
        self.figure(name, 60, contestants, vec![Target::Time(ms(15))])
    }

    fn inspect_store(&self, name: &'static str) -> Result<Figure> {
        let data = self.thousand("inspect")?;
        let single = self.world.path("inspect-single");
        must(&mut self.build(&single, &self.small_in("inspect-small", "1.0.0", "")?))?;
        let reference = inputs::numbered(LISTED / 2);
        let mut ours = self.world.ours(&store_of(&data));
        ours.args(["inspect", &reference]);
        let mut skopeo = self.world.command("skopeo");
        skopeo.arg("inspect").arg(format!("oci:{}", single.display()));
        let mut alone = self.world.ours(&single);
        alone.args(["inspect", "bench/small:1.0.0-draft"]);
        let contestants = vec![
            Contestant::command("ours", Some(ours)),
            self.spawn_probe(),
            Contestant::command("ours, store of 1 image", Some(alone)),
            Contestant::command("skopeo inspect, layout of 1 image", installed("skopeo").then_some(skopeo)),
            Contestant::command("Go skillctl", self.go(&data, &["inspect", &reference])),
        ];
        Ok(self.figure(name, 60, contestants, vec![Target::Time(ms(5))]))
    }

    fn inspect_storage(&self, name: &'static str) -> Result<Figure> {
        let storage = self.storage("inspect")?;
        let loaded = "localhost/bench/small:1.0.0-draft";
        let mut ours = self.world.ours(&self.world.path("no-store"));
        ours.args(storage.flags()).args(["inspect", &format!("containers-storage:{loaded}")]);
        let mut skopeo = self.world.command("skopeo");
        skopeo.arg("inspect").arg(storage.reference(loaded));
        let contestants = vec![
            Contestant::command("ours", Some(ours)),
            self.spawn_probe(),
            Contestant::command("skopeo inspect", installed("skopeo").then_some(skopeo)),
        ];
        Ok(self.figure(name, 60, contestants, vec![Target::Time(ms(15))]))
    }

    fn unpack_big(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let layer = self.big_layer(&world.path("big-store"))?;
        let out = world.path("unpacked");
        let empty = || -> Result<()> {
            if out.exists() {
                fs::remove_dir_all(&out)?;
            }
            Ok(fs::create_dir(&out)?)
        };
        let ours = Contestant::new("ours", |_| {
            empty()?;
            let mut command = world.command(std::env::current_exe()?);
            command.arg(UNPACK).arg(&layer.path).args([&layer.digest, &layer.size.to_string(), &layer.diff_id]);
            run(command.arg(&out))
        });
        // The same bytes for both: those of our layer, whose gzip members tar's gzip reads one after the other.
        let tar = Contestant::new("tar -xzf", |_| {
            empty()?;
            run(world.command("tar").arg("-xzf").arg(&layer.path).arg("-C").arg(&out))
        });
        let figure = self.figure(name, 3, vec![settled(ours), settled(tar)], vec![Target::Ratio("tar -xzf", 0.8)]);
        fs::remove_dir_all(&out)?;
        Ok(figure)
    }

    pub fn build(&self, store: &Path, dir: &Path) -> Command {
        let mut command = self.world.ours(store);
        command.args(["--quiet", "build", "--load=never"]).arg(dir);
        command
    }

    fn go(&self, data: &Path, args: &[&str]) -> Option<Command> {
        let mut command = self.world.go_skillctl(data)?;
        command.args(args);
        Some(command)
    }

    fn go_build(&self, dir: &Path) -> Option<Command> {
        let mut command = self.go(&self.world.path("go-data"), &["build"])?;
        command.arg(dir);
        Some(command)
    }

    pub fn small_in(&self, name: &str, version: &str, note: &str) -> Result<PathBuf> {
        let dir = self.world.path(name);
        inputs::small(&dir, version, note)?;
        Ok(dir)
    }

    /// Returns a storage with one image, of the overlay driver where that works here.
    fn storage(&self, name: &str) -> Result<Storage> {
        let world = &self.world;
        let dir = self.small_in("first-small", "1.0.0", "The first.")?;
        let load = |driver| -> Result<Storage> {
            let storage = world.storage(name, driver);
            let mut command = world.ours(&world.path(format!("storage-{name}-store")));
            must(command.args(storage.flags()).arg("build").arg(&dir).arg("--load=always"))?;
            Ok(storage)
        };
        load("overlay").or_else(|_| load("vfs"))
    }

    /// Makes a store of 1,000 images and returns the data directory that it is in.
    fn thousand(&self, name: &str) -> Result<PathBuf> {
        let data = self.world.path(format!("{name}-data"));
        let store = store_of(&data);
        must(&mut self.build(&store, &self.small_in("first-small", "1.0.0", "The first.")?))?;
        inputs::multiply(&store, LISTED)?;
        Ok(data)
    }

    /// Builds *big* and returns its layer.
    fn big_layer(&self, store: &Path) -> Result<Layer> {
        self.layer(store, &self.inputs.big()?)
    }

    /// Builds a skill and returns its layer.
    pub fn layer(&self, store: &Path, dir: &Path) -> Result<Layer> {
        let built = must(self.build(store, dir).arg("--format=json"))?;
        let built: Value = serde_json::from_str(&built)?;
        let text = |key: &str| built[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {built}"));
        let digest = text("layer")?;
        Ok(Layer {
            path: store.join("blobs").join(digest.replace(':', "/")),
            digest,
            size: built["size"].as_u64().context("no size")?,
            diff_id: text("diff_id")?,
        })
    }
}

/// A layer in a store.
#[derive(Debug)]
pub struct Layer {
    /// Its blob.
    pub path: PathBuf,
    digest: String,
    size: u64,
    diff_id: String,
}

/// Where the Go tool has its store, and so ours where both use one.
fn store_of(data: &Path) -> PathBuf {
    data.join("skillctl/store")
}

/// Lets the disk finish what others wrote before each run.
pub fn settled(contestant: Contestant<'_>) -> Contestant<'_> {
    contestant.before(nix::unistd::sync)
}

//! The figures of installed skills: by store, by lock file, and by registry.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::figures::{Bench, Figure, Target, ms, settled};
use super::inputs;
use super::measure::{Contestant, run, sync_probe};
use super::peers::must;
use super::registry::slowed;

/// Skills that are listed, and locked.
const SKILLS: usize = 200;
/// The agents that have them.
const AGENTS: [&str; 5] = ["claude", "cursor", "windsurf", "opencode", "openclaw"];
/// Repositories that are asked for newer versions.
const REPOSITORIES: usize = 100;
/// What the proxy adds to each request.
const DELAY: Duration = Duration::from_millis(20);

impl Bench {
    pub fn install_small(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let (store, scratch) = (world.path("install-store"), world.path("sync-probe"));
        fs::create_dir_all(&scratch)?;
        must(&mut self.build(&store, &self.small_in("install-small", "1.0.0", "Installed.")?))?;
        let ours = Contestant::new("ours", |round| {
            let mut install = world.ours(&store);
            let dir = world.path(format!("installed/{round}"));
            fs::create_dir_all(&dir)?;
            run(install.args(["install", "bench/small:1.0.0-draft", "-o"]).arg(dir))
        });
        let contestants = vec![ours, self.spawn_probe(), sync_probe(&scratch)];
        Ok(self.figure(name, 60, contestants, vec![Target::TimeAndSyncs(ms(5), 6)]))
    }

    pub fn install_many(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let store = world.path("many-store");
        let layer = self.layer(&store, &self.inputs.many()?)?;
        let fresh = |who: &str, round: u32| -> Result<PathBuf> {
            let dir = world.path(format!("many-{who}/{round}"));
            fs::create_dir_all(&dir)?;
            Ok(dir)
        };
        let ours = Contestant::new("ours", |round| {
            let mut install = world.ours(&store);
            run(install.args(["install", "bench/many:1.0.0-draft", "-o"]).arg(fresh("ours", round)?))
        });
        let tar = Contestant::new("tar -xzf", |round| {
            run(world.command("tar").arg("-xzf").arg(&layer.path).arg("-C").arg(fresh("theirs", round)?))
        });
        let contestants = vec![settled(ours), settled(tar)];
        Ok(self.figure(name, 10, contestants, vec![Target::Ratio("tar -xzf", 1.5)]))
    }

    pub fn list_installed(&self, name: &'static str) -> Result<Figure> {
        let store = self.skills()?;
        let mut install = self.world.ours(&store);
        must(install.arg("install").args((0..SKILLS).map(reference)).args(["-t", &AGENTS.join(",")]))?;
        let mut list = self.world.ours(&store);
        list.args(["list", "--installed"]);
        let contestants = vec![Contestant::command("ours", Some(list)), self.spawn_probe()];
        Ok(self.figure(name, 60, contestants, vec![Target::Time(ms(20))]))
    }

    pub fn sync_check(&self, name: &'static str) -> Result<Figure> {
        let store = self.skills()?;
        let project = self.world.path("project");
        fs::create_dir_all(&project)?;
        // Else the project would be what is above.
        fs::write(project.join("skills.json"), r#"{"skills": []}"#)?;
        must(self.world.ours(&store).arg("add").args((0..SKILLS).map(reference)).current_dir(&project))?;
        let mut check = self.world.ours(&store);
        check.args(["sync", "--check"]).current_dir(&project);
        let contestants = vec![Contestant::command("ours", Some(check)), self.spawn_probe()];
        Ok(self.figure(name, 30, contestants, vec![Target::Time(ms(150))]))
    }

    pub fn upgradable(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        let (store, dir) = (world.path("upgradable-store"), world.path("upgradable"));
        let proxy = slowed(registry, DELAY)?;
        let mut install = world.ours(&store);
        install.args(["install", "--pull=missing", "-o"]).arg(&dir);
        for number in 0..REPOSITORIES {
            let image = format!("upgradable/s{number}:1.0.0");
            let manifest = self.seed(&store, &self.numbered(number)?, &skill(number), &registry.name(&image))?;
            let (repository, _) = image.split_once(':').context("a tag")?;
            registry.put(repository, "1.1.0", &super::figures_registry::variant(&manifest, "1.1.0", "published"))?;
            let known = format!("{proxy}/{image}");
            must(world.ours(&store).args(["tag", &format!("{}:1.0.0-draft", skill(number)), &known, "--load=never"]))?;
            install.arg(known);
        }
        must(&mut install)?;
        let mut list = world.ours(&store);
        list.args(["list", "--installed", "--upgradable", "-o"]).arg(&dir);
        let contestants = vec![Contestant::command("ours", Some(list)), self.spawn_probe()];
        Ok(self.figure(name, 10, contestants, vec![Target::Time(ms(1_500))]))
    }

    /// Returns a store with all skills that are listed.
    fn skills(&self) -> Result<PathBuf> {
        let store = self.world.path("skills-store");
        if !store.exists() {
            for number in 0..SKILLS {
                must(&mut self.build(&store, &self.numbered(number)?))?;
            }
        }
        Ok(store)
    }

    fn numbered(&self, number: usize) -> Result<PathBuf> {
        let dir = self.world.path(format!("numbered/s{number}"));
        inputs::named(&dir, &format!("s{number}"), "1.0.0", "")?;
        Ok(dir)
    }
}

fn skill(number: usize) -> String {
    format!("bench/s{number}")
}

fn reference(number: usize) -> String {
    format!("{}:1.0.0-draft", skill(number))
}
